"""Scales beyond the rescale of the modality: SUV by body weight, and the values of Philips MR scanners."""

from __future__ import annotations

from collections.abc import Callable
from math import expm1, log
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.pixels import decode_into, frame_pixels
from ai.source import read_file
from tests import builders, odd_series
from tests.pixel_images import Array, decoded, image, smooth, written

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
HALF_LIFE_S = 6586.2
UNDECAYED = 70_000.0 / 370e6  # g/Bq of the made PET series: 70 kg, 370 MBq
PHILIPS_MR = "Philips MR Imaging DD 001"


def pet(**attributes: object) -> Dataset:
    """A PET image injected at 09:15 and scanned from 10:15 on; slope 1."""
    (dataset,) = odd_series.pet_series((1, 6, 5))
    dataset.RescaleSlope = 1
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def with_isotope(dataset: Dataset, **attributes: object) -> Dataset:
    """The image with other values of its only radiopharmaceutical; None deletes."""
    (isotope,) = dataset.RadiopharmaceuticalInformationSequence
    for keyword, value in attributes.items():
        if value is None:
            delattr(isotope, keyword)
        else:
            setattr(isotope, keyword, value)
    return dataset


def with_private(
    dataset: Dataset, group: int, creator: str, elements: dict[int, tuple[str, object]]
) -> Dataset:
    block = dataset.private_block(group, creator, create=True)
    for element, (vr, value) in elements.items():
        block.add_new(element, vr, value)
    return dataset


def factor(dataset: Dataset, folder: Path) -> float:
    (pixels,) = frame_pixels(read_file(written(dataset, folder)), "suv_bw")
    return pixels.rescale.slope


def decayed(hours: float) -> float:
    """The factor when so much time lies between injection and scan."""
    return UNDECAYED * 2 ** (hours * 3600 / HALF_LIFE_S)


def test_suv_is_activity_by_dose_decayed_to_the_scan_by_weight(tmp_path: Path) -> None:
    series = odd_series.pet_series((3, 6, 5))
    paths = builders.write_series(series, tmp_path)
    for i, path in enumerate(paths):
        activity = decoded(path)
        np.testing.assert_allclose(decoded(path, "suv_bw"), activity * decayed(1.0), rtol=1e-6)
        assert activity.max() > 0, i


def test_suv_takes_the_series_time_as_the_scan_and_not_the_time_of_the_bed(tmp_path: Path) -> None:
    assert factor(pet(AcquisitionTime="103000"), tmp_path) == pytest.approx(decayed(1.0))


def test_suv_tells_the_scan_by_the_frame_when_the_series_was_made_afterwards(tmp_path: Path) -> None:
    duration_s = 180.0
    decay = log(2) / HALF_LIFE_S * duration_s
    mean_s = HALF_LIFE_S / log(2) * log(decay / -expm1(-decay))
    dataset = pet(SeriesTime="180000", AcquisitionTime="102500")
    dataset.FrameReferenceTime = f"{(600.0 + mean_s) * 1000:.3f}"  # the bed began 600 s after the scan
    dataset.ActualFrameDuration = str(int(duration_s * 1000))
    assert factor(dataset, tmp_path) == pytest.approx(decayed(1.0), rel=1e-6)


def test_suv_of_images_corrected_to_the_administration_has_no_decay(tmp_path: Path) -> None:
    assert factor(pet(DecayCorrection="ADMIN"), tmp_path) == pytest.approx(UNDECAYED)


def test_suv_of_an_injection_before_midnight_counts_over_it(tmp_path: Path) -> None:
    dataset = pet(SeriesTime="003000", AcquisitionTime="003000")
    assert factor(with_isotope(dataset, RadiopharmaceuticalStartTime="233000"), tmp_path) == pytest.approx(
        decayed(1.0)
    )


@pytest.mark.parametrize(
    ("moment", "offset"),
    [
        ("20260105081500", ""),
        ("20260105081500.000000", "+0100"),
        ("20260105081500+0100", ""),
        ("20260105071500+0000", "+0100"),
    ],
)
def test_suv_takes_the_full_moment_of_the_injection_first(tmp_path: Path, moment: str, offset: str) -> None:
    dataset = with_isotope(pet(), RadiopharmaceuticalStartDateTime=moment)
    if offset:
        dataset.TimezoneOffsetFromUTC = offset
    assert factor(dataset, tmp_path) == pytest.approx(decayed(2.0))


def test_gml_is_suv_already(tmp_path: Path) -> None:
    assert factor(pet(Units="GML"), tmp_path) == 1.0


def test_philips_counts_have_their_own_factor(tmp_path: Path) -> None:
    creator = "Philips PET Private Group"
    dataset = with_private(pet(Units="CNTS"), 0x7053, creator, {0x00: ("DS", "0.000551")})
    assert factor(dataset, tmp_path / "suv") == pytest.approx(0.000551)
    dataset = with_private(pet(Units="CNTS"), 0x7053, creator, {0x09: ("DS", "2.5")})
    assert factor(dataset, tmp_path / "activity") == pytest.approx(2.5 * decayed(1.0))


NOT_POSSIBLE: dict[str, tuple[Callable[[], Dataset], str]] = {
    "no PET": (lambda: image(smooth((6, 5), 12), 12), "no PET image"),
    "lean body mass": (lambda: pet(Units="GML", SUVType="LBM"), "LBM"),
    "counts without a factor": (lambda: pet(Units="CNTS"), "7053,1000"),
    "other units": (lambda: pet(Units="PROPCPS"), "PROPCPS"),
    "no units": (lambda: pet(Units=""), "no known Units"),
    "no attenuation correction": (lambda: pet(CorrectedImage=["DECY"]), "attenuation"),
    "no decay correction": (lambda: pet(DecayCorrection="NONE"), "NONE"),
    "no weight": (lambda: pet(PatientWeight=None), "PatientWeight"),
    "a weight of zero": (lambda: pet(PatientWeight="0"), "PatientWeight"),
    "no radiopharmaceutical": (lambda: pet(RadiopharmaceuticalInformationSequence=[]), "0 radio"),
    "a dose in MBq": (lambda: with_isotope(pet(), RadionuclideTotalDose="370"), "becquerel"),
    "no half-life": (lambda: with_isotope(pet(), RadionuclideHalfLife=None), "RadionuclideHalfLife"),
    "no time of injection": (
        lambda: with_isotope(pet(), RadiopharmaceuticalStartTime=None),
        "RadiopharmaceuticalStartTime",
    ),
    "an injection after the scan": (
        lambda: with_isotope(pet(), RadiopharmaceuticalStartDateTime="20260105111500"),
        "-1.0 hours",
    ),
    "an injection a week ago": (
        lambda: with_isotope(pet(), RadiopharmaceuticalStartDateTime="20251229101500"),
        "168.0 hours",
    ),
    "no date of the series": (lambda: pet(SeriesDate=""), "Series Date"),
    "no frame reference time": (lambda: pet(SeriesTime="180000"), "FrameReferenceTime"),
}


@pytest.mark.parametrize("name", NOT_POSSIBLE)
def test_suv_that_the_header_does_not_allow_is_refused_with_what_is_missing(
    tmp_path: Path, name: str
) -> None:
    make, said = NOT_POSSIBLE[name]
    with pytest.raises(SeriesRefused) as caught:
        factor(make(), tmp_path)
    assert caught.value.code == "SUV_NOT_POSSIBLE"
    assert said in caught.value.reason


def test_a_real_pet_series_has_the_factor_reckoned_by_hand() -> None:
    path = FIXTURES / "pet_qin_headneck_with_seg" / "PET" / "000000.dcm"
    if not path.exists():
        pytest.skip("the real PET series is not on this machine")
    file = read_file(path)
    (activity,), (suv,) = frame_pixels(file), frame_pixels(file, "suv_bw")
    # 66.2 kg; 381.47 MBq at 11:39:00, scanned at 13:02:44.678
    by_hand = 66_200 / (381.47e6 * 0.5 ** (5024.678 / 6586.2))
    assert suv.rescale.slope / activity.rescale.slope == pytest.approx(by_hand, rel=1e-6)


def philips(stored: Array, **attributes: object) -> Dataset:
    elements: dict[int, tuple[str, object]] = {0x0E: ("FL", 0.004), 0x0D: ("FL", 12.0)}
    return with_private(image(stored, 12, Modality="MR", **attributes), 0x2005, PHILIPS_MR, elements)


def test_philips_values_undo_the_rescale_that_is_for_display(tmp_path: Path) -> None:
    stored = smooth((6, 5), 12)
    path = written(philips(stored, RescaleSlope=2.5, RescaleIntercept=-7), tmp_path)
    expected = (stored * 2.5 - 7) / (2.5 * np.float32(0.004))
    np.testing.assert_allclose(decoded(path, "philips")[0], expected, rtol=1e-6)


def test_philips_values_without_a_rescale_take_the_private_intercept(tmp_path: Path) -> None:
    stored = smooth((6, 5), 12)
    (dataset,) = builders.without([philips(stored)], "RescaleSlope", "RescaleIntercept")
    expected = (stored - 12.0) / np.float32(0.004)
    np.testing.assert_allclose(decoded(written(dataset, tmp_path), "philips")[0], expected, rtol=1e-6)


def test_each_frame_of_an_enhanced_philips_image_has_its_own_scale(tmp_path: Path) -> None:
    dataset = odd_series.enhanced(builders.ct_series((3, 6, 5)), "MR", shared=False)
    for i, frame in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        inner = with_private(Dataset(), 0x2005, PHILIPS_MR, {0x0E: ("FL", 0.5 * (i + 1))})
        with_private(frame, 0x2005, "Philips MR Imaging DD 005", {0x0F: ("SQ", [inner])})
    path = written(dataset, tmp_path)
    scales = [pixels.rescale.slope for pixels in frame_pixels(read_file(path), "philips")]
    np.testing.assert_allclose(scales, [2.0, 1.0, 2 / 3], rtol=1e-6)


@pytest.mark.parametrize("slope", [None, 0.0, float("nan")])
def test_an_image_without_a_philips_scale_is_refused(tmp_path: Path, slope: float | None) -> None:
    dataset = image(smooth((6, 5), 12), 12, Modality="MR")
    if slope is not None:
        with_private(dataset, 0x2005, PHILIPS_MR, {0x0E: ("FL", slope)})
    with pytest.raises(SeriesRefused, match="2005,100E") as caught:
        frame_pixels(read_file(written(dataset, tmp_path)), "philips")
    assert caught.value.code == "PHILIPS_SCALE_MISSING"


def test_a_scale_of_floats_is_decoded_to_float32(tmp_path: Path) -> None:
    stored = smooth((6, 5), 12)
    (pixels,) = frame_pixels(read_file(written(philips(stored), tmp_path)), "philips")
    assert not pixels.whole_int16
    out = np.empty(stored.shape, np.float32)
    decode_into(pixels, out)
    assert out.max() > 1e5
