"""Series numbers of results: no two series of a study have the same, and later revisions keep theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from gateway.journal.connection import Transaction

STEP = 10
"""A job's results have the numbers base + 1 and following; those of the next in the study are ten higher."""


def base_for(work: Transaction, job: Mapping[str, Any], first: int) -> int:
    """The base of the series numbers of a job's results; allocated when it is claimed for the first time.

    A later revision of the same series, part and model has that of the earlier one. A new one is the first of
    ``first``, ``first`` + 10 … that no other job of the study has, and in whose ten no received series is.
    """
    identity = (job["series_instance_uid"], job["part"], job["card"])
    study = {"study_instance_uid": job["study_instance_uid"]}
    rows = work.run("bases_in_study", study).fetchall()
    received = _received_numbers(work, study)
    own, taken = [], set()
    for row in rows:
        known = first if row["base"] is None else int(row["base"])  # an older version had but one for all
        if (row["series_instance_uid"], row["part"], row["card"]) != identity:
            taken.add(known)
        elif row["base"] is not None or _is_free(known, set(), received):
            own.append(known)
        if row["id"] == job["id"] and row["base"] is not None:
            return known
    base = next((known for known in own if known not in taken), None)
    if base is None:
        base = next(each for each in count(first, STEP) if _is_free(each, taken, received))
    work.run("set_base", {"id": job["id"], "base": base})
    return base


def _is_free(base: int, taken: set[int], received: set[int]) -> bool:
    apart = all(abs(base - other) >= STEP for other in taken)  # the configured first one may have changed
    return apart and received.isdisjoint(range(base, base + STEP))


def _received_numbers(work: Transaction, study: dict[str, str]) -> set[int]:
    """Series numbers of what arrived in a study, by the first instance of each series."""
    found = set()
    for row in work.run("first_facts_in_study", study).fetchall():
        text = (json.loads(row["facts"]).get("SeriesNumber") or ("",))[0]
        with suppress(ValueError):  # what a scanner calls a number need not be one
            found.add(int(text))
    return found
