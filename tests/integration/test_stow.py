"""STOW-RS over a real socket, spool and journal: status codes, and hostile, slow and many clients."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from gateway.journal import JournalReader
from gateway.receive.admit import AdmissionLimits
from gateway.receive.callers import KnownPeer
from gateway.receive.stow.access import WebPeer
from gateway.receive.stow.request import StowLimits
from tests.builders import ct_series
from tests.peers import encoded
from tests.stow import (
    AUTHORIZATION,
    BOUNDARY,
    CONTENT_TYPE,
    TOKEN,
    VNA,
    Reply,
    StowServer,
    multipart,
    part10,
    post,
    raw,
    stow_server,
)
from tests.waiting import wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StowServer]:
    with stow_server(tmp_path) as running:
        yield running


@pytest.fixture
def series() -> list[Dataset]:
    return ct_series((3, 8, 8))


def names(server: StowServer) -> list[str]:
    return [note[0] for note in server.notes]


def rejections(server: StowServer) -> list[str]:
    """Why instances were rejected, as the journal has it, newest first."""
    with closing(JournalReader(server.folder / "journal.db")) as reader:
        return [each["reason"] for each in reader.refusals(100) if each["subject"] == "instance"]


def stored_uids(reply: Reply) -> list[str]:
    return [item.ReferencedSOPInstanceUID for item in reply.data_set.get("ReferencedSOPSequence", [])]


def comments(reply: Reply) -> list[str]:
    """Names in the Error Comments of an answer: of the request, of instances that failed, of other parts."""
    found = [reply.json["00000902"]] if "00000902" in reply.json else []
    items = (item for tag in ("00081198", "0008119A") for item in reply.json.get(tag, {}).get("Value", []))
    return [each["Value"][0].partition(":")[0] for each in (*found, *(item["00000902"] for item in items))]


def slowly(*pieces: bytes) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        time.sleep(0.3)


# -- what is stored ------------------------------------------------------------------------------


def test_a_series_is_stored_byte_for_byte(server: StowServer, series: list[Dataset]) -> None:
    reply = server.post(multipart([part10(each) for each in series]))
    assert reply.status == 200
    assert stored_uids(reply) == [each.SOPInstanceUID for each in series]
    assert server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}
    assert server.journal.receiving_series()[0].source == "vna"
    assert "warning" not in reply.headers


def test_a_preamble_is_not_kept(server: StowServer, series: list[Dataset]) -> None:
    program = b"MZ" + b"\x90" * 126
    assert server.post(multipart([program + part10(series[0])[128:]])).status == 200
    assert server.files()[0].read_bytes()[:128] == bytes(128)


def test_one_file_needs_no_parts(server: StowServer, series: list[Dataset]) -> None:
    reply = server.post(part10(series[0]), {"Content-Type": "application/dicom"})
    assert (reply.status, list(server.rows())) == (200, [series[0].SOPInstanceUID])


def test_the_same_again_is_stored_once(server: StowServer, series: list[Dataset]) -> None:
    body = multipart([part10(each) for each in series])
    assert [server.post(body).status for _ in range(2)] == [200, 200]
    assert len(server.files()) == len(series)


def test_other_bytes_under_a_known_uid_are_kept_with_a_warning(
    server: StowServer, series: list[Dataset]
) -> None:
    server.post(multipart([part10(series[0])]))
    series[0].PatientComments = "another"
    reply = server.post(multipart([part10(series[0]), part10(series[1])]))
    assert reply.status == 202
    warnings = [item.get("WarningReason") for item in reply.data_set.ReferencedSOPSequence]
    assert warnings == [0xB111, None]
    assert len(server.files()) == 3


def test_the_study_of_the_path_is_the_only_one(server: StowServer, series: list[Dataset]) -> None:
    other = ct_series((1, 8, 8), seed=7)[0]
    reply = server.post(multipart([part10(series[0]), part10(other)]), study=series[0].StudyInstanceUID)
    assert reply.status == 202
    assert stored_uids(reply) == [series[0].SOPInstanceUID]
    failed = reply.data_set.FailedSOPSequence[0]
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (other.SOPInstanceUID, 0xA900)
    assert reply.json["00081198"]["Value"][0]["00000902"]["Value"][0].startswith("STUDY_MISMATCH: ")
    assert len(server.files()) == 1


def test_a_part_that_fails_leaves_the_others_alone(server: StowServer, series: list[Dataset]) -> None:
    lying = bytearray(part10(series[1]))  # in the file meta information and where it is looked for
    lying[lying.rindex(b"\x08\0\x18\0")] = 9
    unknown_class = part10(series[1]).replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.1.1.x\0")
    other_class = part10(series[1]).replace(b"1.2.840.10008.5.1.4.1.1.2\0", b"1.2.840.10008.5.1.4.3.1.2\0")
    files = [
        part10(series[0]),
        b"no DICOM file",
        part10(series[1], syntax=DeflatedExplicitVRLittleEndian),
        part10(series[1], syntax="1.2.3.4"),
        bytes(lying),
        unknown_class,
        other_class,
        part10(series[1], encoded(series[1])[:-5]),
        part10(series[1], b""),
        part10(series[2]),
    ]
    reply = server.post(multipart(files))
    assert reply.status == 202
    assert stored_uids(reply) == [series[0].SOPInstanceUID, series[2].SOPInstanceUID]
    reasons = [item.FailureReason for item in reply.data_set.FailedSOPSequence]
    assert reasons == [0xC122, 0xC122, 0xA900, 0x0122, 0xC000, 0xC000]
    assert [item.FailureReason for item in reply.data_set.OtherFailuresSequence] == [0xC000, 0xC000]
    assert set(server.rows()) == set(stored_uids(reply))
    assert len(server.files()) == 2


def test_old_uids_in_the_file_meta_information_do_not_matter(
    server: StowServer, series: list[Dataset]
) -> None:
    """As anonymizers leave them; by C-STORE nobody would ever see them."""
    uid = series[1].SOPInstanceUID
    stale = part10(series[1]).replace(uid.encode(), b"1.2.3".ljust(len(uid), b"4"), 1)
    reply = server.post(multipart([stale]))
    assert (reply.status, stored_uids(reply)) == (200, [uid])
    assert server.rows() == {uid: encoded(series[1])}
    assert uid.encode() in server.files()[0].read_bytes()[:400]


def test_the_same_however_the_body_is_cut(server: StowServer, series: list[Dataset]) -> None:
    body = multipart([part10(each) for each in series])
    small = (body[at : at + 67] for at in range(0, len(body), 67))
    assert server.post(small).status == 200
    assert server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}


def test_when_nothing_is_stored_it_is_a_conflict(server: StowServer, series: list[Dataset]) -> None:
    reply = server.post(multipart([b"x", part10(series[0], syntax="1.2.3")]))
    assert (reply.status, server.files()) == (409, [])


def test_an_instance_larger_than_allowed_fails_alone(tmp_path: Path, series: list[Dataset]) -> None:
    small = AdmissionLimits(max_instance_bytes=4096, keep_free_bytes=0, refuse_over_fraction=1.0)
    with stow_server(tmp_path, admission_limits=small) as server:
        reply = server.post(multipart([part10(series[0], bytes(1 << 20)), part10(series[1])]))
        assert (reply.status, stored_uids(reply)) == (202, [series[1].SOPInstanceUID])
        assert len(server.files()) == 1


def test_the_peer_may_send_only_its_storage_classes(tmp_path: Path, series: list[Dataset]) -> None:
    only_mr = WebPeer(
        KnownPeer("mr", "MR", "127.0.0.1", storage_classes=("1.2.840.10008.5.1.4.1.1.4",)), TOKEN
    )
    with stow_server(tmp_path, [only_mr]) as server:
        reply = server.post(multipart([part10(series[0])]))
        assert (reply.status, reply.data_set.FailedSOPSequence[0].FailureReason) == (409, 0x0122)


# -- what is no request that we take --------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "headers", "status", "name"),
    [
        (b"", {}, 400, "TRUNCATED_MESSAGE"),
        (b"--" + BOUNDARY.encode() + b"--", {}, 400, "NO_PARTS"),
        (b"x", {"Content-Type": "multipart/related"}, 400, "BOUNDARY_MISSING"),
        (b"x", {"Content-Type": "multipart/related; boundary=a; boundary=b"}, 400, "MEDIA_TYPE_MALFORMED"),
        (b"x", {"Content-Type": "application/dicom+xml"}, 415, "XML_REFUSED"),
        (b"x", {"Content-Type": "application/dicom+json"}, 415, "JSON_METADATA_REFUSED"),
        (b"x", {"Content-Type": "text/html"}, 415, "MEDIA_TYPE_REFUSED"),
        (b"x", {"Content-Encoding": "br"}, 415, "CONTENT_ENCODING_REFUSED"),
        (b"x", {"Accept": "application/dicom+xml"}, 406, "JSON_NOT_ACCEPTED"),
        (b"x", {"Authorization": ""}, 401, "CREDENTIALS_MISSING"),
        (b"x", {"Authorization": "Bearer wrong"}, 401, "CREDENTIALS_WRONG"),
        (multipart([b"x"], "multipart/related; boundary=inner"), {}, 415, "NESTED_MULTIPART"),
    ],
)
def test_it_is_refused_by_name(
    server: StowServer, body: bytes, headers: dict[str, str], status: int, name: str
) -> None:
    reply = server.post(body, headers)
    assert (reply.status, reply.json["name"]) == (status, name)
    assert reply.headers["warning"].startswith(f'299 aigw "{name}: ')
    assert ("www-authenticate" in reply.headers) is (status == 401)
    wait_until(lambda: names(server) == [name] or name == "NO_PARTS")
    assert server.files() == []
    assert TOKEN not in str(server.notes)


def test_only_post_is_for_studies(server: StowServer) -> None:
    assert post(server.port, b"", AUTHORIZATION, method="GET").status == 405


def test_from_another_address_it_is_forbidden(tmp_path: Path) -> None:
    with stow_server(tmp_path, [WebPeer(KnownPeer("vna", "VNA", "10.9.9.9"), token=TOKEN)]) as server:
        reply = server.post(b"x", {"X-Forwarded-For": "10.9.9.9"})
        assert (reply.status, reply.json["name"]) == (403, "ADDRESS_NOT_ALLOWED")


def test_without_a_peer_for_it_there_is_nothing_to_store_to(tmp_path: Path) -> None:
    with stow_server(tmp_path, []) as server:
        reply = server.post(b"x")
        assert (reply.status, reply.json["name"]) == (404, "STOW_NOT_CONFIGURED")
        assert "web.token" in server.notes[0][1]


def test_what_came_before_a_break_stays(server: StowServer, series: list[Dataset]) -> None:
    reply = server.post(multipart([part10(each) for each in series])[:-40])
    assert reply.status == 400
    assert stored_uids(reply) == [each.SOPInstanceUID for each in series[:2]]
    assert comments(reply) == ["TRUNCATED_MESSAGE", "INCOMPLETE"]
    failed = reply.data_set.FailedSOPSequence[0]
    assert (failed.ReferencedSOPInstanceUID, failed.FailureReason) == (series[2].SOPInstanceUID, 0x0110)
    assert "2 instances of the request were stored before and stay, 1 failed" in server.notes[0][1]
    assert set(server.rows()) == set(stored_uids(reply))
    assert len(server.files()) == 2


def test_metadata_with_bulk_data_is_refused_and_nothing_is_fetched(
    server: StowServer, tmp_path: Path, series: list[Dataset]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    os.utime(secret, (1, 1))
    with socket.create_server(("127.0.0.1", 0)) as trap:
        trap.settimeout(0.3)
        uris = [f"file://{secret}", "http://169.254.169.254/x", f"http://127.0.0.1:{trap.getsockname()[1]}/x"]
        metadata = json.dumps([{"7FE00010": {"vr": "OW", "BulkDataURI": uri}} for uri in uris]).encode()
        whole = CONTENT_TYPE.replace("application/dicom", "application/dicom+json")
        assert (
            server.post(multipart([metadata], "application/dicom+json"), {"Content-Type": whole}).status
            == 415
        )
        reply = server.post(multipart([metadata], "application/dicom+json"))
        assert (reply.status, reply.data_set.OtherFailuresSequence[0].FailureReason) == (415, 0xC000)
        deep = b"[" * 10_000 + b"]" * 10_000
        xml = (
            b'<!DOCTYPE x [<!ENTITY e SYSTEM "'
            + uris[0].encode()
            + b'">]><NativeDicomModel>&e;</NativeDicomModel>'
        )
        assert server.post(multipart([deep], "application/dicom+json")).status == 415
        assert server.post(multipart([xml], "application/dicom+xml")).status == 415
        with pytest.raises(TimeoutError):
            trap.accept()
    assert secret.stat().st_atime == 1
    assert server.files() == []


# -- bounds --------------------------------------------------------------------------------------


def test_a_hundred_thousand_parts_are_too_many(server: StowServer) -> None:
    reply = server.post(multipart([b""] * 100_000))
    assert reply.status == 413
    assert len(reply.data_set.OtherFailuresSequence) == 10_000
    assert names(server)[-1] == "TOO_MANY_PARTS"
    records = rejections(server)
    assert len(records) == 11
    assert "9990 further parts" in records[0]


def test_a_request_may_not_be_too_large(tmp_path: Path, series: list[Dataset]) -> None:
    body = multipart([part10(series[0]), bytes(60_000)])
    with stow_server(tmp_path, limits=StowLimits(max_request_bytes=50_000)) as server:
        assert server.post(body).status == 413
        assert server.files() == []
        reply = server.post(slowly(body[:30_000], body[30_000:]))
        assert (reply.status, stored_uids(reply)) == (413, [series[0].SOPInstanceUID])


def test_gzip_is_taken(server: StowServer, series: list[Dataset]) -> None:
    body = gzip.compress(multipart([part10(each) for each in series]))
    assert server.post(body, {"Content-Encoding": "gzip"}).status == 200
    assert server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}


def test_a_gzip_bomb_is_refused_with_flat_memory(server: StowServer) -> None:
    def bomb() -> Iterator[bytes]:
        stream = zlib.compressobj(9, wbits=31)
        yield stream.compress(multipart([b""], end=False)[:-2])
        for _ in range(160):
            yield stream.compress(bytes(1 << 20))
        yield stream.flush()

    before = psutil.Process().memory_info().rss
    reply = server.post(b"".join(bomb()), {"Content-Encoding": "gzip"})
    assert (reply.status, comments(reply)) == (413, ["GZIP_BOMB", "NOT_PART_10"])
    assert psutil.Process().memory_info().rss - before < 64 << 20
    assert server.files() == []


@pytest.mark.parametrize("field", [b"a: " + b"x" * 100_000, b"a: b\r\n" * 20_000])
def test_an_endless_head_of_a_part_is_refused(server: StowServer, field: bytes) -> None:
    reply = server.post(f"--{BOUNDARY}\r\n".encode() + field)
    assert (reply.status, reply.json["name"]) == (400, "PART_HEADER_TOO_LONG")


def test_an_endless_head_of_a_request_is_refused(server: StowServer) -> None:
    with closing(socket.create_connection(("127.0.0.1", server.port), timeout=20)) as connection:
        connection.sendall(b"POST /dicom-web/studies HTTP/1.1\r\na: " + b"x" * 17_000)
        wait_until(lambda: connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 400")
    assert names(server) == []


def test_content_length_that_lies(server: StowServer, series: list[Dataset]) -> None:
    head = f"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n"
    head += f"Content-Type: {CONTENT_TYPE}\r\nContent-Length: %d\r\n\r\n"
    body = multipart([part10(each) for each in series])
    assert b" 413 " in raw(server.port, (head % (1 << 40)).encode())[:20]
    for broken in (b"-5", b"1, 2", b"5\r\nContent-Length: 6"):
        request = head.encode().replace(b"%d", broken) + body
        assert raw(server.port, request).startswith(b"HTTP/1.1 400")
    # More than ever comes: the parts that are complete are stored, and the break is written down.
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.sendall((head % (4 << 30)).encode() + body[:-40])
        wait_until(lambda: len(server.rows()) == 2)
    wait_until(lambda: names(server)[-1:] == ["CLIENT_GONE"])
    assert len(server.rows()) == 2 == len(server.files())
    assert server.requests.count() == 0


def test_a_client_that_is_refused_early_hears_why(server: StowServer) -> None:
    """Though it sends on: a connection reset at once would swallow the answer."""
    body = multipart([bytes(8 << 20)])
    for headers in ({"Authorization": "Bearer x"}, {"Content-Type": "text/html"}):
        assert server.post(body, headers).status in (401, 415)


# -- slow and many -------------------------------------------------------------------------------


def begin(server: StowServer, length: int = 1000) -> socket.socket:
    """A request whose body is still to come."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    fields = {
        "Host": "127.0.0.1",
        **AUTHORIZATION,
        "Content-Type": CONTENT_TYPE,
        "Content-Length": str(length),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    connection.sendall(f"POST /dicom-web/studies HTTP/1.1\r\n{lines}\r\n".encode())
    return connection


def test_a_client_that_goes_silent_is_cut_off(tmp_path: Path) -> None:
    with stow_server(tmp_path, limits=StowLimits(idle_timeout_s=0.4)) as server, begin(server) as connection:
        connection.sendall(b"--")
        assert connection.recv(4096).startswith(b"HTTP/1.1 408")
        wait_until(lambda: names(server) == ["CLIENT_TOO_SLOW"])


def test_a_client_that_trickles_is_cut_off(tmp_path: Path) -> None:
    with stow_server(tmp_path, limits=StowLimits(idle_timeout_s=0.4)) as server, begin(server) as connection:
        connection.settimeout(0.1)
        for _ in range(300):
            connection.sendall(b"x")
            try:
                assert connection.recv(4096).startswith(b"HTTP/1.1 408")
                break
            except TimeoutError:
                continue
        else:
            pytest.fail("it is still waited for")


def test_a_head_that_never_ends_is_cut_off(server: StowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.connections.HEAD_TIMEOUT_S", 0.3)
    assert raw(server.port, b"") == b""
    assert raw(server.port, b"POST /dicom-web/studies HT") == b""


def test_idle_connections_keep_nobody_out(server: StowServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.connections.MAX_CONNECTIONS", 100)
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(200)]
    try:
        for _ in range(3):
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
            connection.request("GET", "/health/live")
            assert connection.getresponse().status == 200
            connection.close()
    finally:
        for each in idle:
            each.close()


def is_alive(server: StowServer) -> bool:
    """Whether a new client is served at once."""
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=15)) as connection:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200


def gone(connection: socket.socket) -> bool:
    """Whether the server has ended a connection, after whatever it had to say."""
    connection.settimeout(15)
    try:
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


REFUSED = b"POST /dicom-web/studies HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 9\r\n\r\n"
UNREAD = b"GET /nothing HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 20_000


@pytest.mark.parametrize("words", [REFUSED, UNREAD], ids=["never send the body", "never read the answers"])
def test_strangers_who_stay_after_their_answer_keep_nobody_out(
    server: StowServer, monkeypatch: pytest.MonkeyPatch, words: bytes
) -> None:
    monkeypatch.setattr("gateway.web.connections.MAX_CONNECTIONS", 10)
    monkeypatch.setattr("gateway.web.unread._LINGER_S", 60.0)
    strangers = []
    try:
        for _ in range(10):
            strangers.append(socket.create_connection(("127.0.0.1", server.port), timeout=0.5))
            with suppress(TimeoutError):
                strangers[-1].sendall(words)
        assert strangers[-1].recv(12, socket.MSG_PEEK) in (b"HTTP/1.1 401", b"HTTP/1.1 404")
        assert all(is_alive(server) for _ in range(20))
        assert gone(strangers[0])
    finally:
        for each in strangers:
            each.close()


def test_an_address_that_crowds_in_takes_places_from_itself_only(
    server: StowServer, monkeypatch: pytest.MonkeyPatch, series: list[Dataset]
) -> None:
    monkeypatch.setattr("gateway.web.connections.MAX_CONNECTIONS_PER_ADDRESS", 8)
    body = multipart([part10(series[0])])
    other = socket.create_connection(("127.0.0.1", server.port), source_address=("127.0.0.9", 0))
    with other, begin(server, len(body)) as storing:
        wait_until(lambda: server.requests.count("vna") == 1)
        crowd = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(30)]
        assert all(gone(each) for each in crowd[:22])
        assert is_alive(server)
        other.sendall(b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert other.recv(12) == b"HTTP/1.1 200"
        storing.sendall(body)  # who was let in makes room for nobody
        assert storing.recv(12) == b"HTTP/1.1 200"
        for each in crowd:
            each.close()


def test_one_request_too_many_is_asked_to_come_again(tmp_path: Path, series: list[Dataset]) -> None:
    with stow_server(tmp_path, limits=StowLimits(max_requests=1)) as server:
        with begin(server):
            wait_until(lambda: server.requests.count("vna") == 1)
            reply = server.post(multipart([part10(series[0])]))
            assert (reply.status, reply.json["name"]) == (503, "TOO_MANY_REQUESTS")
            assert int(reply.headers["retry-after"]) > 0
        wait_until(lambda: server.requests.count() == 0)
        assert server.post(multipart([part10(series[0])])).status == 200


@pytest.mark.parametrize("own", [1, 0])
def test_a_peer_leaves_room_for_others(tmp_path: Path, series: list[Dataset], own: int) -> None:
    """By a limit of its own, or because the last place is for another one."""
    greedy = WebPeer(KnownPeer("vna", "VNA", "127.0.0.1", max_associations=own), token=TOKEN)
    other = WebPeer(KnownPeer("ct", "CT", "127.0.0.1"), token="another-token-of-the-tests")  # noqa: S106
    limits = StowLimits(max_requests=2)
    with stow_server(tmp_path, [greedy, other], limits) as server, begin(server):
        wait_until(lambda: server.requests.count("vna") == 1)
        body = multipart([part10(series[0])])
        refused = server.post(body).json
        assert refused["name"] == "TOO_MANY_REQUESTS_OF_PEER"
        assert "max_associations" in refused["reason"]
        assert server.post(body, {"Authorization": "Bearer another-token-of-the-tests"}).status == 200
        name, _, address, peer, advice = server.notes[-1]
        assert (name, address, peer) == ("TOO_MANY_REQUESTS_OF_PEER", "127.0.0.1", "vna")
        assert "127.0.0.1 asked us to store images by STOW-RS" in advice
        assert "503" in advice


def test_while_stopping_it_asks_to_come_again(server: StowServer) -> None:
    server.service.stop()
    reply = server.post(b"x")
    assert (reply.status, reply.json["name"], "retry-after" in reply.headers) == (503, "STOPPING", True)


def test_at_the_watermark_it_asks_to_come_again(tmp_path: Path, series: list[Dataset]) -> None:
    with stow_server(tmp_path, admission_limits=AdmissionLimits(keep_free_bytes=1 << 60)) as server:
        reply = server.post(multipart([part10(series[0])]))
        assert (reply.status, reply.json["name"], reply.headers["retry-after"]) == (503, "DISK_FULL", "30")


def test_expect_100_continue(server: StowServer, series: list[Dataset], tmp_path: Path) -> None:
    body = tmp_path / "body"
    body.write_bytes(multipart([part10(each) for each in series]))
    url = f"http://127.0.0.1:{server.port}/dicom-web/studies"
    command = ["curl", "-sv", "-H", "Expect: 100-continue", "-H", f"Content-Type: {CONTENT_TYPE}"]
    command += ["--data-binary", f"@{body}", url, "-o", "/dev/null", "-w", "%{http_code} %{size_upload}"]
    stored = subprocess.run(
        [*command, "-H", f"Authorization: Bearer {TOKEN}"], capture_output=True, text=True
    )
    assert stored.stdout == f"200 {body.stat().st_size}"
    assert "100 Continue" in stored.stderr
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.stdout == "401 0"


def own_bytes(process: psutil.Process) -> int:
    """Memory that is not of files: what a process maps to read a header is the page cache's."""
    found = process.memory_info()
    return int(found.rss - found.shared)


def test_many_requests_at_once_use_little_memory(tmp_path: Path) -> None:
    """A child process is measured: 20 requests of one large instance each, and the peak of its memory."""
    count, size_mib = (20, int(os.environ.get("AIGW_TEST_STOW_MIB", "25")))
    heads = []
    for dataset in ct_series((count, 8, 8)):
        del dataset.PixelData
        pixels = struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, size_mib << 20)
        heads.append(multipart([part10(dataset, encoded(dataset) + pixels)], end=False)[:-2])
    script = """
import sys
from pathlib import Path
from gateway.receive.stow.request import StowLimits
from tests.stow import stow_server
from tests.waiting import wait_until
with stow_server(Path(sys.argv[1]), limits=StowLimits(max_requests=20)) as server:
    print(server.port, flush=True)
    sys.stdin.read()
"""
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2], env={**os.environ, "PYTHONPATH": "."},
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        lines = iter(child.stdout.readline, "")
        port = int(next(line for line in lines if line.strip().isdigit()))
        reader = threading.Thread(target=lambda: [None for _ in lines], daemon=True)
        reader.start()
        process = psutil.Process(child.pid)
        before = own_bytes(process)
        block = os.urandom(1 << 20)
        statuses: list[int] = []

        def send(head: bytes) -> None:
            def body() -> Iterator[bytes]:
                yield head
                for _ in range(size_mib):
                    yield block
                yield f"\r\n--{BOUNDARY}--".encode()

            fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}
            statuses.append(post(port, body(), fields, timeout_s=280).status)

        threads = [threading.Thread(target=send, args=(head,)) for head in heads]
        for thread in threads:
            thread.start()
        peak = before
        while any(thread.is_alive() for thread in threads):
            peak = max(peak, own_bytes(process))
            time.sleep(0.02)
        for thread in threads:
            thread.join()
        assert statuses == [200] * count
        assert peak - before < 60 << 20
    finally:
        child.stdin.close()
        child.wait(timeout=30)
        child.stdout.close()


def test_the_hash_of_a_large_part_is_that_of_what_was_sent(server: StowServer) -> None:
    dataset = ct_series((1, 512, 512))[0]
    dataset.NumberOfFrames = 1
    data = encoded(dataset)
    assert server.post(part10(dataset, data), {"Content-Type": "application/dicom"}).status == 200
    assert hashlib.sha256(server.rows()[dataset.SOPInstanceUID]).digest() == hashlib.sha256(data).digest()
    assert VNA.peer.name == "vna"
