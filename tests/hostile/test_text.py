"""Control characters, format strings and scripts in everything that is text: titles, UIDs, names, values.

This node takes unknown callers, so that a hostile AE title goes as far as it can. The end of the module
(see conftest.py) looks at the log, the journal and every path.
"""

from __future__ import annotations

import json
import re
import struct
import urllib.request
from itertools import count

import pytest

from tests.hostile import wire
from tests.hostile.node import PLANTED, HostileNode, good_bytes, good_instance
from tests.hostile.peer import RawPeer, accepted, digest
from tests.peers import encoded

UNKNOWN_CALLERS = "accept"
CALLED_AE_TITLE_NOT_RECOGNISED = b"\0\x01\x01\x07"
INVALID_PARAMETER = b"\0\0\x02\x06"
"""Bodies of an A-ASSOCIATE-RJ and an A-ABORT (PS3.8 9.3.4, 9.3.8)."""

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


AE_TITLES = ("format", "braces", "markup", "path", "SQL")
"""Those that are AE titles nevertheless (PS3.5 6.2: printable ASCII without backslash, not only spaces)."""
NOT_ASCII = ("UTF-8", "broken UTF-8", "C1 control", "line separator")
_addresses = (f"127.0.3.{number}" for number in count(1))
"""The same refusal of the same address is written once a minute, so every call has an address of its own."""


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
@pytest.mark.parametrize("title", ["called", "calling"])
def test_a_hostile_ae_title_is_one_escaped_line(node: HostileNode, title: str, kind: str) -> None:
    """It is shown where it is an AE title; else the request is broken, and only its address is shown."""
    text, address = HOSTILE_TEXT[kind][:16], next(_addresses)
    with RawPeer(node.dicom_port, address) as peer:
        answer = peer.associate(wire.associate_rq(**{title: text}))  # type: ignore[arg-type]
        if kind not in AE_TITLES:
            assert answer == (wire.ABORT, INVALID_PARAMETER)
        elif title == "called":
            assert answer == (wire.ASSOCIATE_RJ, CALLED_AE_TITLE_NOT_RECOGNISED)
        else:
            assert answer.kind == wire.ASSOCIATE_AC
            assert node.store_good(peer) == 0
            assert peer.store(b"1.2\n\x1b[2J", good_bytes()[1]).status == 0xA900
            peer.release()
    (line,) = node.association_lines(address)
    if kind not in AE_TITLES:
        assert (line["event"], line["name"]) == ("association_rejected", "PDU_INVALID")
        assert not {"called", "calling"} & line.keys()
    elif title == "called":
        assert (line["event"], line["name"]) == ("association_rejected", "CALLED_AE_TITLE_NOT_RECOGNISED")
        assert line["called"] == text.decode()
    else:
        assert (line["event"], line["source"]) == ("association_opened", f"{text.decode()}@{address}")


@pytest.mark.parametrize("size", [17, 1000, 65536])
@pytest.mark.parametrize("title", ["called", "calling"])
def test_an_ae_title_that_is_too_long_moves_what_follows_and_is_refused(
    node: HostileNode, title: str, size: int
) -> None:
    """Titles have 16 bytes on the wire: the rest of a longer one is read as items."""
    address = next(_addresses)
    with RawPeer(node.dicom_port, address) as peer:
        answer = peer.associate(wire.associate_rq(**{title: b"A" * size}))  # type: ignore[arg-type]
        assert answer == (wire.ABORT, INVALID_PARAMETER)
    (line,) = node.association_lines(address)
    assert (line["event"], line["name"]) == ("association_rejected", "PDU_INVALID")
    assert "AAAA" not in str(line)


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
def test_a_hostile_abstract_syntax_is_not_accepted_and_not_shown_raw(node: HostileNode, kind: str) -> None:
    address = next(_addresses)
    with RawPeer(node.dicom_port, address) as peer:
        contexts = [*wire.STORE_AND_ECHO, wire.Context(5, HOSTILE_TEXT[kind])]
        answer = peer.associate(wire.associate_rq(contexts))
        if kind in NOT_ASCII:
            assert answer == (wire.ABORT, INVALID_PARAMETER)
        else:
            assert accepted(answer) == {1: 0, 3: 0, 5: 3}
    first, *others = node.association_lines(address)
    assert first.get("name") == ("PDU_INVALID" if kind in NOT_ASCII else None)
    assert {line["name"] for line in others} <= {"PRESENTATION_CONTEXTS_REFUSED"}, "once for each text"
    assert all(str(value).isprintable() for line in (first, *others) for value in line.values())


@pytest.mark.parametrize("kind", HOSTILE_TEXT)
def test_hostile_implementation_names_and_identities_are_not_shown_raw(node: HostileNode, kind: str) -> None:
    text, address = HOSTILE_TEXT[kind], next(_addresses)
    identity = wire.item(0x58, b"\x02\x01" + len(text).to_bytes(2, "big") + text + b"\0\0")
    user = wire.user_information(16384, wire.item(0x55, text[:16]), identity)
    is_name = kind in (*AE_TITLES, "spaces")
    with RawPeer(node.dicom_port, address) as peer:
        answer = peer.associate(wire.associate_rq(user=user))
        assert answer.kind == (wire.ASSOCIATE_AC if is_name else wire.ABORT)
    (line,) = node.association_lines(address)
    assert line.get("name") == (None if is_name else "PDU_INVALID")
    assert text.decode("latin-1") not in str(line) or kind == "spaces"


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
        assert peer.store(uid, data).status == 0, "no more than its UIDs is asked of an instance"
        node.acknowledged[uid] = digest(data)
        peer.release()


# -- 64 KB where some bytes are due ---------------------------------------------------------------

SYNTAXES = {"explicit": (1, 65534), "implicit": (5, 65536)}
"""Presentation context, and bytes of the longest value: a length has 16 bits in explicit VR."""


def _instance_with(keyword: str, value: bytes, syntax: str) -> tuple[bytes, bytes]:
    """UID and data set of a good instance in which an attribute has this value."""
    dataset = good_instance()
    if keyword not in dataset:
        setattr(dataset, keyword, "x")
    element = dataset[keyword]
    is_implicit = syntax == "implicit"
    data = encoded(dataset, implicit_vr=is_implicit)
    start = struct.pack("<HH", element.tag.group, element.tag.element)
    start, length = (start, "<L") if is_implicit else (start + element.VR.encode(), "<H")
    was = len(str(element.value)) + len(str(element.value)) % 2
    before, behind = data.split(start + struct.pack(length, was), 1)
    changed = before + start + struct.pack(length, len(value)) + value + behind[was:]
    return str(dataset.SOPInstanceUID).encode(), changed


def _store(node: HostileNode, uid: bytes, data: bytes, syntax: str) -> int:
    contexts = [wire.Context(1, wire.CT), wire.Context(5, wire.CT, (wire.IMPLICIT,))]
    with RawPeer(node.dicom_port) as peer:
        peer.associated(wire.associate_rq(contexts))
        status = peer.store(uid, data, SYNTAXES[syntax][0]).status
        peer.release()
    return status


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize(
    "keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
)
def test_64_kb_of_a_uid_in_a_data_set_are_refused(node: HostileNode, keyword: str, syntax: str) -> None:
    value = (b"1.2\n" + b"." + b"3" * 70_000)[: SYNTAXES[syntax][1]]
    before, stored = len(node.refusals()), node.stored
    assert _store(node, *_instance_with(keyword, value, syntax), syntax) == 0xA900
    ((subject, name, reason),) = node.refusals()[before:]
    assert (subject, name) == ("instance", "IDENTITY_MISSING")
    assert len(reason) < 500
    assert node.stored == stored


def test_64_kb_of_a_uid_in_a_command_set_end_the_association(node: HostileNode) -> None:
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated().send(wire.message(1, wire.c_store_rq(b"1.2." + b"3" * 65532)[:65000]))
        assert peer.ended(5.0)
    assert "COMMAND_INVALID" in node.refusal_names()
    assert node.stored == stored


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("keyword", ["PatientName", "PatientComments", "SeriesDescription"])
def test_64_kb_of_text_in_a_data_set_are_kept_in_the_file_and_nowhere_else(
    node: HostileNode, keyword: str, syntax: str
) -> None:
    """Of a patient or not: no row and no line of the log grows with it."""
    value = (b"Planted\n\x1b[2J%s^" * 5000)[: SYNTAXES[syntax][1]]
    uid, data = _instance_with(keyword, value, syntax)
    assert _store(node, uid, data, syntax) == 0
    node.acknowledged[uid.decode()] = digest(data)


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
