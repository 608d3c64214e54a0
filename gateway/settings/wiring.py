"""Settings to what the parts of the node are made with; imports them all, so only ``serve`` uses it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ai.errors import AiError
from ai.geometry import Needs
from ai.model import find_card
from gateway import __version__
from gateway.deliver.send import SenderSettings
from gateway.deliver.storage_scu import Address
from gateway.jobs.commit import Sending
from gateway.jobs.messages import WorkerSettings
from gateway.jobs.request import DispatchSettings
from gateway.receive.commitment.endings import ReporterSettings
from gateway.receive.commitment.link import ReportAddress
from gateway.retry import Policy
from gateway.settings.model import Settings
from gateway.settings.runtime import cards, completion_rules, profiles, routes, why_held
from gateway.sweep import SweepRules

_PATIENTS_FILES = ("spool", "results", "journal.db", "journal.db-wal", "journal.db-shm")


def sweep_rules(settings: Settings) -> SweepRules:
    """What the sweeper decides by."""
    return SweepRules(
        completion=completion_rules(settings),
        routes=routes(settings),
        cards=cards(settings),
        needs=model_needs(settings),
        live=settings.results.status == "live",
        profiles=profiles(settings),
    )


def model_needs(settings: Settings) -> dict[str, Needs]:
    """Model name to what its card asks of a volume.

    A model whose card is missing or wrong is left out: the worker says so, and its jobs wait for the card.
    """
    needs = {}
    for name, card in cards(settings).items():
        try:
            needs[name] = find_card(card, settings.model_dirs).accepts.needs
        except AiError:
            continue
    return needs


def worker_settings(settings: Settings) -> tuple[WorkerSettings, ...]:
    """What a fresh worker is told, for each device."""
    workers = settings.workers
    return tuple(
        WorkerSettings(
            device=device,
            cards=tuple(dict.fromkeys(cards(settings).values())),
            card_folders=tuple(str(folder) for folder in settings.model_dirs),
            heartbeat_s=workers.heartbeat,
            memory_limit_bytes=workers.memory_limit or None,
            model_memory_bytes=workers.model_memory or None,
            pinned=tuple(dict.fromkeys(model.card for model in settings.models.values() if model.pinned)),
            deterministic=workers.deterministic,
            step_timeout_s=workers.step_timeout,
            scratch=str(settings.data_dir / "scratch" / f"slot-{slot}"),
            hidden=tuple(str(settings.data_dir / name) for name in _PATIENTS_FILES),
        )
        for slot, device in enumerate(workers.device)
    )


def dispatch_settings(settings: Settings, spool_root: Path, results_root: Path) -> DispatchSettings:
    """How jobs are run, and how often they are tried."""
    workers = settings.workers
    return DispatchSettings(
        spool_root=spool_root,
        results_root=results_root,
        card_folders=settings.model_dirs,
        series_number_base=settings.results.series_number_base,
        software_version=__version__,
        max_attempts=workers.max_attempts,
        retry_after_s=workers.retry_after,
        job_timeout_s=workers.job_timeout,
        lease_s=workers.lease,
        sending=Sending(
            profiles=profiles(settings),
            failed_quality=settings.results.send_failed_quality,
            nothing_found=settings.results.send_when_nothing_found,
            failures=settings.results.send_when_failed,
        ),
    )


def sender_settings(settings: Settings, results_root: Path) -> Sequence[SenderSettings]:
    """One sender for each destination to which something is sent with this configuration."""
    delivery = settings.delivery
    policy = Policy(
        first_retry_s=delivery.first_retry,
        factor=delivery.factor,
        longest_wait_s=delivery.longest_wait,
        give_up_after_s=delivery.give_up_after,
        refused_attempts=delivery.refused_attempts,
    )
    return [
        SenderSettings(
            destination=name,
            address=Address(name, peer.ae_title, peer.host, peer.port),
            calling_ae_title=settings.dicom.ae_title,
            results_root=results_root,
            policy=policy,
            timeout_s=delivery.timeout,
        )
        for name, peer in settings.peers.items()
        if peer.port is not None and not why_held(settings, name)
    ]


def reporter_settings(settings: Settings) -> ReporterSettings:
    """Where reports of storage commitment go: to sources with a port that may be talked to without TLS."""
    commitment = settings.commitment
    sources = {name: peer for name, peer in settings.peers.items() if "source" in peer.roles}
    tls_only = frozenset(name for name, peer in sources.items() if peer.tls == "required")
    return ReporterSettings(
        calling_ae_title=settings.dicom.ae_title,
        addresses={
            name: ReportAddress(name, peer.ae_title, peer.host, peer.port)
            for name, peer in sources.items()
            if peer.port is not None and name not in tls_only
        },
        tls_only=tls_only,
        policy=Policy(
            first_retry_s=commitment.first_retry,
            factor=2.0,
            longest_wait_s=commitment.longest_wait,
            give_up_after_s=commitment.give_up_after,
            refused_attempts=1,
        ),
    )
