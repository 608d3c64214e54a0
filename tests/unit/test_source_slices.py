"""Slice headers from facts: what geometry gets to know of each image plane."""

from __future__ import annotations

from pathlib import Path

import pytest

from ai.source import Facts, Header, read_file, slice_headers

SHARED = Path(__file__).parents[3] / "shared" / "data" / "fixture"
CR, DX, SECONDARY_CAPTURE, SEGMENTATION, CT = (
    f"1.2.840.10008.5.1.4.1.1.{suffix}" for suffix in ("1", "1.1", "7", "66.4", "2")
)
IMAGE: Facts = {
    "SOPClassUID": (CT,),
    "SOPInstanceUID": ("1.2.3",),
    "FrameOfReferenceUID": ("1.2.9",),
    "Modality": ("CT",),
    "Rows": ("512",),
    "Columns": ("256",),
    "ImagePositionPatient": ("-100", "2.5E1", " -312.5"),
    "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
    "PixelSpacing": ("0.5", "0.7"),
    "SliceThickness": ("3",),
    "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
}


def test_a_single_frame_image_is_one_slice() -> None:
    (found,) = slice_headers(Header(IMAGE))
    assert (found.sop_instance_uid, found.frame_number, found.number_of_frames) == ("1.2.3", 1, 1)
    assert (found.rows, found.columns, found.modality) == (512, 256, "CT")
    assert found.position_mm == (-100.0, 25.0, -312.5)
    assert found.orientation == (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    assert found.pixel_spacing_mm == (0.5, 0.7)
    assert found.slice_thickness_mm == 3.0
    assert found.frame_of_reference_uid == "1.2.9"
    assert found.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (found.is_projection, found.detector_spacing_mm) == (False, None)


@pytest.mark.parametrize(
    "bad", [("x", "0", "0"), ("nan", "0", "0"), ("1", "2"), ("1e300", "0", "0"), ("",) * 3]
)
def test_a_malformed_number_counts_as_absent(bad: tuple[str, ...]) -> None:
    (found,) = slice_headers(
        Header({**IMAGE, "ImagePositionPatient": bad, "Rows": ("0",), "Columns": ("inf",)})
    )
    assert found.position_mm is None
    assert (found.rows, found.columns) == (None, None)


def test_nothing_at_all_makes_a_slice_header_of_nothing() -> None:
    (found,) = slice_headers(Header({}))
    assert found.rows is None
    assert found.position_mm is None
    assert found.frame_of_reference_uid is None
    assert dict(found.attributes) == {}


def frame(z_mm: float, **facts: tuple[str, ...]) -> Facts:
    return {"ImagePositionPatient": ("0", "0", str(z_mm)), **facts}


def test_each_frame_is_a_slice_with_its_own_place_and_what_all_share() -> None:
    frames = (frame(1.0), frame(2.0, FrameType=("DERIVED", "PRIMARY", "ADC")))
    found = slice_headers(Header({**IMAGE, "NumberOfFrames": ("2",)}, frames))
    assert [(s.frame_number, s.number_of_frames) for s in found] == [(1, 1), (2, 1)]
    assert [s.position_mm for s in found] == [(0.0, 0.0, 1.0), (0.0, 0.0, 2.0)]
    assert [s.image_type[-1] for s in found] == ["AXIAL", "ADC"]
    assert [s.attributes["ImageType"] for s in found] == ["ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\PRIMARY\\ADC"]
    assert {s.pixel_spacing_mm for s in found} == {(0.5, 0.7)}


@pytest.mark.parametrize(("claimed", "described"), [(5, 0), (5, 2), (1, 3), (0, 3)])
def test_frames_that_are_not_described_one_by_one_are_one_header_that_says_how_many(
    claimed: int, described: int
) -> None:
    header = Header({**IMAGE, "NumberOfFrames": (str(claimed),)}, tuple(map(frame, range(described))))
    assert [s.number_of_frames for s in slice_headers(header)] == [max(claimed, described)]


def test_a_segmentation_has_no_pixels_to_measure() -> None:
    header = Header({**IMAGE, "SOPClassUID": (SEGMENTATION,), "NumberOfFrames": ("2",)}, (frame(1), frame(2)))
    (found,) = slice_headers(header)
    assert (found.rows, found.columns, found.sop_instance_uid) == (None, None, "1.2.3")


DIMENSIONS: Facts = {
    **IMAGE,
    "NumberOfFrames": ("1",),
    "DimensionIndexPointer": ("00209056", "00209057", "00189082", "00189153"),
}


def test_dimension_indices_leave_out_place_and_what_has_a_name_of_its_own() -> None:
    values = frame(1.0, StackID=("2",), EchoTime=("4.6",), DimensionIndexValues=("2", "17", "1", "9"))
    (found,) = slice_headers(Header(DIMENSIONS, (values,)))
    assert found.attributes["DimensionIndexValues"] == "9"
    assert found.attributes["EchoTime"] == "4.6"
    assert found.attributes["StackID"] == "2"


def test_dimension_indices_that_do_not_match_their_pointers_say_nothing() -> None:
    (found,) = slice_headers(Header(DIMENSIONS, (frame(1.0, DimensionIndexValues=("1", "2")),)))
    assert "DimensionIndexValues" not in found.attributes


@pytest.mark.parametrize(
    ("sop_class", "modality", "expected"),
    [
        (CR, "CR", True),
        (DX, "DX", True),
        (SECONDARY_CAPTURE, "CR", True),
        (SECONDARY_CAPTURE, "CT", False),
        ("", "MG", True),
        (CT, "CR", False),
    ],
)
def test_projection_images_are_known_by_their_class(sop_class: str, modality: str, expected: bool) -> None:
    facts = {**IMAGE, "SOPClassUID": (sop_class,), "Modality": (modality,)}
    del facts["ImagePositionPatient"]
    assert [s.is_projection for s in slice_headers(Header(facts))] == [expected]


@pytest.mark.parametrize(
    ("facts", "expected_mm"),
    [
        ({"ImagerPixelSpacing": ("0.15", "0.16")}, (0.15, 0.16)),
        ({"ImagerPixelSpacing": ("0.15", "0.15"), "PixelSpacing": ("0.12", "0.12")}, (0.12, 0.12)),
        ({"ImagerPixelSpacing": ("0.15", "0.15"), "PixelSpacing": ("0", "0")}, (0.15, 0.15)),
        ({"NominalScannedPixelSpacing": ("0.2", "0.2")}, (0.2, 0.2)),
        ({}, None),
    ],
)
def test_the_pixels_of_a_detector_are_calibrated_ones_before_its_own(
    facts: Facts, expected_mm: tuple[float, float] | None
) -> None:
    (found,) = slice_headers(Header({"SOPClassUID": (DX,), **facts}))
    assert found.detector_spacing_mm == expected_mm


def real(name: str) -> Path:
    path = SHARED / name
    if not path.is_file():
        pytest.skip(f"../shared/data/fixture/{name} is not there")
    return path


@pytest.mark.parametrize(
    ("name", "frames", "stacks"),
    [
        ("awkward_dicom2nifti/hyperfine_anatomical_001/001.dcm", 8, 1),
        ("awkward_dicom2nifti/philips_enhanced_anatomical_001/IM-0001-0170-0001.dcm", 8, 1),
        ("awkward_dicom2nifti/siemens_multiframe_anatomical_001/IM-0001-0001-0001.dcm", 8, 1),
        ("compressed_htj2k_and_enhanced_ct/eCT_Supplemental.dcm", 2, 1),
        ("mr_enhanced_nema_multiframe/BRMULTI", 12, 2),
        ("mr_enhanced_nema_multiframe/BRTUM003", 24, 0),
        ("mr_t1_siemens_xa30_enhanced/T1_tfl_series5.dcm", 96, 1),
    ],
)
def test_every_frame_of_real_enhanced_images_is_placed(name: str, frames: int, stacks: int) -> None:
    found = slice_headers(read_file(real(name)).header)
    assert [s.frame_number for s in found] == list(range(1, frames + 1))
    assert all(s.position_mm and s.orientation and s.pixel_spacing_mm for s in found)
    assert len({s.attributes["StackID"] for s in found if "StackID" in s.attributes}) == stacks
