"""The sample CT: deterministic, anatomically ordered, valid, and hard in the ways it promises."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread

from ai.sample import SampleTruth, write_sample_series
from ai.torso import BODY, BONE, LEFT_LUNG, METAL, RIGHT_LUNG
from ai.volume import read_series


def _write(folder: Path, seed: int = 1) -> SampleTruth:
    return write_sample_series(folder, seed=seed, shape=(50, 128, 128), spacing_mm=(5.0, 3.0, 3.0))


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> SampleTruth:
    return _write(tmp_path_factory.mktemp("sample"))


@pytest.fixture(scope="module")
def voxels(sample: SampleTruth) -> npt.NDArray[np.float32]:
    return read_series(sample.files).volume.voxels.astype(np.float32)


def _digests(sample: SampleTruth) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sample.files]


def test_the_same_seed_writes_the_same_bytes(sample: SampleTruth, tmp_path: Path) -> None:
    assert _digests(_write(tmp_path)) == _digests(sample)


def test_another_seed_is_another_study(sample: SampleTruth, tmp_path: Path) -> None:
    other = _write(tmp_path, seed=2)
    assert other.study_instance_uid != sample.study_instance_uid
    uids = {dcmread(path, stop_before_pixels=True).SOPInstanceUID for path in (*sample.files, *other.files)}
    assert len(uids) == 100


def test_the_files_make_the_volume_that_the_truth_describes(sample: SampleTruth) -> None:
    series = read_series(sample.files[::-1])
    np.testing.assert_allclose(series.volume.geometry.index_to_lps, sample.index_to_lps, atol=1e-3)
    assert series.volume.voxels.shape == sample.labels.shape
    assert series.volume.unit == "HU"
    assert series.notes == ()


def test_each_lung_is_on_its_side_and_the_right_one_is_larger(sample: SampleTruth) -> None:
    x = sample.index_to_lps[0, 3] + 3.0 * np.arange(128)
    left, right = (x[np.nonzero(sample.labels == lung)[2]] for lung in (LEFT_LUNG, RIGHT_LUNG))
    assert right.max() < 0 < left.min()  # LPS: x grows towards the patient's left
    assert 1.1 < right.size / left.size < 1.4


def test_structures_have_the_ct_numbers_of_their_tissue(
    sample: SampleTruth, voxels: npt.NDArray[np.float32]
) -> None:
    mean = {n: float(voxels[sample.labels == n].mean()) for n in (0, BODY, LEFT_LUNG, RIGHT_LUNG, BONE)}
    assert -1010 < mean[0] < -950
    assert -880 < mean[LEFT_LUNG] < -790
    assert -880 < mean[RIGHT_LUNG] < -790
    assert -60 < mean[BODY] < 40
    assert mean[BONE] > 300
    assert (voxels[sample.labels == METAL] >= 3000).all()


def test_gas_inside_the_body_is_not_lung(sample: SampleTruth, voxels: npt.NDArray[np.float32]) -> None:
    gas = (sample.labels == BODY) & (voxels < -900)
    heights = np.nonzero(gas)[0]
    assert (heights < 15).any()  # stomach and bowel
    assert (heights > 40).any()  # trachea


def test_the_lungs_nearly_touch_in_front(sample: SampleTruth) -> None:
    nearest = min(
        np.nonzero(sample.labels[i, j] == LEFT_LUNG)[0].min()
        - np.nonzero(sample.labels[i, j] == RIGHT_LUNG)[0].max()
        for i in range(28, 36)
        for j in range(36, 50)
        if (sample.labels[i, j] == LEFT_LUNG).any() and (sample.labels[i, j] == RIGHT_LUNG).any()
    )
    assert nearest <= 2


def test_there_is_air_between_the_patient_and_the_table(
    sample: SampleTruth, voxels: npt.NDArray[np.float32]
) -> None:
    column, labels = voxels[25, :, 64], sample.labels[25, :, 64]
    skin = np.nonzero(labels)[0].max()
    table = skin + 2 + np.nonzero(column[skin + 2 :] > -600)[0].min()
    assert column[skin + 2 : table].size >= 2
    assert (column[skin + 2 : table - 1] < -850).all()


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (dicom3tools) is not installed")
def test_dciodvfy_finds_no_error_in_a_slice(sample: SampleTruth) -> None:
    said = subprocess.run(
        ["dciodvfy", str(sample.files[7])], capture_output=True, text=True, check=False, timeout=60
    )
    assert "CTImage" in said.stderr + said.stdout
    assert "Error" not in said.stderr + said.stdout
