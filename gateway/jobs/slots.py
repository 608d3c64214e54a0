"""What the dispatcher knows of each slot: its worker, what that can run, and the jobs that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gateway.jobs.messages import CardState
from gateway.journal.records import ClaimedJob, Failure

IN_MODEL = "segment"
"""Stage in which a job waits for the model process; the worker itself does nothing for it then."""

_STAGES = {
    "read": "while reading the pixels",
    IN_MODEL: "while the model was running",
    "measure": "while measuring",
    "write": "while writing the results",
    "verify": "while checking the results",
}


@dataclass
class Running:
    """A job that a worker has now; times on the monotonic clock.

    Attributes
    ----------
    ended_because
        Why we have asked for its end.
    is_final
        That it is not tried again then.
    """

    job: ClaimedJob
    started_s: float
    renewed_s: float
    stage: str = ""
    ended_because: Failure | None = None
    is_final: bool = False
    cancelled_s: float = 0.0

    @property
    def doing(self) -> str:
        """What the worker was doing when it was last heard of."""
        return _STAGES.get(self.stage, "while running this series")


@dataclass
class Slot:
    """A device: the worker in it (None: none that takes jobs), and its jobs."""

    number: int
    pid: int | None = None
    cards: tuple[CardState, ...] = ()
    heard_s: float = 0.0
    is_killed: bool = False
    running: list[Running] = field(default_factory=list)

    @property
    def unable(self) -> dict[str, Failure]:
        """Models that its worker cannot load."""
        return {each.card: Failure(each.name, each.reason) for each in self.cards if each.name}

    @property
    def may_take_any(self) -> bool:
        """True when it has no job."""
        return self.pid is not None and not self.running

    @property
    def may_be_overtaken(self) -> bool:
        """True when an urgent job may be given to it beside the one that it has.

        A job that was tried before may be what ends the worker, so it stays alone.
        """
        if self.pid is None or len(self.running) != 1:
            return False
        job = self.running[0].job
        return job.priority != "urgent" and job.attempts == 1

    def find(self, lease_id: str) -> Running | None:
        """The job under a lease."""
        return next((each for each in self.running if each.job.lease_id == lease_id), None)

    def blamed(self) -> Sequence[Running]:
        """Which jobs the end of the worker is put down to.

        Those for which we ended it; else those that it was working on, not those that waited for the model.
        """
        asked_for = [each for each in self.running if each.ended_because is not None]
        at_work = [each for each in self.running if each.stage != IN_MODEL]
        return asked_for or at_work or self.running


def waiting_for_model(slots: Sequence[Slot], off: Mapping[str, Failure]) -> dict[str, Failure]:
    """Card → why its jobs wait: it is switched off, or no worker can load it."""
    ready = [slot for slot in slots if slot.cards]
    found = dict(off)
    for card, failure in (ready[0].unable if ready else {}).items():
        if all(card in slot.unable for slot in ready):
            found.setdefault(card, failure)
    return found


def silent(running: Running, lease_s: float, max_attempts: int) -> Failure:
    """Its worker was not heard of for a whole lease."""
    sentence = f"The worker gave no sign of life for {lease_s:.0f} s {running.doing} and was ended, "
    return Failure("WORKER_SILENT", f"{sentence}{running.job.attempts} of {max_attempts} attempts.")


def too_slow(running: Running, job_timeout_s: float, max_attempts: int) -> Failure:
    """It is beyond its time."""
    sentence = f"The job took more than {job_timeout_s:g} s (workers.job_timeout) and was ended "
    counted = f"{running.job.attempts} of {max_attempts} attempts."
    return Failure("JOB_TIMEOUT", f"{sentence}{running.doing}, {counted}")
