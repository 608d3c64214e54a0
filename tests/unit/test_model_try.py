"""``aigw model try``: a model on cases, without a PACS."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from ai.errors import ModelError
from ai.model import ModelSpec, Prediction, Progress, find_card, list_cards
from ai.nifti import write_nifti
from ai.nifti_run import run_nifti, write_nifti_outcome
from ai.pipeline import RunOptions
from ai.volume import Volume, read_series
from gateway.cli.app import build_app
from gateway.cli.trial import Wanted, plan, try_case
from tests import builders
from tests.runs import CREATED_AT

SHAPE, SPACING_MM = (32, 64, 64), (8.0, 6.0, 6.0)
OPTIONS = RunOptions(created_at=CREATED_AT, software_version="1.2.3")
CARD = find_card("ct-tissue")


@dataclass(frozen=True)
class Torso:
    """The same torso as a series and as NIfTI, with its true labels."""

    dicom: Path
    images: Path
    truths: Path


@pytest.fixture(scope="module")
def torso(tmp_path_factory: pytest.TempPathFactory) -> Torso:
    """Case ``a`` as scanned, ``b`` the same stored with other axes, ``c`` damaged."""
    folder = tmp_path_factory.mktemp("torso")
    series, labels = builders.torso_series("HFS", SHAPE, SPACING_MM)
    files = builders.write_series(series, folder / "dicom")
    volume = read_series(files).volume
    (folder / "images").mkdir()
    (folder / "truths").mkdir()
    write_nifti(folder / "images" / "a.nii.gz", volume.voxels, volume.geometry)
    write_nifti(folder / "truths" / "a.nii.gz", labels, volume.geometry)
    for name in ("images", "truths"):
        image = nib.load(folder / name / "a.nii.gz")
        turned = nib.as_closest_canonical(image)
        nib.save(turned, folder / name / "b.nii.gz")
    (folder / "images" / "c.nii.gz").write_bytes((folder / "images" / "a.nii.gz").read_bytes()[:500])
    write_nifti(folder / "truths" / "c.nii.gz", labels, volume.geometry)
    return Torso(folder / "dicom", folder / "images", folder / "truths")


def run(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(build_app("model"), ["model", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture(scope="module")
def folder_run(torso: Torso, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path, int]:
    out = tmp_path_factory.mktemp("out")
    code, text, _ = run(
        *(
            "try",
            "ct-tissue",
            torso.images,
            "--truth",
            torso.truths,
            "--out",
            out,
            "--device",
            "cpu",
            "--json",
        )
    )
    return json.loads(text), out, code


@pytest.fixture(scope="module")
def dicom_run(torso: Torso, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, object], Path]:
    out = tmp_path_factory.mktemp("out")
    code, text, _ = run(
        *("try", "ct-tissue", torso.dicom, "--truth", torso.truths / "a.nii.gz", "--out", out, "--json")
    )
    assert code == 0
    return json.loads(text), out


def test_the_record_has_every_case_with_its_metrics(folder_run: tuple[dict, Path, int]) -> None:
    told, _, _ = folder_run
    assert (told["model"], told["version"], told["device"]) == ("ct-tissue", CARD.version, "cpu")
    assert [case["name"] for case in told["cases"]] == ["a", "b", "c"]
    first = told["cases"][0]
    assert [row["key"] for row in first["structures"]] == [s.key for s in CARD.structures]
    for row in first["structures"]:
        if row["key"] in ("left_lung", "right_lung", "body"):
            assert row["dice"] > 0.9
            assert row["jaccard"] == pytest.approx(row["dice"] / (2 - row["dice"]))
            assert 0 <= row["hausdorff95_mm"] < 20
            assert 0 < row["surface_dice"] <= 1
            assert row["difference_ml"] == pytest.approx(row["volume_ml"] - row["truth_volume_ml"])
    known = [row["dice"] for row in first["structures"] if row["dice"] is not None]
    assert first["mean_dice"] == pytest.approx(np.mean(known))
    assert first["worst_dice"] == min(known)
    assert first["seconds"] > 0
    assert first["error"] is None
    assert first["notes"][0].endswith("it was taken for CT.")


def test_a_damaged_case_is_named_and_the_others_count(folder_run: tuple[dict, Path, int]) -> None:
    told, out, code = folder_run
    assert code == 3
    assert told["cases"][2]["error"]["code"] == "NIFTI_UNREADABLE"
    assert told["cases"][2]["structures"] == []
    means = [case["mean_dice"] for case in told["cases"][:2]]
    assert told["mean_dice"] == pytest.approx(np.mean(means))
    assert told["worst_dice"] == min(means)
    assert told["worst_case"] in ("a", "b")
    assert not (out / "c" / "mask.nii.gz").exists()


def test_masks_lie_on_the_grid_of_their_file(folder_run: tuple[dict, Path, int], torso: Torso) -> None:
    _, out, _ = folder_run
    for name in "ab":
        source, mask = nib.load(torso.images / f"{name}.nii.gz"), nib.load(out / name / "mask.nii.gz")
        assert mask.shape == source.shape
        np.testing.assert_array_equal(mask.affine, source.affine)
        record = json.loads((out / name / "run.json").read_text(encoding="utf-8"))
        assert record["source"]["files"] == [f"{name}.nii.gz"]


def test_what_was_written_compares_to_the_same_numbers(
    folder_run: tuple[dict, Path, int], torso: Torso
) -> None:
    told, out, _ = folder_run
    code, text, _ = run("compare", out, torso.truths, "--json")
    assert code == 0
    again = json.loads(text)
    assert again["only_in_truths"] == ["c"]
    assert again["mean_dice"] == pytest.approx(told["mean_dice"])
    assert (again["worst_dice"], again["worst_case"]) == (told["worst_dice"], told["worst_case"])


def test_dicom_and_nifti_of_one_image_give_the_same_labels(
    folder_run: tuple[dict, Path, int], dicom_run: tuple[dict, Path]
) -> None:
    told, out, _ = folder_run
    dicom, dicom_out = dicom_run
    one, other = (nib.load(folder / "mask.nii.gz") for folder in (out / "a", dicom_out))
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine, atol=1e-4)
    turned = nib.as_closest_canonical(other)
    stored_otherwise = nib.load(out / "b" / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored_otherwise.dataobj), np.asarray(turned.dataobj))
    for a, b in zip(dicom["cases"][0]["structures"], told["cases"][0]["structures"], strict=True):
        assert a["dice"] == pytest.approx(b["dice"])
        assert a["volume_ml"] == pytest.approx(b["volume_ml"])


def test_a_series_leaves_the_results_of_a_run(dicom_run: tuple[dict, Path]) -> None:
    _, out = dicom_run
    expected = {"seg.dcm", "sr.dcm", "overview.dcm", "overview.png", "mask.nii.gz", "run.json"}
    assert {path.name for path in out.iterdir()} == expected
    code, text, _ = run("compare", out / "seg.dcm", out / "mask.nii.gz", "--json")
    assert code == 0
    dice = [row["dice"] for row in json.loads(text)["cases"][0]["structures"]]
    assert {value for value in dice if value is not None} == {1.0}


@pytest.fixture
def strict_card(tmp_path: Path) -> Path:
    """The card of ct-tissue, never added, with a rule that nobody can keep."""
    fields = yaml.safe_load(list_cards()["ct-tissue"].read_text(encoding="utf-8"))
    fields["quality"] = [{"kind": "volume_ml", "structures": ["body"], "minimum": 1e6, "verdict": "FAIL"}]
    (tmp_path / "model").mkdir()
    card = tmp_path / "model" / "ct-tissue.yaml"
    card.write_text(yaml.safe_dump(fields), encoding="utf-8")
    return card


def test_people_get_a_table_and_a_card_may_be_a_file(torso: Torso, strict_card: Path) -> None:
    code, text, _ = run(
        *("try", strict_card, torso.images / "a.nii.gz", "--truth", torso.truths / "a.nii.gz"),
        *("--merge", "2=2", "--deterministic"),
    )
    assert code == 0
    for words in ("Left lung", "surface Dice", "HD95 mm", "mean Dice 0.", "worst case 0.", "(a)"):
        assert words in text
    assert "a: FAIL: Body: " in text


def test_a_folder_of_a_model_that_was_never_added_is_tried(torso: Torso, strict_card: Path) -> None:
    code, text, _ = run("try", strict_card.parent, torso.images / "a.nii.gz", "--json")
    assert code == 0
    (case,) = json.loads(text)["cases"]
    rows = [(row["rule"], row["verdict"]) for row in case["quality"]]
    assert rows[0] == ("volume_ml", "FAIL")
    assert {rule for rule, _ in rows[1:]} <= {"complete", "left_right"}, "what is asked of every result"
    assert case["mean_dice"] is None


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (("ct-tisue", "images"), 5, "UNKNOWN_MODEL"),
        (("ct-tissue", "absent"), 5, "FILE_NOT_FOUND"),
        (("ct-tissue", "images", "--truth", "dicom"), 5, "TRUTH_NOT_FOUND"),
        (("ct-tissue", "images", "--device", "tpu"), 2, "DEVICE_UNKNOWN"),
        (("ct-tissue", "dicom", "--series", "1.2.3"), 5, "SERIES_NOT_FOUND"),
        (("ct-tissue", "dicom", "--part", "x"), 1, "PART_NOT_FOUND"),
    ],
)
def test_what_cannot_be_tried_is_named(
    torso: Torso, arguments: tuple[str, ...], code: int, name: str
) -> None:
    known = {"images": torso.images, "dicom": torso.dicom, "absent": torso.dicom / "absent"}
    found, text, errors = run("try", *(known.get(word, word) for word in arguments))
    assert found == code
    assert name in text + errors


# The rest with models that are made up for the question.


@dataclass(frozen=True)
class Thresholds:
    """Structure 1 where the first channel is above 10, structure 2 where the last is."""

    spec: ModelSpec
    device: str = "cpu"

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        progress("threshold", 0.5)
        labels = np.zeros(channels[0].voxels.shape, np.uint8)
        labels[channels[0].voxels > 10] = 1
        if len(channels) > 1:
            labels[channels[-1].voxels > 10] = 2
        if channels[0].voxels.max() == 99:
            raise RuntimeError("out of memory\nand a long trace")
        return Prediction(labels, scalars={"share": 0.25})


def spec(channels: Sequence[str] = ("image",), **accepts: object) -> ModelSpec:
    fields = {"modalities": ("MR",), "channels": tuple(channels), "maximum_slice_spacing_mm": 4.0, **accepts}
    return CARD.model_copy(update={"accepts": CARD.accepts.model_copy(update=fields)})


def save(path: Path, array: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 2.0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*spacing, 1.0])), path)
    return path


def square(start: int) -> np.ndarray:
    array = np.zeros((10, 11, 6), np.int16)
    array[start : start + 4, 3:7, 2:5] = 20
    return array


def test_channels_are_found_by_their_numbers(tmp_path: Path) -> None:
    for name, start in (("x", 1), ("y", 3)):
        for channel in range(2):
            save(tmp_path / "in" / f"{name}_000{channel}.nii.gz", square(start + 2 * channel))
        both = np.where(square(start + 2) > 0, 2, square(start) // 20).astype(np.uint8)
        save(tmp_path / "truth" / f"{name}.nii.gz", both)
    found = plan(tmp_path / "in", tmp_path / "truth", None, channels=2)
    assert [(case.name, len(case.files)) for case in found.cases] == [("x", 2), ("y", 2)]
    model = Thresholds(spec(("T1", "T2")))
    for case in found.cases:
        report = try_case(case, model, Wanted(), lambda *_: None, None).to_dict()
        assert [row["dice"] for row in report["structures"]][:2] == [1.0, 1.0]
        assert report["scalars"] == {"share": 0.25}


def test_a_number_at_the_end_of_a_name_is_no_channel_where_the_model_takes_one(tmp_path: Path) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"liver_000{number}.nii.gz", square(number))
        save(tmp_path / "truth" / f"liver_000{number}.nii.gz", square(number) // 20)
    found = plan(tmp_path / "in", tmp_path / "truth", None, channels=1)
    assert [case.name for case in found.cases] == ["liver_0000", "liver_0001", "liver_0002"]
    assert all(case.truth is not None for case in found.cases)
    save(tmp_path / "nnunet" / "a_0000.nii.gz", square(1))
    save(tmp_path / "labels" / "a.nii.gz", square(1) // 20)
    (case,) = plan(tmp_path / "nnunet", tmp_path / "labels", None, channels=1).cases
    assert (case.name, case.truth) == ("a", tmp_path / "labels" / "a.nii.gz")


def test_cases_without_truth_are_run_and_told(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "in" / f"{name}.nii", square(2))
    save(tmp_path / "truth" / "a.nii.gz", square(2) // 20)
    found = plan(tmp_path / "in", tmp_path / "truth", None, channels=1)
    assert found.notes == ("Without a truth: b.",)
    reports = [try_case(case, Thresholds(spec()), Wanted(), lambda *_: None, None) for case in found.cases]
    assert [report.to_dict()["mean_dice"] for report in reports] == [1.0, None]


def test_a_model_that_breaks_on_one_case_is_reported(tmp_path: Path) -> None:
    image = square(2)
    image[0, 0, 0] = 99
    (case,) = plan(save(tmp_path / "a.nii", image), None, None, channels=1).cases
    report = try_case(case, Thresholds(spec()), Wanted(), lambda *_: None, None)
    assert report.error == {"code": "MODEL_FAILED", "reason": "RuntimeError: out of memory"}


@pytest.mark.parametrize(
    ("accepts", "spacing", "code"),
    [
        ({}, (1.0, 1.0, 5.0), "SLICES_TOO_FAR_APART"),
        ({"minimum_slices": 7}, (1.0, 1.0, 2.0), "TOO_FEW_SLICES"),
        ({"maximum_pixel_spacing_mm": 0.9}, (1.0, 1.0, 2.0), "INPUT_NOT_ACCEPTED"),
        ({"channels": ("T1", "T2")}, (1.0, 1.0, 2.0), "CHANNELS_DO_NOT_FIT"),
    ],
)
def test_limits_of_the_card_hold_for_nifti_too(
    tmp_path: Path, accepts: dict[str, object], spacing: tuple[float, float, float], code: str
) -> None:
    path = save(tmp_path / "a.nii", square(2), spacing)
    (case,) = plan(path, None, None, channels=1).cases
    report = try_case(case, Thresholds(spec(**accepts)), Wanted(), lambda *_: None, None)
    assert report.error is not None
    assert report.error["code"] == code


def test_what_a_file_does_not_say_is_taken_as_the_card_asks_and_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", square(2))
    asked = spec(contrast="required", body_parts=("HEAD",))
    outcome = run_nifti([path], Thresholds(asked), OPTIONS, lambda *_: None)
    assert outcome.run["notes"] == [
        "A NIfTI file does not say its modality; it was taken for MR.",
        "Nor does it say whether there was a contrast agent: required is assumed.",
    ]
    assert outcome.image.channels[0].unit == ""
    assert outcome.run["segments"][0]["hu_mean"] is None  # type: ignore[index]


def test_stages_are_told_in_order(tmp_path: Path) -> None:
    heard: list[tuple[str, float]] = []
    path = save(tmp_path / "a.nii", square(2))
    run_nifti([path], Thresholds(spec()), OPTIONS, lambda stage, done: heard.append((stage, done)))
    assert list(dict.fromkeys(stage for stage, _ in heard)) == ["read", "segment", "measure"]
    assert ("segment", 0.5) in heard


def test_an_answer_of_another_shape_is_refused(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Wrong(Thresholds):
        def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:  # noqa: ARG002
            return Prediction(np.zeros((2, 2, 2), np.uint8))

    with pytest.raises(ModelError, match="MODEL_OUTPUT_INVALID"):
        run_nifti([save(tmp_path / "a.nii", square(2))], Wrong(spec()), OPTIONS, lambda *_: None)


def test_the_labels_of_a_four_dimensional_file_have_its_first_three_sides(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", np.stack([square(1), square(3)], axis=3))
    outcome = run_nifti([path], Thresholds(spec(("T1", "T2"))), OPTIONS, lambda *_: None)
    write_nifti_outcome(outcome, tmp_path / "out")
    mask = np.asarray(nib.load(tmp_path / "out" / "mask.nii.gz").dataobj)
    np.testing.assert_array_equal(mask, np.where(square(3) > 0, 2, square(1) // 20))
