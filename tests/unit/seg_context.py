"""A finished run on a synthetic series, made without files: what result writers get."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from ai.geometry import VolumeGeometry
from ai.measure import measure
from ai.model import ModelSpec, find_card
from ai.results.context import ResultContext, derive_identity
from ai.volume import ImageSeries, LabelArray, Volume
from tests import builders

CREATED_AT = datetime(2026, 1, 5, 12, 34, 56, 789000, tzinfo=UTC)
SHAPE = (6, 13, 11)  # 143 voxels a frame: frames do not begin at whole bytes
SPACING_MM = (3.0, 0.8, 0.7)


def small_labels() -> LabelArray:
    """Numbers 1, 2, 3 and 5 in places that no flip or shift maps onto themselves; 4 is absent."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:4, 2:9, 1:7] = 1
    labels[1:3, 3:5, 2:4] = 2
    labels[2:4, 4:7, 5:6] = 3
    labels[4, 11, 9] = 5
    return labels


def context_of(
    series: list[Dataset],
    labels: LabelArray,
    index_to_lps: npt.NDArray[np.float64],
    spec: ModelSpec | None = None,
) -> ResultContext:
    """The context of a run whose label map is given."""
    spec = spec or find_card("ct-tissue")
    geometry = VolumeGeometry(
        index_to_lps=index_to_lps,
        shape=(labels.shape[0], labels.shape[1], labels.shape[2]),
        sop_instance_uids=tuple(str(d.SOPInstanceUID) for d in series),
        frame_of_reference_uid=str(series[0].FrameOfReferenceUID),
        slice_thickness_mm=float(series[0].SliceThickness),
    )
    stored = [np.frombuffer(d.PixelData, "<i2").reshape(labels.shape[1:]) for d in series]
    volume = Volume((np.stack(stored) - 1024).astype(np.int16), geometry)
    headers = tuple(builders.without(series, "PixelData"))
    return ResultContext(
        series=ImageSeries(headers, volume, "0" * 64),
        spec=spec,
        labels=labels,
        measurements=measure(volume, labels, spec.structures),
        identity=derive_identity(str(series[0].SeriesInstanceUID), "0" * 64, spec),
        created_at=CREATED_AT,
        series_number_base=9000,
        software_version="1.2.3",
    )


def small_context(orientation: str = "HFS", labels: LabelArray | None = None) -> ResultContext:
    """A run on a small series in any orientation."""
    series = builders.ct_series(SHAPE, SPACING_MM, orientation)
    index_to_lps = builders.affine(SHAPE, SPACING_MM, orientation)
    return context_of(series, small_labels() if labels is None else labels, index_to_lps)


def torso_context(orientation: str) -> ResultContext:
    """The asymmetric torso with its true labels."""
    shape, spacing_mm = (24, 64, 64), (10.0, 6.0, 6.0)
    series, labels = builders.torso_series(orientation, shape, spacing_mm)
    return context_of(series, labels, builders.affine(shape, spacing_mm, orientation))
