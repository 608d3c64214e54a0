"""STOW-RS requests that do not come to their end, or to the right place: each client hears why."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.journal import JournalReader
from gateway.web.stow import head_of
from tests.builders import ct_series
from tests.gateway_process import GatewayProcess
from tests.integration.test_stow_node import configured
from tests.ports import free_port
from tests.stow import (
    AUTHORIZATION,
    BOUNDARY,
    CONTENT_TYPE,
    TOKEN,
    StowServer,
    multipart,
    part10,
    stow_server,
)
from tests.waiting import wait_until

HALF_A_PART = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\nabc".encode()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StowServer]:
    with stow_server(tmp_path) as running:
        yield running


@pytest.fixture
def series() -> list[Dataset]:
    return ct_series((3, 8, 8))


def begin(port: int, length: str) -> socket.socket:
    """A request whose body is still to come."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    fields = {"Host": "localhost", **AUTHORIZATION, "Content-Type": CONTENT_TYPE}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"POST /dicom-web/studies HTTP/1.1\r\n{lines}{length}\r\n\r\n".encode())
    return connection


def answer_on(connection: socket.socket) -> http.client.HTTPResponse:
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response


def lists_what_was_stored(response: http.client.HTTPResponse, stored: Dataset, name: str) -> None:
    """Stored instances, the part in which it ended, and why."""
    found = json.loads(response.read())
    [item] = found["00081199"]["Value"]
    assert item["00081155"]["Value"] == [stored.SOPInstanceUID]
    assert found["00000902"]["Value"][0].startswith(f"{name}: ")
    assert found["0008119A"]["Value"][0]["00081197"]["Value"] == [0x0110]
    assert f'299 aigw "{name}: ' in str(response.getheader("Warning"))


def rejections(server: StowServer) -> list[str]:
    with closing(JournalReader(server.folder / "journal.db")) as reader:
        return [each["name"] for each in reader.refusals(1000) if each["subject"] == "instance"]


# -- stop ----------------------------------------------------------------------------------------


def test_a_request_that_is_cut_off_is_answered_with_what_was_stored(
    server: StowServer, series: list[Dataset]
) -> None:
    with begin(server.port, "Content-Length: 999999") as connection:
        connection.sendall(multipart([part10(series[0])], end=False) + HALF_A_PART)
        wait_until(server.rows, what="the first instance")
        server.service.stop()
        assert not server.service.wait_until_none(0.3)  # those that are open have their time
        server.service.cut_off()
        response = answer_on(connection)
        assert (response.status, response.getheader("Retry-After")) == (503, "30")
        lists_what_was_stored(response, series[0], "STOPPING")
    assert [note[0] for note in server.notes] == ["STOPPING"]
    assert server.service.wait_until_none(20)


def test_a_node_that_stops_answers_a_client_that_never_ends(tmp_path: Path, series: list[Dataset]) -> None:
    settings = configured(f", web: {{token: {TOKEN}}}") + "drain_timeout: 1s\n"
    with GatewayProcess(tmp_path, free_port(), settings) as node:
        with begin(node.http_port, "Content-Length: 999999") as connection:
            connection.sendall(multipart([part10(series[0])], end=False) + HALF_A_PART)

            def is_stored() -> bool:
                with closing(JournalReader(node.data / "journal.db")) as reader:
                    return bool(reader.series())

            wait_until(is_stored, what="the first instance")
            assert node.process is not None
            node.process.terminate()
            response = answer_on(connection)
            assert (response.status, response.getheader("Retry-After")) == (503, "30")
            lists_what_was_stored(response, series[0], "STOPPING")
            assert node.process.wait(timeout=60) == 0
        with closing(JournalReader(node.data / "journal.db")) as reader:
            assert "STOPPING" in [each["name"] for each in reader.refusals()]
        assert "Traceback" not in node.log.read_text()
        assert "Exception in ASGI" not in node.log.read_text()


def test_a_stranger_who_never_sends_the_body_is_no_exception_at_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.web.server._SHUTDOWN_S", 0.1)
    monkeypatch.setattr("gateway.web.unread._LINGER_S", 60.0)
    with stow_server(tmp_path) as server:
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        connection.sendall(
            b"POST /dicom-web/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n"
        )
        response = answer_on(connection)
        assert response.status == 401
    with connection:
        assert json.loads(response.read())["name"] == "CREDENTIALS_MISSING"
        assert connection.recv(100) == b""
    assert [each.message for each in caplog.records if "Exception" in each.message] == []


# -- broken HTTP ---------------------------------------------------------------------------------


def test_a_broken_chunk_is_answered_with_what_was_stored(server: StowServer, series: list[Dataset]) -> None:
    with begin(server.port, "Transfer-Encoding: chunked") as connection:
        whole = multipart([part10(series[0])], end=False) + HALF_A_PART
        connection.sendall(b"%x\r\n%s\r\n" % (len(whole), whole))
        wait_until(server.rows, what="the first instance")
        connection.sendall(b"zz\r\n" + b"x" * 100_000)
        response = answer_on(connection)
        assert (response.status, response.getheader("Connection")) == (400, "close")
        lists_what_was_stored(response, series[0], "HTTP_MALFORMED")
    assert [note[0] for note in server.notes] == ["HTTP_MALFORMED"]
    wait_until(lambda: server.requests.count() == 0)


def test_two_lengths_are_refused(server: StowServer) -> None:
    """RFC 9112 6.3: a proxy may have believed the other one."""
    with begin(server.port, "Content-Length: 5\r\nTransfer-Encoding: chunked") as connection:
        connection.sendall(b"5\r\nhello\r\n0\r\n\r\n")
        response = answer_on(connection)
        assert (response.status, json.loads(response.read())["name"]) == (400, "LENGTH_AMBIGUOUS")
        assert connection.recv(100) == b""


# -- where and how -------------------------------------------------------------------------------


def ask(server: StowServer, method: str, path: str, body: bytes) -> http.client.HTTPResponse:
    fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE, "Host": "localhost"}
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)) as connection:
        connection.request(method, path, body=body, headers=fields)
        return connection.getresponse()


@pytest.mark.parametrize("study", ["", "{study}/"])
def test_a_slash_at_the_end_is_the_same_place(server: StowServer, series: list[Dataset], study: str) -> None:
    path = "/dicom-web/studies/" + study.format(study=series[0].StudyInstanceUID)
    assert ask(server, "POST", path, multipart([part10(series[0])])).status == 200
    assert list(server.rows()) == [series[0].SOPInstanceUID]


@pytest.mark.parametrize(
    ("method", "path", "status", "name"),
    [
        ("PUT", "/dicom-web/studies", 405, "METHOD_NOT_ALLOWED"),
        ("PUT", "/dicom-web/studies/1.2/", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/dicom-web/studies/1.2/series/1.3", 404, "RESOURCE_UNKNOWN"),
        ("POST", "/dicom-web/", 404, "RESOURCE_UNKNOWN"),
        ("POST", "/elsewhere", 404, None),
        ("POST", "/health/live/", 404, None),
        ("POST", "/health/live", 405, None),
    ],
)
def test_whoever_knocks_at_the_wrong_place_hears_it(
    server: StowServer, method: str, path: str, status: int, name: str | None
) -> None:
    """Also with a large body: a connection that is reset would swallow the answer."""
    response = ask(server, method, path, bytes(8 << 20))
    assert (response.status, response.getheader("Location")) == (status, None)
    assert [note[0] for note in server.notes] == ([name] if name else [])
    assert (response.getheader("Allow") is not None) is (status == 405)


def test_any_number_of_equal_fields_is_read_in_linear_time() -> None:
    scope = {"type": "http", "headers": [(b"a", b"")] * 500_000, "client": ("192.0.2.1", 1)}
    assert len(head_of(scope).fields["a"]) == 500_000  # it took minutes when each one copied those before


# -- records -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("study", "name"), [("", "NOT_PART_10"), ("1.2.3", "STUDY_MISMATCH")], ids=["a part", "an instance"]
)
def test_parts_that_fail_alike_are_all_counted_and_a_few_written_down(
    server: StowServer, series: list[Dataset], study: str, name: str
) -> None:
    part = part10(series[0]) if study else b"x" * 200
    assert server.post(multipart([part] * 60), study=study).status == 409
    assert {key[1]: count for key, count in server.admission.tally.rejections().items()} == {name: 60}
    assert rejections(server) == [name] * 11  # the first ten, and how many more
