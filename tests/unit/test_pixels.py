"""Native pixels: stored values become the values of the modality, exactly."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from ai.errors import SeriesRefused
from ai.pixels import NotInt16, decode_into, frame_pixels, unit_of
from ai.source import read_file
from tests import builders, odd_series
from tests.pixel_images import Array, decoded, image, smooth, written


def big_endian(dataset: Dataset, stored: Array, vr: str) -> Dataset:
    """The same image as big-endian words, or as bytes where ``vr`` is OB."""
    raw = stored.tobytes() + b"\0" * (stored.nbytes % 2)
    words = np.frombuffer(raw, "<u2").astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = words if vr == "OW" else raw
    dataset["PixelData"].VR = vr
    return dataset


def write_big_endian(dataset: Dataset, folder: Path) -> Path:
    path = folder / "big.dcm"
    dataset.save_as(path, implicit_vr=False, little_endian=False, enforce_file_format=True)
    return path


def int16_or_float32(path: Path) -> Array:
    try:
        return decoded(path, dtype=np.int16)
    except NotInt16:
        return decoded(path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [8, 12, 16, 32])
def test_stored_values_of_every_width_and_sign_are_read(tmp_path: Path, bits: int, signed: bool) -> None:
    stored = smooth((9, 7), bits, signed=signed)
    values = decoded(written(image(stored, bits), tmp_path))
    np.testing.assert_array_equal(values[0], stored.astype(np.float32))


def test_implicit_little_endian_is_read(tmp_path: Path) -> None:
    stored = smooth((9, 7), 16, signed=True)
    dataset = image(stored)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    np.testing.assert_array_equal(decoded(written(dataset, tmp_path), dtype=np.int16)[0], stored)


@pytest.mark.parametrize(("bits", "vr"), [(16, "OW"), (12, "OW"), (8, "OW"), (8, "OB")])
def test_big_endian_frames_are_read_also_where_one_starts_within_a_word(
    tmp_path: Path, bits: int, vr: str
) -> None:
    stored = smooth((3, 7, 9), bits)
    path = write_big_endian(big_endian(image(stored, bits), stored, vr), tmp_path)
    np.testing.assert_array_equal(decoded(path), stored.astype(np.float32))


def test_big_endian_pixels_of_32_bits_are_refused_for_readers_disagree_on_them(tmp_path: Path) -> None:
    stored = smooth((7, 9), 32)
    with pytest.raises(SeriesRefused, match="disagree") as caught:
        frame_pixels(read_file(write_big_endian(big_endian(image(stored), stored, "OW"), tmp_path)))
    assert caught.value.code == "UNSUPPORTED_PIXELS"


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_junk_above_the_stored_bits_counts_for_nothing(tmp_path: Path, signed: bool, dtype: type) -> None:
    stored = smooth((9, 7), 12, signed=signed)
    junk = (stored.view("<u2") & 0x0FFF) | 0xA000
    values = decoded(written(image(junk.view(stored.dtype), 12), tmp_path), dtype=dtype)
    np.testing.assert_array_equal(values[0], stored)


@pytest.mark.parametrize(
    ("slope", "intercept"), [(1, 0), (1, -1024), (-1, 0), (2, -10), (3, 7), (0.5, 0.25), (1, 0.5), (100, 0)]
)
@pytest.mark.parametrize("signed", [False, True])
def test_int16_and_float32_agree_with_the_formula(
    tmp_path: Path, slope: float, intercept: float, signed: bool
) -> None:
    stored = smooth((9, 7), 12, signed=signed)
    path = written(image(stored, 12, RescaleSlope=slope, RescaleIntercept=intercept), tmp_path)
    expected = stored.astype(np.float64) * slope + intercept
    np.testing.assert_array_equal(int16_or_float32(path)[0], expected)
    np.testing.assert_array_equal(decoded(path)[0], expected.astype(np.float32))


@pytest.mark.parametrize("stored", [[32767 + 1], [0, 32768], [32769]])
def test_a_value_beyond_int16_is_said_and_not_wrapped(tmp_path: Path, stored: list[int]) -> None:
    path = written(image(np.array([stored], np.uint16)), tmp_path)
    with pytest.raises(NotInt16):
        decoded(path, dtype=np.int16)
    np.testing.assert_array_equal(decoded(path)[0], [stored])


def test_values_at_the_ends_of_int16_are_kept(tmp_path: Path) -> None:
    stored = np.array([[0, 65535, 32768]], np.uint16)
    path = written(image(stored, RescaleIntercept=-32768), tmp_path)
    np.testing.assert_array_equal(decoded(path, dtype=np.int16)[0], [[-32768, 32767, 0]])


def test_a_fractional_slope_is_known_to_give_no_int16_before_anything_is_read(tmp_path: Path) -> None:
    (pixels,) = frame_pixels(read_file(written(image(smooth((9, 7), 12), 12, RescaleSlope=0.1), tmp_path)))
    assert not pixels.whole_int16


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_padding_of_a_ct_is_air(tmp_path: Path, dtype: type) -> None:
    stored = np.array([[-2000, -1990, 5, -1500, 60]], np.int16)
    dataset = image(stored)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    dataset.add_new("PixelPaddingRangeLimit", "SS", -1985)
    values = decoded(written(dataset, tmp_path), dtype=dtype)
    np.testing.assert_array_equal(values[0], [[-1024, -1024, 5, -1500, 60]])


def test_padding_of_other_images_is_the_lowest_real_value(tmp_path: Path) -> None:
    dataset = image(np.array([[0, 7, 3, 0]], np.uint16), Modality="MR")
    dataset.add_new("PixelPaddingValue", "US", 0)
    np.testing.assert_array_equal(decoded(written(dataset, tmp_path))[0], [[3, 7, 3, 3]])


def test_a_ct_frame_of_padding_alone_is_air(tmp_path: Path) -> None:
    dataset = image(np.full((3, 5), -2000, np.int16), RescaleIntercept=-1024)
    dataset.add_new("PixelPaddingValue", "SS", -2000)
    assert set(np.unique(decoded(written(dataset, tmp_path), dtype=np.int16))) == {-1024}


def test_padding_that_needs_more_than_the_stored_bits_is_found_in_the_whole_cell(tmp_path: Path) -> None:
    stored = np.array([[63536, 2096, 30]], np.uint16)  # -2000; its low 12 bits are a usual value
    dataset = image(stored, 12, RescaleIntercept=-1024)
    dataset.add_new("PixelPaddingValue", "US", 63536)
    values = decoded(written(dataset, tmp_path), dtype=np.int16)
    np.testing.assert_array_equal(values[0], [[-1024, 1072, -994]])


def test_padding_does_not_make_a_volume_float(tmp_path: Path) -> None:
    dataset = image(np.array([[-32768, 100]], np.int16), RescaleIntercept=-1024)
    dataset.add_new("PixelPaddingValue", "SS", -32768)
    np.testing.assert_array_equal(decoded(written(dataset, tmp_path), dtype=np.int16)[0], [[-1024, -924]])


def test_monochrome1_is_not_inverted(tmp_path: Path) -> None:
    stored = smooth((9, 7), 12)
    dataset = image(stored, 12, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(decoded(written(dataset, tmp_path))[0], stored)


def test_each_frame_of_an_enhanced_image_has_its_own_rescale(tmp_path: Path) -> None:
    series = builders.ct_series((3, 6, 5))
    for i, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = i + 1, -10 * i
    path = written(odd_series.enhanced(series, shared=False), tmp_path)
    stored = builders.counting_voxels((3, 6, 5)).astype(np.int64) + 1024
    factors = np.arange(3)[:, None, None]
    np.testing.assert_array_equal(decoded(path), stored * (factors + 1) - 10 * factors)


def test_an_enhanced_ct_without_a_rescale_is_refused(tmp_path: Path) -> None:
    dataset = odd_series.enhanced(builders.ct_series((3, 6, 5)))
    for groups in (dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence):
        for item in groups:
            item.pop("PixelValueTransformationSequence", None)
    with pytest.raises(SeriesRefused) as caught:
        frame_pixels(read_file(written(dataset, tmp_path)))
    assert caught.value.code == "RESCALE_INVALID"


def test_a_pet_image_without_a_rescale_slope_is_refused(tmp_path: Path) -> None:
    (dataset,) = odd_series.pet_series((1, 4, 4))
    del dataset.RescaleSlope
    with pytest.raises(SeriesRefused, match="as activity") as caught:
        frame_pixels(read_file(written(dataset, tmp_path)))
    assert caught.value.code == "RESCALE_INVALID"


def test_the_unit_is_that_of_the_scale(tmp_path: Path) -> None:
    ct = read_file(written(image(smooth((4, 4), 12), 12), tmp_path / "ct"))
    pet = read_file(written(odd_series.pet_series((1, 4, 4))[0], tmp_path / "pet"))
    assert [unit_of(ct, "modality"), unit_of(pet, "modality"), unit_of(pet, "suv_bw")] == [
        "HU",
        "BQML",
        "SUVbw",
    ]


def test_frames_are_decoded_beside_each_other(tmp_path: Path) -> None:
    stored = smooth((16, 40, 30), 16, signed=True)
    frames = frame_pixels(read_file(written(image(stored), tmp_path)))
    out = np.empty(stored.shape, np.int16)
    threads = [threading.Thread(target=decode_into, args=pair) for pair in zip(frames, out, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(out, stored)


def test_a_plane_of_another_size_is_an_error_of_the_caller(tmp_path: Path) -> None:
    (pixels,) = frame_pixels(read_file(written(image(smooth((9, 7), 16)), tmp_path)))
    with pytest.raises(ValueError, match="9 × 7"):
        decode_into(pixels, np.empty((7, 9), np.float32))


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path) -> None:
    path = written(image(smooth((9, 7), 16)), tmp_path)
    (pixels,) = frame_pixels(read_file(path))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(SeriesRefused) as caught:
        decode_into(pixels, np.empty((9, 7), np.float32))
    assert caught.value.code == "PIXEL_DATA_TOO_SHORT"
