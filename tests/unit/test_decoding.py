"""Decoding in parallel: the same voxels whatever the threads, bounded memory, clean failures."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEGLSLossless, RLELossless

import ai.decoding
from ai.errors import SeriesRefused
from ai.volume import read_part, read_series, survey
from tests import builders

MEASURE = Path(__file__).parents[2] / "benchmarks" / "volume_contenders.py"


def voxels_with(files: list[Path], threads: int) -> npt.NDArray[np.generic]:
    found = survey(files)
    return read_part(found, found.part(), threads=threads).volume.voxels


def written(folder: Path, series: list[Dataset]) -> list[Path]:
    return builders.write_series(series, folder)


def broken(folder: Path, *indices: int) -> list[Path]:
    """A compressed series in which the code streams of some slices are rubbish."""
    series = builders.compressed(builders.ct_series((40, 32, 40)), JPEGLSLossless)
    for index in indices:
        data = series[index].PixelData
        series[index].PixelData = data[: len(data) // 2] + b"\xff" * (len(data) - len(data) // 2)
    return written(folder, series)


@pytest.mark.parametrize("threads", [1, 2, 7, 99])
@pytest.mark.parametrize("syntax", [None, RLELossless, JPEGLSLossless])
def test_any_number_of_threads_gives_the_same_voxels(
    tmp_path: Path, threads: int, syntax: str | None
) -> None:
    series = builders.ct_series((40, 16, 20))
    files = written(tmp_path, builders.compressed(series, syntax) if syntax else series)
    np.testing.assert_array_equal(voxels_with(files, threads), builders.counting_voxels((40, 16, 20)))


@pytest.mark.parametrize("threads", [1, 4])
def test_one_value_beyond_int16_in_the_last_slice_makes_the_whole_volume_float32(
    tmp_path: Path, threads: int
) -> None:
    hu = builders.counting_voxels((40, 16, 20))
    series = builders.ct_series((40, 16, 20), voxels=hu, PixelRepresentation=0)
    stored = np.frombuffer(series[-1].PixelData, "<u2").copy()
    stored[7] = 65535
    series[-1].PixelData = stored.tobytes()
    voxels = voxels_with(written(tmp_path, series), threads)
    expected = hu.astype(np.float32)
    expected[-1, 0, 7] = 65535 - 1024
    assert voxels.dtype == np.float32
    np.testing.assert_array_equal(voxels, expected)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_slice_that_cannot_be_decoded_is_named_and_every_thread_ends(tmp_path: Path, threads: int) -> None:
    files = broken(tmp_path, 17)
    before = set(threading.enumerate())
    with pytest.raises(SeriesRefused) as caught:
        voxels_with(files, threads)
    assert caught.value.code == "CANNOT_DECODE"
    assert builders.ct_series((40, 32, 40))[17].SOPInstanceUID in caught.value.reason
    assert set(threading.enumerate()) <= before


def test_of_several_bad_slices_the_first_in_slice_order_is_named_at_every_run(tmp_path: Path) -> None:
    files = broken(tmp_path, 3, 4, 5, 6, 7, 30)
    reasons = set()
    for _ in range(20):
        with pytest.raises(SeriesRefused) as caught:
            voxels_with(files[::-1], 4)
        reasons.add(caught.value.reason)
    assert len(reasons) == 1
    assert builders.ct_series((40, 32, 40))[3].SOPInstanceUID in reasons.pop()


def test_after_a_failure_the_volume_is_freed_at_once(tmp_path: Path) -> None:
    files = broken(tmp_path, 39)
    found = survey(files)
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        with pytest.raises(SeriesRefused):
            read_part(found, found.part(), threads=2)
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    volume_bytes = 40 * 32 * 40 * 2
    assert peak > volume_bytes
    assert held < volume_bytes / 2


def test_running_out_of_memory_in_a_thread_is_raised_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: object) -> None:
        raise MemoryError

    files = written(tmp_path, builders.ct_series())
    before = set(threading.enumerate())
    monkeypatch.setattr(ai.decoding, "decode_into", exhausted)
    with pytest.raises(MemoryError):
        voxels_with(files, 4)
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("syntax", [None, RLELossless])
def test_reading_needs_little_more_memory_than_the_volume(tmp_path: Path, syntax: str | None) -> None:
    """Measured in a process of its own: growth of the resident size at its peak."""
    shape = (120, 512, 512)
    series = builders.ct_series(shape)
    if syntax:
        series = builders.compressed(series, syntax)
    files = written(tmp_path / "series", series)
    written(tmp_path / "warm-up", series[:3])
    command = [sys.executable, str(MEASURE), "gateway", str(files[0].parent), str(tmp_path / "warm-up")]
    measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    grown = measured["resident_peak_bytes"] - measured["resident_before_bytes"]
    volume_bytes, slice_bytes = 2 * 120 * 512 * 512, 2 * 512 * 512
    assert tuple(measured["shape"]) == shape
    assert volume_bytes / 2 < grown < 1.3 * volume_bytes + ai.decoding.usable_cpus() * slice_bytes


def test_headers_read_for_results_do_not_keep_the_pixels_in_memory(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series((20, 256, 256)))
    assert len(read_series(files).datasets) == 20
    tracemalloc.start()
    series = read_series(files)
    headers = series.datasets
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(headers) == 20
    assert held < series.volume.voxels.nbytes * 1.5
