"""When to try again: pure decisions about attempts, ages and the answers of a destination."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Answer(StrEnum):
    """What a C-STORE status (PS3.4 Table B.2-1, PS3.7 Annex C) means for a delivery."""

    STORED = "stored"
    """The destination has it, perhaps since an earlier attempt."""
    BUSY = "busy"
    """It may work later: out of resources, processing failure."""
    NOT_CONFIGURED = "not_configured"
    """Somebody has to change the destination: SOP class not supported, not authorised."""
    REFUSED = "refused"
    """The destination does not want this object; a few attempts, then a person decides."""


@dataclass(frozen=True)
class Policy:
    """How long we try. Times in seconds.

    Attributes
    ----------
    first_retry_s, factor, longest_wait_s
        The waits grow from the first by the factor up to the longest.
    give_up_after_s
        Age at which a delivery is given up.
    refused_attempts
        Attempts for an object that the destination itself refuses.
    """

    first_retry_s: float
    factor: float
    longest_wait_s: float
    give_up_after_s: float
    refused_attempts: int


@dataclass(frozen=True)
class Retry:
    """Try again at ``at`` (seconds since 1970)."""

    at: float


@dataclass(frozen=True)
class GiveUp:
    """Do not try again; the sentence says why."""

    reason: str


def wait_s(policy: Policy, failures: int, jitter: float) -> float:
    """Seconds to wait after so many failures in a row (1 or more).

    ``jitter`` in 0..1 takes the wait down to half, so that many gateways do not knock together.
    """
    longest = policy.longest_wait_s
    wait = policy.first_retry_s
    for _ in range(failures - 1):
        wait *= policy.factor
        if wait >= longest or policy.factor <= 1.0:
            break
    return min(wait, longest) * (1.0 - 0.5 * jitter)


def next_attempt(
    policy: Policy,
    attempts: int,
    created_at: float,
    now: float,
    jitter: float,
    setting: str = "delivery.give_up_after",
) -> Retry | GiveUp:
    """When what has failed ``attempts`` times is due again, or that it is given up, by which setting."""
    age_s = now - created_at
    if age_s >= policy.give_up_after_s:
        return GiveUp(
            f"It was tried for {age_s / 3600:.1f} hours; the limit is "
            f"{policy.give_up_after_s / 3600:.1f} hours ({setting})."
        )
    return Retry(now + wait_s(policy, attempts, jitter))


def classify_store_status(status: int) -> Answer:
    """Meaning of a C-STORE response status (PS3.4 Table B.2-1, PS3.7 Annex C)."""
    if status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or status & 0xF000 == 0xB000:
        return Answer.STORED  # 0x0111: duplicate SOP instance, an earlier attempt arrived
    if status & 0xFF00 == 0xA700 or status in (0x0110, 0x0213):
        return Answer.BUSY
    if status in (0x0122, 0x0124, 0x0211):
        return Answer.NOT_CONFIGURED
    return Answer.REFUSED
