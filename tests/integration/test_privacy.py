"""A patient's name by every way in, taken or refused: it is in the stored objects and nowhere else."""

from __future__ import annotations

import contextlib
import re
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.builders import ct_series
from tests.commitment_site import PUSH_MODEL, CommitmentSCU
from tests.gateway_process import GatewayProcess
from tests.hostile import wire
from tests.hostile.peer import Gone, RawPeer
from tests.peers import encoded
from tests.ports import free_port
from tests.stow import AUTHORIZATION, CONTENT_TYPE, TOKEN, multipart, part10, post
from tests.waiting import wait_until

NAME, ID = "Planted^Patient", "PLANTED-77"
PLANTED = b"planted"
CONFIGURATION = f"""\
version: 1
data_dir: ${{GW_DATA}}
dicom:
  ae_title: AIGW
  listen: {{host: 127.0.0.1, port: "${{GW_DICOM_PORT}}"}}
peers:
  scanner: {{ae_title: SCANNER, host: 127.0.0.1, roles: [source], web: {{token: {TOKEN}}}}}
completion: {{quiet_for: 500ms, at_most: 1m}}
workers: {{device: cpu}}
web:
  listen: {{host: 127.0.0.1, port: "${{GW_HTTP_PORT}}"}}
"""
STORE_AND_COMMIT = (*wire.STORE_AND_ECHO, wire.Context(5, PUSH_MODEL.encode()))
N_ACTION_RQ = 0x0130


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    """A node that has met the patient in every way."""
    with GatewayProcess(tmp_path_factory.mktemp("privacy") / "node", free_port(), CONFIGURATION) as running:
        images = ct_series((4, 8, 8), PatientName=NAME, PatientID=ID, PatientComments=NAME)
        uids = [str(image.SOPInstanceUID).encode() for image in images]
        data = [encoded(image) for image in images]
        by_c_store(running, uids, data)
        by_violation(running, data)
        files = [part10(images[2]), part10(images[3])]
        by_stow(running, files)
        with CommitmentSCU(running.dicom_port) as scu:
            scu.ask("1.9.1", [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images[:2]])
            scu.report()
        wait_until(lambda: running.studies()["series"][0]["state"] != "receiving", 30, "the decision")
        yield running


def by_c_store(node: GatewayProcess, uids: list[bytes], data: list[bytes]) -> None:
    """Stored, cut off, under another UID, of no readable syntax, under a UID that is a name."""
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        assert [peer.store(uid, each).status for uid, each in zip(uids[:2], data[:2], strict=True)] == [0, 0]
        answers = [
            peer.store(uids[2], data[2][:-5]),
            peer.store(uids[3], data[2]),
            peer.store(uids[3], NAME.encode() * 20),
            peer.store(NAME.encode(), data[3]),
        ]
        assert all(answer.status for answer in answers)
        shown = b" ".join(value for answer in answers for value in answer.elements.values())
        assert PLANTED not in re.sub(re.escape(NAME.encode()), b"", shown).lower()
        peer.release()


def by_violation(node: GatewayProcess, data: list[bytes]) -> None:
    """In what is no DICOM: in the user identity, as a command set, a PDU type, a request for commitment."""
    identity = wire.item(0x58, b"\x02\x01" + len(NAME).to_bytes(2, "big") + NAME.encode() + b"\0\0")
    action = wire.command(
        wire.ui(0x0003, PUSH_MODEL.encode()), wire.us(0x0100, N_ACTION_RQ), wire.us(0x0110, 1),
        wire.us(0x0800, 1), wire.ui(0x1001, b"1.2.840.10008.1.20.1.1"), wire.us(0x1008, 1),
    )  # fmt: skip
    name = NAME.encode()
    for request, sent in (
        (wire.associate_rq(user=wire.user_information(16384, identity)), wire.pdu(9, name)),
        (b"", wire.p_data(wire.pdv(1, 3, name * 3))),
        (b"", wire.message(1, wire.c_store_rq(b"1.2.3"), data[3])[:-40]),
        (wire.associate_rq(STORE_AND_COMMIT), wire.message(5, action, name * 4)),
        (b"", name * 50),
    ):
        with RawPeer(node.dicom_port) as peer, contextlib.suppress(Gone, TimeoutError):
            peer.associated(request)
            peer.send(sent)
            peer.read_pdu(1.0)


def by_stow(node: GatewayProcess, files: list[bytes]) -> None:
    """Stored, cut off, no DICOM at all; and in every place of a request that may carry text."""
    fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}
    assert post(node.http_port, multipart(files[:1]), fields).status == 200
    named = {**fields, "User-Agent": NAME, "Content-Location": f"/{NAME}", "Cookie": f"patient={NAME}"}
    part = f'application/dicom\r\nContent-Disposition: attachment; filename="{NAME}.dcm"'
    for body, study in (
        (multipart([files[1][:-5]], part), ""),
        (multipart([NAME.encode() * 40], part), ""),
        (multipart([files[1]], part, end=False), f"1.2.3?PatientName={NAME}"),
        (multipart([files[1]]), NAME),
    ):
        answer = post(node.http_port, body, named, study)
        assert answer.status >= 400
        assert PLANTED not in answer.body.lower()


def test_the_patient_is_in_the_stored_objects_and_nowhere_else(node: GatewayProcess) -> None:
    stored = set((node.data / "spool" / "objects").glob("*/*.dcm"))
    assert len(stored) == 3
    for path in sorted(path for path in node.folder.rglob("*") if path.is_file()):
        assert PLANTED not in path.relative_to(node.folder).as_posix().lower().encode()
        assert (PLANTED in path.read_bytes().lower()) is (path in stored), path


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
def test_the_patient_is_in_nothing_that_the_web_listener_shows(node: GatewayProcess, path: str) -> None:
    address = f"http://127.0.0.1:{node.http_port}{path}"
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(address, timeout=20) as answer:
        assert PLANTED not in answer.read().lower()


@pytest.mark.parametrize(
    "command",
    ["status", "study explain --refusals", "study commitments"],
)
def test_the_patient_is_in_nothing_that_a_command_shows(node: GatewayProcess, command: str) -> None:
    shown = node.aigw(*command.split())
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.strip()
    assert PLANTED not in (shown.stdout + shown.stderr).lower().encode()


def test_what_was_refused_was_written_down_all_the_same(node: GatewayProcess) -> None:
    """The tests before would pass if nothing was recorded at all."""
    names = {line.get("name") for line in node.events()}
    expected = {"TRUNCATED_DATA_SET", "IDENTITY_MISMATCH", "UID_INVALID", "COMMAND_INVALID", "NOT_PART_10"}
    assert expected | {"STUDY_UID_INVALID"} <= names, names


def test_the_series_is_explained_without_its_patient(node: GatewayProcess) -> None:
    (series,) = node.studies()["series"]
    shown = node.aigw("study", "explain", series["series_instance_uid"], "--json").stdout
    assert "COMMITMENT_REPORTED" in shown
    assert PLANTED not in shown.lower().encode()
