"""The verdict of each segment, from the findings that concern it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ai.model import ModelSpec
from ai.quality.findings import GRAVITY, Finding, Verdict


def segment_verdicts(
    spec: ModelSpec, findings: Iterable[Finding]
) -> Mapping[str, tuple[Verdict, tuple[str, ...]]]:
    """What all findings together say of each structure.

    Returns
    -------
    By key, in the card's order: the gravest verdict of the findings that name the structure, PASS where none
    does; and the sentences of those that are not PASS, the gravest first, each once.
    """
    wrong: dict[str, list[Finding]] = {structure.key: [] for structure in spec.structures}
    for finding in findings:
        if finding.verdict is not Verdict.PASS:
            for key in dict.fromkeys(finding.structures):
                wrong[key].append(finding)
    return MappingProxyType({key: _together(named) for key, named in wrong.items()})


def _together(wrong: Iterable[Finding]) -> tuple[Verdict, tuple[str, ...]]:
    gravest_first = sorted(wrong, key=lambda finding: GRAVITY.index(finding.verdict), reverse=True)
    reasons = tuple(dict.fromkeys(finding.reason for finding in gravest_first))
    return (gravest_first[0].verdict if gravest_first else Verdict.PASS), reasons
