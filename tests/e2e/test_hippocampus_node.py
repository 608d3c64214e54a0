"""MR through the whole node: DCMTK sends the crop, the learned model runs, Orthanc gets the results."""

from __future__ import annotations

import io
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import dcmsend
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

CROP = Path(__file__).parents[3] / "shared" / "data" / "fixture" / "mr_hippocrop_dicom"
MR_CONFIGURATION = CONFIGURATION.replace(
    "  tissue: {card: ct-tissue}\n", "  tissue: {card: ct-tissue}\n  hippo: {card: hippocampus}\n"
).replace(
    "routes:\n",
    "routes:\n  - name: mr-hippocampus\n    when: {Modality: MR}\n    model: hippo\n    send: [pacs]\n",
)


@pytest.mark.skipif(not CROP.is_dir(), reason="the real images are not here (../shared/data)")
def test_an_mr_crop_comes_back_with_both_parts_of_the_hippocampus(tmp_path: Path) -> None:
    with (
        Orthanc(tmp_path / "pacs") as pacs,
        GatewayProcess(tmp_path / "node", pacs.dicom_port, MR_CONFIGURATION) as gateway,
    ):
        dcmsend(gateway.dicom_port, "+sd", str(CROP), calling="SCANNER", called="AIGW")
        modalities = {"SEG", "SR", "OT"}
        wait_until(lambda: modalities <= pacs.series_by_modality().keys(), 300, f"results; see {gateway.log}")
        results = {m: pacs.file(pacs.series_by_modality()[m][0]["Instances"][0]) for m in sorted(modalities)}

    source = dcmread(min(CROP.iterdir()), stop_before_pixels=True)
    for modality, content in results.items():
        dataset = dcmread(io.BytesIO(content))
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        path = tmp_path / f"{modality}.dcm"
        path.write_bytes(content)
        checked = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        assert [line for line in checked.stderr.splitlines() if line.startswith("Error")] == []

    volume = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(results["SEG"]))).get_volume(
        combine_segments=True, rescale_fractional=False
    )
    labels = np.asarray(volume.array)
    voxel_ml = float(np.prod(volume.spacing)) / 1000
    parts = [np.argwhere(labels == number) for number in (1, 2)]
    assert [0.8 < len(part) * voxel_ml < 3.1 for part in parts] == [True, True]
    anterior, posterior = (
        volume.map_indices_to_reference(np.rint(part.mean(axis=0, keepdims=True)))[0] for part in parts
    )
    assert anterior[1] < posterior[1] - 8, "patient posterior is +y in LPS"
