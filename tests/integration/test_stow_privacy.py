"""What is sent where it does not belong may be the name of a patient: no refusal of STOW-RS repeats it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.builders import ct_series
from tests.stow import AUTHORIZATION, BOUNDARY, CONTENT_TYPE, StowServer, multipart, part10, raw, stow_server

NAME = "Planted"
INSTANCE = ct_series((1, 4, 4))[0]
RELATED = f"multipart/related; boundary={BOUNDARY}"


def part(*lines: str, body: bytes = b"") -> bytes:
    """A message of one part with these header lines."""
    head = "".join(f"{line}\r\n" for line in (f"--{BOUNDARY}", *lines)).encode()
    return head + b"\r\n" + body + f"\r\n--{BOUNDARY}--".encode()


HEADS = {
    "media type": {"Content-Type": NAME},
    "another media type": {"Content-Type": f"image/{NAME}"},
    "media type in XML": {"Content-Type": f"{NAME}/xml"},
    "parameter": {"Content-Type": f'{RELATED}; name="{NAME}'},
    "parameter twice": {"Content-Type": f"{RELATED}; {NAME}=1; {NAME}=2"},
    "boundary": {"Content-Type": f'multipart/related; boundary="{NAME}*"'},
    "type of the parts": {"Content-Type": f'{RELATED}; type="{NAME}"'},
    "another type of the parts": {"Content-Type": f'{RELATED}; type="image/{NAME}"'},
    "encoding": {"Content-Encoding": NAME},
    "accepted": {"Accept": f"image/{NAME}"},
    "token": {"Authorization": f"Bearer {NAME}"},
    "credentials": {"Authorization": f"Basic {NAME}"},
    "scheme": {"Authorization": f"{NAME} x"},
}
BODIES = {
    "preamble": (NAME * 20_000).encode(),
    "after the boundary": f"--{BOUNDARY}{NAME}\r\n\r\n".encode(),
    "no field": part(f'[{{"00100010": {{"Value": ["{NAME}"]}}}}]'),
    "field name": part(f"{NAME} x: y"),
    "field value": part(f"X: {NAME}\1"),
    "field twice": part(f"{NAME}: 1", f"{NAME}: 2"),
    "file name": part(f'Content-Type: application/dicom; name="{NAME}'),
    "nested": part(f"Content-Type: multipart/{NAME}"),
    "media type of a part": part(f"Content-Type: image/{NAME}"),
    "encoding of a part": part(f"Content-Encoding: {NAME}"),
    "transfer encoding of a part": part(f"Content-Transfer-Encoding: {NAME}"),
    "no DICOM file": part("X: y", body=NAME.encode() * 100),
    "no UID": multipart([part10(INSTANCE).replace(b"1.2.840.10008.5.1.4", NAME.ljust(19).encode(), 1)]),
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StowServer]:
    with stow_server(tmp_path_factory.mktemp("stow")) as running:
        yield running


def nothing_is_repeated(server: StowServer, answer: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    kept = b"".join(path.read_bytes() for path in server.folder.glob("journal.db*"))
    written = capsys.readouterr()
    told = f"{server.notes}{written.out}{written.err}".encode() + answer + kept
    assert server.notes or written.out
    server.notes.clear()
    assert NAME.lower().encode() not in told.lower()


@pytest.mark.parametrize("where", HEADS)
def test_of_the_head_of_a_request(server: StowServer, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    fields = {"Host": "127.0.0.1", **AUTHORIZATION, "Content-Type": CONTENT_TYPE, "Content-Length": "0"}
    fields |= HEADS[where]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    answer = raw(server.port, f"POST /dicom-web/studies HTTP/1.1\r\n{lines}\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 4")
    nothing_is_repeated(server, answer, capsys)


@pytest.mark.parametrize("where", BODIES)
def test_of_the_body_of_a_request(server: StowServer, where: str, capsys: pytest.CaptureFixture[str]) -> None:
    reply = server.post(BODIES[where])
    assert 400 <= reply.status < 500
    nothing_is_repeated(server, reply.body + json.dumps(dict(reply.headers)).encode(), capsys)


def test_of_the_study_in_the_path(server: StowServer, capsys: pytest.CaptureFixture[str]) -> None:
    reply = server.post(b"", study=NAME)
    assert (reply.status, reply.json["name"]) == (400, "STUDY_UID_INVALID")
    nothing_is_repeated(server, reply.body + json.dumps(dict(reply.headers)).encode(), capsys)
