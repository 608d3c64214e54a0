"""Reading a series: exact voxels in modality units, named refusals, one identity."""

from __future__ import annotations

import shlex
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ai.errors import NotAVolumeError, SeriesRefused
from ai.geometry import NoteCode, VolumeGeometry
from ai.source import Facts
from ai.volume import read_series, survey
from tests import builders
from tests.odd_series import enhanced, phases

SHAPE = (12, 32, 40)
FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"


def written(folder: Path, series: list[Dataset]) -> list[Path]:
    return builders.write_series(series, folder)


def refusal(files: list[Path]) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as caught:
        read_series(files)
    return caught.value


def real(folder: str) -> list[Path]:
    if not (FIXTURES / folder).is_dir():
        pytest.skip(f"the real images of {folder} are not on this machine")
    return sorted(path for path in (FIXTURES / folder).rglob("*") if path.is_file() and path.suffix != ".md")


@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_voxels_come_back_in_the_order_of_the_volume(tmp_path: Path, orientation: str) -> None:
    files = written(tmp_path, builders.ct_series(orientation=orientation))
    series = read_series(files[7:] + files[:7])
    assert series.volume.voxels.dtype == np.int16
    assert series.volume.unit == "HU"
    np.testing.assert_array_equal(series.volume.voxels, builders.counting_voxels((12, 32, 40)))
    uids = tuple(dataset.SOPInstanceUID for dataset in series.datasets)
    assert uids == series.volume.geometry.sop_instance_uids
    assert not any("PixelData" in dataset for dataset in series.datasets)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, JPEG2000Lossless])
def test_lossless_transfer_syntaxes_give_the_same_voxels(tmp_path: Path, syntax: str) -> None:
    series = read_series(written(tmp_path, builders.compressed(builders.ct_series((3, 32, 40)), syntax)))
    np.testing.assert_array_equal(series.volume.voxels, builders.counting_voxels((3, 32, 40)))


def test_each_slice_has_its_own_rescale_and_fractions_give_float32(tmp_path: Path) -> None:
    series = builders.ct_series((3, 32, 40))
    for i, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 * (i + 1), -10
    voxels = read_series(written(tmp_path, series)).volume.voxels
    stored = builders.counting_voxels((3, 32, 40)).astype(np.float64) + 1024
    assert voxels.dtype == np.float32
    np.testing.assert_allclose(voxels, stored * np.array([0.5, 1.0, 1.5])[:, None, None] - 10)


def test_values_beyond_int16_are_kept_as_float32(tmp_path: Path) -> None:
    voxels = read_series(written(tmp_path, builders.ct_series(RescaleSlope=100))).volume.voxels
    assert voxels.dtype == np.float32
    assert voxels.max() > 32767


def test_padding_of_a_ct_becomes_air(tmp_path: Path) -> None:
    hu = np.full((3, 8, 8), 40, dtype=np.int16)
    hu[:, 0, :] = -3024
    hu[:, 1, :] = -3000
    series = builders.ct_series((3, 8, 8), voxels=hu, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1976)
    for dataset in series:
        dataset["PixelPaddingValue"].VR = dataset["PixelPaddingRangeLimit"].VR = "SS"
    voxels = read_series(written(tmp_path, series)).volume.voxels
    assert set(np.unique(voxels[:, :2])) == {-1024}
    assert set(np.unique(voxels[:, 2:])) == {40}


def test_padding_written_as_unsigned_in_a_signed_image_becomes_air(tmp_path: Path) -> None:
    hu = np.full((3, 8, 8), 40, dtype=np.int16)
    hu[:, 0, :] = -3024
    series = builders.ct_series((3, 8, 8), voxels=hu, PixelPaddingValue=65536 - 2000)
    for dataset in series:
        dataset["PixelPaddingValue"].VR = "US"
    assert set(np.unique(read_series(written(tmp_path, series)).volume.voxels)) == {-1024, 40}


def test_a_malformed_padding_value_is_passed_over(tmp_path: Path) -> None:
    series = builders.ct_series((3, 8, 8))
    for dataset in series:
        dataset.add_new("PixelPaddingValue", "SS", [-2000, 5])
    voxels = read_series(written(tmp_path, series)).volume.voxels
    np.testing.assert_array_equal(voxels, builders.counting_voxels((3, 8, 8)))


def test_palette_colour_is_refused_by_name(tmp_path: Path) -> None:
    series = builders.ct_series((3, 8, 8), PhotometricInterpretation="PALETTE COLOR")
    assert refusal(written(tmp_path, series)).code == "UNSUPPORTED_PIXELS"


def test_monochrome1_is_not_inverted(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(read_series(files).volume.voxels, builders.counting_voxels((12, 32, 40)))


def test_bits_above_bits_stored_are_ignored(tmp_path: Path) -> None:
    series = builders.ct_series((3, 8, 8), BitsStored=12, HighBit=11, PixelRepresentation=0)
    for dataset in series:
        stored = np.frombuffer(dataset.PixelData, dtype="<u2")
        dataset.PixelData = (stored | 0xA000).astype("<u2").tobytes()
    voxels = read_series(written(tmp_path, series)).volume.voxels
    np.testing.assert_array_equal(voxels, builders.counting_voxels((3, 8, 8)))


def two_phases() -> list[Dataset]:
    """Two temporal positions at the same places, in turns; the voxels of the second are one higher."""
    made = phases(2, "TemporalPositionIdentifier", (1, 2), shape=SHAPE)
    for dataset in made[12:]:
        stored = np.frombuffer(dataset.PixelData, "<i2") + np.int16(1)
        dataset.PixelData = stored.tobytes()
    return [slice_ for pair in zip(made[:12], made[12:], strict=True) for slice_ in pair]


def test_a_series_of_two_volumes_is_not_read_without_saying_which(tmp_path: Path) -> None:
    files = written(tmp_path, two_phases())
    keys = [part.key for part in survey(files).parts]
    error = refusal(files)
    assert error.code == "SEVERAL_VOLUMES"
    assert len(set(keys)) == 2
    assert all(key in error.reason for key in keys)


def test_the_keys_that_are_listed_can_be_copied_into_a_shell(tmp_path: Path) -> None:
    series = two_phases()
    for dataset in series:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "M", str(dataset.TemporalPositionIdentifier)]
        del dataset.TemporalPositionIdentifier
    files = written(tmp_path, series)
    listed = shlex.split(refusal(files).reason.partition("Its parts are: ")[2].replace(", ", " ").rstrip("."))
    assert listed == [part.key for part in survey(files).parts]
    assert all("\\" in key for key in listed)
    assert read_series(files, part_key=listed[1]).part.key == listed[1]


def test_each_part_of_a_series_has_its_own_voxels_headers_and_digest(tmp_path: Path) -> None:
    files = written(tmp_path, two_phases())
    first, second = (read_series(files, part_key=part.key) for part in survey(files).parts)
    np.testing.assert_array_equal(first.volume.voxels, builders.counting_voxels((12, 32, 40)))
    np.testing.assert_array_equal(second.volume.voxels, first.volume.voxels + 1)
    assert {d.TemporalPositionIdentifier for d in second.datasets} == {2}
    assert second.input_digest == read_series(files[1::2]).input_digest
    assert second.input_digest != first.input_digest
    assert {series.part.key for series in (first, second)} == {part.key for part in survey(files).parts}


def test_a_part_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    files = written(tmp_path, two_phases())
    with pytest.raises(SeriesRefused) as caught:
        read_series(files, part_key="EchoTime=4.6")
    assert caught.value.code == "PART_NOT_FOUND"
    assert survey(files).parts[0].key in caught.value.reason


def test_the_part_of_a_series_that_is_one_volume_has_the_empty_key(tmp_path: Path) -> None:
    series = read_series(written(tmp_path, builders.ct_series()), part_key="")
    assert (series.part.key, series.volume.voxels.shape) == ("", (12, 32, 40))


def test_beside_refused_parts_the_only_volume_is_read_without_saying_which(tmp_path: Path) -> None:
    series = two_phases()
    del series[9]  # slice 4 of the second phase
    read = read_series(written(tmp_path, series))
    np.testing.assert_array_equal(read.volume.voxels, builders.counting_voxels((12, 32, 40)))


def test_a_multi_frame_instance_has_the_voxels_of_the_single_frames(tmp_path: Path) -> None:
    files = written(tmp_path, [enhanced(builders.ct_series())])
    series = read_series(files)
    np.testing.assert_array_equal(series.volume.voxels, builders.counting_voxels((12, 32, 40)))
    assert [frame.frame_number for frame in series.volume.geometry.frames] == list(range(1, 13))
    assert len(series.datasets) == 12
    assert len({id(header) for header in series.datasets}) == 1


def test_frames_that_are_not_in_slice_order_are_put_in_it(tmp_path: Path) -> None:
    series = read_series(written(tmp_path, [enhanced(builders.ct_series()[::-1])]))
    np.testing.assert_array_equal(series.volume.voxels, builders.counting_voxels((12, 32, 40)))
    assert [frame.frame_number for frame in series.volume.geometry.frames] == list(range(12, 0, -1))


def test_functional_groups_that_claim_another_size_than_the_image_are_refused(tmp_path: Path) -> None:
    image = enhanced(builders.ct_series())
    image.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].Rows = 60000
    error = refusal(written(tmp_path, [image]))
    assert error.code == "UNSUPPORTED_PIXELS"
    assert "60000 × 40" in error.reason
    assert "32 × 40" in error.reason


def test_a_model_refuses_before_any_pixel_is_decoded(tmp_path: Path) -> None:
    def refuse(facts: Facts, _: VolumeGeometry) -> None:
        raise SeriesRefused("NOT_FOR_ME", f"This is {facts['Modality'][0]}.")

    files = written(tmp_path, builders.without(builders.ct_series(), "PixelData"))
    with pytest.raises(SeriesRefused, match="NOT_FOR_ME: This is CT"):
        read_series(files, refuse)


def test_a_refused_geometry_carries_its_verdict(tmp_path: Path) -> None:
    files = written(tmp_path, builders.without_slice(builders.ct_series(), 4))
    with pytest.raises(NotAVolumeError) as caught:
        read_series(files)
    assert caught.value.verdict.code == caught.value.code == "MISSING_SLICE"


def test_a_file_cut_inside_its_pixels_is_refused_with_both_numbers(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    files[3].write_bytes(files[3].read_bytes()[:-600])
    found = refusal(files)
    assert found.code in {"TRUNCATED_FILE", "PIXEL_DATA_TOO_SHORT"}
    assert "1960" in found.reason
    assert "2560" in found.reason


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9, 0.99])
def test_a_file_cut_anywhere_is_refused_and_never_read_as_whole(tmp_path: Path, share: float) -> None:
    files = written(tmp_path, builders.compressed(builders.ct_series((3, 32, 40)), RLELossless))
    content = files[1].read_bytes()
    files[1].write_bytes(content[: int(len(content) * share)])
    assert refusal(files).code.isupper()


def test_pixel_data_shorter_than_rows_by_columns_is_refused_with_both_numbers(tmp_path: Path) -> None:
    series = builders.ct_series()
    series[2].PixelData = series[2].PixelData[:-200]
    found = refusal(written(tmp_path, series))
    assert found.code == "PIXEL_DATA_TOO_SHORT"
    assert "2360" in found.reason
    assert "2560" in found.reason


def test_a_slice_without_pixel_data_is_refused_by_name(tmp_path: Path) -> None:
    series = builders.ct_series()
    del series[2].PixelData
    assert refusal(written(tmp_path, series)).code == "PIXEL_DATA_MISSING"


def test_pixels_that_cannot_be_decoded_are_refused_with_their_transfer_syntax(tmp_path: Path) -> None:
    series = builders.compressed(builders.ct_series((3, 32, 40)), JPEG2000Lossless)
    series[1].PixelData = series[1].PixelData[:24] + b"\0" * (len(series[1].PixelData) - 24)
    found = refusal(written(tmp_path, series))
    assert found.code == "CANNOT_DECODE"
    assert "JPEG 2000" in found.reason


def test_colour_images_are_refused_by_name(tmp_path: Path) -> None:
    series = builders.ct_series((3, 8, 8), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    assert refusal(written(tmp_path, series)).code == "UNSUPPORTED_PIXELS"


def test_absurd_sizes_are_refused_before_memory_is_spent(tmp_path: Path) -> None:
    series = builders.compressed(builders.ct_series((2, 32, 40)), RLELossless)
    files = written(tmp_path, builders.with_attributes(series, Rows=65535, Columns=65535))
    assert refusal(files).code == "VOLUME_TOO_LARGE"
    files = written(tmp_path, builders.with_attributes(series, Rows=16384, Columns=16384))
    assert refusal(files).code == "PIXELS_TOO_LARGE"


def test_the_input_digest_changes_with_a_slice(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    assert read_series(files).input_digest != read_series(files[:-1]).input_digest


def test_a_research_series_is_completed_and_what_was_missing_is_said(tmp_path: Path) -> None:
    series = builders.without(
        builders.ct_series(), "FrameOfReferenceUID", "PatientID", "SeriesNumber", "AccessionNumber"
    )
    found = read_series(written(tmp_path, series))
    assert {note.code for note in found.notes} == {
        NoteCode.FRAME_OF_REFERENCE_DERIVED,
        NoteCode.IDENTITY_DERIVED,
    }
    said = " ".join(note.text for note in found.notes)
    assert "PatientID" in said
    assert "SeriesNumber" in said
    frame = found.volume.geometry.frame_of_reference_uid
    assert frame is not None
    assert {d.FrameOfReferenceUID for d in found.datasets} == {frame}
    assert {(d.PatientID, d.AccessionNumber) for d in found.datasets} == {("", "")}


def test_derived_identity_is_the_same_at_every_reading(tmp_path: Path) -> None:
    series = builders.without(
        builders.ct_series(), "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"
    )
    files = written(tmp_path, series)
    one, other = read_series(files), read_series(files[::-1])
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        values = {str(d.get(keyword)) for d in (*one.datasets, *other.datasets)}
        assert len(values) == 1
        assert values.pop().startswith("2.25.")


@pytest.mark.parametrize("folder", ["ct_body_siemens_j2k_totalseg/dicom", "mr_t1_siemens_hfdl_decubitus"])
def test_real_series_have_the_voxels_and_places_that_highdicom_reads(folder: str) -> None:
    files = real(folder)
    series = read_series(files)
    pixels = {
        (d.get("SOPInstanceUID") or d.file_meta.MediaStorageSOPInstanceUID): d.PixelData
        for d in map(dcmread, files)
    }
    sources = []
    for header in series.datasets:
        source = Dataset()
        source.update(header)
        source.file_meta = header.file_meta
        source.PixelData = pixels[header.SOPInstanceUID]
        sources.append(source)
    peer = highdicom.get_volume_from_series(sources, dtype=np.float64, apply_presentation_lut=False)
    mine = highdicom.Volume(
        series.volume.voxels,
        series.volume.geometry.index_to_lps,
        coordinate_system="PATIENT",
        frame_of_reference_uid=series.volume.geometry.frame_of_reference_uid,
    ).match_geometry(peer.get_geometry(), tol=1e-3)
    np.testing.assert_allclose(mine.affine, peer.affine, atol=1e-3)
    np.testing.assert_array_equal(mine.array, peer.array)


@pytest.mark.parametrize("codec", ["j2k_001", "jpeg_001", "jpegls_001", "rle_001"])
def test_real_compressed_series_agree(codec: str) -> None:
    voxels = read_series(real(f"awkward_dicom2nifti/generic_compressed_{codec}")).volume.voxels
    reference = read_series(real("awkward_dicom2nifti/generic_compressed_rle_001")).volume.voxels
    np.testing.assert_array_equal(voxels, reference)
    assert np.ptp(voxels) > 0


def test_a_real_series_with_empty_uids_is_one_series_with_a_complete_identity() -> None:
    series = read_series(real("ct_body_siemens_j2k_totalseg/dicom"))
    assert all(d.SOPInstanceUID and d.SOPClassUID and d.StudyInstanceUID for d in series.datasets)
    assert NoteCode.IDENTITY_DERIVED in {note.code for note in series.notes}
