"""Our Segmentation files against those of highdicom's constructor: equal, attribute by attribute.

Both get the same source images, segments and voxels; ours is written frame by frame from a prototype, and so
each attribute at any depth, the functional groups of each frame and all pixel data are compared. What we
write otherwise on purpose is listed here, and nothing else is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.pixels.encoders.base import get_encoder
from pydicom.uid import RLELossless

from ai.profile import Compression, Profile, SegmentationKind
from ai.results.context import ResultContext
from ai.results.planes import source_planes
from ai.results.seg import SegObject, build_segs
from ai.results.seg.describe import segments
from ai.results.seg.place import pixel_measures, shared_orientation
from ai.volume import LabelArray, read_series
from tests import builders, odd_series
from tests.runs import run_of

TYPES = {"binary": "BINARY", "label_map": "LABELMAP", "fractional": "FRACTIONAL"}

ON_PURPOSE = {
    # derived instead of random, so that a repeated run writes the same bytes
    "DimensionOrganizationUID",
    # of the run instead of the present moment
    *("ContentDate", "ContentTime", "InstanceCreationDate", "InstanceCreationTime"),
    # a worklist shows them
    *("SeriesDate", "SeriesTime", "SeriesDescription"),
    # our algorithm instead of the library; the acquisition equipment is compared on its own
    "ContributingEquipmentSequence",
    # of the grid: the source may have no thickness, and highdicom takes a single slice for 1 mm
    *("SliceThickness", "SpacingBetweenSlices"),
    # text of any source and labels in any language
    "SpecificCharacterSet",
}

Series = list[Dataset]


def axial(shape: tuple[int, int, int], orientation: str = "HFS") -> Callable[[], Series]:
    return lambda: builders.ct_series(shape, (3.0, 0.8, 0.7), orientation)


def uneven() -> Series:
    series = builders.ct_series((6, 13, 11))
    return builders.moved(series, np.outer([0, 0, 0, 1.5, 4, 4], builders.normal(series[0])))


SOURCES: dict[str, Callable[[], Series]] = {
    "whole bytes": axial((6, 16, 24)),
    "odd size": axial((6, 13, 11)),
    "one odd row": axial((6, 1, 11)),
    "oblique": axial((6, 13, 11), "oblique"),
    "feet first": axial((5, 9, 16), "FFS"),
    "coronal": axial((5, 9, 16), "coronal"),
    "sheared": lambda: builders.with_sheared_tilt(builders.ct_series((6, 13, 11)), 12.0),
    "uneven": uneven,
    "one slice": axial((1, 13, 11)),
    "two slices": axial((2, 13, 11)),
    "multi-frame": lambda: [odd_series.enhanced(builders.ct_series((6, 13, 11)))],
}


def boxes(shape: tuple[int, ...]) -> LabelArray:
    """Numbers 1, 2, 3 and 5 in nested and separate boxes of odd edges; 4 is absent."""
    slices, rows, columns = shape
    labels = np.zeros(shape, np.uint8)
    labels[slices // 6 :, : rows - rows // 5, columns // 7 :] = 1
    labels[slices // 3 : slices - 1, rows // 4 : rows // 2, columns // 3 : columns // 2] = 2
    labels[: slices - slices // 2, rows // 2 :, : columns // 4] = 3
    labels[slices - 1, rows - 1, columns - 1] = 5
    return labels


def sparse(shape: tuple[int, ...]) -> LabelArray:
    """Only number 3, on slices that do not follow each other."""
    labels = np.zeros(shape, np.uint8)
    labels[[0, shape[0] - 1], shape[1] // 2, shape[2] // 2 :] = 3
    return labels


def noise(shape: tuple[int, ...]) -> LabelArray:
    return np.random.default_rng(7).integers(0, 6, shape).astype(np.uint8)


LABELS = {"boxes": boxes, "sparse": sparse, "noise": noise}


def run_on(folder: Path, series: Series, labels: Callable[[tuple[int, ...]], LabelArray]) -> ResultContext:
    read = read_series(builders.write_series(series, folder))
    return run_of(read, labels(read.volume.geometry.shape))


def of_kind(
    context: ResultContext, kind: SegmentationKind, compression: Compression = "none"
) -> ResultContext:
    return replace(context, profile=Profile(segmentation=kind, compression=compression))


def of_highdicom(context: ResultContext, ours: SegObject, pixels: npt.NDArray[Any] | None = None) -> Dataset:
    """The file that highdicom's constructor and its save_as make of the same run."""
    planes = source_planes(context.series)
    geometry = context.series.volume.geometry
    in_plane = shared_orientation(planes, geometry)
    assert in_plane is not None
    datasets = list(context.series.datasets)
    header, spec = ours.header, context.spec
    seg = hd.seg.Segmentation(
        source_images=datasets[:1] if planes[0].frames else datasets,
        pixel_array=context.labels if pixels is None else pixels,
        segmentation_type=TYPES[ours.plan.kind],
        segment_descriptions=segments(context, ours.plan.structures),
        series_instance_uid=str(header.SeriesInstanceUID),
        series_number=9001,
        sop_instance_uid=str(header.SOPInstanceUID),
        instance_number=ours.plan.number,
        manufacturer="DICOM AI Gateway",
        manufacturer_model_name=spec.title,
        software_versions=context.software_version,
        device_serial_number=str(header.DeviceSerialNumber),
        fractional_type="OCCUPANCY",
        max_fractional_value=255,
        transfer_syntax_uid=ours.transfer_syntax_uid,
        pixel_measures=pixel_measures(geometry, in_plane),
        content_label="CT_TISSUE",
        content_description=str(header.ContentDescription),
    )
    buffer = BytesIO()
    seg.save_as(buffer)
    return dcmread(BytesIO(buffer.getvalue()))


def differences(ours: Dataset, theirs: Dataset, path: str = "") -> Iterator[str]:
    """Where two data sets differ at any depth, as paths and values."""
    for tag in sorted({*ours.keys(), *theirs.keys()}):
        mine: DataElement | None = ours.get(tag)
        other: DataElement | None = theirs.get(tag)
        element = mine if mine is not None else other
        assert element is not None
        here = f"{path}{element.keyword}"
        if element.keyword in ON_PURPOSE:
            continue
        if mine is None or other is None or mine.VR != other.VR:
            yield f"{here}: {mine!r} and {other!r}"
        elif mine.VR != "SQ":
            if written(mine.value) != written(other.value):
                yield f"{here}: {mine.value!r} and {other.value!r}"
        elif len(mine.value) != len(other.value):
            yield f"{here}: {len(mine.value)} and {len(other.value)} items"
        else:
            for position, pair in enumerate(zip(mine.value, other.value, strict=True)):
                yield from differences(*pair, f"{here}[{position}].")


def written(value: object) -> object:
    """A value as it stands in the file: of a decimal string, its digits."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [written(item) for item in value]
    return str(value) if isinstance(value, float) else value


def compare(ours: SegObject, theirs: Dataset) -> None:
    """Fail where the files differ in anything but what is on purpose."""
    mine = dcmread(BytesIO(ours.content))
    assert mine.file_meta.TransferSyntaxUID == theirs.file_meta.TransferSyntaxUID
    assert mine.SpecificCharacterSet == "ISO_IR 192"
    if ours.plan.kind == "label_map":  # on purpose: behind the others instead of before them
        background = mine.SegmentSequence[-1]
        assert background.SegmentNumber == 0
        mine.SegmentSequence = [background, *mine.SegmentSequence[:-1]]
    equipment = mine.ContributingEquipmentSequence
    assert list(differences(equipment[0], theirs.ContributingEquipmentSequence[0])) == []
    if len(mine.PixelData) and mine.PixelData[:-1] == theirs.PixelData[:-1]:  # padded with 0 instead of "0"
        theirs.PixelData = theirs.PixelData[:-1] + mine.PixelData[-1:]
    assert list(differences(mine, theirs)) == []


@pytest.fixture(scope="module", params=[f"{s}, {n}" for s in SOURCES for n in LABELS])
def context(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ResultContext:
    source, labels = request.param.split(", ")
    return run_on(tmp_path_factory.mktemp("series"), SOURCES[source](), LABELS[labels])


@pytest.mark.parametrize("kind", TYPES)
def test_the_file_is_equal_to_that_of_highdicom(context: ResultContext, kind: SegmentationKind) -> None:
    run = of_kind(context, kind)
    (ours,) = build_segs(run)
    compare(ours, of_highdicom(run, ours))


@pytest.mark.parametrize("kind", TYPES)
def test_highdicom_reads_back_the_label_map(context: ResultContext, kind: SegmentationKind) -> None:
    (ours,) = build_segs(of_kind(context, kind))
    seg = hd.seg.segread(BytesIO(ours.content))
    uids = [str(frame.sop_instance_uid) for frame in context.series.volume.geometry.frames]
    options: dict[str, Any] = {"combine_segments": True, "assert_missing_frames_are_empty": True}
    if context.series.datasets[0].get("NumberOfFrames"):
        numbers = [frame.frame_number for frame in context.series.volume.geometry.frames]
        read = seg.get_pixels_by_source_frame(uids[0], numbers, **options)
    else:
        read = seg.get_pixels_by_source_instance(uids, **options)
    np.testing.assert_array_equal(read, context.labels)


@pytest.fixture
def without_gdcm() -> Iterator[None]:
    """highdicom takes the first encoder of pydicom that is there; GDCM's for RLE aborts on odd sizes."""
    encoder = get_encoder(RLELossless)
    encoder.remove_plugin("gdcm")
    yield
    encoder.add_plugin("gdcm", ("pydicom.pixels.encoders.gdcm", "encode_pixel_data"))


@pytest.mark.usefixtures("without_gdcm")
@pytest.mark.parametrize("kind", ["label_map", "fractional"])
@pytest.mark.parametrize("compression", ["rle", "jpeg_ls"])
@pytest.mark.parametrize("source", ["whole bytes", "odd size", "multi-frame"])
def test_compressed_frames_are_those_of_highdicom(
    source: str, compression: Compression, kind: SegmentationKind, tmp_path: Path
) -> None:
    run = of_kind(run_on(tmp_path, SOURCES[source](), boxes), kind, compression)
    (ours,) = build_segs(run)
    theirs = of_highdicom(run, ours)
    if compression == "rle":  # on purpose: other runs, so that odd sizes do not end the process
        mine = dcmread(BytesIO(ours.content))
        np.testing.assert_array_equal(mine.pixel_array, theirs.pixel_array)
        theirs.PixelData = mine.PixelData
    compare(ours, theirs)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("labels", LABELS)
def test_a_card_of_one_structure_has_the_same_organization(
    labels: str, kind: SegmentationKind, tmp_path: Path
) -> None:
    """With one segment the number is shared, and frames that follow evenly are a volume of their own."""
    drawn = run_on(tmp_path, SOURCES["odd size"](), LABELS[labels])
    card = drawn.spec.model_copy(update={"structures": drawn.spec.structures[:1]})
    run = of_kind(replace(drawn, spec=card, labels=(drawn.labels > 0).astype(np.uint8)), kind)
    (ours,) = build_segs(run)
    compare(ours, of_highdicom(run, ours))


@pytest.mark.parametrize("kind", ["binary", "fractional"])
def test_overlapping_structures_are_those_of_a_stack_of_masks(kind: SegmentationKind, tmp_path: Path) -> None:
    drawn = run_on(tmp_path, SOURCES["odd size"](), boxes)
    including = {1: (2, 3), 3: (5,), 4: (1,)}
    structures = tuple(
        s.model_copy(update={"includes": including.get(s.number, ())}) for s in drawn.spec.structures
    )
    run = of_kind(replace(drawn, spec=drawn.spec.model_copy(update={"structures": structures})), kind)
    (ours,) = build_segs(run)
    masks = np.stack([np.isin(drawn.labels, s.numbers) for s in structures], axis=-1)
    assert ours.header.SegmentsOverlap == "YES"
    compare(ours, of_highdicom(run, ours, masks))


def test_the_parts_of_a_split_result_are_those_of_highdicom_for_their_structures(tmp_path: Path) -> None:
    drawn = run_on(tmp_path, SOURCES["odd size"](), boxes)
    run = replace(drawn, profile=Profile(maximum_segments=2))
    parts = build_segs(run)
    assert [[s.number for s in part.plan.structures] for part in parts] == [[1, 2], [3, 4], [5]]
    for part in parts:
        labels = np.zeros_like(run.labels)
        for number, structure in enumerate(part.plan.structures, start=1):
            labels[run.labels == structure.number] = number
        compare(part, of_highdicom(run, part, labels))


@pytest.mark.parametrize("harm", ["pixel", "attribute", "frame", "missing"])
def test_the_comparison_would_find_a_difference(harm: str, tmp_path: Path) -> None:
    run = run_on(tmp_path, SOURCES["odd size"](), boxes)
    (ours,) = build_segs(run)
    theirs = of_highdicom(run, ours)
    frame = theirs.PerFrameFunctionalGroupsSequence[3]
    if harm == "pixel":
        theirs.PixelData = bytes([theirs.PixelData[0] ^ 4]) + theirs.PixelData[1:]
    elif harm == "attribute":
        theirs.SegmentSequence[1].TrackingID = "another"
    elif harm == "frame":
        frame.FrameContentSequence[0].DimensionIndexValues = [1, 1]
    else:
        del frame.SegmentIdentificationSequence
    with pytest.raises(AssertionError):
        compare(ours, theirs)
