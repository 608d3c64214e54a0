"""The main job through real peers: DCMTK sends a chest CT, Orthanc gets SEG, SR and overview."""

from __future__ import annotations

import io
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom import Dataset, dcmread

from ai.sample import SampleTruth, write_sample_series
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ACCEPTANCE = (Path(__file__).parents[1] / "data" / "acceptance-gateway.yaml").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Finished:
    """The node and the PACS after the sample went through."""

    gateway: GatewayProcess
    pacs: Orthanc
    truth: SampleTruth
    results: dict[str, Dataset]


def storescu(port: int, folder: Path, called: str = "AIGW") -> None:
    command = [
        "storescu",
        "-aet",
        "SCANNER",
        "-aec",
        called,
        "+sd",
        "+r",
        "127.0.0.1",
        str(port),
        str(folder),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    root = tmp_path_factory.mktemp("main-job")
    truth = write_sample_series(root / "sample")
    with (
        Orthanc(root / "pacs") as pacs,
        GatewayProcess(root / "node", pacs.dicom_port, ACCEPTANCE) as gateway,
    ):
        storescu(pacs.dicom_port, root / "sample", "ORTHANC")
        storescu(gateway.dicom_port, root / "sample")

        def results() -> dict[str, Dataset] | None:
            series = pacs.series_by_modality()
            if not {"SEG", "SR", "OT"} <= series.keys():
                return None
            return {
                m: dcmread(io.BytesIO(pacs.file(series[m][0]["Instances"][0]))) for m in ("SEG", "SR", "OT")
            }

        found = wait_until(results, 300, f"three results in the PACS; see {gateway.log}")
        yield Finished(gateway, pacs, truth, found)
        assert gateway.terminate() == 0, "SIGTERM must end the gateway with exit code 0"


def label_map(seg: Dataset, truth: SampleTruth) -> npt.NDArray[np.uint8]:
    """The SEG's label map on the sample's grid, by patient position, read by highdicom."""
    volume = hd.seg.Segmentation.from_dataset(seg).get_volume(combine_segments=True, rescale_fractional=False)
    reference = hd.VolumeGeometry(truth.index_to_lps, truth.labels.shape, coordinate_system="PATIENT")
    return np.asarray(volume.match_geometry(reference).array, dtype=np.uint8)


def test_qido_and_wado_return_the_results_in_the_study_of_the_source(finished: Finished) -> None:
    client = DICOMwebClient(finished.pacs.dicom_web)
    found = client.search_for_instances(study_instance_uid=finished.truth.study_instance_uid)
    by_modality: dict[str, list[Any]] = {}
    for instance in found:
        by_modality.setdefault(instance["00080060"]["Value"][0], []).append(instance)
    assert {m: len(i) for m, i in by_modality.items()} == {"CT": 100, "SEG": 1, "SR": 1, "OT": 1}
    for modality in ("SEG", "SR", "OT"):
        tags = by_modality[modality][0]
        retrieved = client.retrieve_instance(
            study_instance_uid=finished.truth.study_instance_uid,
            series_instance_uid=tags["0020000E"]["Value"][0],
            sop_instance_uid=tags["00080018"]["Value"][0],
        )
        assert retrieved.SOPInstanceUID == finished.results[modality].SOPInstanceUID
        assert retrieved.PatientID == "AIGW-SAMPLE"


def test_the_segmentation_lies_over_the_right_anatomy(finished: Finished) -> None:
    labels = label_map(finished.results["SEG"], finished.truth)
    for number, least in ((2, 0.95), (3, 0.95), (4, 0.8), (5, 0.7)):
        ours, true = labels == number, finished.truth.labels == number
        dice = 2 * np.sum(ours & true) / (np.sum(ours) + np.sum(true))
        assert dice > least, f"segment {number}: Dice {dice:.3f}"


def test_the_report_gives_the_volumes_of_the_segments(finished: Finished, tmp_path: Path) -> None:
    report = tmp_path / "sr.dcm"
    finished.results["SR"].save_as(report)
    text = subprocess.run(["dsrdump", str(report)], check=True, capture_output=True, text=True).stdout
    measured = [float(v) for v in re.findall(r'Volume"\)="([0-9.]+)"', text)]
    voxel_ml = abs(np.linalg.det(finished.truth.index_to_lps[:3, :3])) / 1000
    labels = label_map(finished.results["SEG"], finished.truth)
    expected = [np.sum(labels == n) * voxel_ml for n in range(1, 6)]
    assert measured == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("modality", ["SEG", "SR", "OT"])
def test_dciodvfy_finds_no_error(finished: Finished, modality: str, tmp_path: Path) -> None:
    path = tmp_path / f"{modality}.dcm"
    finished.results[modality].save_as(path)
    run = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
    assert [line for line in run.stderr.splitlines() if line.startswith("Error")] == []


def test_explain_tells_the_whole_story(finished: Finished) -> None:
    uid = finished.truth.series_instance_uid
    story = finished.gateway.aigw("study", "explain", uid, "--json")
    assert story.returncode == 0, story.stderr
    text = json.dumps(json.loads(story.stdout))
    for part in ("ACCEPTED", "ct-volumes", "Modality", "sent", str(finished.results["SEG"].SOPInstanceUID)):
        assert part in text


def test_a_second_send_makes_no_second_result(finished: Finished) -> None:
    before = finished.gateway.studies()
    storescu(finished.gateway.dicom_port, finished.truth.files[0].parent)
    assert finished.gateway.studies() == before
    assert len(finished.pacs.instances()) == 103


def test_no_patient_attribute_leaves_the_stored_objects(finished: Finished) -> None:
    planted = (b"SYNTHETIC", b"AIGW-SAMPLE")
    with urllib.request.urlopen(f"http://127.0.0.1:{finished.gateway.http_port}/metrics") as response:
        metrics = response.read()
    assert b"aigw_" in metrics
    places = {"log": finished.gateway.log.read_bytes(), "metrics": metrics}
    for file in ("journal.db", "journal.db-wal"):
        places[file] = (finished.gateway.data / file).read_bytes()
    names = "\n".join(str(p.relative_to(finished.gateway.data)) for p in finished.gateway.data.rglob("*"))
    places["file names"] = names.encode()
    assert [(place, name) for place, text in places.items() for name in planted if name in text] == []
