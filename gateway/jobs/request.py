"""What the dispatcher needs of the configuration, and what it tells a worker of a job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.jobs.commit import Sending
from gateway.jobs.messages import JobRequest
from gateway.journal.records import ClaimedJob, Member, SentReport


@dataclass(frozen=True)
class DispatchSettings:
    """What the dispatcher needs of the configuration. Times in seconds.

    Attributes
    ----------
    cancel_within_s
        A job that is asked to end and has not after this time is ended with its worker.
    sending
        What the destinations get, and how it is written.
    """

    spool_root: Path
    results_root: Path
    card_folders: tuple[Path, ...]
    series_number_base: int
    software_version: str
    max_attempts: int
    retry_after_s: float
    job_timeout_s: float
    lease_s: float
    cancel_within_s: float = 5.0
    sending: Sending = field(default_factory=Sending)


def job_request(
    settings: DispatchSettings,
    job: ClaimedJob,
    members: Sequence[Member],
    predecessors: Mapping[str, SentReport],
) -> JobRequest:
    """What the worker is told; the profiles are those of the configuration as it is now."""
    profiles = settings.sending.profiles.wanted(job.destinations, job.written, job.purpose)
    return JobRequest(
        job_id=job.id,
        lease_id=job.lease_id,
        files=tuple(str(settings.spool_root / member.path) for member in members),
        part=job.part,
        card=job.card,
        card_folders=tuple(str(folder) for folder in settings.card_folders),
        created_at_s=job.created_at,
        series_number_base=job.series_number_base,
        results_root=str(settings.results_root),
        software_version=settings.software_version,
        revision=job.revision,
        priority=job.priority,
        profiles=profiles,
        predecessors=dict(predecessors),
        reports=job.reports,
    )
