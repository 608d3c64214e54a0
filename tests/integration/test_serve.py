"""``aigw serve`` as a process: start, health, signals, the lock, a worker that dies."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.header import InstanceHeader
from gateway.journal import Journal
from gateway.journal.records import NewInstance
from gateway.modelhost import landlock, sandbox
from gateway.spool import Spool, relative_path
from tests.builders import ct_series, write_series
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.integration.test_delivery import queue_for_delivery
from tests.peers import recording_scp
from tests.ports import free_port
from tests.waiting import wait_until


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with GatewayProcess(tmp_path / "node", free_port()) as process:
        yield process


def get(gateway: GatewayProcess, path: str) -> tuple[int, Any]:
    url = f"http://127.0.0.1:{gateway.http_port}{path}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def worker_of(gateway: GatewayProcess) -> psutil.Process | None:
    assert gateway.process is not None
    children = psutil.Process(gateway.process.pid).children()
    return children[0] if children else None


def test_importing_the_gateway_does_not_import_torch_or_scipy() -> None:
    code = (
        "import sys, gateway.serve, gateway.cli.serve, gateway.cli.peer\n"
        "print([m for m in ('torch', 'monai', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_ready_line_names_the_ports_and_they_accept(gateway: GatewayProcess) -> None:
    [ready] = [e for e in gateway.events() if e["event"] == "ready"]
    assert (ready["dicom_port"], ready["http_port"]) == (gateway.dicom_port, gateway.http_port)
    for port in (gateway.dicom_port, gateway.http_port):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    assert get(gateway, "/health/live")[0] == 200
    assert "aigw_instances_stored 0.0" in get(gateway, "/metrics")[1]


def test_data_dir_is_for_us_alone(gateway: GatewayProcess) -> None:
    assert gateway.data.stat().st_mode & 0o777 == 0o700
    assert (gateway.data / "journal.db").stat().st_mode & 0o077 == 0


def test_sigterm_ends_with_exit_0_and_leaves_no_worker(gateway: GatewayProcess) -> None:
    worker = wait_until(lambda: worker_of(gateway), 20, "a worker process")
    assert gateway.terminate() == 0
    wait_until(lambda: not worker.is_running(), 10, "the worker to be gone")
    names = [e["event"] for e in gateway.events() if e["component"] == "serve"]
    assert names[-2:] == ["stopping", "stopped"]


def test_the_worker_does_not_outlive_a_killed_gateway(gateway: GatewayProcess) -> None:
    worker = wait_until(lambda: worker_of(gateway), 20, "a worker process")
    gateway.kill()
    wait_until(lambda: not worker.is_running(), 10, "the worker to be gone")


def test_a_second_gateway_on_the_same_folder_is_refused(gateway: GatewayProcess) -> None:
    second = gateway.aigw("serve")
    assert second.returncode == 1
    assert "DATA_DIR_IN_USE" in second.stderr
    assert not gateway.died


def test_a_port_that_is_taken_is_a_clear_error(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    with socket.create_server(("127.0.0.1", process.dicom_port)):
        refused = process.aigw("serve")
    assert refused.returncode == 1
    assert "PORT_NOT_FREE: dicom.listen" in refused.stderr


def test_a_broken_configuration_is_exit_78(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port(), "version: 1\ndata_dir: x\ndicomm: {}\n")
    refused = process.aigw("serve")
    assert refused.returncode == 78
    assert "gateway.yaml:3:1" in refused.stderr


def test_a_broken_journal_is_refused_by_name(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    process.data.mkdir()
    (process.data / "journal.db").write_bytes(b"this is no database" * 1000)
    refused = process.aigw("serve")
    assert refused.returncode == 1
    assert "JOURNAL_UNUSABLE" in refused.stderr


def test_a_spool_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    process.data.mkdir()
    (process.data / "spool").write_text("not a folder")
    refused = process.aigw("serve")
    assert refused.returncode == 1
    assert refused.stderr.startswith("DATA_DIR_UNUSABLE")
    assert "Traceback" not in refused.stderr


def test_a_spool_whose_disk_is_not_mounted_is_refused_before_files_are_called_gone(
    tmp_path: Path,
) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    process.data.mkdir()
    journal = Journal(process.data / "journal.db")
    header = InstanceHeader("1.2.3", "1.2.3.1", "1.2.1", "1.2.2", {})
    file = relative_path("d" * 64)
    journal.record_instance(NewInstance(header, "1.2.840.10008.1.2.1", "d" * 64, file, 1, "ct"), 1.0)
    journal.close()
    refused = process.aigw("serve")
    assert refused.returncode == 1
    assert refused.stderr.startswith("SPOOL_MISSING: The journal knows 1 instances")
    assert not (process.data / "spool").exists()
    (process.data / "spool" / "objects").mkdir(parents=True)
    with process:
        assert not process.died


def test_a_journal_that_is_not_damaged_but_out_of_reach_needs_no_backup(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    (process.data / "journal.db").mkdir(parents=True)
    refused = process.aigw("serve")
    assert refused.returncode == 1
    assert "JOURNAL_UNUSABLE" in refused.stderr
    assert "backup" not in refused.stderr


def test_readiness_follows_the_worker(gateway: GatewayProcess) -> None:
    wait_until(lambda: get(gateway, "/health/ready")[0] == 200, 60, "readiness")
    body = json.loads(get(gateway, "/health/ready")[1])
    assert "ct-tissue" in body["checks"]["worker"]["reason"]
    if landlock.version() > 0:
        assert f"reads {sandbox.NO_PATIENT_FILES}" in body["checks"]["worker"]["reason"]
    first = worker_of(gateway)
    assert first is not None
    os.kill(first.pid, signal.SIGKILL)
    wait_until(lambda: get(gateway, "/health/ready")[0] == 503, 10, "the loss to be seen")
    wait_until(lambda: get(gateway, "/health/ready")[0] == 200, 60, "a fresh worker")


def test_the_worker_ignores_sigterm_and_its_environment_has_no_secrets(tmp_path: Path) -> None:
    process = GatewayProcess(tmp_path / "node", free_port())
    process.start({"HTTPS_PROXY": "http://user:secret@proxy", "GW_SECRET": "s3cret"})
    try:
        wait_until(lambda: get(process, "/health/ready")[0] == 200, 60, "readiness")
        worker = worker_of(process)
        assert worker is not None
        worker.send_signal(signal.SIGTERM)
        assert "secret" not in " ".join(worker.environ().values())
        assert process.terminate() == 0
    finally:
        if not process.died:
            process.kill()
    assert not [e for e in process.events() if e["event"] == "worker_died"]


def test_a_connection_that_says_nothing_does_not_disturb_the_end(gateway: GatewayProcess) -> None:
    with socket.create_connection(("127.0.0.1", gateway.dicom_port)) as silent:
        silent.sendall(b"GET")
        assert gateway.terminate(timeout_s=20) == 0
    lines = gateway.log.read_text().splitlines()
    assert all(line.startswith("{") for line in lines)
    assert len([e for e in gateway.events() if e["event"] == "ready"]) == 1


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [("send: [pacs]", "send: [archive]", "no peer pacs"), ("status: live", "status: shadow", "is shadow")],
)
def test_deliveries_that_the_configuration_holds_back_are_not_sent_and_not_forgotten(
    tmp_path: Path, was: str, now: str, said: str
) -> None:
    with recording_scp("ORTHANC") as pacs:
        changed = CONFIGURATION.replace(was, now)
        if "archive" in changed:
            changed = changed.replace("  pacs:", "  archive:")
        process = GatewayProcess(tmp_path / "node", pacs.port, changed)
        process.data.mkdir()
        journal, results = Journal(process.data / "journal.db"), Spool(process.data / "results")
        Spool(process.data / "spool")  # there, although nothing was received into it
        queue_for_delivery(
            journal, results, write_series(ct_series(shape=(2, 16, 16), seed=3), tmp_path / "ct")
        )
        journal.close()
        with process:
            [held] = [e for e in process.events() if e["event"] == "deliveries_held"]
            assert (held["destination"], held["waiting"]) == ("pacs", 2)
            assert said in held["reason"]
            assert process.terminate() == 0
        assert not pacs.uids()
        process.config.write_text(CONFIGURATION)
        with process:
            wait_until(lambda: len(pacs.uids()) == 2, 30, "both to be sent")


def test_a_node_raises_its_limit_of_open_files(tmp_path: Path) -> None:
    """systemd and shells give 1024, of which strangers' connections may take more than half."""
    gateway, (_, most) = GatewayProcess(tmp_path, pacs_port=1), resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway.start(under=("prlimit", f"--nofile=1024:{most}"))
    try:
        assert gateway.process is not None
        found = psutil.Process(gateway.process.pid).rlimit(psutil.RLIMIT_NOFILE)
        assert found == (min(most, 1 << 16), most)
    finally:
        gateway.__exit__(None, None, None)
