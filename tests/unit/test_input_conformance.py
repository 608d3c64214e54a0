"""Input that would give wrong numbers or cost too much is refused by name, before that."""

from __future__ import annotations

import time
from dataclasses import replace
from math import cos, sin
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, RTDoseStorage

import ai.volume
from ai.errors import SeriesRefused
from ai.geometry import NotAVolume, SliceHeader, VerdictCode, assess
from ai.model import check_input, find_card
from ai.volume import read_series
from tests import builders
from tests.headers import headers_of


def refusal(folder: Path, series: list[Dataset]) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        read_series(builders.write_series(series, folder))
    return caught.value


def with_value(keyword: str, value: object) -> list[Dataset]:
    """A series in which an attribute has a value that the library would not take."""
    series = builders.ct_series()
    for dataset in series:
        dataset[keyword]._value = value
    return series


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("RescaleSlope", "0", "RESCALE_INVALID"),
        ("RescaleSlope", "steep", "RESCALE_INVALID"),
        ("RescaleSlope", "1e300", "RESCALE_INVALID"),
        ("RescaleIntercept", "nan", "RESCALE_INVALID"),
        ("RescaleIntercept", "", "RESCALE_INVALID"),
        ("RescaleType", "MGML", "NOT_HOUNSFIELD"),
        ("RescaleType", "Z_EFF", "NOT_HOUNSFIELD"),
        ("SamplesPerPixel", [1, 1], "UNSUPPORTED_PIXELS"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_ct_without_a_true_rescale_to_hounsfield_units_is_refused(
    tmp_path: Path, keyword: str, value: object, code: str
) -> None:
    assert refusal(tmp_path, with_value(keyword, value)).code == code


@pytest.mark.parametrize("rescale_type", ["HU", "US", None])
def test_a_ct_in_hounsfield_or_unspecified_units_is_read(tmp_path: Path, rescale_type: str | None) -> None:
    files = builders.write_series(builders.ct_series(RescaleType=rescale_type), tmp_path)
    assert read_series(files).volume.unit == "HU"


def test_an_mr_needs_no_rescale(tmp_path: Path) -> None:
    series = builders.without(
        builders.ct_series(Modality="MR"), "RescaleSlope", "RescaleIntercept", "RescaleType"
    )
    volume = read_series(builders.write_series(series, tmp_path)).volume
    assert (volume.unit, int(volume.voxels[0, 0, 0])) == ("", 24)


def test_a_modality_lookup_table_is_refused_and_not_passed_over(tmp_path: Path) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [3, 0, 16])
    table.ModalityLUTType = "HU"
    table.add_new("LUTData", "US", [1, 2, 3])
    series = builders.without(builders.ct_series(), "RescaleSlope", "RescaleIntercept", "RescaleType")
    assert refusal(tmp_path, builders.with_attributes(series, ModalityLUTSequence=[table])).code == (
        "UNSUPPORTED_RESCALE"
    )


@pytest.mark.parametrize(
    ("keyword", "value", "code"),
    [
        ("StudyInstanceUID", "2.25.1", "SEVERAL_STUDIES"),
        ("PatientID", "ANOTHER-7", "SEVERAL_PATIENTS"),
        ("Modality", "PT", "SEVERAL_MODALITIES"),
    ],
)
def test_a_series_of_several_studies_patients_or_modalities_is_refused_without_its_values(
    tmp_path: Path, keyword: str, value: str, code: str
) -> None:
    series = builders.ct_series()
    for dataset in series[:5]:
        setattr(dataset, keyword, value)
    error = refusal(tmp_path, series)
    assert error.code == code
    assert "12 images" in error.reason
    assert "7, 5 images" in error.reason
    assert "ANOTHER" not in error.reason
    assert "TEST-1" not in error.reason


def test_a_deflated_file_is_refused_before_it_is_inflated(tmp_path: Path) -> None:
    series = builders.ct_series((3, 32, 40))
    series[1].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    error = refusal(tmp_path, series)
    assert error.code == "DEFLATED_FILE"
    assert "0001.dcm is a deflated" in error.reason


@pytest.mark.parametrize("sop_class", ["1.2.3", RTDoseStorage])
def test_a_sop_class_that_is_no_image_is_refused_by_name(tmp_path: Path, sop_class: str) -> None:
    error = refusal(tmp_path, builders.ct_series(SOPClassUID=sop_class))
    assert error.code == "UNSUPPORTED_SOP_CLASS"
    assert sop_class in error.reason


def test_a_volume_that_is_too_large_is_refused_before_memory_is_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ai.volume, "_MOST_VOXELS", 12 * 32 * 40 - 1)
    error = refusal(tmp_path, builders.ct_series())
    assert error.code == "VOLUME_TOO_LARGE"
    assert "12 × 32 × 40" in error.reason


def test_a_series_that_the_card_does_not_accept_is_refused_before_any_pixel_is_decoded(
    tmp_path: Path,
) -> None:
    files = builders.write_series(builders.ct_series(Modality="MR", PixelData=b""), tmp_path)
    card = find_card("ct-tissue")
    with pytest.raises(SeriesRefused) as caught:
        read_series(files, lambda facts, geometry: check_input(card, facts, geometry))
    assert caught.value.code == "INPUT_NOT_ACCEPTED"


def only_refusal(slices: list[SliceHeader]) -> NotAVolume:
    (part,) = assess(slices)
    assert isinstance(part.geometry, NotAVolume)
    return part.geometry


def test_thousands_of_different_orientations_are_refused_quickly() -> None:
    (header,) = headers_of(builders.ct_series()[:1])
    angles = [i * 2e-3 for i in range(20_000)]
    slices = [replace(header, orientation=(cos(a), sin(a), 0.0, -sin(a), cos(a), 0.0)) for a in angles]
    start = time.perf_counter()
    assert only_refusal(slices).code is VerdictCode.TOO_MANY_PARTS
    assert time.perf_counter() - start < 10.0


@pytest.mark.parametrize(("count", "said"), [(1, "The only image is"), (3, "All 3 images are")])
def test_the_sentence_about_localizers_agrees_with_their_number(count: int, said: str) -> None:
    series = builders.with_localizer(builders.ct_series(), count)[:count]
    assert only_refusal(headers_of(series)).reason.startswith(said)


def test_images_at_one_position_are_said_to_be_at_one() -> None:
    series = builders.with_duplicate_position(builders.ct_series()[:1], 0)
    verdict = only_refusal(headers_of(series))
    assert verdict.code is VerdictCode.DUPLICATE_POSITION
    assert verdict.reason.startswith("All 2 images lie at one position, ")
