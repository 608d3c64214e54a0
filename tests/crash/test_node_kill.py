"""kill -9 of the whole node at every durable step: nothing acknowledged is lost, nothing arrives twice.

Each run arms one failpoint, sends a series like a scanner, lets the process die there, starts it
again without the failpoint, sends the series again as a scanner would, and waits for the results
in a real PACS. ``AIGW_KILL_RUNS`` asks for more rounds (``make soak``).
"""

from __future__ import annotations

import hashlib
import itertools
import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.uid import CTImageStorage

from gateway import failpoint
from tests.builders import torso_series, write_series
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import RawSender, encoded
from tests.waiting import wait_until

SHAPE, SPACING_MM = (24, 48, 48), (9.0, 8.0, 8.0)
HITS = {"spool": (1, 2, 9), "admit": (1, 20), "deliver": (1, 2, 3)}
# in test_failure_report_kill.py and test_commitment_node.py
ELSEWHERE = ("dispatch.gave_up", "commitment.asked", "commitment.claimed", "commitment.told")
RUNS = [
    (point, hit)
    for point in failpoint.POINTS
    if point not in ELSEWHERE
    for hit in HITS.get(point.partition(".")[0], (1,))
]
RESULTS = ["OT", "SEG", "SR"]
ROUNDS = max(1, int(os.environ.get("AIGW_KILL_RUNS", "0")) // len(RUNS))

pytestmark = [pytest.mark.crash, pytest.mark.timeout(1500 * ROUNDS)]


def send(port: int, files: list[Path]) -> set[str]:
    """C-STORE the files over one association; the SOP Instance UIDs that were answered 0000."""
    acknowledged = set()
    with RawSender(port, [CTImageStorage]) as sender:
        for path in files:
            if not sender.association.is_established:
                break
            dataset = dcmread(path)
            uid = str(dataset.SOPInstanceUID)
            try:
                status = sender.send(CTImageStorage, uid, encoded(dataset)).get("Status")
            except (RuntimeError, ValueError):  # the node died between two instances
                break
            if status is None:
                break
            if status == 0x0000:
                acknowledged.add(uid)
    return acknowledged


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with Orthanc(tmp_path_factory.mktemp("pacs")) as orthanc:
        yield orthanc


def results_of(pacs: Orthanc, study_instance_uid: str) -> list[str]:
    """Modalities of what the PACS holds in a study."""
    studies = [
        s for s in pacs.get("/studies?expand") if s["MainDicomTags"]["StudyInstanceUID"] == study_instance_uid
    ]
    series = [pacs.get(f"/series/{s}") for study in studies for s in study["Series"]]
    return sorted(s["MainDicomTags"]["Modality"] for s in series for _ in s["Instances"])


def test_a_kill_at_any_durable_step_loses_nothing_and_doubles_nothing(tmp_path: Path, pacs: Orthanc) -> None:
    assert len(RUNS) >= 30
    gateway = GatewayProcess(tmp_path / "node", pacs.dicom_port)
    acknowledged: set[str] = set()
    studies = []
    for seed, (point, hit) in enumerate(itertools.chain.from_iterable([RUNS] * ROUNDS), start=1000):
        series, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=seed)
        files = write_series(series, tmp_path / f"series-{seed}")
        study = str(series[0].StudyInstanceUID)
        studies.append(study)
        marker = tmp_path / f"died-{seed}"
        armed = {"AIGW_TEST_FAILPOINT": f"{point}:{hit}", "AIGW_TEST_FAILPOINT_ONCE": str(marker)}

        gateway.start(armed)
        acknowledged |= send(gateway.dicom_port, files)
        wait_until(marker.exists, 120, f"{point}:{hit} to be reached")
        if not point.startswith("worker."):
            wait_until(lambda: gateway.died, 30, f"the node to die at {point}:{hit}")
            gateway.start()
            acknowledged |= send(gateway.dicom_port, files)
        wait_until(
            lambda uid=study: results_of(pacs, uid) == RESULTS,
            120,
            f"results after {point}:{hit} ({gateway.log})",
        )
        gateway.kill()

    assert Counter(map(tuple, (results_of(pacs, uid) for uid in studies))) == {
        ("OT", "SEG", "SR"): len(studies)
    }
    assert len(acknowledged) == len(studies) * SHAPE[0]
    assert_kept(gateway.data, acknowledged)


def assert_kept(data: Path, acknowledged: set[str]) -> None:
    """Every acknowledged instance has exactly one row and a whole file."""
    journal = sqlite3.connect(data / "journal.db")
    assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    rows = journal.execute("SELECT sop_instance_uid, path, digest FROM instance").fetchall()
    journal.close()
    assert Counter(uid for uid, _, _ in rows) == Counter(acknowledged)
    for _, path, digest in rows:
        content = (data / "spool" / path).read_bytes()
        meta_length = int.from_bytes(content[140:144], "little")
        assert hashlib.sha256(content[144 + meta_length :]).hexdigest() == digest
