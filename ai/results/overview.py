"""One picture that says at a glance what a run found and on which series: Secondary Capture and PNG.

Up to twelve slices over the extent of what was found, one plane across them in each other direction, outlines
and tint in the colours of the segmentation, a legend with numbers, volumes and quality verdicts, and the
letters of the patient's sides. A radiograph is shown alone, as it is stored. The picture has no patient
attribute in it: series description and patient module are never drawn. It has no Frame of Reference, so that
viewers do not stack it with the source images.

Colours are those of the code table, which the segmentation has too: a reader compares picture and viewer.
They do not tell over a hundred structures apart, least for people with colour vision deficiency, so no fact
is told by colour alone: numbers, dark lines, dashes (:mod:`ai.results.montage_colours`) and words do it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from ai.results.coding import concept
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, add_equipment, set_series
from ai.results.montage import draw_montage
from ai.results.montage_layout import Group, View
from ai.results.montage_palette import DEFAULT_STYLE, Overlay, Style
from ai.results.overview_views import (
    Plane,
    choose_slices,
    cross_planes,
    slice_areas,
    slice_planes,
    spread_slices,
    stack_hanging,
)
from ai.results.overview_words import caption, page
from ai.results.planes import SourcePlane, reference, source_planes
from ai.results.png import encode_png
from ai.results.source import copy_patient_and_study
from ai.sides import Edges, detector_edges
from ai.terminology import Code

__all__ = ["build_overview", "choose_slices", "draw", "grey_range"]

SOURCE_FOR_MONTAGE = Code("121329", "DCM", "Source image for montage")

_OUTLINE_ONLY = frozenset({"body", "skin"})  # a tint would cover everything
_LUNG_WINDOW = (-1250.0, 450.0)  # lung and soft tissue both readable
_SOFT_TISSUE_WINDOW = (-160.0, 240.0)
_SAMPLED = 1 << 19  # voxels that the grey range is taken from
# PS3.16 Annex L terms that are not paired: with one of these, Laterality is not required (PS3.3 C.7.3.1).
_UNPAIRED = frozenset({"ABDOMEN", "ABDOMENPELVIS", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS"}) | {
    *("HEAD", "HEADNECK", "HEART", "LIVER", "NECK", "NECKCHEST", "PELVIS", "SPINE", "TSPINE", "WHOLEBODY")
}


@dataclass(frozen=True)
class _Shown:
    """The slices of the montage, ascending, and the (sampled) voxels of each number in every slice."""

    chosen: tuple[int, ...]
    areas: npt.NDArray[np.int64]


def build_overview(context: ResultContext, style: Style = DEFAULT_STYLE) -> tuple[Dataset, bytes]:
    """Draw the overview: a Secondary Capture (RGB, Explicit VR Little Endian), and the same as PNG.

    The same context gives the same bytes.
    """
    shown = _choose(context, style)
    planes = source_planes(context.series)
    picture = _draw(context, shown, planes, style)
    return _secondary_capture(context, picture, [planes[k] for k in shown.chosen]), encode_png(picture)


def draw(context: ResultContext, style: Style = DEFAULT_STYLE) -> npt.NDArray[np.uint8]:
    """The picture: RGB uint8 ``(height, width, 3)``, ``style.width_px`` wide."""
    return _draw(context, _choose(context, style), source_planes(context.series), style)


def _choose(context: ResultContext, style: Style) -> _Shown:
    found = [m.structure.numbers for m in context.measurements if m.found]
    areas = slice_areas(context.labels, found)
    return _Shown(spread_slices(areas, _outlined(context), style.tiles), areas)


def _draw(
    context: ResultContext, shown: _Shown, planes: tuple[SourcePlane, ...], style: Style
) -> npt.NDArray[np.uint8]:
    volume = context.series.volume
    window = grey_range(context)
    hanging = stack_hanging(volume.geometry)
    order = shown.chosen if volume.geometry.is_projection or not hanging.turned[0] else shown.chosen[::-1]
    slices = [
        _view(context, plane, window, caption(planes[k], k + 1, len(planes)))
        for k, plane in zip(order, _slices(context, order), strict=True)
    ]
    crossing = cross_planes(volume, context.labels, shown.areas, _outlined(context), shown.chosen)
    groups = [Group(_capital(plane.name), (_view(context, plane, window),)) for plane in crossing]
    overlays = [
        Overlay(s.number, s.coded.rgb, s.key not in _OUTLINE_ONLY, s.includes)
        for s in context.spec.structures
    ]
    heading = _heading(context, hanging.name, len(order))
    return draw_montage(page(context, window), Group(heading, tuple(slices)), groups, overlays, style)


def _slices(context: ResultContext, order: tuple[int, ...]) -> list[Plane]:
    """The slices as they hang; a radiograph as it is stored, with the letters of its header, or none."""
    volume = context.series.volume
    if not volume.geometry.is_projection:
        return slice_planes(volume, context.labels, order)
    said = context.series.datasets[0].get("PatientOrientation") or ()
    edges = detector_edges(tuple(str(text) for text in said)) or Edges("", "", "", "")
    _, rows, columns = volume.geometry.shape
    _, down_mm, across_mm = volume.geometry.spacing_mm
    return [
        Plane("radiograph", volume.voxels[k], context.labels[k], (rows * down_mm, columns * across_mm), edges)
        for k in order
    ]


def _heading(context: ResultContext, name: str, shown: int) -> str:
    count = context.series.volume.geometry.shape[0]
    if context.series.volume.geometry.is_projection:
        return "Radiograph"
    if count == 1:
        return _capital(name)
    return f"{_capital(name)}: {shown} of {count} slices"


def _capital(name: str) -> str:
    return name[:1].upper() + name[1:]


def _view(context: ResultContext, plane: Plane, window: tuple[float, float], words: str = "") -> View:
    grey = _grey(plane.values, *window)
    return View(
        grey=255 - grey if _dark_is_high(context) else grey,
        labels=plane.labels,
        size_mm=plane.size_mm,
        edges=plane.edges,
        caption=words,
        ticks=plane.slices,
        ticks_down=plane.slices_down,
    )


def _dark_is_high(context: ResultContext) -> bool:
    """Whether high values are shown dark; on the scale of a screen they never are (see ai.pixels.screen)."""
    said = context.series.datasets[0].get("PhotometricInterpretation")
    return said == "MONOCHROME1" and context.spec.accepts.scale != "screen"


def grey_range(context: ResultContext) -> tuple[float, float]:
    """Values shown as black and as white: a CT window, or the 1st and 99th percentile of other images."""
    volume = context.series.volume
    if volume.unit != "HU":
        step = max(1, volume.voxels.size // _SAMPLED) | 1  # odd: not always the same columns
        low, high = np.nanpercentile(volume.voxels.reshape(-1)[::step], (1, 99))
        return float(low), max(float(high), float(low) + 1e-6)
    lungs = any("lung" in m.structure.key and m.found for m in context.measurements)
    return _LUNG_WINDOW if lungs else _SOFT_TISSUE_WINDOW


def _grey(
    plane: npt.NDArray[np.int16] | npt.NDArray[np.float32], low: float, high: float
) -> npt.NDArray[np.uint8]:
    scaled = (plane.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    np.clip(scaled, 0, 255, out=scaled)
    if plane.dtype.kind == "f":
        np.nan_to_num(scaled, copy=False)
    return np.asarray(scaled.astype(np.uint8))


def _outlined(context: ResultContext) -> tuple[int, ...]:
    return tuple(s.number for s in context.spec.structures if s.key in _OUTLINE_ONLY)


def _secondary_capture(
    context: ResultContext, picture: npt.NDArray[np.uint8], shown: list[SourcePlane]
) -> Dataset:
    """Secondary Capture Image IOD (PS3.3 A.8.1)."""
    source = context.series.datasets[0]
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    copy_patient_and_study(dataset, source)
    dataset.SOPClassUID = SecondaryCaptureImageStorage
    dataset.SOPInstanceUID = context.instance_uid("overview")
    dataset.SeriesInstanceUID = context.series_uid("overview")
    dataset.Modality = "OT"
    dataset.ConversionType = "SYN"
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.BurnedInAnnotation = "YES"
    dataset.InstanceNumber = 1
    dataset.PatientOrientation = ""
    _set_body_part(dataset, source)
    set_series(dataset, context, "overview")
    add_equipment(dataset, context)
    dataset.SecondaryCaptureDeviceManufacturer = MANUFACTURER
    dataset.DerivationDescription = f"Overview of {context.spec.title} {context.spec.version}"
    dataset.SourceImageSequence = [_cited(plane) for plane in shown]
    dataset.SamplesPerPixel = 3
    dataset.PhotometricInterpretation = "RGB"
    dataset.PlanarConfiguration = 0
    dataset.Rows, dataset.Columns = picture.shape[:2]
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit = 7
    dataset.PixelRepresentation = 0
    pixels = picture.tobytes()
    dataset.add_new("PixelData", "OB", pixels + b"\0" * (len(pixels) % 2))
    return dataset


def _cited(plane: SourcePlane) -> Dataset:
    """A slice of the montage (PS3.3 C.12.4): the way back from the picture to its series."""
    item = reference(plane)
    item.PurposeOfReferenceCodeSequence = [concept(SOURCE_FOR_MONTAGE)]
    return item


def _set_body_part(dataset: Dataset, source: Dataset) -> None:
    """Repeat the body part. One that may be paired needs Laterality, empty when unknown."""
    body_part = source.get("BodyPartExamined")
    if not isinstance(body_part, str):  # some write several values, where one is allowed
        body_part = ""
    if body_part:
        dataset.BodyPartExamined = body_part
    if body_part not in _UNPAIRED:
        dataset.Laterality = source.get("Laterality", "")
