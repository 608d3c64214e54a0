"""kill -9 at every step of a failure and of its report: the destination gets the report exactly once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.builders import ct_series, write_series
from tests.crash.test_node_kill import send
from tests.gateway_process import CONFIGURATION, GatewayProcess, wait_until
from tests.scripted_peer import ScriptedPeer

pytestmark = [pytest.mark.crash, pytest.mark.timeout(900)]

STEPS = (
    *("dispatch.gave_up:1", "dispatch.claimed:2", "worker.results_written:1"),
    *("dispatch.results_received:1", "dispatch.finished:1", "deliver.accepted_by_peer:1"),
)
"""Where a report differs from another job; the other steps are those of test_node_kill.py."""


def short_series(folder: Path, seed: int) -> list[Path]:
    """A series that is refused for good: its pixel data are cut off."""
    series = ct_series((12, 16, 16), seed=seed)
    for dataset in series:
        dataset.PixelData = dataset.PixelData[:100]
    return write_series(series, folder)


def test_a_kill_at_any_step_neither_loses_nor_doubles_the_report_of_a_failure(tmp_path: Path) -> None:
    text = CONFIGURATION.replace("results: {status: live}", "results: {status: live, send_when_failed: true}")
    with ScriptedPeer(ae_title="ORTHANC") as pacs:
        gateway = GatewayProcess(tmp_path / "node", pacs.port, text)
        for seed, point in enumerate(STEPS, start=1):
            files = short_series(tmp_path / f"series-{seed}", seed)
            marker = tmp_path / f"died-{seed}"
            gateway.start({"AIGW_TEST_FAILPOINT": point, "AIGW_TEST_FAILPOINT_ONCE": str(marker)})
            send(gateway.dicom_port, files)
            wait_until(marker.exists, 120, f"{point} to be reached ({gateway.log})")
            if not point.startswith("worker."):
                wait_until(lambda: gateway.died, 30, f"the node to die at {point}")
                gateway.start()
            told = wait_until(lambda n=seed: len(set(pacs.uids())) == n, 120, f"the report after {point}")
            assert told
            wait_until(lambda n=seed: _ended(gateway) == ["failed", "done"] * n, 60, f"the end after {point}")
            gateway.kill()
        assert len(set(pacs.uids())) == len(STEPS), "sent again, perhaps, but under the same UID"
        assert len({content for _, content in pacs.received}) == len(STEPS), "and byte for byte"
        gateway.start()
        assert _ended(gateway) == ["failed", "done"] * len(STEPS)
        gateway.kill()


def _ended(gateway: GatewayProcess) -> list[str]:
    """States of all jobs, in the order in which they were made."""
    from gateway.journal import JournalReader

    reader = JournalReader(gateway.data / "journal.db")
    try:
        jobs = [job for series in reader.series() for job in reader.series_details(series)["jobs"]]
    finally:
        reader.close()
    return [job["state"] for job in sorted(jobs, key=lambda job: int(job["id"]))]
