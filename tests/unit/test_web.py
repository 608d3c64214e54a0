"""Health and metrics over a real socket."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import Journal
from gateway.journal.records import Failure
from gateway.receive.tally import Tally
from gateway.web.app import Check, make_app
from gateway.web.metrics import Metrics, Sources
from gateway.web.server import WebServer


@pytest.fixture
def checks() -> dict[str, Check]:
    return {"receiver": Check(True, "listening"), "worker": Check(True, "cpu")}


@pytest.fixture
def port(tmp_path: Path, checks: dict[str, Check]) -> Iterator[int]:
    journal = Journal(tmp_path / "journal.db")
    journal.hold_cards({"liver": Failure("MODEL_SWITCHED_OFF", "It crashed.")}, 1.0)
    tally = Tally(["ct1", "quiet"])
    tally.stored("ct1", "stored", 1000, 0.015, 5.0)
    tally.stored("ct1", "duplicate", 1000, 0.5, 6.0)
    tally.stored("EVIL\x1b@192.0.2.1", "stored", 10, 100.0, 7.0)
    tally.rejected("ct1", "UID_INVALID")
    sources = Sources(
        counts=journal.counts,
        damaged=journal.damaged_count,
        holds=journal.holds,
        worker_ready=lambda: checks["worker"].ok,
        open_associations=lambda: 2,
        open_requests=lambda: 1,
        certificates=lambda: [("ours", "", 12.5), ("authority", "", 300.0), ("authority", "", -1.0)],
        refusals=lambda: {"TLS_REQUIRED": 3},
        source_names=tally.sources,
        instances=tally.instances,
        received_bytes=tally.bytes,
        rejections=tally.rejections,
        store_seconds=tally.durations,
        flush_and_commit_s=lambda: (0.01, 0.002),
    )
    metrics = Metrics(sources, tmp_path, "0.1.0")
    server = WebServer("127.0.0.1", 0)
    server.start(make_app(lambda: checks, metrics.text, "127.0.0.1"))
    yield server.port
    server.stop()
    assert not server.alive
    journal.close()


def get(port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers={"Host": host})
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response.status, body


def test_live_is_always_200(port: int) -> None:
    assert get(port, "/health/live") == (200, '{"status":"alive"}')


def test_ready_tells_which_check_fails_and_why(port: int, checks: dict[str, Check]) -> None:
    status, body = get(port, "/health/ready")
    assert (status, json.loads(body)["status"]) == (200, "ready")
    checks["worker"] = Check(False, "the worker is loading its models")
    status, body = get(port, "/health/ready")
    assert status == 503
    assert json.loads(body)["checks"]["worker"] == {"ok": False, "reason": "the worker is loading its models"}


def test_metrics_show_every_state_and_no_identifier(port: int) -> None:
    status, body = get(port, "/metrics")
    assert status == 200
    for line in (
        'aigw_model_held{card="liver",reason="MODEL_SWITCHED_OFF"} 1.0',
        "aigw_instances_stored 0.0",
        'aigw_series{state="refused"} 0.0',
        'aigw_job{state="running"} 0.0',
        'aigw_delivery{state="dead"} 0.0',
        "aigw_worker_ready 1.0",
        "aigw_open_associations 2.0",
        'aigw_build_info{version="0.1.0"} 1.0',
        "aigw_instances_damaged 0.0",
        'aigw_commitment{state="pending"} 0.0',
        'aigw_instances_received_total{receipt="stored",source="ct1"} 1.0',
        'aigw_instances_received_total{receipt="duplicate",source="ct1"} 1.0',
        'aigw_instances_received_total{receipt="stored",source="unknown"} 1.0',
        'aigw_instances_received_total{receipt="conflict",source="ct1"} 0.0',
        'aigw_instances_received_total{receipt="stored",source="quiet"} 0.0',
        'aigw_received_bytes_total{source="quiet"} 0.0',
        'aigw_received_bytes_total{source="ct1"} 2000.0',
        'aigw_instances_rejected_total{reason="UID_INVALID",source="ct1"} 1.0',
        'aigw_associations_refused_total{reason="TLS_REQUIRED"} 3.0',
        'aigw_store_seconds_bucket{le="0.01"} 0.0',
        'aigw_store_seconds_bucket{le="0.02"} 1.0',
        'aigw_store_seconds_bucket{le="0.5"} 2.0',
        'aigw_store_seconds_bucket{le="+Inf"} 3.0',
        "aigw_store_seconds_count 3.0",
        'aigw_certificate_days_left{kind="ours",peer=""} 12.5',
        'aigw_certificate_days_left{kind="authority",peer=""} -1.0',
        "aigw_disk_flush_seconds 0.01",
    ):
        assert line in body.splitlines()
    labels = {
        part.split("=")[0]
        for line in body.splitlines()
        if "{" in line
        for part in line[line.index("{") + 1 : line.index("}")].split(",")
    }
    assert labels == {"state", "version", "card", "reason", "source", "receipt", "kind", "peer", "le"}
    assert "EVIL" not in body


def test_a_foreign_host_name_is_refused_on_loopback(port: int) -> None:
    assert get(port, "/health/live", host="evil.example")[0] == 400
    assert get(port, "/health/live", host=f"localhost:{port}")[0] == 200


def test_an_unknown_path_is_404(port: int) -> None:
    assert get(port, "/../etc/passwd")[0] == 404


def test_a_port_that_is_taken_is_an_error_at_once(port: int) -> None:
    with pytest.raises(OSError, match="in use"):
        WebServer("127.0.0.1", port)
