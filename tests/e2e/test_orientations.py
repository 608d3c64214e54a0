"""One asymmetric torso, scanned in four orientations, through the whole node: nothing comes back mirrored."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from tests.builders import affine, torso_series, write_series
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import storescu
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ORIENTATIONS = ("HFS", "FFS", "prone", "oblique")
SHAPE, SPACING_MM = (48, 96, 96), (5.0, 4.0, 4.0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Orthanc]]:
    root = tmp_path_factory.mktemp("orientations")
    with Orthanc(root / "pacs") as pacs, GatewayProcess(root / "node", pacs.dicom_port) as gateway:
        yield gateway, pacs


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_asymmetric_torso_comes_back_unmirrored(
    node: tuple[GatewayProcess, Orthanc], orientation: str, tmp_path: Path
) -> None:
    gateway, pacs = node
    seed = 50 + ORIENTATIONS.index(orientation)
    series, truth = torso_series(orientation, SHAPE, SPACING_MM, seed=seed)
    write_series(series, tmp_path / "series")
    storescu(gateway.dicom_port, "+sd", str(tmp_path / "series"), calling="SCANNER", called="AIGW")

    def segmentation() -> bytes | None:
        for entry in pacs.series_by_modality().get("SEG", []):
            file = pacs.file(entry["Instances"][0])
            if dcmread(io.BytesIO(file)).StudyInstanceUID == series[0].StudyInstanceUID:
                return file
        return None

    file = wait_until(segmentation, 120, f"the SEG of {orientation}; see {gateway.log}")
    seg = hd.seg.Segmentation.from_dataset(dcmread(io.BytesIO(file)))
    volume = seg.get_volume(combine_segments=True, rescale_fractional=False)
    matrix = affine(SHAPE, SPACING_MM, orientation)
    reference = hd.VolumeGeometry(matrix, SHAPE, coordinate_system="PATIENT")
    labels = np.asarray(volume.match_geometry(reference).array)
    for number in (2, 3):  # left lung, right lung: their sizes and sides differ
        dice = (
            2
            * np.sum((labels == number) & (truth == number))
            / (np.sum(labels == number) + np.sum(truth == number))
        )
        assert dice > 0.95, f"{orientation}, segment {number}: Dice {dice:.3f}"
    left_x, right_x = (
        (matrix[:3, :3] @ np.mean(np.nonzero(labels == n), axis=1) + matrix[:3, 3])[0] for n in (2, 3)
    )
    assert left_x > right_x, "patient left is +x in LPS"
