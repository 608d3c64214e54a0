"""What a report says in plain text."""

from __future__ import annotations

from ai.measure import Measurement
from ai.results.context import ResultContext

RESEARCH_USE = "Research use only. Not for diagnosis."


def summary(context: ResultContext) -> tuple[str, ...]:
    """The findings, the verdict on the geometry with its notes, other notes, the labels, the intended use."""
    spec = context.spec
    found = [f"{m.structure.label} {m.volume_ml:.{_places(m)}f} mL" for m in context.measurements if m.found]
    missing = [m.structure.label for m in context.measurements if not m.found]
    sentences = [f"{spec.title} {spec.version}."]
    sentences.append(f"Found: {', '.join(found)}." if found else "None of the structures was found.")
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
        f"Geometry of the source: {verdict}. {geometry.reason}",
        *notes,
        " ".join(meanings),
        RESEARCH_USE,
    )


def _places(measurement: Measurement) -> int:
    return 1 if measurement.volume_ml >= 1.0 else 3
