"""The worker's end of the model process, where that cannot start, says nothing, or is short of memory."""

from __future__ import annotations

import errno
import itertools
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog

from ai.errors import ModelError
from ai.model import find_card
from gateway.clock import SystemClock
from gateway.errors import ModelFault
from gateway.jobs.cards import Cards
from gateway.modelhost import client, memory, share
from gateway.modelhost.client import ModelClient, ModelUnavailable
from gateway.modelhost.process import ModelProcess
from gateway.modelhost.protocol import Begin, Predicted, Refused
from tests.unit.test_modelhost import volume
from tests.waiting import wait_until

SILENT = (sys.executable, "-c", "import sys, time; time.sleep(600)")


class Clock(SystemClock):
    """Runs on by so many seconds with each look."""

    def __init__(self, step_s: float) -> None:
        self._times = itertools.count(0.0, step_s)

    def monotonic_s(self) -> float:
        return next(self._times)


@contextmanager
def started(folder: Path, command: tuple[str, ...], clock: SystemClock) -> Iterator[ModelProcess]:
    process = ModelProcess(Begin("cpu"), 1.0, folder, clock, structlog.get_logger(), command=command)
    process.start()
    try:
        yield process
    finally:
        process.stop()


def test_a_process_that_cannot_be_started_is_tried_again_and_its_jobs_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program"
    with started(tmp_path / "scratch", (str(program),), SystemClock()) as process:
        wait_until(lambda: "cannot be started (No such file" in process.trouble, 20, "the first attempt")
        monkeypatch.setattr(client, "_LOOKS", 1)
        asked = ModelClient(find_card("ct-tissue"), "ct-tissue", (), process)
        with pytest.raises(ModelUnavailable, match="cannot be started"):
            asked.load()
        with pytest.raises(ModelUnavailable, match="cannot be started"):
            asked.predict([volume()], lambda _stage, _fraction: None)
        program.write_text("#!/bin/sh\nexit 9\n")
        program.chmod(0o755)
        wait_until(lambda: process.trouble == "it ended with exit code 9", 20, "the next attempt")


def test_a_process_that_never_says_hello_is_ended(tmp_path: Path) -> None:
    with started(tmp_path / "scratch", SILENT, Clock(200.0)) as process:
        wait_until(lambda: process.trouble == "it ended with signal 9", 20, "the process to be ended")


@pytest.mark.parametrize("failing", ["memfd_create", "as_array"])
def test_too_little_shared_memory_is_a_lack_of_memory_and_leaves_nothing_open(
    failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(os if failing == "memfd_create" else share, failing, fail)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(MemoryError, match="120 bytes"):
        share.lend_volume(volume())
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_what_a_model_says_becomes_a_name_and_one_sentence() -> None:
    error = client._error(Refused(1, "run", "NOT A NAME\n", "line\nline\x1b[2J \t end " + "x" * 10_000))
    assert isinstance(error, ModelError)
    assert error.code == "MODEL_FAILED"
    assert error.reason.startswith("line line [2J end xxx")
    assert len(error.reason) == 600
    assert isinstance(client._error(Refused(1, "error", "MODEL_FAILED", "it failed.")), ModelFault)


@pytest.mark.parametrize("facts", [{"name": "\ud800"}, {"many": "x" * (1 << 21)}])
def test_facts_that_cannot_be_kept_are_refused(facts: dict[str, str]) -> None:
    with pytest.raises(ModelError, match="facts of its run") as refused:
        client._check_facts("card", Predicted(1, {}, {}, facts))
    assert refused.value.code == "MODEL_OUTPUT_INVALID"
    client._check_facts("card", Predicted(1, {"score": 0.5}, {}, {"tiles": 3}))


def test_the_limit_of_a_service_and_of_the_group_around_it_count(tmp_path: Path) -> None:
    (tmp_path / "system.slice" / "gateway.service").mkdir(parents=True)
    for place, limit in ((".", "9000"), ("system.slice", "max"), ("system.slice/gateway.service", "500")):
        (tmp_path / place / "memory.max").write_text(f"{limit}\n")
    membership = tmp_path / "cgroup"
    membership.write_text("1:name=systemd:/old\n0::/system.slice/gateway.service\n")
    assert memory._group_limits(membership, tmp_path) == [500, 9000]
    membership.write_text("0::/\n")
    assert memory._group_limits(membership, tmp_path) == [9000]
    assert memory._group_limits(tmp_path / "missing", tmp_path) == []


@pytest.mark.parametrize(
    ("name", "pause_s"), [("MODEL_PROCESS_DOWN", 60), ("MODEL_RESTARTED", 60), ("MODEL_CRASHED", 3600)]
)
def test_no_model_is_held_for_good_by_what_may_have_passed(name: str, pause_s: float) -> None:
    tries = []

    def load(card: str, _spec: object) -> None:
        tries.append(card)
        if len(tries) == 1:
            raise ModelError(name, "The process ended.")

    clock = Settable()
    cards = Cards(["ct-tissue"], [], load, clock)
    assert cards.look()
    assert cards.states()[0].name == name
    clock.now = pause_s - 1.0
    assert not cards.look()
    clock.now = pause_s
    assert cards.look()
    clock.now = 1e6
    assert not cards.look()
    assert (cards.states()[0].name, len(tries)) == ("", 2)


class Settable(SystemClock):
    """Stands still until it is set."""

    now = 0.0

    def monotonic_s(self) -> float:
        return self.now
