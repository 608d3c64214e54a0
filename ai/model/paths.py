"""Names of a model's files, as cards write them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

_PATH = re.compile(r"[^/\\:\0]+(/[^/\\:\0]+)*")


def below_folder(name: str) -> str:
    """A relative path with ``/`` that stays below its folder; raises ValueError for any other text."""
    if not _PATH.fullmatch(name) or {".", ".."} & set(name.split("/")):
        raise ValueError(f"{name!r} is no file below the model's folder: write its relative path with /")
    return name


FileName = Annotated[str, AfterValidator(below_folder)]
"""Path of a file of a model below the model's folder."""
