"""The learned model that ships: over DICOM and over NIfTI, by us and by stock MONAI."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from pydicom import dcmread

from ai.errors import SeriesRefused
from ai.loaders import InProcess, load_model
from ai.measure import dice
from ai.model import ModelSpec, PinnedFiles, check_input, find_card
from ai.model.protocol import Model
from ai.pipeline import Outcome, RunOptions, run_series
from ai.volume import Volume
from tests.bundles import answer
from tests.runs import even_geometry
from training.hippocampus.pack import pack

SHARED = Path(__file__).parents[3] / "shared" / "data"
DICOM = SHARED / "fixture" / "mr_hippocrop_dicom"
TRAINING = SHARED / "training" / "mr_hippocampus_msd_200"
ANTERIOR, POSTERIOR = 1, 2

needs_dicom = pytest.mark.skipif(not DICOM.is_dir(), reason="the real images are not here (../shared/data)")
needs_cases = pytest.mark.skipif(
    not TRAINING.is_dir(), reason="the training cases are not here (../shared/data)"
)


@pytest.fixture(scope="module")
def spec() -> ModelSpec:
    return find_card("hippocampus")


@pytest.fixture(scope="module")
def model(spec: ModelSpec) -> Model:
    return load_model(spec, "cpu")


@pytest.fixture(scope="module")
def outcome(model: Model) -> Outcome:
    options = RunOptions(created_at=datetime(2026, 3, 4, tzinfo=UTC), software_version="1.2.3")
    return run_series(sorted(DICOM.iterdir()), InProcess(model), options, lambda _stage, _done: None)


@pytest.fixture(scope="module")
def nifti(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images as NIfTI, made by dcm2niix."""
    folder = tmp_path_factory.mktemp("nifti")
    tool = Path(sys.executable).with_name("dcm2niix")
    command = [str(tool), "-f", "crop", "-o", str(folder), str(DICOM)]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = folder.glob("*.nii")
    return path


def volume_of(path: Path) -> Volume:
    """A NIfTI image as a model sees it."""
    image = nib.load(path)
    voxels = np.asarray(image.dataobj).transpose(2, 1, 0)
    index_to_lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine[:, [2, 1, 0, 3]]
    values = voxels.astype(np.float32) if voxels.dtype != np.int16 else voxels
    return Volume(np.ascontiguousarray(values), even_geometry(index_to_lps, voxels.shape), "")


def volumes_ml(labels: np.ndarray, voxel_ml: float) -> np.ndarray:
    return np.array([(labels == number).sum() * voxel_ml for number in (ANTERIOR, POSTERIOR)])


@needs_dicom
def test_the_volumes_over_dicom_are_those_over_nifti(outcome: Outcome, model: Model, nifti: Path) -> None:
    over_dicom = np.array([row["volume_ml"] for row in outcome.run["segments"]])
    volume = volume_of(nifti)
    over_nifti = volumes_ml(answer(model, [volume]), float(np.prod(volume.geometry.spacing_mm)) / 1000)
    assert np.all(over_dicom > 0.5), "a flip that is missing shrinks the posterior part four- to eightfold"
    assert np.allclose(over_dicom, over_nifti, rtol=0.05)


@needs_dicom
def test_the_anterior_part_lies_in_front(outcome: Outcome) -> None:
    centres = [
        outcome.mask_geometry.index_to_lps @ [*np.argwhere(outcome.mask == number).mean(0), 1.0]
        for number in (ANTERIOR, POSTERIOR)
    ]
    assert centres[0][1] < centres[1][1] - 8, "patient posterior is +y in LPS"


@needs_dicom
def test_results_are_written_for_mr_and_the_quality_rules_pass(outcome: Outcome) -> None:
    """run_series verifies the SEG against the mask in patient space before it returns."""
    seg, sr, _ = outcome.results
    found = dcmread(io.BytesIO(seg.content))
    kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in found.SegmentSequence]
    parts = [kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue for kind in kinds]
    assert [kind.CodeValue for kind in kinds] == ["5366008", "5366008"]
    assert parts == ["255549009", "255551008"]
    assert "hounsfield" not in str(dcmread(io.BytesIO(sr.content))).lower()
    assert {row["hu_mean"] for row in outcome.run["segments"]} == {None}
    assert {row["verdict"] for row in outcome.run["quality"]} == {"PASS"}


@needs_dicom
def test_stock_monai_runs_the_bundle_and_finds_the_same(
    spec: ModelSpec, model: Model, nifti: Path, tmp_path: Path
) -> None:
    """``monai.bundle.run`` as its documentation says, in a process of its own, on a folder of NIfTI files."""
    folder = PinnedFiles(spec).folder
    code = (
        "import sys; from monai.bundle import run; "
        "run(run_id='run', init_id='initialize', config_file=sys.argv[1], meta_file=sys.argv[2], "
        "bundle_root=sys.argv[3], dataset_dir=sys.argv[4], output_dir=sys.argv[5])"
    )
    files = [str(folder / "configs" / name) for name in ("inference.json", "metadata.json")]
    arguments = [*files, str(folder), str(nifti.parent), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (written,) = tmp_path.rglob("*.nii.gz")
    theirs = np.asarray(nib.load(written).dataobj).transpose(2, 1, 0)
    mine = answer(model, [volume_of(nifti)])
    assert (mine == theirs).mean() >= 0.999
    assert np.allclose(volumes_ml(mine, 1.0), volumes_ml(theirs, 1.0), rtol=0.02)


@needs_cases
def test_training_cases_are_found_again(model: Model) -> None:
    """In-sample: the weights have seen these cases. What the model is worth says the cross-validation."""
    paths = sorted((TRAINING / "images").glob("*.nii.gz"))[::50]
    scores = []
    for path in paths:
        truth = volume_of(TRAINING / "labels" / path.name).voxels
        found = answer(model, [volume_of(path)])
        scores.append([dice(found == number, truth == number) for number in (ANTERIOR, POSTERIOR)])
    assert len(scores) == 4
    assert np.mean(scores) > 0.88
    assert np.min(scores) > 0.80


@needs_cases
@pytest.mark.parametrize("flip", [(1,), (0, 1, 2)])
def test_the_array_order_of_a_case_does_not_matter(model: Model, flip: tuple[int, ...]) -> None:
    """The same image stored along other directions, and its affine accordingly, is the same patient."""
    path = min((TRAINING / "images").glob("*.nii.gz"))
    volume = volume_of(path)
    matrix = volume.geometry.index_to_lps.copy()
    for axis in flip:
        matrix[:, 3] += matrix[:, axis] * (volume.voxels.shape[axis] - 1)
        matrix[:, axis] *= -1
    flipped = Volume(
        np.ascontiguousarray(np.flip(volume.voxels, flip)), even_geometry(matrix, volume.voxels.shape), ""
    )
    assert np.array_equal(np.flip(answer(model, [flipped]), flip), answer(model, [volume]))


def test_a_whole_head_is_refused_in_a_clear_sentence(spec: ModelSpec) -> None:
    whole = even_geometry(np.diag([1.0, 1.0, 1.0, 1.0]), (256, 256, 176))
    with pytest.raises(SeriesRefused, match=r"hippocampus.*at most 70 mm right-left.*spans 176 mm"):
        check_input(spec, {"Modality": ("MR",)}, whole)


def test_the_weights_are_small_and_pinned(spec: ModelSpec) -> None:
    files = PinnedFiles(spec)
    assert files.verify() == ()
    assert sum((files.folder / name).stat().st_size for name in files.names) < 10_000_000
    on_disk = {p.relative_to(files.folder).as_posix() for p in files.folder.rglob("*") if p.is_file()}
    assert on_disk == set(files.names), "everything in the folder is pinned"
    assert "CC BY-SA 4.0" in files.read("LICENSE").decode()
    for text in (files.read("LICENSE"), files.read("docs/README.md"), spec.references[0].encode()):
        assert b"1902.09063" in text


def test_the_score_in_the_card_is_that_of_the_bundle(spec: ModelSpec) -> None:
    metadata = json.loads(PinnedFiles(spec).read("configs/metadata.json"))
    scored = metadata["eval_metrics"]["cross_validation"]
    assert scored["mean_dice"] >= 0.88
    assert scored["number_of_cases"] == 200
    for key in ("mean_dice", "anterior_dice", "posterior_dice", "worst_dice"):
        assert f"{scored[key]:.3f}" in spec.limits[0]
        assert f"{scored[key]:.3f}" in PinnedFiles(spec).read("docs/README.md").decode()
        assert f"{scored[key]:.3f}" in (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_packing_gives_the_same_bytes_and_numbers_from_the_scores_only(
    spec: ModelSpec, tmp_path: Path
) -> None:
    data, trained = tmp_path / "data", tmp_path / "trained"
    (data / "labels").mkdir(parents=True)
    trained.mkdir()
    labels = np.zeros((30, 44, 28), np.uint8)
    labels[8:20, 24:36, 8:18] = ANTERIOR
    labels[8:20, 10:24, 8:16] = POSTERIOR
    for number in range(3):
        nib.save(nib.Nifti1Image(labels, np.eye(4)), data / "labels" / f"{number}.nii.gz")
    (trained / "model.pt").write_bytes(PinnedFiles(spec).read("models/model.pt"))
    scores = {
        "number_of_cases": 3,
        "folds": 5,
        "mean_dice": 0.8765,
        "anterior_dice": 0.8864,
        "posterior_dice": 0.8666,
        "worst_dice": 0.7123,
        "worst_case": "b",
        "cases": {"a": [0.9, 0.9], "b": [0.7, 0.72], "c": [0.9, 0.89]},
    }
    (trained / "scores.json").write_text(json.dumps(scores))
    cards = [pack(data, trained, tmp_path / name) for name in ("one", "two")]
    assert cards[0].read_bytes() == cards[1].read_bytes(), "it pins the hash of every file"
    packed = find_card("hippocampus", (tmp_path / "one",))
    assert PinnedFiles(packed).verify() == ()
    assert "0.876" in packed.limits[0] or "0.877" in packed.limits[0]
    assert "0.712" in packed.limits[0]
    assert packed.limits[1].startswith("1 of the 3 cases")
    volume = next(rule for rule in packed.quality if rule.structures == ("anterior_hippocampus",))
    assert volume.minimum == pytest.approx(1.44 * 0.75, abs=0.01)
    assert volume.maximum == pytest.approx(1.44 * 1.25, abs=0.01)
    assert torch.load(io.BytesIO(PinnedFiles(packed).read("models/model.pt")), weights_only=True).keys()
