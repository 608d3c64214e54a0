"""How an attempt to report storage commitment ends: what the journal and the log are told."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.errors import GatewayError, LostRace, PeerError
from gateway.journal import Journal
from gateway.journal.commitment_records import ClaimedCommitment, Outcome
from gateway.journal.records import Failure
from gateway.receive.commitment.link import ReportAddress
from gateway.retry import GiveUp, Policy, next_attempt

_ANSWER_S = 30.0
_DISK_TROUBLE_WAIT_S = 1.0

Ending = Callable[[], None]
"""Writes an ending into the journal and the log."""


@dataclass(frozen=True)
class ReporterSettings:
    """What the reporter needs of the configuration.

    Attributes
    ----------
    addresses
        Name of a peer → where it takes reports; a peer without port, or with TLS only, is missing.
    tls_only
        Names of peers that are not called because reports are sent in clear.
    policy
        Waits between attempts, and when a report is given up.
    """

    calling_ae_title: str
    addresses: Mapping[str, ReportAddress]
    policy: Policy
    answer_timeout_s: float = _ANSWER_S
    tls_only: frozenset[str] = frozenset()


class Endings:
    """Makes them; each is written with :meth:`until_written`."""

    def __init__(
        self, journal: Journal, settings: ReporterSettings, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self._log = log
        self._jitter = random.Random()  # noqa: S311 - spreads load, protects nothing

    def reported(self, claimed: ClaimedCommitment, outcome: Outcome, where: str) -> Ending:
        """The peer has acknowledged the report."""

        def write() -> None:
            self._journal.commitment_reported(claimed, outcome, where, self._clock.now_s())
            self._log.info(
                "commitment_reported",
                source=claimed.source,
                commitment=claimed.id,
                committed=len(outcome.committed),
                failed=len(outcome.failed),
                where=where,
            )

        return write

    def wait_for_peer(self, claimed: ClaimedCommitment, outcome: Outcome, error: PeerError | None) -> Ending:
        """Nobody can be called: until it is given up, the peer may open an association again."""
        tried = f"{error.reason} " if error else f"{claimed.source} hung up before it was told. "
        if claimed.source in self._settings.tls_only:
            failure = Failure(
                "PEER_TAKES_TLS_ONLY",
                f"{tried}It is to use TLS (peers.{claimed.source}.tls), and we call in clear, so it can only "
                "be told on an association that it opens: let it wait there for the report.",
            )
        else:
            failure = Failure(
                "PEER_WITHOUT_PORT",
                f"{tried}It has no port in our configuration, so it can only be told on an association that "
                f"it opens: add peers.{claimed.source}.port, where it takes reports.",
            )
        give_up_after_s, now_s = self._settings.policy.give_up_after_s, self._clock.now_s()
        if now_s >= claimed.created_at + give_up_after_s:
            return self.dead(claimed, outcome, failure)
        # No longer than anything may wait: after the clock was set back it would be due over and over.
        until_s = min(claimed.created_at, now_s) + give_up_after_s
        return self.postponed(claimed, failure, until_s)

    def later(
        self, claimed: ClaimedCommitment, outcome: Outcome, error: GatewayError, failures: int
    ) -> tuple[Ending, float]:
        """Postponed or given up, and the seconds to wait."""
        policy, now_s = self._settings.policy, self._clock.now_s()
        decision = next_attempt(
            policy, failures, claimed.created_at, now_s, self._jitter.random(), "commitment.give_up_after"
        )
        if isinstance(decision, GiveUp):
            failure = Failure(error.name, f"{error.reason} {decision.reason}")
            return self.dead(claimed, outcome, failure), policy.first_retry_s
        failure = Failure(error.name, error.reason)
        return self.postponed(claimed, failure, decision.at), decision.at - now_s

    def postponed(self, claimed: ClaimedCommitment, failure: Failure, until_s: float) -> Ending:
        """It is tried again at ``until_s`` (seconds since 1970)."""

        def write() -> None:
            now_s = self._clock.now_s()
            self._journal.commitment_postponed(claimed, failure, until_s, now_s)
            self._log.warning(
                "commitment_report_postponed",
                source=claimed.source,
                commitment=claimed.id,
                failure=failure.name,
                reason=failure.reason,
                next_attempt_in_s=round(until_s - now_s, 1),
            )

        return write

    def dead(self, claimed: ClaimedCommitment, outcome: Outcome, failure: Failure) -> Ending:
        """It is given up."""

        def write() -> None:
            self._journal.commitment_dead(claimed, outcome, failure, self._clock.now_s())
            self._log.error(
                "commitment_report_dead",
                source=claimed.source,
                commitment=claimed.id,
                failure=failure.name,
                reason=failure.reason,
            )

        return write

    def until_written(self, write: Ending, stopping: threading.Event) -> None:
        """Write to the journal; while its disk is full, wait: what was told must not be told again.

        A peer that has asked once more meanwhile is told once more.
        """
        while True:
            try:
                write()
            except LostRace:
                return
            except sqlite3.OperationalError as error:
                self._log.critical("journal_cannot_be_written", error=str(error))
                if stopping.wait(_DISK_TROUBLE_WAIT_S):
                    return
            else:
                return
