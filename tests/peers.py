"""Real DICOM peers for tests: DCMTK's tools, a recording storage SCP, and the gateway's receiver."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import structlog
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.pdu_primitives import P_DATA

from gateway.clock import SystemClock
from gateway.journal import Journal
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers, KnownPeer, Node
from gateway.receive.contexts import storage_contexts
from gateway.receive.gate import Gate, RefusalLog
from gateway.receive.records import Incidents
from gateway.receive.services import Service
from gateway.receive.storage_scp import ScpLimits, StorageSCP, TlsListener
from gateway.spool import Spool
from gateway.spool.layout import FOLDERS
from gateway.upkeep.compare import compare_folder

OUR_AE_TITLE = "AIGW"
SCANNER_AE_TITLE = "SCANNER"
SCANNER = KnownPeer("scanner", SCANNER_AE_TITLE, "127.0.0.1")


# -- DCMTK ------------------------------------------------------------------------------------


def dcmtk(
    tool: str,
    port: int,
    *arguments: str | Path,
    calling: str = SCANNER_AE_TITLE,
    called: str = OUR_AE_TITLE,
    timeout_s: float = 60.0,
) -> subprocess.CompletedProcess[str]:
    """Run echoscu, storescu or dcmsend against a port of this machine; the caller looks at the result."""
    options = [str(a) for a in arguments if str(a).startswith(("-", "+"))]
    files = [str(a) for a in arguments if not str(a).startswith(("-", "+"))]
    command = [tool, "-v", "-aet", calling, "-aec", called, *options, "127.0.0.1", str(port), *files]
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", timeout=timeout_s, check=False
    )


def echoscu(port: int, **titles: str) -> subprocess.CompletedProcess[str]:
    """C-ECHO."""
    return dcmtk("echoscu", port, **titles)  # type: ignore[arg-type]


def storescu(port: int, *arguments: str | Path, **titles: str) -> subprocess.CompletedProcess[str]:
    """C-STORE of files; ``+sd`` sends folders; ``-R`` proposes only what the files need."""
    return dcmtk("storescu", port, *arguments, **titles)  # type: ignore[arg-type]


def dcmsend(port: int, *arguments: str | Path, **titles: str) -> subprocess.CompletedProcess[str]:
    """C-STORE of files, several presentation contexts; ``+sd`` sends folders."""
    return dcmtk("dcmsend", port, *arguments, **titles)  # type: ignore[arg-type]


# -- a C-STORE client that sends what it is given, right or wrong -----------------------------


def encoded(dataset: Dataset, *, implicit_vr: bool = False) -> bytes:
    """A dataset as the bytes of a little-endian data set, without file meta information."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, implicit_vr
    plain = Dataset({element.tag: element for element in dataset if element.tag.group != 2})
    write_dataset(buffer, plain)
    return buffer.getvalue()


class RawSender:
    """An association that sends encoded data sets byte for byte; use as a context manager."""

    def __init__(
        self,
        port: int,
        sop_classes: Sequence[str],
        transfer_syntaxes: Sequence[str] = ("1.2.840.10008.1.2.1",),
        calling: str = SCANNER_AE_TITLE,
        called: str = OUR_AE_TITLE,
    ) -> None:
        ae = AE(calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 60
        for sop_class in sop_classes:
            ae.add_requested_context(sop_class, list(transfer_syntaxes))
        self.association = ae.associate("127.0.0.1", port, ae_title=called)
        # Its thread may have taken our answer already when we pause it: it takes it for a request.
        self._taken: deque[Any] = deque()
        self.association._serve_request = lambda message, _: self._taken.append(message)  # type: ignore[assignment,method-assign]

    def __enter__(self) -> RawSender:
        return self

    def __exit__(self, *_: object) -> None:
        if self.association.is_established:
            self.association.release()

    def send(
        self, sop_class_uid: str, sop_instance_uid: str, data_set: bytes, *, announce: bool = True
    ) -> Dataset:
        """The answer's status dataset; empty if the peer did not answer.

        Without ``announce`` the request says that it has no data set at all.
        """
        context = next(c for c in self.association.accepted_contexts if c.abstract_syntax == sop_class_uid)
        request = C_STORE()
        request.MessageID = 1
        request.AffectedSOPClassUID = sop_class_uid
        request.AffectedSOPInstanceUID = sop_instance_uid
        request.Priority = 2
        request.DataSet = BytesIO(data_set) if announce else None
        self.association._reactor_checkpoint.clear()
        try:
            self.association.dimse.send_msg(request, context.context_id or 0)
            if not data_set and announce:  # pynetdicom announces an empty data set and never ends it
                end = P_DATA()
                end.presentation_data_value_list = [[context.context_id or 0, b"\x02"]]  # type: ignore[list-item]
                self.association.dul.send_pdu(end)
            response = self._answer()
        finally:
            self.association._reactor_checkpoint.set()
        status = Dataset()
        if response is not None:
            status.Status = response.Status
            status.ErrorComment = getattr(response, "ErrorComment", None) or ""
        return status

    def _answer(self) -> Any:
        """The response; None as soon as the connection is gone, or after the DIMSE timeout."""
        deadline = time.monotonic() + float(self.association.dimse_timeout or 60)
        while time.monotonic() < deadline and self.association.dul.is_alive():
            _, response = self.association.dimse.get_msg(block=False)
            if self._taken:
                response = self._taken.popleft()
            if response is not None or self.association.acse.is_aborted():
                return response
            time.sleep(0.001)
        return None


# -- a PACS that keeps what it gets ------------------------------------------------------------


@dataclass
class RecordingSCP:
    """A storage SCP that keeps every data set it is sent, and can be told to answer otherwise.

    ``answer(sop_instance_uid)`` gives the status of the next stores.
    """

    port: int
    received: list[tuple[str, bytes]] = field(default_factory=list)
    answer: Callable[[str], int] = field(default=lambda _: 0x0000)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def uids(self) -> list[str]:
        """SOP Instance UIDs that were answered with 0000, in order, with repetitions."""
        with self.lock:
            return [uid for uid, _ in self.received]


@contextmanager
def recording_scp(ae_title: str = "ARCHIVE", port: int = 0) -> Iterator[RecordingSCP]:
    """Run a :class:`RecordingSCP` on a free port (or a given one)."""
    ae = AE(ae_title)
    ae.require_called_aet = True
    for context in storage_contexts():
        ae.add_supported_context(str(context.abstract_syntax), context.transfer_syntax)
    scp = RecordingSCP(port=port)

    def on_store(event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        status = scp.answer(uid)
        if status == 0x0000:
            with scp.lock:
                scp.received.append((uid, event.request.DataSet.getvalue()))
        return status

    handlers: list[Any] = [(evt.EVT_C_STORE, on_store)]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    assert server is not None
    scp.port = int(server.server_address[1])
    try:
        yield scp
    finally:
        ae.shutdown()


# -- the gateway's receiver ---------------------------------------------------------------------


@dataclass
class Receiver:
    """The receiving half of a gateway, in this process."""

    folder: Path
    spool: Spool
    journal: Journal
    associations: OpenAssociations
    scp: StorageSCP
    log: list[dict[str, Any]]
    removed: int
    """Pieces of garbage that were removed at start."""
    missing: tuple[str, ...]
    """Files that had a row and were not there at start."""

    @property
    def port(self) -> int:
        return self.scp.port


def tidy(spool: Spool, journal: Journal) -> tuple[int, tuple[str, ...]]:
    """Remove what a crash left behind, as the node does; what was removed, and which files are gone."""
    found = [compare_folder(spool, journal, folder, time.time()) for folder in FOLDERS]
    removed = spool.remove_parts() + sum(each.unclaimed for each in found)
    return removed, tuple(path for each in found for path in each.missing)


@contextmanager
def receiver(
    folder: Path,
    *,
    peers: Sequence[KnownPeer] = (SCANNER,),
    unknown_callers: Literal["reject", "accept"] = "reject",
    limits: AdmissionLimits | None = None,
    max_associations: int = 20,
    idle_timeout_s: float = 20.0,
    drain_timeout_s: float = 1.0,
    further_classes: Sequence[str] = (),
    durable: bool = True,
    services: Sequence[Service] = (),
    make_tls: Callable[[RefusalLog], TlsListener] | None = None,
    association_timeout_s: float = 10.0,
    max_connections_per_address: int = 32,
    host: str = "127.0.0.1",
) -> Iterator[Receiver]:
    """A receiver on a free port of ``host``, with its spool and journal below ``folder``.

    Only a benchmark asks for one that is not durable.
    """
    lines: list[dict[str, Any]] = []

    def keep(_: Any, method: str, event: Any) -> Any:
        lines.append({**event, "level": method})
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    clock = SystemClock()
    spool = Spool(folder / "spool", durable=durable)
    journal = Journal(folder / "journal.db", durable=durable)
    removed, missing = tidy(spool, journal)
    associations = OpenAssociations()
    limits = limits or AdmissionLimits(keep_free_bytes=0, refuse_over_fraction=1.0)
    incidents = Incidents(journal, clock, log)
    written = RefusalLog(incidents)
    callers = Callers(Node(OUR_AE_TITLE), peers, unknown_callers)
    scp = StorageSCP(
        ae_title=OUR_AE_TITLE,
        host=host,
        port=0,
        gate=Gate(callers, max_associations, associations, written),
        limits=ScpLimits(
            max_associations=max_associations,
            max_connections_per_address=max_connections_per_address,
            max_pdu_bytes=131072,
            idle_timeout_s=idle_timeout_s,
            association_timeout_s=association_timeout_s,
        ),
        contexts=storage_contexts(further_classes),
        admission=Admission(spool, journal, clock, log, limits),
        associations=associations,
        incidents=incidents,
        log=log,
        services=services,
        tls=make_tls(written) if make_tls else None,
    )
    scp.start()
    try:
        yield Receiver(folder, spool, journal, associations, scp, lines, removed, missing)
    finally:
        scp.stop(drain_timeout_s)
        journal.close()
