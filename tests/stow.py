"""A STOW-RS server over a real spool and journal, and the bytes that clients send to it."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydicom.dataset import Dataset

from gateway.clock import SystemClock
from gateway.journal import Journal
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import KnownPeer
from gateway.receive.contexts import TRANSFER_SYNTAXES, storage_class_uids
from gateway.receive.part10 import file_header
from gateway.receive.stow.access import WebCallers, WebPeer
from gateway.receive.stow.request import StowLimits
from gateway.receive.stow.service import StowService
from gateway.spool import Spool
from gateway.web.app import Check, make_app
from gateway.web.server import WebServer
from gateway.web.stow import stow_routes
from gateway.web.tls import TlsDoor
from tests.peers import encoded

TOKEN = "a-token-of-the-tests"  # noqa: S105
AUTHORIZATION = {"Authorization": f"Bearer {TOKEN}"}
BOUNDARY = "0f3cf5c0-70e0-41ef"
CONTENT_TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
VNA = WebPeer(KnownPeer("vna", "VNA", "127.0.0.1"), token=TOKEN)
EXPLICIT = "1.2.840.10008.1.2.1"


@dataclass
class StowServer:
    """What runs, and what was written down."""

    folder: Path
    port: int
    journal: Journal
    requests: OpenAssociations
    service: StowService
    admission: Admission
    notes: list[tuple[str, str, str, str, str]] = field(default_factory=list)

    def files(self) -> list[Path]:
        """Everything that lies in the spool, complete or not."""
        return sorted(path for path in (self.folder / "spool").rglob("*") if path.is_file())

    def rows(self) -> dict[str, bytes]:
        """SOP Instance UID → the data set that is stored, of every row of the journal."""
        found = {}
        for series in self.journal.receiving_series():
            for member in self.journal.members(series.id):
                raw = (self.folder / "spool" / member.path).read_bytes()
                found[member.sop_instance_uid] = raw[144 + int.from_bytes(raw[140:144], "little") :]
        return found

    def post(
        self, body: bytes | Iterator[bytes], headers: Mapping[str, str] = {}, study: str = "", **options: Any
    ) -> Reply:
        """POST with the token and content type of the tests, unless ``headers`` says otherwise."""
        fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE, **headers}
        return post(self.port, body, {k: v for k, v in fields.items() if v}, study, **options)


@dataclass(frozen=True)
class Reply:
    """An HTTP response that was read in full."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data_set(self) -> Dataset:
        assert self.headers["content-type"] == "application/dicom+json", self.body
        return Dataset.from_json(self.body.decode())


def post(
    port: int,
    body: bytes | Iterator[bytes],
    headers: Mapping[str, str],
    study: str = "",
    method: str = "POST",
    timeout_s: float = 60,
) -> Reply:
    """One request on a connection of its own."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)) as connection:
        path = "/dicom-web/studies" + (f"/{study}" if study else "")
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        fields = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, fields, response.read())


def raw(port: int, request: bytes, timeout_s: float = 20) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout_s) as connection:
        connection.sendall(request)
        found = b""
        while chunk := connection.recv(65536):
            found += chunk
        return found


def part10(dataset: Dataset, data: bytes | None = None, syntax: str = EXPLICIT) -> bytes:
    """A DICOM file of a dataset."""
    header = file_header(dataset.SOPClassUID, dataset.SOPInstanceUID, syntax, "VNA")
    return header + (encoded(dataset) if data is None else data)


def multipart(
    files: Sequence[bytes],
    part_type: str = "application/dicom",
    boundary: str = BOUNDARY,
    *,
    end: bool = True,
) -> bytes:
    """A multipart/related body."""
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {part_type}\r\n\r\n".encode() + file + b"\r\n" for file in files
    )
    return body + (f"--{boundary}--\r\n".encode() if end else b"")


@contextmanager
def stow_server(
    folder: Path,
    peers: Sequence[WebPeer] = (VNA,),
    limits: StowLimits | None = None,
    admission_limits: AdmissionLimits | None = None,
    door: TlsDoor | None = None,
) -> Iterator[StowServer]:
    """Serve on a free port until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / "journal.db")
    log = structlog.get_logger()
    space = admission_limits or AdmissionLimits(keep_free_bytes=0, refuse_over_fraction=1.0)
    admission = Admission(Spool(folder / "spool"), journal, SystemClock(), log, space)
    requests = OpenAssociations()
    notes: list[tuple[str, str, str, str, str]] = []
    service = StowService(
        admission=admission,
        callers=WebCallers(peers),
        requests=requests,
        note=lambda *note: notes.append(note),
        sop_classes=frozenset(storage_class_uids()),
        transfer_syntaxes=frozenset(map(str, TRANSFER_SYNTAXES)),
        limits=limits or StowLimits(),
        log=log,
    )
    server = WebServer("127.0.0.1", 0, door)
    server.start(make_app(lambda: {"x": Check(True, "")}, lambda: b"", "127.0.0.1", stow_routes(service)))
    try:
        yield StowServer(folder, server.port, journal, requests, service, admission, notes)
    finally:
        server.stop()
        journal.close()
