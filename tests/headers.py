"""Slice headers of datasets, read by the same bounded reader as at admission."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai.geometry import SliceHeader
from ai.source.facts import Header, read_header
from ai.source.keywords import ALL
from ai.source.slices import slice_headers


def headers_of(datasets: Iterable[Dataset]) -> list[SliceHeader]:
    """One slice header for each image plane of the datasets."""
    return [header for dataset in datasets for header in slice_headers(_read(dataset))]


def _read(dataset: Dataset) -> Header:
    stream = DicomBytesIO()
    stream.is_little_endian, stream.is_implicit_VR = True, False
    write_dataset(stream, dataset)
    return read_header(stream.getvalue(), ExplicitVRLittleEndian, ALL)
