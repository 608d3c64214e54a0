"""The schedule of a device: an urgent run overtakes at the next step, and nothing waits for ever."""

from __future__ import annotations

from collections import Counter
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from gateway.modelhost.schedule import LEVELS, OVERDUE_AFTER_S, TURN_S, Schedule

PRIORITIES = tuple(LEVELS)
STEP_S = 1.0
Arrivals = list[tuple[int, str, int]]
arrivals = st.lists(
    st.tuples(st.integers(0, 60), st.sampled_from(PRIORITIES), st.integers(1, 30)), min_size=1, max_size=6
)


def simulate(planned: Arrivals, most_steps: int = 10_000) -> list[int]:
    """Who made each step, until all have made theirs; runs arrive at a second with a number of steps."""
    schedule, left, now_s = Schedule(), {}, 0.0
    coming = sorted((at, number) for number, (at, _, _) in enumerate(planned))
    made: list[int] = []
    while coming or len(schedule):
        while coming and coming[0][0] <= now_s:
            _, number = coming.pop(0)
            left[number] = planned[number][2]
            schedule.add(number, planned[number][1], now_s)
        if len(schedule):
            number = schedule.order(now_s)[0]
            schedule.serve(number, now_s)
            made.append(number)
            left[number] -= 1
            if not left[number]:
                schedule.remove(number)
        now_s += STEP_S
        assert len(made) <= most_steps
    return made


@given(arrivals)
def test_every_run_makes_all_its_steps_and_no_more(planned: Arrivals) -> None:
    assert Counter(simulate(planned)) == {number: steps for number, (_, _, steps) in enumerate(planned)}


@given(st.sampled_from(["normal", "offpeak"]), st.integers(1, 60), st.integers(1, 60))
def test_an_urgent_run_makes_the_next_step_and_all_of_its_own(other: str, before: int, steps: int) -> None:
    made = simulate([(0, other, before + 200), (before, "urgent", steps)])
    assert made[before : before + steps] == [1] * steps


@given(st.sampled_from(PRIORITIES), st.lists(st.integers(1, 20), min_size=2, max_size=5))
def test_equals_go_one_after_the_other_while_none_is_overdue(priority: str, lengths: list[int]) -> None:
    made = simulate([(0, priority, steps) for steps in lengths])
    assert made == sorted(made)


@given(st.sampled_from(["normal", "offpeak"]))
def test_an_endless_stream_of_urgent_runs_leaves_others_their_share(priority: str) -> None:
    """Each time it has waited for long enough, it has its turn; no urgent run waits for longer than that."""
    age_s, turn_s, steps = int(OVERDUE_AFTER_S[priority]), int(TURN_S), 100
    rounds = -(-steps // turn_s)
    stream = [(1 + number * 10, "urgent", 10) for number in range(rounds * (age_s + turn_s) // 10)]
    made = simulate([(0, priority, steps), *stream])
    places = [place for place, number in enumerate(made) if number == 0]
    assert places[-1] <= rounds * (age_s + turn_s) + 1
    runs = [len(list(group)) for number, group in groupby(made) if number == 0]
    assert max(runs[:-1], default=0) <= turn_s


@given(arrivals)
def test_the_order_names_each_run_once(planned: Arrivals) -> None:
    schedule = Schedule()
    for number, (at, priority, _) in enumerate(planned):
        schedule.add(number, priority, float(at))
    assert sorted(schedule.order(100.0)) == list(range(len(planned)))
    schedule.serve(0, 100.0)
    schedule.remove(0)
    assert 0 not in schedule
    assert 0 not in schedule.order(101.0)
