"""One picture that says at a glance what a run found and on which series: Secondary Capture and PNG.

Twelve slices over the extent of what was found, outlines and tint in the colours of the code table, a
legend with volumes, and the letters of the patient's sides. The picture has no patient attribute in it:
series description and patient module are never drawn. It has no Frame of Reference, so that viewers do
not stack it with the source images.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage

from ai.measure import Measurement
from ai.results.coding import concept
from ai.results.context import ResultContext
from ai.results.equipment import MANUFACTURER, add_equipment, revision_words, set_series
from ai.results.montage import LegendEntry, Overlay, Page, Tile, draw_montage
from ai.results.planes import SourcePlane, reference, source_planes
from ai.results.source import copy_patient_and_study
from ai.sides import Edges, detector_edges, side_letters
from ai.terminology import Code
from ai.volume import LabelArray

TILES = 12
SOURCE_FOR_MONTAGE = Code("121329", "DCM", "Source image for montage")

_OUTLINE_ONLY = frozenset({"body"})  # a tint would cover everything
_LUNG_WINDOW = (-1250.0, 450.0)  # lung and soft tissue both readable
_SOFT_TISSUE_WINDOW = (-160.0, 240.0)
# PS3.16 Annex L terms that are not paired: with one of these, Laterality is not required (PS3.3 C.7.3.1).
_UNPAIRED = frozenset({"ABDOMEN", "ABDOMENPELVIS", "BRAIN", "CHEST", "CHESTABDOMEN", "CHESTABDPELVIS"}) | {
    *("HEAD", "HEADNECK", "HEART", "LIVER", "NECK", "NECKCHEST", "PELVIS", "SPINE", "TSPINE", "WHOLEBODY")
}


def build_overview(context: ResultContext) -> tuple[Dataset, bytes]:
    """Draw the overview: a Secondary Capture (RGB, Explicit VR Little Endian), and the same as PNG.

    The same context gives the same bytes.
    """
    picture = draw(context)
    return _secondary_capture(context, picture), _png(picture)


def draw(context: ResultContext) -> npt.NDArray[np.uint8]:
    """The picture: RGB uint8 ``(height, width, 3)``, 1024 wide."""
    geometry = context.series.volume.geometry
    low, high = grey_range(context)
    chosen = _chosen(context)
    planes = source_planes(context.series)
    tiles = [
        Tile(
            grey=_grey(context.series.volume.voxels[k], low, high),
            labels=context.labels[k],
            left_caption=f"{k + 1}/{geometry.shape[0]}",
            right_caption=_image_caption(planes[k]),
        )
        for k in chosen
    ]
    overlays = [Overlay(s.number, s.coded.rgb, s.key not in _OUTLINE_ONLY) for s in context.spec.structures]
    page = _page(context, (low, high))
    return draw_montage(page, tiles, overlays, _edges(context), geometry.spacing_mm[1:])


def _edges(context: ResultContext) -> Edges:
    """Letters at the edges of a slice; of a radiograph those that its header says, or none."""
    geometry = context.series.volume.geometry
    if not geometry.is_projection:
        return side_letters(geometry.index_to_lps)
    said = context.series.datasets[0].get("PatientOrientation") or ()
    return detector_edges(tuple(str(text) for text in said)) or Edges("", "", "", "")


def choose_slices(labels: LabelArray, outlined: Sequence[int] = ()) -> tuple[int, ...]:
    """At most twelve slices, in order, evenly over the extent of what was found.

    Numbers in ``outlined`` count only when nothing else was found. A structure that all of these would
    miss takes the place of its nearest neighbour, with the slice that shows most of it.
    """
    areas = _areas(labels)
    found = [n for n in range(1, areas.shape[1]) if areas[:, n].any()]
    wanted = [n for n in found if n not in outlined] or found
    extent = np.flatnonzero(areas[:, wanted].any(axis=1)) if wanted else np.arange(len(labels))
    first, last = int(extent[0]), int(extent[-1])
    inner = last - first + 1 >= TILES + 2  # the outermost slices show next to nothing
    steps = np.linspace(first, last, TILES + 2)[1:-1] if inner else np.linspace(first, last, TILES)
    chosen = sorted({round(float(step)) for step in steps})
    kept: set[int] = set()
    for number in sorted(wanted, key=lambda n: int(areas[:, n].sum())):
        if areas[chosen, number].any():
            continue
        best = int(areas[:, number].argmax())
        free = [k for k in chosen if k not in kept]
        if free:
            chosen[chosen.index(min(free, key=lambda k: abs(k - best)))] = best
            kept.add(best)
    return tuple(sorted(set(chosen)))


def _areas(labels: LabelArray) -> npt.NDArray[np.int64]:
    """Voxels of each number in each slice: ``(slices, 256)``."""
    return np.stack([np.bincount(plane.reshape(-1), minlength=256) for plane in labels])


def grey_range(context: ResultContext) -> tuple[float, float]:
    """Values shown as black and as white: a CT window, or the 1st and 99th percentile of other images."""
    volume = context.series.volume
    if volume.unit != "HU":
        low, high = np.percentile(volume.voxels[:: max(1, len(volume.voxels) // 32)], (1, 99))
        return float(low), max(float(high), float(low) + 1.0)
    lungs = any("lung" in m.structure.key and m.found for m in context.measurements)
    return _LUNG_WINDOW if lungs else _SOFT_TISSUE_WINDOW


def _grey(
    plane: npt.NDArray[np.int16] | npt.NDArray[np.float32], low: float, high: float
) -> npt.NDArray[np.uint8]:
    scaled = (plane.astype(np.float32) - low) * (255.0 / (high - low))
    return np.asarray(np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8))


def _chosen(context: ResultContext) -> tuple[int, ...]:
    return choose_slices(context.labels, _outlined(context))


def _outlined(context: ResultContext) -> tuple[int, ...]:
    return tuple(s.number for s in context.spec.structures if s.key in _OUTLINE_ONLY)


def _page(context: ResultContext, window: tuple[float, float]) -> Page:
    spec = context.spec
    return Page(
        title=f"AI overview - {spec.title} {spec.version}{revision_words(context)}",
        source=_source(context, window),
        warning="RESEARCH USE ONLY",
        warning_detail="Not for diagnosis",
        legend=tuple(_legend_entry(m) for m in context.measurements),
        footer=(
            f"{MANUFACTURER} {context.software_version}, run of {context.created_at:%Y-%m-%d %H:%M} "
            f"{context.created_at.tzname() or 'UTC'}. Outlined by an algorithm; checked by nobody."
        ),
    )


def _source(context: ResultContext, window: tuple[float, float]) -> str:
    """Modality, series number, part, images, voxel spacing; no free text of the header but in the part."""
    first = context.series.datasets[0]
    shape, spacing = context.series.volume.geometry.shape, context.series.volume.geometry.spacing_mm
    parts = [str(first.get("Modality") or "image")[:16]]
    series_number = _integer(first, "SeriesNumber")
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


def _image_caption(plane: SourcePlane) -> str:
    """What a viewer calls this slice."""
    if plane.frames:
        return f"Frame {plane.frame.frame_number}"
    number = _integer(plane.header, "InstanceNumber")
    return "" if number is None else f"Im {number}"


def _integer(dataset: Dataset, keyword: str) -> int | None:
    """An IS value; None when absent or malformed, for a caption is not worth a failed run."""
    try:
        return int(dataset[keyword].value)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None


def _legend_entry(measurement: Measurement) -> LegendEntry:
    volume_ml = measurement.volume_ml
    value = f"{volume_ml:,.{0 if volume_ml >= 100 else 1 if volume_ml >= 1 else 3}f} mL"
    if measurement.area_mm2 is not None:
        value = f"{measurement.area_mm2:,.0f} mm2 on the detector"
    return LegendEntry(
        text=f"{measurement.structure.label}: {value if measurement.found else 'not found'}",
        rgb=measurement.structure.coded.rgb,
        found=measurement.found,
    )


def _png(picture: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()


def _secondary_capture(context: ResultContext, picture: npt.NDArray[np.uint8]) -> Dataset:
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
    planes = source_planes(context.series)
    dataset.SourceImageSequence = [_shown(planes[k]) for k in _chosen(context)]
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


def _shown(plane: SourcePlane) -> Dataset:
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
