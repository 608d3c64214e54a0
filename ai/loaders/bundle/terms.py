"""The licence of a bundle, read from its texts; where they are not clear, the strict reading is taken."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_KNOWN = (
    (r"Apache License,?\s+Version 2\.0|Apache-2\.0|Apache 2\.0", "Apache-2.0", "yes"),
    (r"Attribution-NonCommercial-ShareAlike 4\.0|CC[ -]BY[ -]NC[ -]SA[ -]4\.0", "CC-BY-NC-SA-4.0", "no"),
    (r"Attribution-NonCommercial 4\.0|CC[ -]BY[ -]NC[ -]4\.0", "CC-BY-NC-4.0", "no"),
    (r"Attribution-ShareAlike 4\.0|CC[ -]BY[ -]SA[ -]4\.0", "CC-BY-SA-4.0", "yes"),
    (r"Attribution 4\.0 International|CC[ -]BY[ -]4\.0", "CC-BY-4.0", "yes"),
    (r"MIT License|Permission is hereby granted, free of charge", "MIT", "yes"),
    (r"Redistribution and use in source and binary forms", "BSD-3-Clause", "yes"),
)
_RESTRICTED = re.compile(
    r"non[- ]?commercial|research (use )?only|not for commercial|private use", re.IGNORECASE
)
_TEXTS = ("LICENSE", "LICENSE.txt", "LICENSE.md", "docs/license.txt", "docs/LICENSE")
_DATA_TEXTS = ("docs/data_license.txt", "docs/data_license.md", "data_license.txt")
_LONGEST = 300


def licence_of(source: Path, metadata: Mapping[str, Any]) -> tuple[dict[str, str], list[str]]:
    """The section ``licence`` of a card, and what a person should read.

    Terms for the weights come from the licence text; a text about the training data that forbids commercial
    use is taken to hold for the weights too.
    """
    text = _first(source, _TEXTS) or str(metadata.get("license") or metadata.get("licence") or "")
    data = _first(source, _DATA_TEXTS)
    warnings = []
    spdx, commercial = next(
        ((spdx, use) for pattern, spdx, use in _KNOWN if re.search(pattern, text, re.IGNORECASE)),
        ("LicenseRef-unknown", "no"),
    )
    if spdx == "LicenseRef-unknown":
        warnings.append("no licence text that is known: the card says LicenseRef-unknown, commercial use no")
    elif commercial == "yes" and _RESTRICTED.search(_without_standard_words(text)):
        commercial = "no"
        warnings.append(
            f"the licence text names {spdx} and restricts the use all the same: commercial use no"
        )
    if data and commercial == "yes" and _RESTRICTED.search(data):
        commercial = "no"
        warnings.append("the terms of the training data restrict commercial use: read docs/data_license")
    licence = {"spdx": spdx, "commercial": commercial}
    attribution = " ".join(str(metadata.get("copyright") or "").split())
    if attribution:
        licence["attribution"] = attribution[:_LONGEST]
    citation = " ".join(str(metadata.get("citation") or "").split())
    if citation:
        licence["citation"] = citation[:_LONGEST]
    return licence, warnings


def _first(source: Path, names: tuple[str, ...]) -> str:
    for name in names:
        if (source / name).is_file():
            return (source / name).read_text(encoding="utf-8", errors="replace")
    return ""


def _without_standard_words(text: str) -> str:
    """Without links: the address of a licence may have the words of another."""
    return re.sub(r"https?://\S+", "", text)
