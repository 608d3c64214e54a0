"""The sender: empties the outbox of one destination, oldest first, over as few associations as it can.

Trouble with the destination (nobody listens, association rejected) holds the whole queue, so an
outage costs one attempt per waiting time, whatever is queued. Trouble with one object (refused,
busy, aborted) postpones that object and lets the others pass.
"""

from __future__ import annotations

import hashlib
import random
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway import failpoint
from gateway.clock import Clock
from gateway.deliver.storage_scu import Address, ContextKey, StorageSCU, StoredObject
from gateway.errors import PeerError
from gateway.journal import Journal
from gateway.journal.records import ClaimedDelivery, Failure
from gateway.retry import GiveUp, Policy, next_attempt

_EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
OWN_RESULTS: frozenset[ContextKey] = frozenset(
    {
        ("1.2.840.10008.5.1.4.1.1.66.4", _EXPLICIT_LITTLE),  # Segmentation
        ("1.2.840.10008.5.1.4.1.1.88.34", _EXPLICIT_LITTLE),  # Comprehensive 3D SR
        ("1.2.840.10008.5.1.4.1.1.7", _EXPLICIT_LITTLE),  # Secondary Capture
    }
)
"""Proposed from the start, so that the results of one study need one association."""

_POLL_S = 0.25
_DISK_TROUBLE_WAIT_S = 1.0


@dataclass(frozen=True)
class SenderSettings:
    """What a sender needs of the configuration."""

    destination: str
    address: Address
    calling_ae_title: str
    results_root: Path
    policy: Policy
    timeout_s: float


@dataclass
class _Hold:
    """The destination is in trouble; monotonic time of the next try, and failures in a row."""

    until_s: float = 0.0
    failures: int = 0


@dataclass
class _State:
    scu: StorageSCU | None = None
    contexts: frozenset[ContextKey] = OWN_RESULTS
    hold: _Hold = field(default_factory=_Hold)
    refusals: dict[int, int] = field(default_factory=dict)


class Sender:
    """Delivers to one destination; ``run`` is the body of its thread."""

    def __init__(
        self, journal: Journal, settings: SenderSettings, clock: Clock, log: FilteringBoundLogger
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._clock = clock
        self._log = log.bind(destination=settings.destination)
        self._state = _State()
        self._jitter = random.Random()  # noqa: S311 - spreads load, protects nothing

    def run(self, stopping: threading.Event) -> None:
        """Deliver until ``stopping``; the object under way is finished first."""
        try:
            while not stopping.is_set():
                if not self._holding() and self.send_one():
                    continue
                self._close()
                stopping.wait(_POLL_S)
        finally:
            self._close()

    def _holding(self) -> bool:
        return self._clock.monotonic_s() < self._state.hold.until_s

    def send_one(self) -> bool:
        """Claim and try one due delivery; False when none is due."""
        settings = self._settings
        try:
            delivery = self._journal.claim_delivery(
                settings.destination, self._clock.now_s(), settings.policy.longest_wait_s
            )
        except sqlite3.OperationalError as error:
            self._log.critical("journal_cannot_be_written", error=str(error))
            return False
        if delivery is None:
            return False
        failpoint.reach("deliver.claimed")
        path = settings.results_root / delivery.path
        damage = _damage(path, delivery)
        if damage is not None:
            self._bury(delivery, damage)
            return True
        stored = StoredObject(
            path, delivery.sop_class_uid, delivery.sop_instance_uid, delivery.transfer_syntax_uid
        )
        try:
            scu = self._scu_for(stored)
        except PeerError as error:
            self._hold(delivery, error)
            return True
        try:
            status = scu.store(stored)
        except PeerError as error:
            self._postpone(delivery, error)
        else:
            self._delivered(delivery, status)
        return True

    # -- association --------------------------------------------------------------------------

    def _scu_for(self, stored: StoredObject) -> StorageSCU:
        """The open association if it has the context; otherwise a fresh one that has it too."""
        state, settings = self._state, self._settings
        if state.scu is not None and state.scu.is_established and stored.context in state.contexts:
            return state.scu
        self._close()
        state.contexts |= {stored.context}
        state.scu = StorageSCU(
            settings.address, settings.calling_ae_title, state.contexts, settings.timeout_s
        )
        if state.hold.failures:
            self._log.info("destination_is_back", after_failures=state.hold.failures)
        state.hold = _Hold()
        return state.scu

    def _close(self) -> None:
        if self._state.scu is not None:
            self._state.scu.close()
            self._state.scu = None

    # -- outcomes -----------------------------------------------------------------------------

    def _delivered(self, delivery: ClaimedDelivery, status: int) -> None:
        failpoint.reach("deliver.accepted_by_peer")
        reason = f"The destination answered 0x{status:04X}."
        self._record(lambda: self._journal.delivery_sent(delivery, reason, self._clock.now_s()))
        failpoint.reach("deliver.recorded")
        self._state.refusals.pop(delivery.id, None)
        self._log.info("delivered", delivery=delivery.id, kind=delivery.kind, status=f"0x{status:04X}")

    def _hold(self, delivery: ClaimedDelivery, error: PeerError) -> None:
        """No association: leave the whole destination alone for a while."""
        hold = self._state.hold
        hold.failures += 1
        hold.until_s = self._clock.monotonic_s() + self._retry(delivery, error, hold.failures)

    def _postpone(self, delivery: ClaimedDelivery, error: PeerError) -> None:
        """The object was not stored: let the others pass."""
        if self._state.scu is not None and not self._state.scu.is_established:
            self._close()
        if not error.retryable:
            refusals = self._state.refusals.get(delivery.id, 0) + 1
            self._state.refusals[delivery.id] = refusals
            if refusals >= self._settings.policy.refused_attempts:
                self._bury(delivery, Failure(error.name, f"{error.reason} It was refused {refusals} times."))
                return
        self._retry(delivery, error, delivery.attempts)

    def _retry(self, delivery: ClaimedDelivery, error: PeerError, failures: int) -> float:
        """Postpone or give up; returns the seconds to wait."""
        policy, now = self._settings.policy, self._clock.now_s()
        decision = next_attempt(policy, failures, delivery.created_at, now, self._jitter.random())
        if isinstance(decision, GiveUp):
            self._bury(delivery, Failure(error.name, f"{error.reason} {decision.reason}"))
            return policy.first_retry_s
        failure = Failure(error.name, error.reason)
        self._record(lambda: self._journal.delivery_postponed(delivery, failure, decision.at, now))
        self._log.warning(
            "delivery_postponed",
            delivery=delivery.id,
            kind=delivery.kind,
            failure=error.name,
            reason=error.reason,
            next_attempt_in_s=round(decision.at - now, 1),
        )
        return decision.at - now

    def _bury(self, delivery: ClaimedDelivery, failure: Failure) -> None:
        self._record(lambda: self._journal.delivery_dead(delivery, failure, self._clock.now_s()))
        self._state.refusals.pop(delivery.id, None)
        self._log.error("delivery_dead", delivery=delivery.id, failure=failure.name, reason=failure.reason)

    def _record(self, write: Callable[[], None]) -> None:
        """Write to the journal; while its disk is full, wait: the outcome must not be forgotten."""
        while True:
            try:
                write()
            except sqlite3.OperationalError as error:
                self._log.critical("journal_cannot_be_written", error=str(error))
                threading.Event().wait(_DISK_TROUBLE_WAIT_S)
            else:
                return


def _damage(path: Path, delivery: ClaimedDelivery) -> Failure | None:
    """Why the stored file must not be sent."""
    if not path.is_file():
        sentence = f"The stored {delivery.kind} is missing from the results folder: check the disk."
        return Failure("RESULT_FILE_MISSING", sentence)
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest == delivery.digest:
        return None
    sentence = f"The stored {delivery.kind} does not have its SHA-256 any more: check the disk."
    return Failure("RESULT_FILE_DAMAGED", sentence)
