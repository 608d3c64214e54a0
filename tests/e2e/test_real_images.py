"""Real images through real peers: DCMTK sends a compressed chest CT, Orthanc gets the results."""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import dcmsend
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

CHEST = Path(__file__).parents[3] / "shared" / "data" / "fixture" / "ct_chest_lidc0314" / "dicom_j2k"


@pytest.mark.skipif(not CHEST.is_dir(), reason="the real images are not here (../shared/data)")
def test_a_real_compressed_chest_ct_comes_back_segmented(tmp_path: Path) -> None:
    with Orthanc(tmp_path / "pacs") as pacs, GatewayProcess(tmp_path / "node", pacs.dicom_port) as gateway:
        dcmsend(gateway.dicom_port, "+sd", str(CHEST), calling="SCANNER", called="AIGW")
        modalities = {"SEG", "SR", "OT"}
        wait_until(lambda: modalities <= pacs.series_by_modality().keys(), 600, f"results; see {gateway.log}")
        results = {m: pacs.file(pacs.series_by_modality()[m][0]["Instances"][0]) for m in sorted(modalities)}
        story = json.loads(gateway.aigw("study", "list", "--json").stdout)["series"][0]

    source = dcmread(next(iter(sorted(CHEST.iterdir()))), stop_before_pixels=True)
    assert story["instances"] == 275
    for modality, content in results.items():
        dataset = dcmread(io.BytesIO(content))
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.PatientID == source.PatientID
        path = tmp_path / f"{modality}.dcm"
        path.write_bytes(content)
        checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []

    volume = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(results["SEG"]))).get_volume(
        combine_segments=True, rescale_fractional=False
    )
    labels = np.asarray(volume.array)
    voxel_ml = float(np.prod(volume.spacing)) / 1000
    left, right = (np.argwhere(labels == number) for number in (2, 3))
    assert len(left) * voxel_ml > 1500
    assert len(right) * voxel_ml > 700, "the right upper lobe is collapsed in this patient"
    centres = [
        volume.map_indices_to_reference(np.rint(side.mean(axis=0, keepdims=True)))[0]
        for side in (left, right)
    ]
    assert centres[0][0] > centres[1][0], "patient left is +x in LPS, in a scan that was taken feet first too"
