"""Values of radiographs: as on a screen, and as they are with bone bright."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import DigitalXRayImageStorageForProcessing, ExplicitVRBigEndian, ImplicitVRLittleEndian

from ai.errors import SeriesRefused
from ai.pixels import Scale
from ai.volume import read_series
from tests import builders, odd_series
from tests.odd_series import item
from tests.radiographs import dx

SHAPE = (12, 20)


def picture() -> npt.NDArray[np.uint8]:
    """Every brightness from 0 to 239 once."""
    return np.arange(np.prod(SHAPE), dtype=np.uint8).reshape(SHAPE)


def values(image: Dataset, folder: Path, scale: Scale = "screen") -> npt.NDArray[Any]:
    return read_series(builders.write_series([image], folder), scale=scale).volume.voxels[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_the_screen_shows_the_picture_however_it_was_stored(photometric: str, tmp_path: Path) -> None:
    seen = values(dx(picture(), photometric), tmp_path)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, picture() * 16.0 / 4095.0, atol=2e-4)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_attenuation_keeps_the_values_but_turns_over_what_is_stored_with_bone_dark(
    photometric: str, tmp_path: Path
) -> None:
    image = dx(picture(), photometric)
    np.testing.assert_array_equal(values(image, tmp_path, "attenuation"), picture().astype(np.int16) * 16)


def test_modality_values_are_left_as_they_are_stored(tmp_path: Path) -> None:
    stored = values(dx(picture(), "MONOCHROME1"), tmp_path, "modality")
    np.testing.assert_array_equal(stored, 4095 - picture().astype(np.int16) * 16)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize(("centre", "width"), [(1800.0, 900.0), (2048.0, 1.0), (100.0, 5000.0)])
def test_windows_are_those_of_pydicom(function: str, centre: float, width: float, tmp_path: Path) -> None:
    image = dx(
        picture(),
        WindowCenter=[centre, 9.0],
        WindowWidth=[width, 9.0],
        VOILUTFunction=function,
        RescaleSlope="0.5",
        RescaleIntercept="-7",
    )
    shown = apply_voi_lut(apply_modality_lut(image.pixel_array, image), image)
    darkest, brightest = -7.0, 4095 * 0.5 - 7.0  # where pydicom puts black and white
    expected = (shown - darkest) / (brightest - darkest)
    np.testing.assert_allclose(values(image, tmp_path), expected, atol=1e-3)


def lut(first: int, entries: npt.NDArray[np.integer[Any]], bits: int) -> Dataset:
    table = item(LUTExplanation="test")
    signed = "SS" if first < 0 else "US"
    table.add_new("LUTDescriptor", signed, [len(entries), first, bits])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return table


@pytest.mark.parametrize("syntax", ["explicit", ImplicitVRLittleEndian])
def test_a_voi_lut_comes_before_a_window(syntax: str, tmp_path: Path) -> None:
    entries = (np.linspace(0.0, 1.0, 3000) ** 2 * 1023).astype(np.uint16)
    image = dx(picture(), "MONOCHROME1", VOILUTSequence=[lut(500, entries, 10)])
    if syntax != "explicit":
        image.file_meta.TransferSyntaxUID = syntax
    stored = 4095 - picture().astype(int) * 16
    expected = 1.0 - entries[np.clip(stored - 500, 0, 2999)] / 1023.0
    np.testing.assert_allclose(values(image, tmp_path), expected, atol=1e-6)


def test_a_modality_lut_is_read_for_the_screen_and_refused_where_values_are_measured(tmp_path: Path) -> None:
    entries = (4095 - np.arange(4096)).astype(np.uint16)
    table = lut(0, entries, 12)
    table.ModalityLUTType = "OD"
    image = dx(picture(), ModalityLUTSequence=[table], RescaleSlope=None, RescaleIntercept=None)
    np.testing.assert_allclose(values(image, tmp_path), 1.0 - picture() * 16.0 / 4095.0, atol=2e-4)
    with pytest.raises(SeriesRefused, match="UNSUPPORTED_RESCALE"):
        values(image, tmp_path, "attenuation")


def test_a_malformed_modality_lut_is_refused(tmp_path: Path) -> None:
    table = lut(0, np.arange(10, dtype=np.uint16), 12)
    table.LUTDescriptor = [4096, 0, 12]
    image = dx(picture(), ModalityLUTSequence=[table], RescaleSlope=None, RescaleIntercept=None)
    with pytest.raises(SeriesRefused, match="malformed"):
        values(image, tmp_path)


def test_a_lut_of_a_big_endian_file_is_read(tmp_path: Path) -> None:
    entries = (np.arange(4096) // 2).astype(np.uint16)
    image = dx(picture(), VOILUTSequence=[lut(0, entries, 12)])
    image.VOILUTSequence[0]["LUTData"].value = entries.astype(">u2").tobytes()
    image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    image.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    path = tmp_path / "big.dcm"
    image.save_as(path, enforce_file_format=True, little_endian=False, implicit_vr=False)
    seen = read_series([path], scale="screen").volume.voxels[0]
    np.testing.assert_allclose(seen, picture() * 8.0 / 4095.0, atol=1e-6)


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowWidth": "0"},
        {"WindowWidth": "-5"},
        {"VOILUTFunction": "CUBIC"},
        {"VOILUTSequence": [item(LUTExplanation="empty")], "WindowWidth": None},
    ],
)
def test_without_a_usable_window_the_image_fills_the_screen(
    window: dict[str, object], tmp_path: Path
) -> None:
    seen = values(dx(picture(), "MONOCHROME1", **window), tmp_path)
    np.testing.assert_allclose(seen, picture() / 239.0, atol=1e-6)


def test_an_image_of_one_value_without_a_window_is_black(tmp_path: Path) -> None:
    image = dx(np.full(SHAPE, 9, np.uint8), WindowCenter=None, WindowWidth=None)
    assert not values(image, tmp_path).any()


def test_padding_is_dark(tmp_path: Path) -> None:
    image = dx(picture(), "MONOCHROME1", WindowCenter=None, WindowWidth=None)
    image.add_new("PixelPaddingValue", "US", 4095 - 239 * 16)  # what would be the brightest
    seen = values(image, tmp_path)
    assert seen[-1, -1] == seen.min() == 0.0
    assert seen[-1, -2] == 1.0


@pytest.mark.parametrize(("sign", "is_bright"), [(1, False), (-1, True), (None, True)])
def test_images_for_processing_are_turned_by_what_their_intensity_means(
    sign: int | None, is_bright: bool, tmp_path: Path
) -> None:
    image = dx(picture(), PixelIntensityRelationshipSign=sign)
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForProcessing
    expected = picture().astype(np.int16) * 16
    np.testing.assert_array_equal(
        values(image, tmp_path, "attenuation"), expected if is_bright else 4095 - expected
    )


def test_each_frame_of_an_enhanced_image_is_shown_by_its_own_window(tmp_path: Path) -> None:
    image = odd_series.enhanced(builders.ct_series((2, 4, 4), voxels=np.full((2, 4, 4), 100, np.int16)))
    for frame, centre in zip(image.PerFrameFunctionalGroupsSequence, ("100.5", "151"), strict=True):
        frame.FrameVOILUTSequence = [item(WindowCenter=centre, WindowWidth="101")]
    volume = read_series(builders.write_series([image], tmp_path), scale="screen").volume
    np.testing.assert_allclose(volume.voxels[:, 0, 0], [0.5, 0.0], atol=0.006)
