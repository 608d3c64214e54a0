"""Storage commitment on the running node: Orthanc asks, and the node is killed between answer and report."""

from __future__ import annotations

import json
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.builders import ct_series, write_series
from tests.commitment_site import CommitmentSCU, ReportSCP, committed, failed
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.ports import free_port
from tests.waiting import wait_until

CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
peers:
  AE: {ae_title: AE, host: 127.0.0.1, port: "${GW_PACS_PORT}", roles: [source]}
completion: {quiet_for: 10m, at_most: 1h}
commitment: {first_retry: 300ms, longest_wait: 500ms}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
"""
SCANNER = CONFIGURATION.replace("AE: {ae_title: AE,", "scanner: {ae_title: SCANNER,")
PACS = CONFIGURATION.replace("AE: {ae_title: AE,", "pacs: {ae_title: ORTHANC,")


def post(pacs: Orthanc, path: str, body: object) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{pacs.http_port}{path}", data=json.dumps(body).encode(), method="POST"
    )
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback http
        return json.load(response)


def outcome(pacs: Orthanc, transaction: str) -> Any:
    def known() -> Any:
        report = pacs.get(f"/storage-commitment/{transaction}")
        return report if report["Status"] != "Pending" else None

    return wait_until(known, 30, "the report at Orthanc")


def test_orthanc_stores_asks_and_is_told_and_the_series_is_complete_at_once(tmp_path: Path) -> None:
    modalities: dict[str, object] = {}
    pacs = Orthanc(tmp_path / "orthanc", options={"DicomModalities": modalities})
    node = GatewayProcess(tmp_path / "node", pacs.dicom_port, PACS)
    modalities["gateway"] = {
        "AET": "AIGW",
        "Host": "127.0.0.1",
        "Port": node.dicom_port,
        "AllowStorageCommitment": True,
    }
    with pacs, node:
        for path in write_series(ct_series((6, 32, 40)), tmp_path / "series"):
            pacs.store(path.read_bytes())
        (series,) = pacs.get("/series")
        asked = {"Resources": [series], "StorageCommitment": True, "Asynchronous": True}
        job = f"/jobs/{post(pacs, '/modalities/gateway/store', asked)['ID']}"
        wait_until(lambda: pacs.get(job)["State"] == "Success", 30, f"the job of Orthanc: {pacs.get(job)}")
        transaction = pacs.get(job)["Content"]["StorageCommitmentTransactionUID"]
        report = outcome(pacs, transaction)
        assert (report["Status"], len(report["Success"])) == ("Success", 6)
        # quiet_for is ten minutes: the request alone is the evidence.
        (study,) = wait_until(
            lambda: [s for s in node.studies()["series"] if s["state"] != "receiving"], 20, "the decision"
        )
        explained = node.aigw("study", "explain", study["series_instance_uid"]).stdout
        text = " ".join(explained.split())
        assert "6 instances; pacs asked for storage commitment of exactly these, and all are here" in text
        assert "pacs asks for storage commitment of 6 of 6 instances" in text
        assert "Storage commitment of 6 of 6 instances reported to pacs" in text
        # Something that Orthanc never sent.
        unknown = {
            "DicomInstances": [{"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "SOPInstanceUID": "1.2.3"}]
        }
        report = outcome(pacs, post(pacs, "/modalities/gateway/storage-commitment", unknown)["ID"])
        assert report["Status"] == "Failure"
        assert [each["FailureReason"] for each in report["Failures"]] == [0x0112]
        listed = json.loads(node.aigw("study", "commitments", "--json").stdout)["commitments"]
        assert [(each["state"], each["asked"], each["committed"]) for each in listed] == [
            ("reported", 1, 0),
            ("reported", 6, 6),
        ]
        shown = node.aigw("study", "commitments").stdout
        assert "reported" in shown
        assert "1 never arrived" in " ".join(shown.split())


@pytest.mark.crash
@pytest.mark.parametrize("point", ["commitment.asked", "commitment.claimed", "commitment.told"])
def test_a_node_that_is_killed_before_the_report_is_written_tells_it_after_its_restart(
    tmp_path: Path, point: str
) -> None:
    port = free_port()
    node = GatewayProcess(tmp_path, port, SCANNER)
    with ReportSCP(port) as there:
        node.start({"AIGW_TEST_FAILPOINT": f"{point}:1"})
        with CommitmentSCU(node.dicom_port) as scu:
            asked = scu.store(ct_series((5, 32, 40)))
            answer = scu.ask("1.9.1", [*asked, ("1.2.840.10008.5.1.4.1.1.2", "1.2.3")])
            # Killed before the answer: it is not there, and the row may be; a second request is the same one.
            assert answer.get("Status") == (None if point == "commitment.asked" else 0x0000)
            scu.association.abort()
        wait_until(lambda: node.died, 30, "the kill")
        before = there.told.qsize()
        with node:
            _, report = there.report() if not before else (there.report(), there.report())[1]
            assert committed(report) == [instance for _, instance in asked]
            assert failed(report) == {"1.2.3": 0x0112}
            (row,) = wait_until(
                lambda: [
                    each
                    for each in json.loads(node.aigw("study", "commitments", "--json").stdout)["commitments"]
                    if each["state"] == "reported"
                ],
                20,
                "the record of the report",
            )
            assert (row["asked"], row["committed"], row["source"]) == (6, 5, "scanner")
            time.sleep(1.0)
            assert there.told.empty()  # acknowledged once more than once is all that a crash can cause
