"""The one code path from files to results, with a model that knows the truth."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from ai.errors import NotAVolumeError, ResultMismatch, SeriesRefused
from ai.model import ModelSpec, Prediction, Progress, find_card
from ai.pipeline import Outcome, RunOptions, run_series, write_outcome
from ai.results.context import ResultContext
from ai.results.seg import SegObject, build_segs
from ai.volume import LabelArray, Volume
from tests import builders, odd_series
from tests.runs import CREATED_AT

SHAPE, SPACING_MM = (16, 48, 48), (14.0, 8.0, 8.0)
OPTIONS = RunOptions(created_at=CREATED_AT, software_version="1.2.3")


@dataclass(frozen=True)
class KnowingModel:
    """A model that answers with given labels."""

    labels: LabelArray
    spec: ModelSpec
    device: str = "cpu"

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        (volume,) = channels
        assert volume.voxels.shape == self.labels.shape
        progress("body", 0.5)
        progress("done", 1.0)
        return Prediction(self.labels)


def spec() -> ModelSpec:
    card = find_card("ct-tissue")
    accepts = card.accepts.model_copy(update={"maximum_slice_spacing_mm": 20.0})
    return card.model_copy(update={"accepts": accepts})


@dataclass(frozen=True)
class Case:
    files: list[Path]
    labels: npt.NDArray[np.uint8]
    outcome: Outcome
    heard: list[tuple[str, float]]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    series, labels = builders.torso_series("HFS", SHAPE, SPACING_MM)
    labels[labels == 4] = 0  # bone is not found
    files = builders.write_series(series, tmp_path_factory.mktemp("series"))
    heard: list[tuple[str, float]] = []
    outcome = run_series(
        files[::-1], KnowingModel(labels, spec()), OPTIONS, lambda stage, done: heard.append((stage, done))
    )
    return Case(files, labels, outcome, heard)


def run_of(case: Case) -> dict[str, object]:
    found = json.loads(json.dumps(case.outcome.run, allow_nan=False))
    assert isinstance(found, dict)
    return found


def test_the_results_are_seg_sr_and_overview_and_say_what_they_are(case: Case) -> None:
    assert [r.kind for r in case.outcome.results] == ["seg", "sr", "overview"]
    for result in case.outcome.results:
        dataset = dcmread(BytesIO(result.content))
        assert dataset.SOPClassUID == result.sop_class_uid
        assert (
            dataset.SOPInstanceUID == result.sop_instance_uid == dataset.file_meta.MediaStorageSOPInstanceUID
        )
        assert dataset.SeriesInstanceUID == result.series_instance_uid
        assert dataset.file_meta.TransferSyntaxUID == result.transfer_syntax_uid
        assert dataset.Manufacturer == "DICOM AI Gateway"
    assert case.outcome.overview_png.startswith(b"\x89PNG")


def test_the_same_input_gives_the_same_results_byte_for_byte(case: Case) -> None:
    again = run_series(case.files, KnowingModel(case.labels, spec()), OPTIONS, lambda *_: None)
    for first, second in zip(case.outcome.results, again.results, strict=True):
        assert hashlib.sha256(first.content).digest() == hashlib.sha256(second.content).digest(), first.kind
    assert again.overview_png == case.outcome.overview_png


def test_another_version_of_the_model_gives_other_uids(case: Case) -> None:
    other = spec().model_copy(update={"version": "9.9.9"})
    again = run_series(case.files, KnowingModel(case.labels, other), OPTIONS, lambda *_: None)
    assert {r.sop_instance_uid for r in again.results}.isdisjoint(
        r.sop_instance_uid for r in case.outcome.results
    )


def test_every_stage_is_told_in_order_and_timed(case: Case) -> None:
    stages = ["read", "segment", "measure", "write", "verify"]
    assert list(dict.fromkeys(stage for stage, _ in case.heard)) == stages
    assert ("segment", 0.5) in case.heard
    assert [stage for stage, done in case.heard if done == 1.0] == stages
    assert all(0.0 <= done <= 1.0 for _, done in case.heard)
    times = run_of(case)["stage_times_s"]
    assert isinstance(times, dict)
    assert list(times) == stages


def test_the_record_lists_every_structure_found_or_not(case: Case) -> None:
    rows = run_of(case)["segments"]
    assert isinstance(rows, list)
    by_key = {row["key"]: row for row in rows}
    assert [row["number"] for row in rows] == [1, 2, 3, 4, 5]
    assert not by_key["bone"]["found"]
    assert by_key["bone"]["volume_ml"] == 0.0
    assert by_key["bone"]["hu_mean"] is None
    lung = by_key["left_lung"]
    assert lung["found"]
    assert lung["voxel_count"] == np.count_nonzero(case.labels == 2)
    assert lung["volume_ml"] == pytest.approx(lung["voxel_count"] * 14 * 8 * 8 / 1000)
    assert lung["hu_minimum"] <= lung["hu_mean"] <= lung["hu_maximum"]
    assert lung["tracking_uid"] == case.outcome.context.identity.tracking_uids[2]


def test_intensities_that_are_no_hounsfield_units_are_not_recorded_as_such(tmp_path: Path) -> None:
    shape = (4, 16, 16)
    card = spec()
    accepts = card.accepts.model_copy(update={"modalities": ("PT",)})
    model = KnowingModel(np.ones(shape, np.uint8), card.model_copy(update={"accepts": accepts}))
    files = builders.write_series(odd_series.pet_series(shape), tmp_path)
    segments = run_series(files, model, OPTIONS, lambda _stage, _done: None).run["segments"]
    assert isinstance(segments, list)
    assert segments[0]["found"]
    assert segments[0]["volume_ml"] > 0
    assert segments[0]["hu_mean"] is None


def test_the_record_names_source_geometry_model_and_results(case: Case) -> None:
    run = case.outcome.run
    source = run["source"]
    geometry = run["geometry"]
    model = run["model"]
    results = run["results"]
    assert isinstance(source, dict)
    assert isinstance(geometry, dict)
    assert isinstance(model, dict)
    assert isinstance(results, list)
    expected = [str(dcmread(f, stop_before_pixels=True).SOPInstanceUID) for f in case.files]
    assert source["sop_instance_uids"] == expected, "in slice order, although given in reverse"
    assert (geometry["verdict"], geometry["code"], geometry["notes"]) == ("ACCEPTED", "ACCEPTED", [])
    assert geometry["shape"] == list(SHAPE)
    assert geometry["spacing_mm"] == pytest.approx(SPACING_MM)
    np.testing.assert_allclose(geometry["index_to_lps"], builders.affine(SHAPE, SPACING_MM), atol=1e-6)
    assert (model["id"], model["device"]) == ("ct-tissue", "cpu")
    assert [r["sha256"] for r in results] == [
        hashlib.sha256(r.content).hexdigest() for r in case.outcome.results
    ]
    assert [r["notes"] for r in results] == [[] for _ in case.outcome.results]
    assert run["created_at"] == CREATED_AT.isoformat()
    assert run["software_version"] == "1.2.3"


def test_the_record_has_no_patient_attribute(case: Case) -> None:
    text = json.dumps(case.outcome.run)
    header = dcmread(case.files[0], stop_before_pixels=True)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
        assert str(header[keyword].value) not in text


def test_the_outcome_is_written_as_six_files_and_the_mask_is_the_label_map(
    case: Case, tmp_path: Path
) -> None:
    write_outcome(case.outcome, tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert sorted(p.name for p in folder.iterdir()) == [
        "mask.nii.gz",
        "overview.dcm",
        "overview.png",
        "run.json",
        "seg.dcm",
        "sr.dcm",
    ]
    assert json.loads((folder / "run.json").read_text()) == run_of(case)
    assert (folder / "seg.dcm").read_bytes() == case.outcome.results[0].content
    image: Any = nib.load(folder / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), case.labels)


def test_input_that_the_card_does_not_accept_is_refused_before_the_model_runs(tmp_path: Path) -> None:
    series, labels = builders.torso_series("HFS", (4, 16, 16), (14.0, 24.0, 24.0), Modality="MR")
    files = builders.write_series(series, tmp_path)
    with pytest.raises(SeriesRefused) as caught:
        run_series(files, KnowingModel(labels, spec()), OPTIONS, lambda *_: None)
    assert caught.value.code == "INPUT_NOT_ACCEPTED"


def test_a_tilted_series_reaches_the_model_upright_and_its_results_the_source_slices(tmp_path: Path) -> None:
    series = builders.with_sheared_tilt(builders.ct_series((5, 20, 18), (4.0, 1.0, 1.0)), 20.0)
    files = builders.write_series(series, tmp_path)
    upright_shape = (5, 20 + 6, 18)  # 16 mm × tan 20° is 5.8 pixels
    labels = np.zeros(upright_shape, np.uint8)
    labels[:, 10:14, 4:9] = 1
    outcome = run_series(files, KnowingModel(labels, spec()), OPTIONS, lambda *_: None)
    np.testing.assert_array_equal(outcome.mask, labels)
    found = outcome.context.labels
    assert found.shape == (5, 20, 18)
    first_rows = [int(np.flatnonzero(plane.any(axis=1))[0]) for plane in found]
    assert first_rows == [10, 9, 7, 6, 4], "what is straight in the patient creeps on tilted slices"
    assert outcome.context.measurements[0].volume_ml == pytest.approx(5 * 4 * 5 * 4.0 / 1000)


def test_a_tilted_series_is_refused_by_name_where_the_card_does_not_allow_resampling(tmp_path: Path) -> None:
    series = builders.with_sheared_tilt(builders.ct_series((5, 20, 18), (4.0, 1.0, 1.0)), 20.0)
    card = spec()
    accepts = card.accepts.model_copy(update={"resampled": frozenset()})
    model = KnowingModel(np.zeros((5, 20, 18), np.uint8), card.model_copy(update={"accepts": accepts}))
    with pytest.raises(NotAVolumeError) as caught:
        run_series(builders.write_series(series, tmp_path), model, OPTIONS, lambda *_: None)
    assert caught.value.code == "GANTRY_TILT"


def test_a_projection_image_is_refused_by_name_whatever_the_card_takes(tmp_path: Path) -> None:
    """It has no place in the patient that a segmentation could refer to."""
    card = spec()
    accepts = card.accepts.model_copy(update={"modalities": ("DX",), "minimum_slices": 1})
    model = KnowingModel(np.zeros((1, 24, 32), np.uint8), card.model_copy(update={"accepts": accepts}))
    with pytest.raises(NotAVolumeError) as caught:
        run_series(builders.write_series([odd_series.dx_image()], tmp_path), model, OPTIONS, lambda *_: None)
    assert caught.value.code == "PROJECTION_IMAGE"


def test_a_seg_that_differs_when_read_back_stops_the_run(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def flipped(context: ResultContext) -> tuple[SegObject, ...]:
        return build_segs(replace(context, labels=np.ascontiguousarray(context.labels[:, :, ::-1])))

    monkeypatch.setattr("ai.results.write.build_segs", flipped)
    with pytest.raises(ResultMismatch, match="voxels of segment"):
        run_series(case.files, KnowingModel(case.labels, spec()), OPTIONS, lambda *_: None)


def test_what_progress_raises_ends_the_run(case: Case) -> None:
    class Cancelled(Exception):
        pass

    def cancel(stage: str, _done: float) -> None:
        if stage == "segment":
            raise Cancelled

    with pytest.raises(Cancelled):
        run_series(case.files, KnowingModel(case.labels, spec()), OPTIONS, cancel)
