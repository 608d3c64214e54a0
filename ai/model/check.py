"""A volume held against what a card accepts, and an answer against what it promises."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np

from ai.errors import ModelError, NotAVolumeError, SeriesRefused
from ai.geometry import VolumeGeometry, unfit
from ai.model.card import Accepts, ModelSpec
from ai.model.rule import Axis
from ai.source import Facts
from ai.volume import Volume

_TOLERANCE_MM = 1e-3  # what rounding in headers makes
_NO_AGENT = frozenset({"", "NONE", "NO", "N", "NEIN", "NON", "WITHOUT", "W/O", "NO CONTRAST"})
_PLANES = (("sagittal", "right-left"), ("coronal", "anterior-posterior"), ("axial", "superior-inferior"))
_AXES: tuple[Axis, Axis, Axis] = ("right_left", "anterior_posterior", "superior_inferior")


def check_input(spec: ModelSpec, facts: Facts, geometry: VolumeGeometry) -> None:
    """Compare a volume with what the card accepts.

    Raises
    ------
    SeriesRefused
        ``SEVERAL_CHANNELS``: the model takes several images together; ``INPUT_NOT_ACCEPTED``: other
        modality, body part, orientation, contrast, spacing, thickness or field of view, with its numbers.
    NotAVolumeError
        What :func:`ai.geometry.unfit` names: too few slices, too far apart, tilted, uneven, a projection.
    """
    accepts, model = spec.accepts, f"Model {spec.id} {spec.version}"
    if len(accepts.channels) > 1:
        names = ", ".join(accepts.channels)
        wrong = f"takes {len(accepts.channels)} images together ({names}), and a series brings one"
        raise SeriesRefused("SEVERAL_CHANNELS", f"{model} {wrong}.")
    modality = _first(facts, "Modality")
    if modality not in accepts.modalities:
        wrong = (
            f"takes {' or '.join(accepts.modalities)}, and the series is {modality or 'without a Modality'}"
        )
        raise SeriesRefused("INPUT_NOT_ACCEPTED", f"{model} {wrong}.")
    refusal = unfit(geometry, accepts.needs)
    if refusal is not None:
        raise NotAVolumeError(refusal)
    reasons = [reason for check in _CHECKS if (reason := check(accepts, facts, geometry))]
    if reasons:
        raise SeriesRefused("INPUT_NOT_ACCEPTED", f"{model} {'; it '.join(reasons)}.")


def _body_part(accepts: Accepts, facts: Facts, _geometry: VolumeGeometry) -> str:
    """What is wrong with Body Part Examined; a series that does not say it is taken."""
    part = _first(facts, "BodyPartExamined")
    if not accepts.body_parts or not part or part.upper() in {name.upper() for name in accepts.body_parts}:
        return ""
    return f"takes the body part {' or '.join(accepts.body_parts)}, and the series is of {part}"


def _contrast(accepts: Accepts, facts: Facts, _geometry: VolumeGeometry) -> str:
    """What is wrong with the contrast agent: the attribute, or in enhanced images the sequence."""
    agent = _first(facts, "ContrastBolusAgent")
    given = agent.upper() not in _NO_AGENT or "ContrastBolusAgentSequence" in facts
    if _first(facts, "ContrastBolusAgentAdministered") == "NO":  # in these frames (PS3.3 C.7.6.16.2.12)
        given = False
    if accepts.contrast == "required" and not given:
        return "needs a contrast agent, and the series names none (Contrast/Bolus Agent)"
    if accepts.contrast == "none" and given:
        return f"takes images without contrast agent, and the series names {agent or 'one'}"
    return ""


def _orientation(accepts: Accepts, _facts: Facts, geometry: VolumeGeometry) -> str:
    """What is wrong with the plane: that of the patient axis nearest to the normal of the slices."""
    if not accepts.orientations or geometry.is_projection:
        return ""
    along = np.abs(geometry.normal)
    plane, axis = _PLANES[int(along.argmax())]
    if plane in accepts.orientations:
        return ""
    degrees = math.degrees(math.acos(min(1.0, float(along.max()))))
    is_so = f"{plane} (their normal is {degrees:.0f}° from the {axis} axis)"
    return f"takes {' or '.join(accepts.orientations)} slices, and those of the series are {is_so}"


def _pixels(accepts: Accepts, _facts: Facts, geometry: VolumeGeometry) -> str:
    most_mm, (_, down_mm, along_mm) = accepts.maximum_pixel_spacing_mm, geometry.spacing_mm
    if most_mm is None or max(down_mm, along_mm) <= most_mm + _TOLERANCE_MM:
        return ""
    return f"takes pixels of at most {most_mm:g} mm, and these are {down_mm:.2f} × {along_mm:.2f} mm"


def _thickness(accepts: Accepts, _facts: Facts, geometry: VolumeGeometry) -> str:
    """What is wrong with Slice Thickness; a series that does not say it is taken."""
    most_mm, thick_mm = accepts.maximum_slice_thickness_mm, geometry.slice_thickness_mm
    if most_mm is None or thick_mm is None or thick_mm <= most_mm + _TOLERANCE_MM:
        return ""
    return f"takes slices of at most {most_mm:g} mm thickness, and these have {thick_mm:.2f} mm"


def _field_of_view(accepts: Accepts, _facts: Facts, geometry: VolumeGeometry) -> str:
    """What is wrong with the extent along the patient axes, of which a projection knows nothing."""
    if geometry.is_projection:
        return ""
    reasons = []
    for axis, extent_mm in zip(_AXES, extent_lps_mm(geometry), strict=True):
        least_mm = accepts.field_of_view_mm.minimum.get(axis, 0.0)
        most_mm = accepts.field_of_view_mm.maximum.get(axis, math.inf)
        if not least_mm - _TOLERANCE_MM <= extent_mm <= most_mm + _TOLERANCE_MM:
            bound = f"at least {least_mm:g}" if extent_mm < least_mm else f"at most {most_mm:g}"
            name = axis.replace("_", "-")
            reasons.append(f"needs {bound} mm {name}, and the series spans {extent_mm:.0f} mm")
    return "; it ".join(reasons)


def extent_lps_mm(geometry: VolumeGeometry) -> tuple[float, float, float]:
    """Extent of a volume along the patient axes (right-left, anterior-posterior, superior-inferior).

    From the outer edges of the corner voxels, mm; an oblique volume fills its box in part.
    """
    ends = [(-0.5, count - 0.5) for count in geometry.shape]
    corners = np.array([(*corner, 1.0) for corner in itertools.product(*ends)])
    right_left, front_back, up_down = np.ptp(corners @ geometry.index_to_lps[:3].T, axis=0)
    return float(right_left), float(front_back), float(up_down)


def _first(facts: Facts, keyword: str) -> str:
    return next(iter(facts.get(keyword, ())), "")


_CHECKS: tuple[Callable[[Accepts, Facts, VolumeGeometry], str], ...] = (
    _body_part,
    _contrast,
    _orientation,
    _pixels,
    _thickness,
    _field_of_view,
)


def check_licence(spec: ModelSpec) -> None:
    """Terms that restrict the use must have been accepted by a person; raises LICENCE_NOT_ACCEPTED."""
    licence = spec.licence
    if licence.commercial == "yes" or licence.accepted_by:
        return
    raise ModelError(
        "LICENCE_NOT_ACCEPTED",
        f"Model {spec.id} {spec.version} is under {licence.spdx}, commercial use: {licence.commercial}. "
        "Read the terms; `aigw model add --accept-licence NAME` records who accepted them.",
    )


def check_output(spec: ModelSpec, volume: Volume, labels: object) -> None:
    """Make sure that what a model answered is a label map of the volume and of the card.

    Raises
    ------
    ModelError
        ``MODEL_OUTPUT_INVALID``: other type or shape, or a number that the card does not have.
    """
    expected = volume.voxels.shape
    highest = len(spec.structures)
    if not isinstance(labels, np.ndarray) or labels.dtype != np.uint8:
        wrong = f"is {getattr(labels, 'dtype', type(labels).__name__)}; an array of uint8 is needed"
    elif labels.shape != expected:
        wrong = f"has the shape {labels.shape}; the volume has {expected}"
    elif labels.max(initial=0) > highest:
        wrong = f"has the number {labels.max()}; the card has structures 1 to {highest}"
    else:
        return
    raise ModelError("MODEL_OUTPUT_INVALID", f"The label map of model {spec.id} {spec.version} {wrong}.")
