"""STOW-RS in the node as it is served: configuration, records, drain, and a series that is waited for."""

from __future__ import annotations

import hashlib
import json
import socket
import sqlite3
import subprocess
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from dicomweb_client import DICOMwebClient
from pydicom.dataset import Dataset
from requests import Session

from gateway.journal import JournalReader
from tests.builders import ct_series
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import encoded
from tests.ports import free_port
from tests.stow import AUTHORIZATION, BOUNDARY, CONTENT_TYPE, TOKEN, multipart, part10, post
from tests.waiting import wait_until

STORED = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}


def configured(web: str, listen: str = "127.0.0.1") -> str:
    found = CONFIGURATION.replace(
        "scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}",
        f"scanner: {{ae_title: SCANNER, host: 127.0.0.1, roles: [source]{web}}}",
    ).replace(
        'listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}',
        f'listen: {{host: {listen}, port: "${{GW_HTTP_PORT}}"}}',
    )
    assert found != CONFIGURATION or not web
    return found


def only_series(node: GatewayProcess) -> tuple[int, str] | None:
    """Instances and state of the one series, if it is there; a command would take a second to say so."""
    with closing(JournalReader(node.data / "journal.db")) as reader:
        found = reader.series()
        return (found[0]["instance_count"], found[0]["state"]) if found else None


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    folder = tmp_path_factory.mktemp("stow")
    process = GatewayProcess(folder, free_port(), configured(f", web: {{token: {TOKEN}}}", "0.0.0.0"))
    with process:
        yield process


def test_a_series_that_is_stored_over_http_is_complete_only_when_the_request_is(node: GatewayProcess) -> None:
    series = ct_series((6, 16, 16))
    first, rest = multipart([part10(series[0])], end=False), multipart([part10(each) for each in series[1:]])
    mark = f"--{BOUNDARY}".encode()
    released = threading.Event()
    replies = []

    def body() -> Iterator[bytes]:
        yield first + mark
        released.wait(30)
        yield rest[len(mark) :]

    sender = threading.Thread(target=lambda: replies.append(post(node.http_port, body(), STORED)))
    sender.start()
    wait_until(lambda: only_series(node) == (1, "receiving"), 20, "the first instance")
    time.sleep(2.5)  # longer than completion.quiet_for
    assert only_series(node) == (1, "receiving")
    released.set()
    sender.join(timeout=30)
    assert replies[0].status == 200
    wait_until(lambda: (only_series(node) or (0, ""))[1] != "receiving", 30, "the series to be complete")
    assert (only_series(node) or (0, ""))[0] == 6


def are_stored(node: GatewayProcess, series: list[Dataset]) -> None:
    """Each instance is in the journal with the SHA-256 of the data set that was sent."""
    sent = {each.SOPInstanceUID: hashlib.sha256(encoded(each)).hexdigest() for each in series}
    with closing(sqlite3.connect(f"file:{node.data / 'journal.db'}?mode=ro", uri=True)) as journal:
        stored = dict(journal.execute("SELECT sop_instance_uid, digest FROM instance"))
    assert sent.items() <= stored.items()


def test_dicomweb_client_stores_in_the_node(node: GatewayProcess) -> None:
    series = ct_series((12, 64, 64), seed=31)
    for each in series:
        each.preamble = bytes(128)
    session = Session()
    session.headers.update(AUTHORIZATION)
    client = DICOMwebClient(
        f"http://127.0.0.1:{node.http_port}/dicom-web", session=session, chunk_size=50_000
    )
    answer = client.store_instances(series, study_instance_uid=series[0].StudyInstanceUID)
    assert len(answer.ReferencedSOPSequence) == len(series)
    are_stored(node, series)


def test_curl_stores_in_the_node(node: GatewayProcess, tmp_path: Path) -> None:
    series = ct_series((12, 64, 64), seed=32)
    body = tmp_path / "body"
    body.write_bytes(multipart([part10(each) for each in series]))
    headers = [word for name, value in STORED.items() for word in ("-H", f"{name}: {value}")]
    command = ["curl", "-sS", "-w", "%{http_code}", "-o", str(tmp_path / "answer"), *headers]
    command += ["--data-binary", f"@{body}", f"http://127.0.0.1:{node.http_port}/dicom-web/studies"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "200"
    are_stored(node, series)


def test_orthanc_stores_in_the_node(node: GatewayProcess, tmp_path: Path) -> None:
    series = ct_series((12, 64, 64), seed=33)
    with Orthanc(tmp_path / "orthanc") as pacs:
        for each in series:
            pacs.store(part10(each))

        def call(method: str, path: str, body: object) -> None:
            url = f"http://127.0.0.1:{pacs.http_port}{path}"
            request = urllib.request.Request(url, json.dumps(body).encode(), method=method)
            urllib.request.urlopen(request, timeout=60).close()  # noqa: S310 - loopback http

        url = f"http://127.0.0.1:{node.http_port}/dicom-web/"
        call("PUT", "/dicom-web/servers/aigw", {"Url": url, "HttpHeaders": AUTHORIZATION})
        call("POST", "/dicom-web/servers/aigw/stow", {"Resources": pacs.get("/studies"), "Synchronous": True})
    are_stored(node, series)


def test_refusals_are_seen_and_secrets_are_not(node: GatewayProcess) -> None:
    for _ in range(30):
        assert post(node.http_port, b"x", {**STORED, "Authorization": "Bearer not-this-one"}).status == 401
    told = node.aigw("study", "explain", "--refusals", "--json").stdout
    assert sum(each["name"] == "CREDENTIALS_WRONG" for each in json.loads(told)["refusals"]) == 1
    everything = told + node.log.read_text()
    assert "not-this-one" not in everything
    assert TOKEN not in everything


def test_credentials_in_the_clear_are_warned_about(node: GatewayProcess) -> None:
    found = [each for each in node.events() if each["event"] == "configuration_warning"]
    assert any(each["setting"] == "web" and "scanner" in each["reason"] for each in found)


def test_a_request_that_is_open_when_the_node_stops_is_finished(tmp_path: Path) -> None:
    series = ct_series((4, 16, 16))
    body = multipart([part10(each) for each in series])
    with GatewayProcess(tmp_path, free_port(), configured(f", web: {{token: {TOKEN}}}")) as node:
        fields = {"Host": "127.0.0.1", **STORED, "Content-Length": str(len(body))}
        head = (
            "POST /dicom-web/studies HTTP/1.1\r\n"
            + "".join(f"{k}: {v}\r\n" for k, v in fields.items())
            + "\r\n"
        )
        with socket.create_connection(("127.0.0.1", node.http_port), timeout=30) as connection:
            connection.sendall(head.encode() + body[:500])
            wait_until(
                lambda: any(e["event"] == "store_request_opened" for e in node.events()), 10, "the request"
            )
            assert node.process is not None
            node.process.terminate()
            wait_until(lambda: any(e["event"] == "stopping" for e in node.events()), 10, "the end to begin")
            assert post(node.http_port, body, STORED).status == 503
            connection.sendall(body[500:])
            assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert node.process.wait(timeout=60) == 0


def test_without_a_peer_for_it_the_record_says_how_to_configure_one(tmp_path: Path) -> None:
    with GatewayProcess(tmp_path, free_port(), configured("")) as node:
        assert post(node.http_port, b"x", STORED).status == 404
        with closing(JournalReader(node.data / "journal.db")) as reader:
            [record] = reader.refusals()
        assert record["name"] == "STOW_NOT_CONFIGURED"
        assert "web.token" in record["reason"]
