"""What a report says in plain text."""

from __future__ import annotations

from collections.abc import Sequence

from ai.measure import Measurement
from ai.model import ModelSpec
from ai.quality import Finding, Verdict
from ai.results.context import ResultContext

RESEARCH_USE = "Research use only. Not for diagnosis."
_MOST_MAGNIFIED = 100.0
_MOST_CUT = 3  # findings of one kind; a scan of a part of the body cuts dozens of structures
_MOST_LISTED = 12
"""Structures or findings that one comment lists; their groups tell all."""


def summary(context: ResultContext) -> tuple[str, ...]:
    """The summary, what is wrong, geometry, notes, meaning of the labels, limits, use; in this order."""
    spec = context.spec
    geometry = context.series.volume.geometry
    verdict = ", ".join(dict.fromkeys((str(geometry.verdict), geometry.code)))
    notes = [note.text for note in dict.fromkeys(context.series.notes) if note not in geometry.notes]
    meanings = [f"{s.label}: {s.description}." for s in spec.structures if s.description]
    return (
        " ".join(_found(context)),
        *_quality(context),
        f"Geometry of the source: {verdict}. {geometry.reason}",
        *notes,
        *filter(None, (_magnification(context), " ".join(meanings))),  # text must not be empty
        *terms(spec),
    )


def terms(spec: ModelSpec) -> tuple[str, ...]:
    """What a reader must know of the model: its limits, whom to name, research use, what it is made for."""
    limits = " ".join(_sentence(limit) for limit in spec.limits)
    attribution = spec.licence.attribution.strip()
    use = spec.intended_use.strip()
    return (
        *([f"Limits of {spec.title} {spec.version}: {limits}"] if limits else []),
        *([f"Attribution: {attribution}"] if attribution else []),
        " ".join([RESEARCH_USE, *([f"Intended use: {_sentence(use)}"] if use else [])]),
    )


def listed(names: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(names) - _MOST_LISTED
    return ", ".join(names[:_MOST_LISTED]) + (f" and {more} more" if more > 0 else "")


def _found(context: ResultContext) -> list[str]:
    """The sentences of the summary: the state of the run first."""
    name = f"{context.spec.title} {context.spec.version}"
    found = [m for m in context.measurements if m.found]
    skipped = [m for m in context.measurements if m.structure.number in context.not_evaluated and not m.found]
    missing = [m for m in context.measurements if not m.found and m not in skipped]
    where = " (areas on the detector)" if context.series.volume.geometry.is_projection else ""
    if found:
        sizes = listed([f"{m.structure.label} {_size(m)}" for m in found])
        count = f"{len(found)} of {len(context.measurements)} structures"
        sentences = [f"{name}: completed, {count} found.", f"Found: {sizes}{where}."]
    else:
        sentences = [f"{name}: completed, nothing found.", "None of the structures was found."]
    if missing:
        sentences.append(f"Looked for and not found: {_labels(missing)}.")
    if skipped:
        sentences.append(f"Not evaluated: {_labels(skipped)}.")
    if context.revision > 1:
        count = str(len(context.series.volume.geometry.sop_instance_uids))
        sentences.append(
            f"Revision {context.revision} of this series, with {count} images: "
            "it replaces every earlier result."
        )
    return sentences


def _labels(measurements: Sequence[Measurement]) -> str:
    return listed([m.structure.label for m in measurements])


def _quality(context: ResultContext) -> list[str]:
    """The quality checks that failed, the gravest first, and how many did not.

    Many structures that are cut by the field of view are told in one sentence: nothing is wrong with them.
    """
    gravity = tuple(Verdict)
    wrong = [f for f in context.quality if f.verdict is not Verdict.PASS]
    passed = len(context.quality) - len(wrong)
    cut = [f for f in wrong if f.rule == "complete" and f.verdict is Verdict.PARTIAL]
    if len(cut) > _MOST_CUT:
        wrong = [f for f in wrong if f not in cut]
    wrong.sort(key=lambda finding: gravity.index(finding.verdict), reverse=True)
    told = [_finding(f) for f in wrong[:_MOST_LISTED]]
    if len(wrong) > _MOST_LISTED:
        told.append(f"{len(wrong) - _MOST_LISTED} more quality findings: see the structures.")
    if len(cut) > _MOST_CUT:
        labels = {s.key: s.label for s in context.spec.structures}
        names = listed([labels[key] for finding in cut for key in finding.structures])
        told.append(
            f"Quality PARTIAL. {len(cut)} structures touch the border of the field of view, so their sizes "
            f"are lower bounds: {names}."
        )
    if passed:
        told.append(f"Quality checks passed: {passed} of {len(context.quality)}.")
    return told


def _finding(finding: Finding) -> str:
    return f"Quality {finding.verdict}. {finding.reason}"


def _sentence(words: str) -> str:
    """Words with a full stop at their end."""
    words = words.strip()
    return words if words.endswith((".", "!", "?")) else f"{words}."


def _size(measurement: Measurement) -> str:
    if measurement.area_mm2 is not None:
        return f"{measurement.area_mm2:.0f} mm\u00b2"
    return f"{measurement.volume_ml:.{1 if measurement.volume_ml >= 1.0 else 3}f} mL"


def _magnification(context: ResultContext) -> str:
    """What the header of a radiograph says of how much larger the detector shows the patient."""
    if not context.series.volume.geometry.is_projection:
        return ""
    header = context.series.datasets[0]
    try:
        factor = float(header.EstimatedRadiographicMagnificationFactor)
    except (AttributeError, TypeError, ValueError):
        return ""
    if not 1.0 < factor < _MOST_MAGNIFIED:
        return ""
    return (
        f"The header estimates that the patient is magnified {factor:.3g} times (Estimated Radiographic "
        "Magnification Factor); sizes are not corrected for it."
    )
