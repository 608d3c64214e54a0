"""What a report says in plain text."""

from __future__ import annotations

from ai.measure import Measurement
from ai.quality import Verdict
from ai.results.context import ResultContext

RESEARCH_USE = "Research use only. Not for diagnosis."
_MOST_MAGNIFIED = 100.0


def summary(context: ResultContext) -> tuple[str, ...]:
    """What was found, what is wrong with it, geometry, notes, the labels, the intended use; in this order."""
    spec = context.spec
    found = [f"{m.structure.label} {_size(m)}" for m in context.measurements if m.found]
    missing = [m.structure.label for m in context.measurements if not m.found]
    sentences = [f"{spec.title} {spec.version}."]
    on_detector = context.series.volume.geometry.is_projection
    where = " (areas on the detector)" if on_detector else ""
    sentences.append(f"Found: {', '.join(found)}{where}." if found else "None of the structures was found.")
    if missing:
        sentences.append(f"Looked for and not found: {', '.join(missing)}.")
    if context.revision > 1:
        count = len(context.series.volume.geometry.sop_instance_uids)
        sentences.append(
            f"Revision {context.revision} of this series, with {count} images: "
            "it replaces every earlier result."
        )
    geometry = context.series.volume.geometry
    verdict = ", ".join(dict.fromkeys((str(geometry.verdict), geometry.code)))
    notes = [note.text for note in dict.fromkeys(context.series.notes) if note not in geometry.notes]
    meanings = [f"{s.label}: {s.description}." for s in spec.structures if s.description]
    return (
        " ".join(sentences),
        *_quality(context),
        f"Geometry of the source: {verdict}. {geometry.reason}",
        *notes,
        *filter(None, (_magnification(context), " ".join(meanings))),  # text must not be empty
        RESEARCH_USE,
    )


def _quality(context: ResultContext) -> list[str]:
    """Each quality rule that was not kept, and how many were; nothing where the card has none."""
    told = [f"Quality {f.verdict}. {f.reason}" for f in context.quality if f.verdict is not Verdict.PASS]
    passed = len(context.quality) - len(told)
    if passed:
        told.append(f"Quality checks passed: {passed} of {len(context.quality)}.")
    return told


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
