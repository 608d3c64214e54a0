"""The record of a run, ``run.json``: plain values, no attribute of a patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ai.measure import Measurement, Pair, found_pairs
from ai.model import ModelSpec, Prediction
from ai.quality import Verdict, segment_verdicts
from ai.results.context import ResultContext


def describe_run(
    context: ResultContext,
    results: Sequence[Mapping[str, object]],
    device: str,
    prediction: Prediction,
    stage_times_s: Mapping[str, float],
) -> dict[str, object]:
    """The record of a run: what was found, in what, by what, and what was written. No patient attribute."""
    spec, unit = context.spec, context.series.volume.unit
    verdicts = segment_verdicts(spec, context.quality)
    return {
        "segments": [
            {
                **segment_row(m, unit, *verdicts[m.structure.key]),
                "evaluated": m.structure.number not in context.not_evaluated,
                "tracking_uid": context.identity.tracking_uids[m.structure.number],
            }
            for m in context.measurements
        ],
        "pairs": [_pair_row(pair) for pair in found_pairs(context.measurements)],
        "quality": [finding.to_dict() for finding in context.quality],
        "source": _source_row(context),
        "geometry": _geometry_row(context),
        "model": model_row(spec, device, prediction),
        "scalars": dict(prediction.scalars),
        "results": [dict(result) for result in results],
        "stage_times_s": dict(stage_times_s),
        "software_version": context.software_version,
        "created_at": context.created_at.isoformat(),
        "intended_use": spec.intended_use,
        "limits": list(spec.limits),
    }


def segment_row(
    measurement: Measurement, unit: str, verdict: Verdict, reasons: Sequence[str]
) -> dict[str, object]:
    """What was measured of one structure, and its verdict; attenuation only where the values are HU.

    None stands where there is nothing to measure, or it was not measured; for the verdict where nothing was
    found and nothing says that it should have been.
    """
    structure, reach = measurement.structure, measurement.reach
    extents_mm = reach.extents_mm if reach else (None, None, None)
    intensity = measurement.intensity if unit == "HU" else None
    return {
        "number": structure.number,
        "label": structure.label,
        "key": structure.key,
        "includes": list(structure.includes),
        "verdict": str(verdict) if measurement.found or verdict is not Verdict.PASS else None,
        "reasons": list(reasons),
        "found": measurement.found,
        "volume_ml": measurement.volume_ml if measurement.area_mm2 is None else None,
        "area_mm2": measurement.area_mm2,
        "voxel_count": measurement.voxel_count,
        "longest_axial_diameter_mm": reach.longest_axial_diameter_mm if reach else None,
        "extent_right_left_mm": extents_mm[0],
        "extent_anterior_posterior_mm": extents_mm[1],
        "extent_superior_inferior_mm": extents_mm[2],
        "hu_mean": intensity.mean if intensity else None,
        "hu_sd": intensity.sd if intensity else None,
        "hu_minimum": intensity.minimum if intensity else None,
        "hu_maximum": intensity.maximum if intensity else None,
    }


def _pair_row(pair: Pair) -> dict[str, object]:
    """How the left one of a pair compares with the right one."""
    return {
        "left": pair.left.structure.key,
        "right": pair.right.structure.key,
        "difference_ml": None if pair.of_areas else pair.difference,
        "difference_mm2": pair.difference if pair.of_areas else None,
        "ratio": pair.ratio,
    }


def model_row(spec: ModelSpec, device: str, prediction: Prediction) -> dict[str, object]:
    """Which model it was, and how it ran."""
    return {
        "id": spec.id,
        "version": spec.version,
        "title": spec.title,
        "digest": spec.digest,
        "device": device,
        **prediction.facts,
    }


def _source_row(context: ResultContext) -> dict[str, object]:
    first = context.series.datasets[0]
    return {
        "study_instance_uid": str(first.StudyInstanceUID),
        "series_instance_uid": str(first.SeriesInstanceUID),
        "sop_instance_uids": list(context.series.volume.geometry.sop_instance_uids),
        "frame_of_reference_uid": context.series.volume.geometry.frame_of_reference_uid,
        "part": context.series.part.key,
        "input_digest": context.series.input_digest,
    }


def _geometry_row(context: ResultContext) -> dict[str, object]:
    geometry = context.series.volume.geometry
    notes = dict.fromkeys((*geometry.notes, *context.series.notes))  # each once, in order
    return {
        "verdict": str(geometry.verdict),
        "code": geometry.code,
        "reason": geometry.reason,
        "shape": list(geometry.shape),
        "spacing_mm": list(geometry.spacing_mm),
        "index_to_lps": geometry.index_to_lps.tolist(),
        "notes": [{"code": str(note.code), "text": note.text} for note in notes],
    }
