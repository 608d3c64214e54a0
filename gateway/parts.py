"""The parts of the receiver, made from the settings; the composition root puts them together."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.journal import Journal
from gateway.journal.records import Duplicates
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.associations import OpenAssociations
from gateway.receive.calls import Call, Refusal
from gateway.receive.commitment.lines import Lines
from gateway.receive.commitment.link import Exchange
from gateway.receive.commitment.reporter import CommitmentReporter
from gateway.receive.commitment.service import StorageCommitment
from gateway.receive.commitment.verify import Examine
from gateway.receive.contexts import TRANSFER_SYNTAXES, storage_class_uids, storage_contexts
from gateway.receive.gate import Callers, Gate, KnownPeer, RefusalLog
from gateway.receive.gate import Node as Ourselves
from gateway.receive.records import Incidents
from gateway.receive.services import Service
from gateway.receive.storage_scp import ScpLimits, StorageSCP, TlsListener
from gateway.receive.stow.access import WebCallers, WebPeer
from gateway.receive.stow.request import StowLimits
from gateway.receive.stow.service import StowService
from gateway.receive.tally import Tally
from gateway.receive.tls.context import TlsContext
from gateway.receive.tls.refusals import https_failed
from gateway.receive.tls.source import TlsSource
from gateway.receive.tls.watch import CertificateWatch
from gateway.settings.dicom import Peer
from gateway.settings.model import Settings
from gateway.settings.tls_check import dicom_files, warn_before, web_files
from gateway.settings.wiring import reporter_settings
from gateway.spool import Spool
from gateway.web.tls import TlsDoor


@dataclass(frozen=True)
class Receiving:
    """What every way in shares: who may come, what is taken, and what came of it.

    Attributes
    ----------
    associations, requests
        Associations, and requests of STOW-RS, that are open now.
    """

    admission: Admission
    associations: OpenAssociations
    requests: OpenAssociations
    gate: Gate
    refusals: RefusalLog
    incidents: Incidents
    tally: Tally
    tls: TlsListener | None
    web_tls: TlsSource | None
    certificates: CertificateWatch | None

    def open_of(self, source: str) -> int:
        """By how many associations and requests a source may still send now."""
        return self.associations.count(source) + self.requests.count(source)


def make_receiving(
    settings: Settings, spool: Spool, journal: Journal, clock: Clock, log: FilteringBoundLogger
) -> Receiving:
    """Everything but the listeners. Raises GatewayError (TLS_FILES_UNUSABLE)."""
    dicom, peers = settings.dicom, known_peers(settings)
    ourselves = _ourselves(settings)
    associations, incidents = OpenAssociations(), Incidents(journal, clock, log)
    refusals = RefusalLog(incidents)
    tally = Tally([peer.name for peer in peers])
    callers = Callers(ourselves, peers, dicom.unknown_callers)
    gate = Gate(callers, dicom.max_associations, associations, refusals)
    sources = _tls_sources(settings, journal, clock, log)
    tls = watch = None
    if dicom.tls is not None:
        context = TlsContext(sources["ours"], ourselves, refusals.note)
        tls = TlsListener(dicom.tls.listen.host, dicom.tls.listen.port, context)
    if sources:
        seen = gate.certificates_seen
        watch = CertificateWatch(sources, seen, warn_before(settings), journal, clock, log)
    admission = Admission(spool, journal, clock, log, _admission_limits(settings), tally)
    requests, web_tls = OpenAssociations(), sources.get("web")
    return Receiving(admission, associations, requests, gate, refusals, incidents, tally, tls, web_tls, watch)


def make_scp(
    settings: Settings,
    receiving: Receiving,
    services: Sequence[Service],
    log: FilteringBoundLogger,
) -> StorageSCP:
    """The receiver of DICOM associations, with and without TLS."""
    dicom = settings.dicom
    limits = ScpLimits(
        max_associations=dicom.max_associations,
        max_connections_per_address=dicom.max_connections_per_address,
        max_pdu_bytes=dicom.max_pdu,
        idle_timeout_s=dicom.idle_timeout,
        association_timeout_s=dicom.association_timeout,
    )
    return StorageSCP(
        ae_title=dicom.ae_title,
        host=dicom.listen.host,
        port=dicom.listen.port,
        tls=receiving.tls,
        gate=receiving.gate,
        limits=limits,
        contexts=storage_contexts(further=dicom.storage_classes),
        services=services,
        admission=receiving.admission,
        associations=receiving.associations,
        incidents=receiving.incidents,
        log=log,
    )


def make_committing(
    settings: Settings,
    receiving: Receiving,
    spool: Spool,
    journal: Journal,
    on_request: Callable[[], None],
    verify: Examine,
    clock: Clock,
    log: FilteringBoundLogger,
) -> tuple[StorageCommitment, CommitmentReporter]:
    """Storage commitment: what answers requests, and what reports. ``on_request`` is called after each.

    ``verify`` looks at stored files before a peer is told that they are committed.
    """
    lines, exchange = Lines(), Exchange()
    service = StorageCommitment(
        journal,
        spool.root,
        receiving.admission.check_space,
        receiving.associations,
        lines,
        exchange,
        receiving.incidents,
        clock,
        log,
        on_request,
    )
    told = reporter_settings(settings)
    return service, CommitmentReporter(journal, spool.root, lines, exchange, told, verify, clock, log)


def make_stow(settings: Settings, receiving: Receiving, log: FilteringBoundLogger) -> StowService:
    """STOW-RS for the peers that have ``web``."""
    web, dicom = settings.web, settings.dicom
    peers = [
        WebPeer(known_peer(name, peer), peer.web.token, peer.web.user, peer.web.password)
        for name, peer in settings.peers.items()
        if peer.web is not None and "source" in peer.roles
    ]

    def note(name: str, reason: str, address: str, peer: str, advice: str) -> None:
        refusal = Refusal(name, reason, result=0, source=0, diagnostic=0, advice=advice, peer=peer)
        receiving.refusals.note(refusal, Call(None, "STOW-RS", "", address))

    return StowService(
        admission=receiving.admission,
        callers=WebCallers(peers),
        requests=receiving.requests,
        note=note,
        sop_classes=frozenset(storage_class_uids(further=dicom.storage_classes)),
        transfer_syntaxes=frozenset(map(str, TRANSFER_SYNTAXES)),
        limits=StowLimits(
            max_instances=web.stow.max_instances,
            max_request_bytes=web.stow.max_request,
            max_requests=web.stow.max_requests,
            idle_timeout_s=web.stow.idle_timeout,
        ),
        log=log,
    )


def make_door(receiving: Receiving) -> TlsDoor | None:
    """HTTPS, where ``web.tls`` is configured."""
    if receiving.web_tls is None:
        return None

    def failed(address: str, error: OSError) -> None:
        call = Call(None, "HTTPS", "", address, secure=True)
        receiving.refusals.note(https_failed(call, error), call)

    return TlsDoor(receiving.web_tls.context, failed)


def known_peers(settings: Settings) -> list[KnownPeer]:
    """Those who may send to us."""
    sources = ((name, peer) for name, peer in settings.peers.items() if "source" in peer.roles)
    return [known_peer(name, peer) for name, peer in sources]


def known_peer(name: str, peer: Peer) -> KnownPeer:
    """A source as admission knows it."""
    return KnownPeer(
        name=name,
        ae_title=peer.ae_title,
        host=peer.host,
        addresses=peer.addresses,
        storage_classes=storage_class_uids(only=peer.storage_classes) if peer.storage_classes else (),
        max_associations=peer.max_associations,
        tls=peer.tls,
        certificate=peer.certificate,
    )


def _ourselves(settings: Settings) -> Ourselves:
    dicom = settings.dicom
    return Ourselves(dicom.ae_title, dicom.listen.port, dicom.tls.listen.port if dicom.tls else 0)


def _admission_limits(settings: Settings) -> AdmissionLimits:
    admission = settings.admission
    return AdmissionLimits(
        max_instance_bytes=admission.max_instance_size,
        keep_free_bytes=admission.keep_free,
        refuse_over_fraction=admission.refuse_when_disk_over,
        duplicates=Duplicates(admission.duplicates),
    )


def _tls_sources(
    settings: Settings, journal: Journal, clock: Clock, log: FilteringBoundLogger
) -> dict[str, TlsSource]:
    """``ours`` for DICOM over TLS, ``web`` for HTTPS, where they are configured."""

    def alarm(name: str, reason: str) -> None:
        try:
            journal.record("gateway", name, reason, clock.now_s())
        except sqlite3.Error as error:
            log.error("journal_unavailable", reason=str(error))

    sources: dict[str, TlsSource] = {}
    if (tls := settings.dicom.tls) is not None:
        sources["ours"] = TlsSource(dicom_files(tls), tls.client_certificates, clock, log, alarm)
    if (web := settings.web.tls) is not None:
        sources["web"] = TlsSource(web_files(web), "optional", clock, log, alarm)
    return sources
