"""What the overview says in words: title, source, legend, doubts. No attribute of a patient, no free text."""

from __future__ import annotations

from collections import Counter

from pydicom.dataset import Dataset

from ai.geometry import FIXES
from ai.measure import Measurement
from ai.quality import Finding, Verdict, segment_verdicts
from ai.quality.findings import GRAVITY
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, revision_words
from ai.results.montage import Page
from ai.results.montage_legend import Legend, LegendEntry, Remark
from ai.results.planes import SourcePlane

_MOST_REMARKS = 8
_MOST_LINES = 6
_MOST_CUT = 3


def page(context: ResultContext, window: tuple[float, float]) -> Page:
    """Everything that is written around the planes."""
    spec = context.spec
    return Page(
        title=f"AI overview - {spec.title} {spec.version}{revision_words(context)}",
        details=tuple(line for line in (_source(context, window), _geometry(context)) if line),
        warning="RESEARCH USE ONLY",
        warning_detail="Not for diagnosis",
        legend=legend(context),
        footer=(
            f"{MANUFACTURER} {context.software_version}, run of {context.created_at:%Y-%m-%d %H:%M} "
            f"{context.created_at.tzname() or 'UTC'}. Outlined by an algorithm; checked by nobody."
        ),
    )


def caption(plane: SourcePlane, place: int, count: int) -> str:
    """What a viewer calls a slice; where it has no number, its place in the volume, from 1."""
    if plane.frames:
        return f"Frame {plane.frame.frame_number}"
    number = integer(plane.header, "InstanceNumber")
    return f"{place}/{count}" if number is None else f"Im {number}"


def integer(dataset: Dataset, keyword: str) -> int | None:
    """An IS value; None when absent or malformed, for a caption is not worth a failed run."""
    try:
        return int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _source(context: ResultContext, window: tuple[float, float]) -> str:
    """Modality, series number, part, images, voxel spacing; no free text of the header but in the part."""
    first = context.series.datasets[0]
    shape, spacing = context.series.volume.geometry.shape, context.series.volume.geometry.spacing_mm
    parts = [str(first.get("Modality") or "image")[:16]]
    series_number = integer(first, "SeriesNumber")
    if series_number is not None:
        parts.append(f"series {series_number}")
    if context.series.part.label:
        parts.append(context.series.part.label)
    parts.append(f"{shape[0]} image{'' if shape[0] == 1 else 's'} of {shape[2]} x {shape[1]}")
    if context.series.volume.geometry.is_projection:
        parts.append(f"pixel {spacing[2]:.3f} x {spacing[1]:.3f} mm on the detector")
    else:
        parts.append(f"voxel {spacing[2]:.2f} x {spacing[1]:.2f} x {spacing[0]:.2f} mm")
    if context.series.volume.unit == "HU":
        parts.append(f"window {window[0]:.0f} to {window[1]:.0f} HU")
    return f"Source: {', '.join(parts)}"


def _geometry(context: ResultContext) -> str:
    """What had to be repaired in the series; empty where nothing was."""
    notes = dict.fromkeys((*context.series.volume.geometry.notes, *context.series.notes))
    repairs = [note for note in notes if note.code in FIXES]
    if not repairs:
        return ""
    codes = ", ".join(dict.fromkeys(str(note.code) for note in repairs))
    return f"Geometry: FIXED ({codes}). {' '.join(note.text for note in repairs)}"


def legend(context: ResultContext) -> Legend:
    """What was found with sizes and verdicts; in words what was not, and why something is doubtful."""
    verdicts = segment_verdicts(context.spec, context.quality) if context.quality else {}
    found = [m for m in context.measurements if m.found]
    absent = [m for m in context.measurements if not m.found]
    unseen = [m for m in absent if m.structure.number in context.not_evaluated]
    missing = [m for m in absent if m.structure.number not in context.not_evaluated]
    remarks = []
    if missing and found:
        remarks.append(Remark(f"Not found: {_labels(missing)}", most=_MOST_LINES))
    if unseen:
        remarks.append(Remark(f"Not evaluated: {_labels(unseen)}", most=_MOST_LINES))
    return Legend(
        entries=tuple(
            LegendEntry(
                number=m.structure.number,
                label=m.structure.label,
                value=_size(m),
                mark=verdicts[m.structure.key][0].value if verdicts else None,
            )
            for m in found
        ),
        nothing="" if found else _nothing(missing, unseen),
        remarks=(*remarks, *_doubts(context)),
    )


def _nothing(missing: list[Measurement], unseen: list[Measurement]) -> str:
    if not missing:
        return "Nothing was looked for: no part of the model was run."
    if len(missing) == 1 and not unseen:
        return f"Nothing was found: no {missing[0].structure.label} in this series."
    return f"Nothing was found: none of {_labels(missing)} in this series."


def _labels(measurements: list[Measurement]) -> str:
    return ", ".join(m.structure.label for m in measurements)


def _doubts(context: ResultContext) -> list[Remark]:
    """One line for each structure that is not PASS, the gravest first; how many more there are.

    Many that are only cut by the field of view are counted in one line: the legend marks them.
    """
    if not context.quality:
        return []
    verdicts = segment_verdicts(context.spec, context.quality)
    counted = Counter(verdict for verdict, _ in verdicts.values())
    doubtful = [
        (verdicts[s.key], s) for s in context.spec.structures if verdicts[s.key][0] is not Verdict.PASS
    ]
    if not doubtful:
        return [Remark("Quality checks: nothing implausible was found.", "PASS")]
    cut = _only_cut(context)
    if len(cut) > _MOST_CUT:
        doubtful = [item for item in doubtful if item[1].key not in cut]
    doubtful.sort(key=lambda item: -GRAVITY.index(item[0][0]))
    shown = [
        Remark(f"{s.number} {_told(s.label, ' '.join(reasons))}", verdict.value, most=2)
        for (verdict, reasons), s in doubtful[:_MOST_REMARKS]
    ]
    rest = len(doubtful) - len(shown)
    if rest:
        words = ", ".join(f"{counted[verdict]} {verdict}" for verdict in GRAVITY[:0:-1] if counted[verdict])
        shown.append(Remark(f"and {rest} more: {words} in all; the report has every reason."))
    if len(cut) > _MOST_CUT:
        told = f"{len(cut)} structures touch the border of the field of view; their sizes are lower bounds."
        shown.append(Remark(told, Verdict.PARTIAL.value))
    return shown


def _only_cut(context: ResultContext) -> set[str]:
    """Keys of the structures of which nothing else is doubtful than that the field of view cuts them."""
    wrong = [finding for finding in context.quality if finding.verdict is not Verdict.PASS]
    cut = {key for f in wrong if _is_cut(f) for key in f.structures}
    return cut - {key for f in wrong if not _is_cut(f) for key in f.structures}


def _is_cut(finding: Finding) -> bool:
    return finding.rule == "complete" and finding.verdict is Verdict.PARTIAL


def _told(label: str, reasons: str) -> str:
    return reasons if label in reasons else f"{label}: {reasons}"


def _size(measurement: Measurement) -> str:
    if measurement.area_mm2 is not None:
        return f"{measurement.area_mm2:,.0f} mm2 on the detector"
    volume_ml = measurement.volume_ml
    return f"{volume_ml:,.{0 if volume_ml >= 100 else 1 if volume_ml >= 1 else 3}f} mL"
