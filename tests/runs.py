"""A finished run made by hand from a synthetic series: what the builders of results take."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from pydicom.dataset import Dataset

from ai.geometry import Note, VolumeGeometry
from ai.measure import measure
from ai.model import ModelSpec, find_card
from ai.results.context import ResultContext, derive_identity
from ai.volume import ImageSeries, LabelArray, Volume
from tests.builders import affine, ct_series, torso_voxels, with_attributes

CREATED_AT = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def finished_run(
    orientation: str = "HFS",
    shape: tuple[int, int, int] = (24, 64, 80),
    spacing_mm: tuple[float, float, float] = (10.0, 5.0, 4.5),
    *,
    without: tuple[int, ...] = (),
    notes: tuple[Note, ...] = (),
    **attributes: object,
) -> ResultContext:
    """The torso scanned in an orientation, labelled with the truth; numbers in ``without`` are not found."""
    matrix = affine(shape, spacing_mm, orientation)
    hu, labels = torso_voxels(shape, matrix)
    datasets = with_attributes(ct_series(shape, spacing_mm, orientation, hu), **attributes)
    labels[np.isin(labels, without)] = 0
    geometry = VolumeGeometry(
        index_to_lps=matrix,
        shape=shape,
        sop_instance_uids=tuple(d.SOPInstanceUID for d in datasets),
        frame_of_reference_uid=datasets[0].FrameOfReferenceUID,
        slice_thickness_mm=spacing_mm[0],
        notes=notes,
    )
    series = ImageSeries(
        datasets=tuple(_header(d) for d in datasets),
        volume=Volume(hu, geometry),
        input_digest="0" * 64,
        notes=notes,
    )
    return run_of(series, labels)


def run_of(series: ImageSeries, labels: LabelArray, spec: ModelSpec | None = None) -> ResultContext:
    """The run in which the default model gave these labels."""
    card = spec or find_card("ct-tissue")
    return ResultContext(
        series=series,
        spec=card,
        labels=labels,
        measurements=measure(series.volume, labels, card.structures),
        identity=derive_identity(series.datasets[0].SeriesInstanceUID, series.input_digest, card),
        created_at=CREATED_AT,
        series_number_base=9000,
        software_version="0.1.0",
    )


def relabelled(context: ResultContext, labels: LabelArray) -> ResultContext:
    """The same run with other labels, measured again."""
    measurements = measure(context.series.volume, labels, context.spec.structures)
    return replace(context, labels=labels, measurements=measurements)


def _header(dataset: Dataset) -> Dataset:
    header = Dataset()
    header.update({tag: element for tag, element in dataset.items() if tag != 0x7FE00010})
    header.file_meta = dataset.file_meta
    return header
