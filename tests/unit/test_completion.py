"""Completion: quiet and hung up, or the longest time is over."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.completion import Complete, CompletionRules, Wait, decide

RULES = CompletionRules(quiet_for_s=30.0, at_most_s=900.0)


@dataclass(frozen=True)
class Arrived:
    source: str = "ct1"
    instance_count: int = 312
    opened_at: float = 1000.0
    last_instance_at: float = 1100.0
    committed_at: float | None = None
    committed_count: int | None = None


def test_a_series_that_was_quiet_long_enough_is_complete_and_the_evidence_has_the_numbers() -> None:
    outcome = decide(Arrived(), 0, 1131.0, RULES)
    assert isinstance(outcome, Complete)
    assert outcome.evidence == {
        "reason": "312 instances; quiet for 31.0 s, no open association from ct1.",
        "incomplete": False,
        "instances": 312,
        "quiet_s": 31.0,
        "age_s": 131.0,
        "open_associations": 0,
        "quiet_for_s": 30.0,
        "at_most_s": 900.0,
    }


def test_a_series_is_complete_at_the_very_moment_that_it_was_told_to_wait_for() -> None:
    waiting = decide(Arrived(last_instance_at=1100.1), 0, 1100.2, RULES)
    assert isinstance(waiting, Wait)
    assert isinstance(decide(Arrived(last_instance_at=1100.1), 0, waiting.until_s, RULES), Complete)


def test_a_series_that_is_not_quiet_yet_waits_until_it_can_be() -> None:
    outcome = decide(Arrived(), 0, 1110.0, RULES)
    assert outcome == Wait(1130.0, "312 instances; quiet for 10.0 s, 30 s are needed.")


def test_an_open_association_of_the_source_keeps_a_quiet_series_waiting() -> None:
    outcome = decide(Arrived(), 2, 1500.0, RULES)
    assert outcome == Wait(1501.0, "312 instances; ct1 still has 2 open associations.")


def test_after_the_longest_time_a_series_is_taken_as_it_is_and_said_to_be_incomplete() -> None:
    outcome = decide(Arrived(last_instance_at=1899.0), 1, 1900.0, RULES)
    assert isinstance(outcome, Complete)
    assert outcome.evidence["incomplete"] is True
    assert outcome.evidence["reason"] == (
        "312 instances after 900 s, the longest that a series may take (900 s); taken as it is and "
        "possibly incomplete: the last instance came 1.0 s ago, open associations from ct1: 1."
    )


def test_no_series_waits_beyond_the_longest_time() -> None:
    assert decide(Arrived(last_instance_at=1890.0), 0, 1891.0, RULES) == Wait(
        1900.0, "312 instances; quiet for 1.0 s, 30 s are needed."
    )
    assert isinstance(decide(Arrived(), 1, 1899.5, RULES), Wait)
    late = decide(Arrived(), 1, 1899.5, RULES)
    assert isinstance(late, Wait)
    assert late.until_s == 1900.0


def test_silence_from_before_the_start_of_the_gateway_is_no_evidence() -> None:
    restarted_s = 5000.0  # long after the last instance and after at_most
    waiting = decide(Arrived(), 0, 5001.0, RULES, restarted_s)
    assert isinstance(waiting, Wait)
    assert waiting.until_s == 5030.0
    outcome = decide(Arrived(), 0, 5031.0, RULES, restarted_s)
    assert isinstance(outcome, Complete)
    assert outcome.evidence["incomplete"] is False
    assert outcome.evidence["reason"] == (
        "312 instances; quiet for 31.0 s since the gateway was started, no open association from ct1."
    )


def test_a_sender_that_is_back_after_a_restart_gets_its_whole_time_again_and_no_more() -> None:
    assert isinstance(decide(Arrived(), 1, 5899.0, RULES, 5000.0), Wait)
    outcome = decide(Arrived(), 1, 5900.0, RULES, 5000.0)
    assert isinstance(outcome, Complete)
    assert outcome.evidence["incomplete"] is True


def test_a_source_that_asks_for_commitment_may_still_be_about_to_send_the_next_instance() -> None:
    asked = Arrived(instance_count=1, committed_at=1101.0, committed_count=1)
    waiting = decide(asked, 1, 1101.5, RULES)
    assert isinstance(waiting, Wait)
    assert waiting.until_s == 1103.0
    assert isinstance(decide(asked, 1, waiting.until_s, RULES), Complete)
    assert isinstance(decide(asked, 1, 1000.0, RULES), Complete)  # the clock was set back
