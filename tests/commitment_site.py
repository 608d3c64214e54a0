"""A receiver that commits storage, and peers that ask for it: on one association, or calling back."""

from __future__ import annotations

import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import structlog
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pynetdicom import AE, build_context, build_role, evt
from pynetdicom.association import Association

from gateway.clock import Clock, SystemClock
from gateway.journal import Journal
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers, KnownPeer, Node
from gateway.receive.commitment.endings import ReporterSettings
from gateway.receive.commitment.lines import Lines
from gateway.receive.commitment.link import Exchange, ReportAddress
from gateway.receive.commitment.reporter import CommitmentReporter
from gateway.receive.commitment.service import StorageCommitment
from gateway.receive.contexts import storage_contexts
from gateway.receive.gate import Gate, RefusalLog
from gateway.receive.records import Incidents
from gateway.receive.storage_scp import ScpLimits, StorageSCP
from gateway.retry import Policy
from gateway.spool import Spool
from gateway.upkeep import Keeper
from tests.peers import OUR_AE_TITLE, SCANNER, SCANNER_AE_TITLE
from tests.waiting import wait_until

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
POLICY = Policy(0.2, 2.0, 0.5, 60.0, 1)

Told = tuple[int, Dataset]
"""Event Type ID and Event Information of a report."""


@dataclass
class CommittingNode:
    """The parts that commit storage, with their folder, and what they have logged."""

    folder: Path
    port: int
    journal: Journal
    spool: Spool
    associations: OpenAssociations
    stopping: threading.Event
    asked: list[float] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def commitments(self) -> list[dict[str, Any]]:
        """Every request, the newest first."""
        return [dict(row) for row in self.journal._connection.query("list_commitments", {"limit": 1000})]

    def wait_for_failure(self, name: str, timeout_s: float = 20.0) -> dict[str, Any]:
        """Wait until the newest request could not be told for this reason."""
        wait_until(lambda: self.commitments()[0]["failure_name"] == name, timeout_s, name)
        return self.commitments()[0]

    def wait_for(self, state: str, timeout_s: float = 20.0, count: int = 1) -> list[dict[str, Any]]:
        """Wait until so many requests are in a state."""

        def found() -> list[dict[str, Any]]:
            rows = [row for row in self.commitments() if row["state"] == state]
            return rows if len(rows) >= count else []

        rows: list[dict[str, Any]] = wait_until(found, timeout_s, f"{count} {state}")
        return rows


@contextmanager
def committing_node(
    folder: Path,
    addresses: Sequence[ReportAddress] = (),
    peers: Sequence[KnownPeer] = (SCANNER,),
    policy: Policy = POLICY,
    idle_timeout_s: float = 20.0,
    tls_only: frozenset[str] = frozenset(),
    unknown_callers: Literal["reject", "accept"] = "reject",
    keep_free_bytes: int = 0,
    clock: Clock | None = None,
) -> Iterator[CommittingNode]:
    """A receiver on a free loopback port that commits storage and reports."""
    lines: list[dict[str, Any]] = []

    def keep(_: Any, method: str, event: Any) -> Any:
        lines.append({**event, "level": method})
        raise structlog.DropEvent

    log = structlog.wrap_logger(
        None, processors=[keep], wrapper_class=structlog.make_filtering_bound_logger(0)
    )
    clock, associations = clock or SystemClock(), OpenAssociations()
    spool, journal = Spool(folder / "spool"), Journal(folder / "journal.db")
    journal.recover(clock.now_s())
    admission = Admission(
        spool, journal, clock, log, AdmissionLimits(keep_free_bytes=keep_free_bytes, refuse_over_fraction=1.0)
    )
    asked: list[float] = []
    open_lines, exchange = Lines(), Exchange()
    incidents = Incidents(journal, clock, log)
    service = StorageCommitment(
        journal, spool.root, admission.check_space, associations, open_lines, exchange, incidents, clock, log,
        lambda: asked.append(clock.now_s()),
    )  # fmt: skip
    settings = ReporterSettings(OUR_AE_TITLE, {each.name: each for each in addresses}, policy, 5.0, tls_only)
    keeper = Keeper(spool, journal, clock, log)
    reporter = CommitmentReporter(
        journal, spool.root, open_lines, exchange, settings, keeper.examine, clock, log
    )
    gate = Gate(Callers(Node(OUR_AE_TITLE), peers, unknown_callers), 20, associations, RefusalLog(incidents))
    scp = StorageSCP(
        ae_title=OUR_AE_TITLE,
        host="127.0.0.1",
        port=0,
        gate=gate,
        limits=ScpLimits(idle_timeout_s=idle_timeout_s),
        contexts=storage_contexts(),
        admission=admission,
        associations=associations,
        incidents=incidents,
        log=log,
        services=[service],
    )
    scp.start()
    stopping = threading.Event()
    thread = threading.Thread(target=reporter.run, args=(stopping,))
    thread.start()
    try:
        yield CommittingNode(folder, scp.port, journal, spool, associations, stopping, asked, lines)
    finally:
        scp.stop(1.0)
        stopping.set()
        thread.join(20)
        journal.close()


def request_of(transaction_uid: str, references: Sequence[tuple[str, str]]) -> Dataset:
    """Action Information (PS3.4 Table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    items = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    asked.ReferencedSOPSequence = DicomSequence(items)
    return asked


class CommitmentSCU:
    """An association of a scanner that stores, asks for commitment, and takes reports on it."""

    def __init__(
        self,
        port: int,
        *,
        syntax: str = EXPLICIT,
        role: bool = False,
        answer: int = 0x0000,
        ae_title: str = SCANNER_AE_TITLE,
        max_pdu_bytes: int = 16382,
    ) -> None:
        self.told: queue.Queue[Told] = queue.Queue()
        self.answer = answer
        entity = AE(ae_title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 30
        self.association: Association = entity.associate(
            "127.0.0.1",
            port,
            contexts=[build_context(CT_IMAGE, EXPLICIT), build_context(PUSH_MODEL, syntax)],
            ae_title=OUR_AE_TITLE,
            max_pdu=max_pdu_bytes,
            ext_neg=[build_role(PUSH_MODEL, scu_role=True, scp_role=False)] if role else [],
            evt_handlers=[(evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        assert self.association.is_established
        # pynetdicom's thread may have taken an answer already when it is paused, and would drop it.
        self._serve_request = self.association._serve_request
        self.association._serve_request = self._serve  # type: ignore[method-assign]

    def _serve(self, message: Any, context_id: int) -> None:
        if getattr(message, "Status", None) is None:
            self._serve_request(message, context_id)
        else:
            self.association.dimse.msg_queue.put((context_id, message))

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        self.told.put((event.event_type, event.event_information))
        return self.answer, None

    def __enter__(self) -> CommitmentSCU:
        return self

    def __exit__(self, *_: object) -> None:
        if self.association.is_established:
            self.association.release()

    def store(self, images: Sequence[Dataset]) -> list[tuple[str, str]]:
        """C-STORE; what was stored."""
        for image in images:
            assert self.association.send_c_store(image).Status == 0x0000
        return [(str(image.SOPClassUID), str(image.SOPInstanceUID)) for image in images]

    def ask(
        self,
        transaction_uid: str,
        references: Sequence[tuple[str, str]],
        action: int = 1,
        instance: str = PUSH_MODEL_INSTANCE,
    ) -> Dataset:
        """N-ACTION; the status."""
        status, _ = self.association.send_n_action(
            request_of(transaction_uid, references), action, PUSH_MODEL, instance
        )
        return status

    def report(self, timeout_s: float = 20.0) -> Told:
        """The next report on this association."""
        return self.told.get(timeout=timeout_s)


class ReportSCP:
    """Where a peer takes reports that come on an association of their own."""

    def __init__(
        self,
        port: int = 0,
        answer: int = 0x0000,
        roles: bool = True,
        max_pdu_bytes: int = 16382,
        instead: Callable[[socket.socket], None] | None = None,
    ) -> None:
        """``instead`` of answering a report: what to do with the connection."""
        self.told: queue.Queue[Told] = queue.Queue()
        self.callers: list[str] = []
        self.roles: list[tuple[bool | None, bool | None]] = []
        self._answer = answer
        self._instead = instead
        entity = AE(SCANNER_AE_TITLE)
        entity.maximum_pdu_size = max_pdu_bytes
        entity.add_supported_context(PUSH_MODEL, [EXPLICIT, IMPLICIT])
        if roles:
            context = entity.supported_contexts[0]
            context.scu_role, context.scp_role = False, True
        self._server = entity.start_server(
            ("127.0.0.1", port),
            block=False,
            evt_handlers=[(evt.EVT_REQUESTED, self._on_requested), (evt.EVT_N_EVENT_REPORT, self._on_report)],
        )
        self.port = int(self._server.server_address[1])

    def _on_requested(self, event: evt.Event) -> None:
        requestor = event.assoc.requestor
        self.callers.append(f"{requestor.primitive.calling_ae_title}->{requestor.primitive.called_ae_title}")
        self.roles += [(role.scu_role, role.scp_role) for role in requestor.role_selection.values()]

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        if self._instead is not None:
            self._instead(event.assoc.dul.socket.socket)
        self.told.put((event.event_type, event.event_information))
        return self._answer, None

    def report(self, timeout_s: float = 20.0) -> Told:
        """The next report."""
        return self.told.get(timeout=timeout_s)

    def bind(self, event: Any, handler: Callable[[evt.Event], None]) -> None:
        """Do something more on associations that are opened from now on."""
        self._server.bind(event, handler)

    def stop(self) -> None:
        """An outage."""
        self._server.shutdown()

    def __enter__(self) -> ReportSCP:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def committed(information: Dataset) -> list[str]:
    """SOP Instance UIDs of the Referenced SOP Sequence."""
    return [str(item.ReferencedSOPInstanceUID) for item in information.get("ReferencedSOPSequence", [])]


def failed(information: Dataset) -> dict[str, int]:
    """SOP Instance UID → Failure Reason."""
    items = information.get("FailedSOPSequence", [])
    return {str(item.ReferencedSOPInstanceUID): int(item.FailureReason) for item in items}
