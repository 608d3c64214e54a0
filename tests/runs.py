"""Finished runs made by hand from synthetic series, without files: what the builders of results take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.geometry import FrameRef, Note, Part, VolumeGeometry
from ai.measure import measure
from ai.model import find_card
from ai.results.context import ResultContext, derive_identity
from ai.results.seg import build_segs, plan_segs
from ai.results.verify import verify_segmentations
from ai.volume import ImageSeries, LabelArray, Volume
from tests import builders

CREATED_AT = datetime(2026, 3, 4, 5, 6, 7, 89000, tzinfo=UTC)
SMALL_SHAPE = (6, 13, 11)  # 143 voxels a frame: frames do not begin at whole bytes
SMALL_SPACING_MM = (3.0, 0.8, 0.7)


def run_of(series: ImageSeries, labels: LabelArray) -> ResultContext:
    """The run in which the default model gave these labels."""
    card = find_card("ct-tissue")
    return ResultContext(
        series=series,
        spec=card,
        labels=labels,
        measurements=measure(series.volume, labels, card.structures),
        identity=derive_identity(
            str(series.datasets[0].SeriesInstanceUID), series.input_digest, card, "1.2.3"
        ),
        created_at=CREATED_AT,
        series_number_base=9000,
        software_version="1.2.3",
    )


def build_seg(context: ResultContext) -> Dataset:
    """The Segmentation of a run that gives one only, read back from its file."""
    (seg,) = build_segs(context)
    return dcmread(BytesIO(seg.content))


def verify_seg(encoded: bytes, context: ResultContext) -> None:
    """Check the only SEG of a run; raises ResultMismatch."""
    verify_segmentations(list(zip(plan_segs(context), [encoded], strict=True)), context)


def torso_run(
    orientation: str = "HFS",
    shape: tuple[int, int, int] = (24, 64, 80),
    spacing_mm: tuple[float, float, float] = (10.0, 5.0, 4.5),
    *,
    without: tuple[int, ...] = (),
    notes: tuple[Note, ...] = (),
    **attributes: object,
) -> ResultContext:
    """The torso scanned in an orientation, labelled with the truth; numbers in ``without`` are not found."""
    datasets, labels = builders.torso_series(orientation, shape, spacing_mm)
    datasets = builders.with_attributes(datasets, **attributes)
    labels[np.isin(labels, without)] = 0
    return run_of(series_of(datasets, builders.affine(shape, spacing_mm, orientation), notes), labels)


def small_run(
    orientation: str = "HFS", labels: LabelArray | None = None, datasets: Sequence[Dataset] | None = None
) -> ResultContext:
    """A run on a series of ``SMALL_SHAPE``: with ``small_labels``, and correct, unless others are given."""
    datasets = datasets or builders.ct_series(SMALL_SHAPE, SMALL_SPACING_MM, orientation)
    series = series_of(datasets, builders.affine(SMALL_SHAPE, SMALL_SPACING_MM, orientation))
    return run_of(series, small_labels() if labels is None else labels)


def small_labels() -> LabelArray:
    """Numbers 1, 2, 3 and 5 in places that no flip or shift maps onto themselves; 4 is absent."""
    labels = np.zeros(SMALL_SHAPE, np.uint8)
    labels[1:4, 2:9, 1:7] = 1
    labels[1:3, 3:5, 2:4] = 2
    labels[2:4, 4:7, 5:6] = 3
    labels[4, 11, 9] = 5
    return labels


def even_geometry(index_to_lps: npt.NDArray[np.float64], shape: tuple[int, int, int]) -> VolumeGeometry:
    """An even stack on a grid, without a source."""
    origins_mm = index_to_lps[:3, 3] + np.arange(shape[0])[:, None] * index_to_lps[:3, 0]
    return VolumeGeometry(index_to_lps, shape, (), origins_mm, None)


def series_of(
    datasets: Sequence[Dataset], index_to_lps: npt.NDArray[np.float64], notes: tuple[Note, ...] = ()
) -> ImageSeries:
    """Datasets of ``builders.ct_series`` as a series that has been read."""
    first = datasets[0]
    geometry = replace(
        even_geometry(index_to_lps, (len(datasets), first.Rows, first.Columns)),
        frames=tuple(FrameRef(str(d.SOPInstanceUID)) for d in datasets),
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
        slice_thickness_mm=float(first.SliceThickness),
        notes=notes,
    )
    stored = [np.frombuffer(d.PixelData, "<i2").reshape(geometry.shape[1:]) for d in datasets]
    volume = Volume((np.stack(stored) - 1024).astype(np.int16), geometry)
    series = ImageSeries(volume, Part("", "", geometry.frames, geometry), notes)
    series.__dict__["datasets"] = tuple(builders.without(datasets, "PixelData"))  # instead of reading files
    series.__dict__["input_digest"] = "0" * 64
    return series
