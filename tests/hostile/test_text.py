"""Control characters, format strings and scripts in everything that is text: titles, UIDs, names, values.

This node takes unknown callers, so that a hostile AE title goes as far as it can. The end of the module
(see conftest.py) looks at the log, the journal and every path.
"""

from __future__ import annotations

import contextlib
import json
import re
import urllib.request

import pytest

from tests.hostile import wire
from tests.hostile.node import PLANTED, HostileNode, good_bytes, good_instance
from tests.hostile.peer import Gone, RawPeer, digest
from tests.peers import encoded

UNKNOWN_CALLERS = "accept"

HOSTILE_TEXT: dict[str, bytes] = {
    "newline": b'A\n{"event":"x"}',
    "carriage return": b"A\rB",
    "escape": b"\x1b[2J\x1b]0;x\x07",
    "NUL": b"AI\x00GW",
    "all NUL": bytes(16),
    "format": b"%s%n%x%d%99999s",
    "braces": b"{0}{a.__class__}",
    "UTF-8": "Ünïcødé".encode(),
    "broken UTF-8": b"\xff\xfe\xc0\x80",
    "C1 control": b"\x9b31m\x85x",
    "quote": b"\"'\\';--",
    "markup": b"<script>x</scri",
    "path": b"../../../x",
    "spaces": b" " * 16,
    "line separator": "\u2028\u202e".encode(),
    "SQL": b"'); DROP TABLE--",
}


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
@pytest.mark.parametrize("title", ["called", "calling"])
def test_a_hostile_ae_title_is_one_escaped_line(node: HostileNode, title: str, kind: str) -> None:
    text = HOSTILE_TEXT[kind][:16]
    titles = {title: text}
    with RawPeer(node.dicom_port, "127.0.0.67") as peer:
        peer.send(wire.associate_rq(**titles))  # type: ignore[arg-type]
        try:
            found = peer.read_pdu(5.0)
        except Gone:
            return
        if title == "called":
            assert found.kind in (wire.ASSOCIATE_RJ, wire.ABORT)
        elif found.kind == wire.ASSOCIATE_AC:
            assert node.store_good(peer) == 0
            assert peer.store(b"1.2\n\x1b[2J", good_bytes()[1]).status == 0xA900
            peer.release()


@pytest.mark.parametrize("size", [17, 1000, 65536])
def test_an_ae_title_that_is_too_long_moves_what_follows_and_is_refused(node: HostileNode, size: int) -> None:
    """Titles have 16 bytes on the wire: the rest of a longer one is read as items."""
    for titles in ({"called": b"A" * size}, {"calling": b"A" * size}):
        with RawPeer(node.dicom_port) as peer:
            peer.send(wire.associate_rq(**titles))  # type: ignore[arg-type]
            with contextlib.suppress(Gone):
                assert peer.read_pdu(5.0).kind != wire.ASSOCIATE_AC


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
def test_hostile_implementation_names_and_identities_are_not_shown_raw(node: HostileNode, kind: str) -> None:
    text = HOSTILE_TEXT[kind]
    identity = wire.item(0x58, b"\x02\x01" + len(text).to_bytes(2, "big") + text + b"\0\0")
    user = wire.user_information(16384, wire.item(0x55, text[:16]), identity)
    with RawPeer(node.dicom_port) as peer:
        peer.send(wire.associate_rq([*wire.STORE_AND_ECHO, wire.Context(5, text)], user=user))
        with contextlib.suppress(Gone):
            peer.read_pdu(5.0)


TEXT_KEYWORDS = ("SeriesDescription", "StudyDescription", "Manufacturer", "ProtocolName", "BodyPartExamined")


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
def test_hostile_values_in_a_data_set_are_kept_in_the_file_and_nowhere_raw(
    node: HostileNode, kind: str
) -> None:
    dataset = good_instance()
    for keyword in TEXT_KEYWORDS:
        setattr(dataset, keyword, "PLACEHOLDER-16-B")
    uid, data = str(dataset.SOPInstanceUID), encoded(dataset)
    data = data.replace(b"PLACEHOLDER-16-B", HOSTILE_TEXT[kind][:16].ljust(16))
    data = data.replace(PLANTED.encode(), b"Planted\n\x1b[2J%s\0"[: len(PLANTED)])
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        if peer.store(uid, data).status == 0:
            node.acknowledged[uid] = digest(data)
        peer.release()


def test_a_refused_instance_does_not_show_its_patient(node: HostileNode) -> None:
    uid, data = good_bytes()
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        answers = [peer.store(uid, data[:-5]), peer.store(good_bytes()[0], data)]
    for answer in answers:
        assert answer.status != 0
        comment = answer.elements[0x902]
        assert len(comment) <= 64
        assert b"lanted" not in comment
        assert re.fullmatch(rb"[\x20-\x5b\x5d-\x7e]*", comment)


def test_metrics_and_reports_show_neither_patients_nor_control_characters(node: HostileNode) -> None:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.http_port}/metrics", timeout=10) as answer:
        metrics = answer.read().decode()
    assert re.fullmatch(r"[\x20-\x7e\n]*", metrics)
    assert "planted" not in metrics.lower()
    reports = [node.aigw("study", "list", "--json"), node.aigw("study", "explain", "--refusals")]
    for report in reports:
        assert report.returncode == 0, report.stderr
        assert re.fullmatch(r"[^\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e]*", report.stdout)
        assert "planted" not in report.stdout.lower()
    json.loads(reports[0].stdout)
