"""kill -9 at every step of a failure and of its report: the destination gets the report exactly once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.journal import JournalReader
from tests.builders import ct_series, write_series
from tests.crash.test_node_kill import send
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.scripted_peer import ScriptedPeer
from tests.waiting import wait_until

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

STEPS = (
    *("dispatch.gave_up:1", "dispatch.claimed:1", "dispatch.results_received:1"),
    *("dispatch.finished:1", "deliver.accepted_by_peer:1"),
)
"""Where a report differs from another job, in order; the other steps are those of test_node_kill.py."""


def short_series(folder: Path, seed: int) -> list[Path]:
    """A series that is refused for good: its pixel data are cut off."""
    series = ct_series((12, 16, 16), seed=seed)
    for dataset in series:
        dataset.PixelData = dataset.PixelData[:100]
    return write_series(series, folder)


def test_a_kill_at_any_step_neither_loses_nor_doubles_the_report_of_a_failure(tmp_path: Path) -> None:
    """One report is killed at every step, one after another; a second one together with its worker."""
    text = CONFIGURATION.replace("results: {status: live}", "results: {status: live, send_when_failed: true}")
    with ScriptedPeer(ae_title="ORTHANC") as pacs:
        gateway = GatewayProcess(tmp_path / "node", pacs.port, text)
        for number, point in enumerate(STEPS):
            gateway.start({"AIGW_TEST_FAILPOINT": point}, wait=number == 0)
            if number == 0:
                send(gateway.dicom_port, short_series(tmp_path / "first", seed=1))
            wait_until(lambda: gateway.died, 120, f"the node to die at {point} ({gateway.log})")
        assert len(pacs.uids()) == 1, "it died when the destination had it, and did not know that"
        marker = tmp_path / "worker-died"
        environment = {"AIGW_TEST_FAILPOINT": "worker.results_written:1"}
        gateway.start({**environment, "AIGW_TEST_FAILPOINT_ONCE": str(marker)})
        send(gateway.dicom_port, short_series(tmp_path / "second", seed=2))
        wait_until(marker.exists, 120, f"the worker to die ({gateway.log})")
        wait_until(lambda: _ended(gateway) == ["failed", "done"] * 2, 120, "the end of both")
        wait_until(lambda: len(set(pacs.uids())) == 2 and _sent(gateway) == 2, 60, "both reports")
        gateway.kill()
        assert len(pacs.uids()) == 3, "the first one was sent again, under the same UID"
        assert len(set(pacs.received)) == 2, "and byte for byte"


def _jobs(gateway: GatewayProcess) -> list[dict[str, Any]]:
    """All jobs, in the order in which they were made."""
    reader = JournalReader(gateway.data / "journal.db")
    try:
        jobs = [job for series in reader.series() for job in reader.series_details(series)["jobs"]]
    finally:
        reader.close()
    return sorted(jobs, key=lambda job: int(job["id"]))


def _ended(gateway: GatewayProcess) -> list[str]:
    return [job["state"] for job in _jobs(gateway)]


def _sent(gateway: GatewayProcess) -> int:
    """How many deliveries there are, all of which must have been made."""
    deliveries = [d for job in _jobs(gateway) for result in job["results"] for d in result["deliveries"]]
    return len(deliveries) if all(d["state"] == "sent" for d in deliveries) else 0
