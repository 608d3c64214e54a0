"""Reading a series: exact voxels in modality units, named refusals, one identity."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from ai.errors import NotAVolumeError, SeriesRefused
from ai.geometry import NoteCode
from ai.volume import find_series, read_series
from tests import builders

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


def test_a_refused_geometry_carries_its_verdict(tmp_path: Path) -> None:
    files = written(tmp_path, builders.without_slice(builders.ct_series(), 4))
    with pytest.raises(NotAVolumeError) as caught:
        read_series(files)
    assert caught.value.verdict.code == caught.value.code == "MISSING_SLICE"


def test_an_empty_file_is_refused_by_name(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    files[3].write_bytes(b"")
    assert refusal(files).code == "EMPTY_FILE"


def test_a_file_that_is_not_dicom_is_refused_by_name(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    files[3].write_text("not a picture")
    assert refusal(files).code == "NOT_DICOM"


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


def test_two_series_are_refused_by_name(tmp_path: Path) -> None:
    one = written(tmp_path / "a", builders.ct_series())
    other = written(tmp_path / "b", builders.ct_series(seed=2))
    assert refusal(one + other).code == "SEVERAL_SERIES"
    found = find_series(tmp_path)
    assert found == {builders.uid(1, "series"): one, builders.uid(2, "series"): other}


def test_copies_of_an_instance_count_once(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series())
    copy = tmp_path / "copy.dcm"
    copy.write_bytes(files[3].read_bytes())
    assert read_series([*files, copy]).input_digest == read_series(files).input_digest


def test_another_instance_with_the_same_uid_is_refused_by_name(tmp_path: Path) -> None:
    series = builders.ct_series()
    other = builders.with_attributes(series[3:4], SliceThickness="9")
    files = written(tmp_path, series) + written(tmp_path / "other", other)
    assert refusal(files).code == "DUPLICATE_SOP_INSTANCE"


def test_the_input_digest_is_the_same_for_a_stored_copy_with_other_file_meta(tmp_path: Path) -> None:
    sent = written(tmp_path / "sent", builders.ct_series())
    stored_series = builders.ct_series()
    for dataset in stored_series:
        dataset.file_meta.SourceApplicationEntityTitle = "SCANNER"
        dataset.file_meta.ImplementationVersionName = "GATEWAY_1"
    stored = written(tmp_path / "stored", stored_series)
    assert sent[0].read_bytes() != stored[0].read_bytes()
    assert read_series(stored[::-1]).input_digest == read_series(sent).input_digest


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


def test_files_that_are_not_dicom_are_passed_over_in_a_folder(tmp_path: Path) -> None:
    files = written(tmp_path / "deep" / "er", builders.ct_series())
    (tmp_path / "notes.txt").write_text("hello")
    assert find_series(tmp_path) == {builders.uid(1, "series"): files}


def test_a_folder_without_dicom_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(SeriesRefused) as caught:
        find_series(tmp_path)
    assert caught.value.code == "NOT_DICOM"


def test_headers_do_not_keep_the_pixels_in_memory(tmp_path: Path) -> None:
    files = written(tmp_path, builders.ct_series((20, 256, 256)))
    read_series(files)
    tracemalloc.start()
    series = read_series(files)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < series.volume.voxels.nbytes * 1.5


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
    files = real("ct_body_siemens_j2k_totalseg/dicom")
    assert list(find_series(files[0].parent)) == [""]
    series = read_series(files)
    assert all(d.SOPInstanceUID and d.SOPClassUID and d.StudyInstanceUID for d in series.datasets)
    assert NoteCode.IDENTITY_DERIVED in {note.code for note in series.notes}
