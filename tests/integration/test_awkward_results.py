"""Results of series that are no even upright stack of single images: tilted, uneven, frames, one slice.

The label maps are boxes that no flip or shift hides. Other readers take each SEG apart: dicom3tools for
validity, highdicom for what it says of each source image or frame, dcmqi where the slices make a grid
that ITK can hold.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import ResultMismatch, SeriesRefused
from ai.geometry import VerdictCode
from ai.model import Prediction, Progress, find_card
from ai.pipeline import Outcome, RunOptions, run_series
from ai.results.encode import encode
from ai.results.verify import verify_segmentation
from ai.volume import Volume
from tests import builders, odd_series
from tests.integration.test_result_validity import (
    FIXTURES,
    IODS,
    Results,
    boxes,
    inconsistencies,
    results_of,
    run,
)
from tests.integration.test_result_validity import (
    test_dcmqi_gives_back_exactly_our_voxels_in_patient_space as assert_dcmqi_agrees,
)
from tests.runs import CREATED_AT

SHAPE, SPACING_MM = (12, 40, 36), (10.0, 8.0, 9.0)


def torso() -> list[Dataset]:
    return builders.torso_series("HFS", SHAPE, SPACING_MM)[0]


MADE: dict[str, Callable[[], list[Dataset]]] = {
    "sheared tilt": lambda: builders.with_sheared_tilt(torso(), 15.0),
    "true tilt": lambda: builders.with_true_tilt(torso(), -20.0),
    "uneven": lambda: odd_series.at_heights(torso(), 90.0 * np.linspace(0.0, 1.0, SHAPE[0]) ** 1.5),
    "one slice": lambda: builders.ct_series((1, 30, 34)),
    "enhanced": lambda: [odd_series.enhanced(torso())],
    "enhanced, one frame": lambda: [odd_series.enhanced(builders.ct_series((1, 30, 34)))],
    "enhanced, each frame with its own groups": lambda: [odd_series.enhanced(torso(), shared=False)],
    "enhanced MR, tilted": lambda: [odd_series.enhanced(builders.with_sheared_tilt(torso(), 15.0), "MR")],
}
REAL = {
    "GE head, tilt and two spacings": "ct_head_ge_vartilt",
    "tilted head": "awkward_dicom2nifti/failing_gantrytilting_001",
    "Siemens enhanced MR": "mr_t1_siemens_xa30_enhanced",
    "Philips enhanced MR": "awkward_dicom2nifti/philips_enhanced_anatomical_001",
    "NEMA enhanced CT": "compressed_htj2k_and_enhanced_ct/eCT_Supplemental.dcm",
    "NEMA enhanced MR": "mr_enhanced_nema_multiframe/BRTUM003",
}
# Attributes that results must have, empty, where an anonymised source lacks them; and one that was malformed.
_MENDED = ("PatientBirthDate", "PatientSex", "ReferringPhysicianName", "PatientAge", "DeidentificationMethod")


@pytest.fixture(scope="module", params=[*MADE, *REAL])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("awkward")
    if request.param in MADE:
        return results_of(builders.write_series(MADE[request.param](), folder / "in"), folder / "out")
    source = FIXTURES / REAL[request.param]
    if not source.exists():
        pytest.skip(f"the real images (../shared/data) are not on this machine: {REAL[request.param]}")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if path.is_file())
    return results_of(files, folder / "out")


@pytest.mark.parametrize("kind", IODS)
def test_dciodvfy_finds_no_error(results: Results, kind: str) -> None:
    lines = run("dciodvfy", results.path(kind)).splitlines()
    assert IODS[kind] in lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(results: Results) -> None:
    new = inconsistencies((*results.sources, *map(results.path, IODS))) - inconsistencies(results.sources)
    assert [line for line in new if not any(f"<{keyword}>" in line for keyword in _MENDED)] == []


def test_our_own_check_passes_the_segmentation(results: Results) -> None:
    verify_segmentation(results.path("seg").read_bytes(), results.run)


def test_highdicom_finds_the_labels_by_source_image_and_frame(results: Results) -> None:
    seg = hd.seg.segread(results.path("seg"))
    geometry, labels = results.run.series.volume.geometry, results.run.labels
    numbers = [structure.number for structure in results.run.spec.structures]
    options = {"segment_numbers": numbers, "combine_segments": True, "skip_overlap_checks": True}
    options |= {"assert_missing_frames_are_empty": True, "ignore_spatial_locations": True}
    if len(geometry.frames) > len(geometry.sop_instance_uids):  # all of one frame: no frame is named
        (uid,) = geometry.sop_instance_uids
        frames = [frame.frame_number for frame in geometry.frames]
        found = seg.get_pixels_by_source_frame(uid, frames, **options)
    else:
        uids = [frame.sop_instance_uid for frame in geometry.frames]
        found = seg.get_pixels_by_source_instance(uids, **options)
    np.testing.assert_array_equal(found, labels)


def test_dcmqi_gives_back_exactly_our_voxels_where_the_slices_make_a_straight_grid(
    results: Results, tmp_path: Path
) -> None:
    if results.run.series.volume.geometry.needs:
        pytest.skip("an image of ITK is neither sheared nor uneven")
    assert_dcmqi_agrees(results, tmp_path)


def test_slices_that_are_unevenly_spaced_have_no_spacing_between_them(results: Results) -> None:
    seg = dcmread(results.path("seg"))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    uneven = VerdictCode.IRREGULAR_SPACING in results.run.series.volume.geometry.needs
    assert ("SpacingBetweenSlices" in measures) is not uneven


def test_report_and_picture_cite_the_instances_of_the_source_alone(results: Results) -> None:
    uids = set(results.run.series.volume.geometry.sop_instance_uids)
    picture = dcmread(results.path("overview"))
    assert {item.ReferencedSOPInstanceUID for item in picture.SourceImageSequence} <= uids
    report = dcmread(results.path("sr"))
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    cited = [item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence]
    assert sorted(cited) == sorted([*uids, results.run.instance_uid("seg")])


# -- what would be wrong is caught -----------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("frames")
    return results_of(builders.write_series(MADE["enhanced"](), folder / "in"), folder / "out")


@pytest.mark.parametrize("number", [None, 1, 999])
def test_a_segmentation_that_cites_another_frame_is_caught(frames: Results, number: int | None) -> None:
    seg = copy.deepcopy(dcmread(frames.path("seg")))
    cited = seg.PerFrameFunctionalGroupsSequence[-1].DerivationImageSequence[0].SourceImageSequence[0]
    del cited.ReferencedFrameNumber
    if number is not None:
        cited.ReferencedFrameNumber = number
    with pytest.raises(ResultMismatch, match="the source frame of frame"):
        verify_segmentation(encode(seg, "1.2.3"), frames.run)


def test_one_spacing_for_uneven_slices_is_caught(tmp_path: Path) -> None:
    uneven = results_of(builders.write_series(MADE["uneven"](), tmp_path / "in"), tmp_path / "out")
    seg = dcmread(uneven.path("seg"))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = uneven.run.series.volume.geometry.spacing_mm[0]
    with pytest.raises(ResultMismatch, match="has one spacing between slices"):
        verify_segmentation(encode(seg, "1.2.3"), uneven.run)


# -- the parts of one series -----------------------------------------------------------------------


class Boxes:
    """A model that answers with boxes."""

    spec = find_card("ct-tissue")
    device = "cpu"

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        progress("done", 1.0)
        return Prediction(boxes(channels[0].voxels.shape))


@pytest.fixture(scope="module")
def two_stacks(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    image = odd_series.enhanced(torso(), stacks=[1] * 5 + [2] * 7)
    return builders.write_series([image], tmp_path_factory.mktemp("stacks"))


def run_part(files: list[Path], key: str) -> Outcome:
    return run_series(files, Boxes(), RunOptions(CREATED_AT, "1.2.3", part_key=key), lambda *_: None)


def test_a_part_must_be_chosen_where_there_are_several(two_stacks: list[Path]) -> None:
    with pytest.raises(SeriesRefused, match=r"SEVERAL_VOLUMES: .*StackID=1, StackID=2"):
        run_part(two_stacks, "")
    with pytest.raises(SeriesRefused, match=r"PART_NOT_FOUND: .*StackID=3"):
        run_part(two_stacks, "StackID=3")


def test_two_stacks_of_one_file_have_results_of_their_own(two_stacks: list[Path], tmp_path: Path) -> None:
    first, second = run_part(two_stacks, "StackID=1"), run_part(two_stacks, "StackID=2")
    uids = [r.sop_instance_uid for outcome in (first, second) for r in outcome.results]
    uids += [r.series_instance_uid for outcome in (first, second) for r in outcome.results]
    assert len(set(uids)) == len(uids)
    assert first.run["source"]["part"] == "StackID=1"  # type: ignore[index]
    for outcome, frames, name in ((first, range(1, 6), "1"), (second, range(6, 13), "2")):
        seg, sr, overview = (dcmread(BytesIO(result.content)) for result in outcome.results)
        assert list(seg.SourceImageSequence[0].ReferencedFrameNumber) == list(frames)
        assert [d.SeriesDescription for d in (seg, sr, overview)] == [
            f"AI CT tissue {word}, {outcome.context.series.part.label} (RUO)"
            for word in ("SEG", "table", "overview")
        ]
        assert name in seg.SeriesDescription
        for result in outcome.results:
            path = tmp_path / f"{result.kind}-{name}.dcm"
            path.write_bytes(result.content)
            found = run("dciodvfy", path).splitlines()
            assert [line for line in found if line.startswith("Error")] == []


def test_the_record_tells_the_verdict_on_a_tilted_series(tmp_path: Path) -> None:
    files = builders.write_series(MADE["sheared tilt"](), tmp_path)
    outcome = run_part(files, "")
    geometry = outcome.run["geometry"]
    assert isinstance(geometry, dict)
    assert (geometry["verdict"], geometry["code"]) == ("FIXED", "GANTRY_TILT")
    assert "tilted by 15.0°" in str(geometry["reason"])
    assert outcome.mask_geometry.needs == (), "the NIfTI mask is on the upright grid"
    assert outcome.mask.shape == outcome.mask_geometry.shape
    report = dcmread(BytesIO(outcome.results[1].content))
    comments = [str(item.TextValue) for item in report.ContentSequence if item.ValueType == "TEXT"]
    assert any("FIXED, GANTRY_TILT" in text and "tilted by 15.0°" in text for text in comments)
