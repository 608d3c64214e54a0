"""Bad input, by name: each gets a verdict that `explain` shows, and the node goes on."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset

from tests.builders import (
    torso_series,
    with_attributes,
    with_duplicate_position,
    with_mixed_size,
    with_true_tilt,
    without,
    without_slice,
    write_series,
)
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import echoscu, storescu
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SHAPE, SPACING_MM = (24, 48, 48), (9.0, 8.0, 8.0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Orthanc]]:
    root = tmp_path_factory.mktemp("bad-input")
    with Orthanc(root / "pacs") as pacs, GatewayProcess(root / "node", pacs.dicom_port) as gateway:
        yield gateway, pacs


def torso(seed: int) -> list[Dataset]:
    return torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=seed)[0]


def story_of(gateway: GatewayProcess, series_uid: str) -> dict[str, Any]:
    """What `explain` says of a series once it is decided and its jobs have ended."""

    def ended() -> dict[str, Any] | None:
        run = gateway.aigw("study", "explain", series_uid, "--json")
        if run.returncode != 0:
            return None
        (series,) = json.loads(run.stdout)["series"]
        jobs_ended = all(job["state"] in ("done", "failed") for job in series["jobs"])
        return series if series["state"] != "receiving" and jobs_ended else None

    story: dict[str, Any] = wait_until(ended, 120, f"a decision; see {gateway.log}")
    return story


def sent(gateway: GatewayProcess, series: list[Dataset], folder: Path) -> dict[str, Any]:
    write_series(series, folder)
    storescu(gateway.dicom_port, "+sd", str(folder), calling="SCANNER", called="AIGW")
    return story_of(gateway, str(series[0].SeriesInstanceUID))


REFUSED = {
    "SINGLE_SLICE": lambda s: s[:1],
    "MISSING_SLICE": lambda s: without_slice(s, 7),
    "DUPLICATE_POSITION": lambda s: with_duplicate_position(s, 4),
    "NO_POSITION": lambda s: without(s, "ImagePositionPatient"),
}


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_a_series_that_is_no_volume_is_refused_by_name(
    node: tuple[GatewayProcess, Orthanc], code: str, tmp_path: Path
) -> None:
    gateway, _ = node
    series = REFUSED[code](torso(700 + sorted(REFUSED).index(code)))
    story = sent(gateway, series, tmp_path)
    assert (story["state"], story["name"]) == ("refused", code)
    assert any(character.isdigit() for character in story["reason"]), "the sentence has the numbers"
    assert len({d.SOPInstanceUID for d in series}) == story["instances"], "all of it was kept"


def test_a_slice_of_another_size_is_a_part_of_its_own_and_leaves_a_gap(
    node: tuple[GatewayProcess, Orthanc], tmp_path: Path
) -> None:
    gateway, _ = node
    story = sent(gateway, with_mixed_size(torso(715), 3), tmp_path)
    assert story["state"] == "refused"
    assert sorted(part["name"] for part in story["decision"]["parts"]) == ["MISSING_SLICE", "SINGLE_SLICE"]
    assert sorted(part["images"] for part in story["verdict"]["parts"]) == [1, SHAPE[0] - 1]


def test_a_tilted_gantry_is_fixed_for_a_model_that_takes_it(
    node: tuple[GatewayProcess, Orthanc], tmp_path: Path
) -> None:
    gateway, _ = node
    story = sent(gateway, with_true_tilt(torso(716), 15.0), tmp_path)
    assert (story["verdict"]["verdict"], story["verdict"]["code"]) == ("FIXED", "GANTRY_TILT")
    assert [job["state"] for job in story["jobs"]] == ["done"]


def test_pixel_data_that_is_too_short_fails_the_job_by_name_and_the_next_series_runs(
    node: tuple[GatewayProcess, Orthanc], tmp_path: Path
) -> None:
    gateway, pacs = node
    broken = torso(720)
    broken[5].PixelData = broken[5].PixelData[:1000]
    story = sent(gateway, broken, tmp_path / "broken")
    (job,) = story["jobs"]
    assert (job["state"], job["failure_name"], job["attempts"]) == ("failed", "PIXEL_DATA_TOO_SHORT", 1)
    assert "1000 bytes" in job["failure_reason"]

    story = sent(gateway, torso(721), tmp_path / "good")
    assert [job["state"] for job in story["jobs"]] == ["done"]
    wait_until(lambda: "SEG" in pacs.series_by_modality(), 60, "the result of the good series")


def test_a_research_ct_without_frame_of_reference_patient_id_and_series_number_gets_results(
    node: tuple[GatewayProcess, Orthanc], tmp_path: Path
) -> None:
    gateway, _ = node
    series = without(torso(730), "FrameOfReferenceUID", "PatientID", "SeriesNumber")
    story = sent(gateway, series, tmp_path)
    assert [note["code"] for note in story["verdict"]["notes"]] == ["FRAME_OF_REFERENCE_DERIVED"]
    (job,) = story["jobs"]
    assert job["state"] == "done", job["failure_reason"]
    notes = {note["code"]: note["text"] for note in job["run"]["geometry"]["notes"]}
    assert "PatientID, SeriesNumber" in notes["IDENTITY_DERIVED"]


def test_the_same_uid_with_other_bytes_is_kept_and_explained(
    node: tuple[GatewayProcess, Orthanc], tmp_path: Path
) -> None:
    gateway, _ = node
    series = torso(740)
    changed = with_attributes(series, ImageComments="changed")[3:4]
    write_series(series, tmp_path / "first")
    write_series(changed, tmp_path / "second")
    folders = [str(tmp_path / "first"), str(tmp_path / "second")]
    storescu(gateway.dicom_port, "+sd", "+r", *folders, calling="SCANNER", called="AIGW")
    story = story_of(gateway, str(series[0].SeriesInstanceUID))
    assert (len(story["conflicts"]), story["instances"]) == (1, SHAPE[0])
    assert "DUPLICATE_SOP_INSTANCE" in [event["name"] for event in story["events"]]


def test_a_wrong_called_ae_title_is_refused_and_can_be_explained(
    node: tuple[GatewayProcess, Orthanc],
) -> None:
    gateway, _ = node
    assert echoscu(gateway.dicom_port, calling="SCANNER", called="WRONG").returncode != 0
    assert echoscu(gateway.dicom_port, calling="SCANNER", called="AIGW").returncode == 0
    run = gateway.aigw("study", "explain", "--refusals", "--json")
    assert "CALLED_AE_TITLE_NOT_RECOGNISED" in run.stdout


def segment(folder: Path, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "gateway", "segment", str(folder), "--out", str(out), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_segment_refuses_a_folder_with_two_series_and_takes_the_one_that_is_named(tmp_path: Path) -> None:
    first, second = torso(750), torso(751)
    write_series(first, tmp_path / "in" / "a")
    write_series(second, tmp_path / "in" / "b")
    run = segment(tmp_path / "in", tmp_path / "out")
    assert (run.returncode, run.stderr.split(":")[0]) == (2, "SEVERAL_SERIES")
    assert str(first[0].SeriesInstanceUID) in run.stderr
    run = segment(tmp_path / "in", tmp_path / "out", "--series", str(second[0].SeriesInstanceUID), "--json")
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["source"]["series_instance_uid"] == second[0].SeriesInstanceUID


NAMES = ("NOT_DICOM", "EMPTY_FILE", "TRUNCATED_FILE", "PIXEL_DATA_TOO_SHORT")


def test_segment_names_what_is_wrong_with_its_input(tmp_path: Path) -> None:
    series = torso(760)
    cases: dict[str, Path] = {name: tmp_path / name for name in NAMES}
    for folder in cases.values():
        write_series(series, folder)
    for file in cases["NOT_DICOM"].iterdir():
        file.write_bytes(b"no DICOM here")
    (cases["EMPTY_FILE"] / "0003.dcm").write_bytes(b"")
    whole = (cases["TRUNCATED_FILE"] / "0003.dcm").read_bytes()
    middle_of_a_value = whole.index(str(series[3].SeriesInstanceUID).encode()) + 10
    (cases["TRUNCATED_FILE"] / "0003.dcm").write_bytes(whole[:middle_of_a_value])
    (cases["PIXEL_DATA_TOO_SHORT"] / "0003.dcm").write_bytes(whole[:-1000])
    for name, folder in cases.items():
        run = segment(folder, tmp_path / "out")
        assert (run.returncode, run.stderr.split(":")[0]) == (1, name), run.stderr
    run = segment(cases["EMPTY_FILE"], cases["EMPTY_FILE"] / "0001.dcm")
    assert (run.returncode, run.stderr.split(":")[0]) == (2, "OUT_UNUSABLE")
    run = segment(cases["EMPTY_FILE"], tmp_path / "out", "--model", "ct-tisue")
    assert (run.returncode, run.stderr.split(":")[0]) == (5, "UNKNOWN_MODEL")
    assert "ct-tissue" in run.stderr
