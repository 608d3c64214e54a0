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

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import ResultMismatch, SeriesRefused
from ai.geometry import VerdictCode
from ai.model import Prediction, Progress
from ai.pipeline import Outcome, RunOptions, run_series
from ai.results.encode import encode
from ai.volume import LabelArray, Volume
from tests import builders, odd_series, result_sets
from tests import result_checks as checks
from tests.result_sets import BINARY, OVERVIEW, SR, ResultSet, results_of
from tests.runs import CREATED_AT, verify_seg
from tests.validators import dciodvfy_errors

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


class Boxes:
    """A model that answers with boxes: of the volume that it sees, which is put upright if need be."""

    device = "cpu"

    def __init__(self) -> None:
        self.spec = result_sets.card()

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        progress("done", 1.0)
        return Prediction(boxes(channels[0].voxels.shape))


def boxes(shape: tuple[int, int, int]) -> LabelArray:
    """Numbers 1 to 4 in boxes that no flip, transposition or shift maps onto themselves; no 5."""
    labels = np.zeros(shape, np.uint8)
    slices, rows, columns = shape
    labels[:, rows // 8 : rows // 2, columns // 8 : columns - columns // 4] = 1
    labels[: max(1, slices // 2), rows // 6 : rows // 4, columns // 6 : columns // 3] = 2
    labels[slices // 3 :, rows // 4 : rows // 3, columns // 2 : columns // 2 + columns // 8] = 3
    labels[slices - 1, rows - rows // 4, columns - columns // 8] = 4
    return labels


@pytest.fixture(scope="module", params=MADE)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    folder = tmp_path_factory.mktemp("awkward")
    files = builders.write_series(MADE[request.param](), folder / "in")
    return results_of(files, Boxes(), folder / "out", request.param)


def test_dciodvfy_finds_no_error(results: ResultSet) -> None:
    checks.check_dciodvfy(results)


def test_dicom_validator_finds_no_error(results: ResultSet) -> None:
    checks.check_dicom_validator(results)


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(results: ResultSet) -> None:
    checks.check_dcentvfy(results)


def test_highdicom_finds_the_labels_by_source_image_and_frame(results: ResultSet) -> None:
    checks.check_highdicom(results)


def test_dcmqi_gives_back_exactly_our_voxels_where_the_slices_make_a_straight_grid(
    results: ResultSet, tmp_path: Path
) -> None:
    if checks.dcmqi_cannot(results):
        pytest.skip("an image of ITK is neither sheared nor uneven")
    checks.check_dcmqi(results, tmp_path)


def test_tid1500reader_reads_every_measurement(results: ResultSet, tmp_path: Path) -> None:
    checks.check_tid1500reader(results, tmp_path)


def test_dsr2html_shows_summary_findings_and_numbers(results: ResultSet) -> None:
    checks.check_dsr2html(results)


def test_slices_that_are_unevenly_spaced_have_no_spacing_between_them(results: ResultSet) -> None:
    seg = dcmread(results.path(BINARY))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    uneven = VerdictCode.IRREGULAR_SPACING in results.run.series.volume.geometry.needs
    assert ("SpacingBetweenSlices" in measures) is not uneven


def test_report_and_picture_cite_the_instances_of_the_source_alone(results: ResultSet) -> None:
    uids = set(results.run.series.volume.geometry.sop_instance_uids)
    picture = dcmread(results.path(OVERVIEW))
    assert {item.ReferencedSOPInstanceUID for item in picture.SourceImageSequence} <= uids
    report = dcmread(results.path(SR))
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    cited = [item.ReferencedSOPInstanceUID for series in evidence for item in series.ReferencedSOPSequence]
    assert sorted(cited) == sorted([*uids, results.run.instance_uid("seg")])


# -- what would be wrong is caught -----------------------------------------------------------------


@pytest.fixture(scope="module")
def frames(tmp_path_factory: pytest.TempPathFactory) -> ResultSet:
    folder = tmp_path_factory.mktemp("frames")
    return results_of(builders.write_series(MADE["enhanced"](), folder / "in"), Boxes(), folder / "out")


@pytest.mark.parametrize("number", [None, 1, 999])
def test_a_segmentation_that_cites_another_frame_is_caught(frames: ResultSet, number: int | None) -> None:
    seg = copy.deepcopy(dcmread(frames.path(BINARY)))
    cited = seg.PerFrameFunctionalGroupsSequence[-1].DerivationImageSequence[0].SourceImageSequence[0]
    del cited.ReferencedFrameNumber
    if number is not None:
        cited.ReferencedFrameNumber = number
    with pytest.raises(ResultMismatch, match="the source frame of frame"):
        verify_seg(encode(seg, "1.2.3"), frames.run)


def test_one_spacing_for_uneven_slices_is_caught(tmp_path: Path) -> None:
    uneven = results_of(builders.write_series(MADE["uneven"](), tmp_path / "in"), Boxes(), tmp_path / "out")
    seg = dcmread(uneven.path(BINARY))
    measures = seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    measures.SpacingBetweenSlices = uneven.run.series.volume.geometry.spacing_mm[0]
    with pytest.raises(ResultMismatch, match="has one spacing between slices"):
        verify_seg(encode(seg, "1.2.3"), uneven.run)


# -- the parts of one series -----------------------------------------------------------------------


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
            f"AI Layers {word}, {outcome.context.series.part.label} (RUO)"
            for word in ("SEG", "table", "overview")
        ]
        assert name in seg.SeriesDescription
        for result in outcome.results:
            path = tmp_path / f"{result.kind}-{name}.dcm"
            path.write_bytes(result.content)
            assert dciodvfy_errors(path) == set()


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
