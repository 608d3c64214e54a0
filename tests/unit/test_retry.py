"""When to try again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.retry import Answer, GiveUp, Policy, Retry, classify_store_status, next_attempt, wait_s

POLICY = Policy(
    first_retry_s=10.0, factor=2.0, longest_wait_s=900.0, give_up_after_s=14 * 86400.0, refused_attempts=5
)


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (0x0000, Answer.STORED),
        (0xB000, Answer.STORED),
        (0xB006, Answer.STORED),
        (0xB007, Answer.STORED),
        (0x0111, Answer.STORED),
        (0xA700, Answer.BUSY),
        (0xA7FF, Answer.BUSY),
        (0x0110, Answer.BUSY),
        (0x0122, Answer.NOT_CONFIGURED),
        (0x0124, Answer.NOT_CONFIGURED),
        (0xA900, Answer.REFUSED),
        (0xC000, Answer.REFUSED),
        (0xC211, Answer.REFUSED),
        (0x0117, Answer.REFUSED),
    ],
)
def test_every_status_of_the_standard_has_one_meaning(status: int, answer: Answer) -> None:
    assert classify_store_status(status) is answer


@given(st.integers(min_value=0, max_value=0xFFFF))
def test_a_status_is_stored_only_when_the_standard_says_success_warning_or_duplicate(status: int) -> None:
    stored = status in (0x0000, 0x0001, 0x0107, 0x0111, 0x0116) or 0xB000 <= status <= 0xBFFF
    assert (classify_store_status(status) is Answer.STORED) == stored


def test_waits_double_up_to_the_longest() -> None:
    waits = [wait_s(POLICY, failures, 0.0) for failures in (1, 2, 3, 7, 8, 500)]
    assert waits == [10.0, 20.0, 40.0, 640.0, 900.0, 900.0]


@given(st.integers(min_value=1, max_value=10**6), st.floats(min_value=0, max_value=1))
def test_jitter_takes_a_wait_down_to_half_at_most(failures: int, jitter: float) -> None:
    full = wait_s(POLICY, failures, 0.0)
    assert full / 2 <= wait_s(POLICY, failures, jitter) <= full


def test_a_weekend_of_outage_is_well_within_the_limit_and_costs_few_attempts() -> None:
    now, attempts = 0.0, 0
    while now < 62 * 3600:
        attempts += 1
        decision = next_attempt(POLICY, attempts, 0.0, now, 0.0)
        assert isinstance(decision, Retry)
        now = decision.at
    assert attempts < 260


def test_a_delivery_older_than_the_limit_is_given_up_with_the_numbers() -> None:
    decision = next_attempt(POLICY, 3, created_at=0.0, now=15 * 86400.0, jitter=0.0)
    assert isinstance(decision, GiveUp)
    assert "360.0 hours" in decision.reason
    assert "336.0 hours" in decision.reason
