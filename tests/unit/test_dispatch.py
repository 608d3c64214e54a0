"""The dispatcher and the executor against a scripted worker process: a real child, real signals."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from ai.profile import Profile
from gateway.child import environment_for_child
from gateway.clock import SystemClock
from gateway.header import InstanceHeader
from gateway.jobs.checks import result_damage
from gateway.jobs.commit import Sending
from gateway.jobs.dispatch import Dispatcher
from gateway.jobs.executor import LocalExecutor
from gateway.jobs.messages import WorkerSettings
from gateway.jobs.request import DispatchSettings
from gateway.journal import Journal, JournalReader
from gateway.journal.profiles import Profiles
from gateway.journal.records import NewInstance, NewJob, NewResult, SeriesDecision
from gateway.spool import Spool
from tests.waiting import wait_until

SCRIPTED_WORKER = Path(__file__).parent / "scripted_worker.py"


class Bench:
    """A journal with queued jobs, and a dispatcher that runs them on the scripted worker."""

    def __init__(self, folder: Path, cards: tuple[str, ...], slots: int = 1, **limits: Any) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.journal = Journal(folder / "journal.db")
        self.spool = Spool(folder / "spool")
        self.results = Spool(folder / "results")
        log = structlog.get_logger()
        settings = WorkerSettings("cpu", cards=("ok",), card_folders=(), heartbeat_s=0.05)
        self.executor = LocalExecutor((settings,) * slots, log, (sys.executable, str(SCRIPTED_WORKER)))
        self.dispatcher = Dispatcher(self.journal, self.executor, self._settings(limits), self.clock, log)
        to = limits.get("destinations", ("pacs",))
        self.jobs = [self.add(n, card, destinations=to) for n, card in enumerate(cards, start=1)]
        self.stopping = threading.Event()
        self.thread = threading.Thread(
            target=self.dispatcher.run, args=(self.stopping, limits.get("drain_s", 5.0)), daemon=True
        )

    def _settings(self, limits: dict[str, Any]) -> DispatchSettings:
        return DispatchSettings(
            spool_root=self.spool.root,
            results_root=self.results.root,
            card_folders=(),
            series_number_base=9000,
            software_version="test",
            max_attempts=limits.get("max_attempts", 3),
            retry_after_s=limits.get("retry_after_s", 0.05),
            job_timeout_s=limits.get("job_timeout_s", 20.0),
            lease_s=limits.get("lease_s", 10.0),
            cancel_within_s=limits.get("cancel_within_s", 0.2),
            sending=Sending(
                profiles=Profiles(limits.get("profiles", {})),
                failed_quality=bool(limits.get("send_failed_quality", False)),
                nothing_found=bool(limits.get("send_when_nothing_found", True)),
                failures=bool(limits.get("send_when_failed", False)),
            ),
        )

    def add(
        self,
        number: int,
        card: str,
        priority: str = "normal",
        series: int = 0,
        destinations: tuple[str, ...] = ("pacs",),
    ) -> int:
        stored = self.spool.store(f"instance {number}".encode())
        series_uid = f"1.4.{series or number}"
        header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2", f"1.2.{number}", "1.3", series_uid, {})
        instance = NewInstance(header, "1.2.840.10008.1.2.1", stored.digest, stored.path, 10, "scanner")
        now = self.clock.now_s()
        self.journal.record_instance(instance, now)
        [received] = self.journal.receiving_series()
        job = NewJob("model", card, destinations, "test", "", f"digest {number}", priority)
        decision = SeriesDecision({"reason": "quiet"}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False)
        (job_id,) = self.journal.decide_series(received, decision, now)
        return job_id

    def start(self) -> None:
        self.executor.start()
        self.thread.start()

    def close(self) -> None:
        self.stopping.set()
        if self.thread.ident is not None:
            self.thread.join(timeout=10)
        self.executor.stop()
        self.journal.close()

    def record(self, job_id: int) -> dict[str, Any]:
        reader = JournalReader(self.folder / "journal.db")
        try:
            details = [reader.series_details(series) for series in reader.series()]
            return next(job for each in details for job in each["jobs"] if job["id"] == job_id)
        finally:
            reader.close()

    def all_jobs(self) -> list[dict[str, Any]]:
        reader = JournalReader(self.folder / "journal.db")
        try:
            jobs = [j for series in reader.series() for j in reader.series_details(series)["jobs"]]
            return sorted(jobs, key=lambda job: int(job["id"]))
        finally:
            reader.close()

    def add_to(self, job_id: int) -> None:
        """One more stored instance of the series of a job, as if it had come in time."""
        stored = self.spool.store(b"another instance")
        with sqlite3.connect(self.folder / "journal.db") as connection:
            connection.execute(
                "INSERT INTO instance SELECT NULL, sop_instance_uid || '.9', 'other', sop_class_uid, "
                "transfer_syntax_uid, study_instance_uid, series_instance_uid, first_revision, "
                "last_revision, role, ?, size_bytes, facts, frames, source, received_at, copies, "
                "quarantined_at FROM instance WHERE id = ?",
                (stored.path, job_id),
            )
        connection.close()

    def wait_for(self, job_id: int, state: str) -> dict[str, Any]:
        return wait_until(lambda: (r := self.record(job_id))["state"] == state and r)


Make = Callable[..., Bench]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Make]:
    made: list[Bench] = []

    def make(*cards: str, **limits: Any) -> Bench:
        made.append(Bench(tmp_path, cards, **limits))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_waits_when_no_file_can_be_opened_for_a_while(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strangers' connections may have taken all descriptors: that is no reason to end the gateway."""
    b = bench("ok")
    step, left = b.dispatcher.step, [OSError(errno.EMFILE, "Too many open files")]

    def scarce(*, may_claim: bool = True) -> None:
        if left:
            raise left.pop()
        step(may_claim=may_claim)

    monkeypatch.setattr(b.dispatcher, "step", scarce)
    b.start()
    b.wait_for(b.jobs[0], "done")


def test_a_job_ends_as_done_with_its_results_in_the_outbox(bench: Make) -> None:
    b = bench("ok")
    b.start()
    job = b.wait_for(b.jobs[0], "done")
    assert [r["kind"] for r in job["results"]] == ["seg", "sr"]  # the worker reported sr first
    assert [d["state"] for r in job["results"] for d in r["deliveries"]] == ["pending", "pending"]
    assert job["run"] == {"stage_times_s": {"model": 0.1}}


@pytest.mark.parametrize("send", [False, True])
def test_results_that_fail_a_quality_rule_are_kept_unless_the_site_wants_them(
    bench: Make, send: bool
) -> None:
    b = bench("implausible", send_failed_quality=send)
    b.start()
    job = b.wait_for(b.jobs[0], "done")
    assert [len(result["deliveries"]) for result in job["results"]] == [send, send]
    assert job["failure_name"] == (None if send else "QUALITY_HOLD")
    assert send or "Liver has 3 mL." in job["failure_reason"]


def test_a_stray_print_of_a_model_does_not_disturb_the_protocol(bench: Make) -> None:
    b = bench("noisy")
    b.start()
    assert b.wait_for(b.jobs[0], "done")["attempts"] == 1


def test_a_poison_job_fails_with_its_reason_and_the_next_one_runs(bench: Make) -> None:
    b = bench("crash", "ok")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_name"] == "WORKER_DIED"
    assert failed["failure_reason"] == (
        "The worker ended with signal 9 while running this series, 3 of 3 attempts."
    )
    assert [e["name"] for e in failed["events"]].count("lease_expired") == 2
    assert b.wait_for(b.jobs[1], "done")["attempts"] == 1


def test_a_decoder_that_crashes_is_named_by_its_stage_and_the_next_series_runs(bench: Make) -> None:
    b = bench("decoder-crash", "ok")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_reason"] == (
        "The worker ended with signal 11 while reading the pixels, 3 of 3 attempts."
    )
    assert b.wait_for(b.jobs[1], "done")["attempts"] == 1


def test_a_job_that_takes_too_long_says_what_it_was_doing(bench: Make) -> None:
    b = bench("slow-model", job_timeout_s=0.4)
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_reason"] == (
        "The job took more than 0.4 s (workers.job_timeout) and was ended while the model was running, "
        "3 of 3 attempts."
    )


def test_a_refusal_fails_at_once_by_its_name(bench: Make) -> None:
    b = bench("refuse")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("PIXEL_DATA_TOO_SHORT", 1)


def test_a_retryable_error_is_tried_again_up_to_the_limit(bench: Make) -> None:
    b = bench("full")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("DISK_FULL", 3)
    assert [e["name"] for e in failed["events"]].count("retryable_error") == 2


def test_a_job_that_takes_too_long_is_ended(bench: Make) -> None:
    b = bench("hang", "ok", job_timeout_s=0.4)
    b.start()
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "JOB_TIMEOUT"
    b.wait_for(b.jobs[1], "done")


def test_a_worker_without_a_sign_of_life_is_ended(bench: Make) -> None:
    b = bench("silent", lease_s=0.5)
    b.start()
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "WORKER_SILENT"


def test_a_worker_that_does_not_read_its_request_is_ended_too(bench: Make) -> None:
    b = bench("ok", lease_s=0.5)
    pipe_bytes = 64 * 1024
    b.dispatcher._settings = replace(b.dispatcher._settings, software_version="x" * 4 * pipe_bytes)
    b.executor.start()
    pid = wait_until(lambda: (h := b.executor.health()).ready and h.pid)
    os.kill(pid, signal.SIGSTOP)
    b.thread.start()
    job = b.wait_for(b.jobs[0], "done")
    assert job["attempts"] == 2
    assert "WORKER_SILENT" in " ".join(event["reason"] for event in job["events"])


def test_a_worker_killed_from_outside_loses_nothing(bench: Make) -> None:
    b = bench("hang-once")
    b.start()
    b.wait_for(b.jobs[0], "running")
    wait_until((b.folder / "hanging").exists)
    b.executor.kill(0)
    done = b.wait_for(b.jobs[0], "done")
    assert (done["attempts"], done["failure_name"]) == (2, None)


def test_a_missing_file_fails_the_job_by_name(bench: Make) -> None:
    b = bench("ok")
    for path in b.spool.root.glob("objects/*/*"):
        path.unlink()
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert failed["failure_name"] == "INSTANCE_FILE_MISSING"
    assert "the first is SOP Instance 1.2.1: " in failed["failure_reason"]


def test_a_result_file_that_is_not_what_was_reported_is_not_committed(bench: Make) -> None:
    b = bench("liar")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("RESULT_FILE_DAMAGED", 3)
    assert failed["results"] == []


def test_a_result_path_may_not_leave_the_results_folder(tmp_path: Path) -> None:
    for path in ("../journal.db", "/etc/passwd", "objects/../../x"):
        result = NewResult("seg", "1", "1", "1", "1", path, "0" * 64, 1)
        assert "leaves the results folder" in result_damage(tmp_path, result)


def test_stopping_puts_a_running_job_back_without_charging_an_attempt(bench: Make) -> None:
    b = bench("hang", drain_s=0.1)
    b.start()
    b.wait_for(b.jobs[0], "running")
    b.stopping.set()
    b.thread.join(timeout=10)
    job = b.record(b.jobs[0])
    assert (job["state"], job["attempts"], job["interruptions"]) == ("queued", 0, 1)
    assert job["failure_name"] == "GATEWAY_STOPPED"


def test_stopping_lets_a_job_finish_that_finishes_in_time(bench: Make) -> None:
    b = bench("slow")
    b.start()
    b.wait_for(b.jobs[0], "running")
    b.stopping.set()
    b.thread.join(timeout=10)
    assert b.record(b.jobs[0])["state"] == "done"


def test_jobs_wait_while_no_model_can_be_loaded(bench: Make) -> None:
    b = bench("ok")
    b.executor._workers[0]._settings = WorkerSettings("cpu", ("broken",), (), 0.05)
    b.start()
    wait_until(lambda: "MODEL_CARD_INVALID" in b.executor.health().reason)
    assert not b.executor.health().ready
    assert b.record(b.jobs[0])["state"] == "queued"


def test_a_worker_that_cannot_start_is_tried_again_and_jobs_wait(tmp_path: Path) -> None:
    log = structlog.get_logger()
    settings = WorkerSettings("cpu", (), (), 1.0)
    executor = LocalExecutor([settings], log, (sys.executable, "-c", "raise SystemExit(3)"))
    executor.start()
    try:
        wait_until(lambda: "exit code 3" in executor.health().reason)
        assert executor.alive
    finally:
        executor.stop()


def test_the_worker_gets_no_secrets_from_our_environment() -> None:
    given = {"PATH": "/bin", "HTTPS_PROXY": "http://x", "GW_PASSWORD": "x", "CUDA_VISIBLE_DEVICES": "0"}
    assert environment_for_child(given) == {"PATH": "/bin", "CUDA_VISIBLE_DEVICES": "0"}


def test_an_urgent_job_is_given_to_a_worker_that_is_busy_with_a_normal_one(bench: Make) -> None:
    b = bench("until-released")
    b.start()
    b.wait_for(b.jobs[0], "running")
    waiting = [b.add(number, "ok") for number in (2, 3)]
    urgent = b.add(4, "ok", "urgent")
    b.wait_for(urgent, "done")
    assert b.record(b.jobs[0])["state"] == "running"
    assert [b.record(job)["state"] for job in waiting] == ["queued", "queued"], (
        "one more at a time, and urgent"
    )
    (b.folder / "released").touch()
    for job in (b.jobs[0], *waiting):
        assert b.wait_for(job, "done")["attempts"] == 1


def test_an_urgent_job_is_next_whatever_waits(bench: Make) -> None:
    b = bench("until-released")
    many = [b.add(number, "ok") for number in range(2, 12)]
    offpeak = b.add(20, "ok", "offpeak")
    late = b.add(21, "ok")
    urgent = b.add(22, "ok", "urgent")
    (b.folder / "released").touch()
    b.start()
    b.wait_for(offpeak, "done")
    finished = {job: b.record(job)["finished_at"] for job in (*many, offpeak, late, urgent)}
    assert sorted(finished, key=finished.__getitem__) == [urgent, *many, late, offpeak]


def test_each_slot_has_a_job(bench: Make) -> None:
    b = bench("until-released", "until-released", "ok", slots=2)
    b.start()
    for job in b.jobs[:2]:
        b.wait_for(job, "running")
    assert b.record(b.jobs[2])["state"] == "queued"
    (b.folder / "released").touch()
    for job in b.jobs:
        b.wait_for(job, "done")


def test_a_job_that_merely_waited_for_its_model_is_not_charged_for_the_end_of_the_worker(bench: Make) -> None:
    b = bench("until-released")
    b.start()
    b.wait_for(b.jobs[0], "running")
    wait_until(lambda: b.dispatcher._slots[0].running[0].stage == "segment")
    culprit = b.add(2, "crash-beside", "urgent")
    b.wait_for(culprit, "failed")
    (b.folder / "released").touch()
    innocent = b.wait_for(b.jobs[0], "done")
    assert (innocent["attempts"], innocent["interruptions"] >= 1) == (1, True)


def test_a_job_that_can_be_cancelled_ends_without_its_worker(bench: Make) -> None:
    b = bench("obedient", job_timeout_s=0.3)
    b.start()
    pid = wait_until(lambda: (h := b.executor.health()).ready and h.pid)
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "JOB_TIMEOUT"
    assert b.executor.health().pid == pid


def test_a_running_job_ends_when_a_later_revision_takes_its_place(bench: Make) -> None:
    b = bench("obedient", lease_s=0.6)
    b.start()
    b.wait_for(b.jobs[0], "running")
    b.add(9, "ok", series=1)
    ended = b.wait_for(b.jobs[0], "failed")
    assert (ended["failure_name"], ended["attempts"]) == ("SUPERSEDED", 1)


def test_a_model_that_ends_its_process_on_three_series_is_switched_off_and_others_go_on(bench: Make) -> None:
    b = bench("model-crash", "model-crash", "model-crash", "model-crash", "ok", retry_after_s=30.0)
    b.start()
    b.wait_for(b.jobs[4], "done")
    waiting = wait_until(lambda: (r := b.record(b.jobs[3]))["hold_name"] and r)
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    assert waiting["hold_name"] == "MODEL_SWITCHED_OFF"
    assert "failed on 3 different series" in waiting["hold_reason"]
    assert [b.record(job)["attempts"] for job in b.jobs[:3]] == [1, 1, 1]


def test_one_poison_series_is_quarantined_and_its_model_stays_on(bench: Make) -> None:
    b = bench("model-crash", "ok")
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("MODEL_CRASHED", 3)
    assert "3 of 3 attempts. The series is quarantined" in failed["failure_reason"]
    b.wait_for(b.jobs[1], "done")
    assert b.journal.holds() == {}


def test_jobs_of_a_model_whose_files_are_gone_wait_uncharged_until_it_is_repaired(bench: Make) -> None:
    b = bench("missing", "ok")
    b.start()
    b.wait_for(b.jobs[1], "done")
    waiting = wait_until(lambda: (r := b.record(b.jobs[0]))["hold_name"] and r)
    assert (waiting["state"], waiting["attempts"]) == ("queued", 0)
    assert waiting["hold_name"] == "MODEL_FILE_MISSING"
    (b.folder / "repaired").touch()
    assert b.wait_for(b.jobs[0], "done")["hold_name"] is None


VNA = Profile(segmentation="label_map", compression="rle")


def test_the_worker_is_told_the_profiles_of_the_destinations_and_each_gets_its_own(bench: Make) -> None:
    b = bench("ok", profiles={"vna": VNA}, destinations=("pacs", "vna"))
    b.start()
    job = b.wait_for(b.jobs[0], "done")
    sent = [(r["kind"], r["profiles"], [d["destination"] for d in r["deliveries"]]) for r in job["results"]]
    assert sent == [
        ("seg", [""], ["pacs"]),
        ("seg", [VNA.key], ["vna"]),
        ("sr", [""], ["pacs"]),
        ("sr", [VNA.key], ["vna"]),
    ]
    assert job["profiles"][VNA.key]["segmentation"] == "label_map"


@pytest.mark.parametrize(
    ("card", "send", "held"), [("empty", False, True), ("empty", True, False), ("half", False, False)]
)
def test_results_without_any_structure_are_kept_where_the_site_does_not_want_them(
    bench: Make, card: str, send: bool, held: bool
) -> None:
    b = bench(card, send_when_nothing_found=send)
    b.start()
    job = b.wait_for(b.jobs[0], "done")
    assert (job["failure_name"] == "NOTHING_FOUND", bool(job["held"])) == (held, held)
    assert [len(result["deliveries"]) for result in job["results"]] == [not held, not held]
    if held:
        assert "None of the 2 structures was found" in job["failure_reason"]


@pytest.mark.parametrize(
    ("card", "name"), [("crash", "WORKER_DIED"), ("refuse", "PIXEL_DATA_TOO_SHORT"), ("full", "DISK_FULL")]
)
def test_a_job_that_has_failed_for_good_is_reported_once(bench: Make, card: str, name: str) -> None:
    b = bench(card, "ok", send_when_failed=True)
    b.start()
    failed = b.wait_for(b.jobs[0], "failed")
    report = b.wait_for(b.jobs[-1] + 1, "done")
    assert (failed["failure_name"], report["purpose"]) == (name, "failure_report")
    (result,) = report["results"]
    assert (result["kind"], [d["destination"] for d in result["deliveries"]]) == ("sr", ["pacs"])
    assert name in (b.results.root / result["path"]).read_text()
    b.wait_for(b.jobs[1], "done")
    assert [j["purpose"] for j in b.all_jobs()] == ["run", "run", "failure_report"]


def test_what_is_left_of_a_series_is_enough_to_report_that_its_files_are_missing(bench: Make) -> None:
    b = bench("ok", send_when_failed=True)
    (path,) = b.spool.root.glob("objects/*/*")
    b.add_to(b.jobs[0])
    path.unlink()
    b.start()
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "INSTANCE_FILE_MISSING"
    assert b.wait_for(b.jobs[0] + 1, "done")["results"][0]["kind"] == "sr"


def test_a_report_of_a_series_of_which_nothing_is_left_fails_and_says_why(bench: Make) -> None:
    b = bench("ok", send_when_failed=True)
    for path in b.spool.root.glob("objects/*/*"):
        path.unlink()
    b.start()
    b.wait_for(b.jobs[0], "failed")
    report = b.wait_for(b.jobs[0] + 1, "failed")
    assert (report["purpose"], report["failure_name"]) == ("failure_report", "INSTANCE_FILE_MISSING")
    assert len(b.all_jobs()) == 2


def test_a_running_job_that_is_superseded_is_not_reported(bench: Make) -> None:
    b = bench("obedient", lease_s=0.6, send_when_failed=True)
    b.start()
    b.wait_for(b.jobs[0], "running")
    later = b.add(9, "ok", series=1)
    assert b.wait_for(b.jobs[0], "failed")["failure_name"] == "SUPERSEDED"
    b.wait_for(later, "done")
    assert [j["purpose"] for j in b.all_jobs()] == ["run", "run"]


def test_a_report_says_nothing_good_of_the_model(bench: Make) -> None:
    b = bench("model-crash", "model-crash", "model-crash", "ok", send_when_failed=True, max_attempts=1)
    b.start()
    for job in b.jobs[:3]:
        b.wait_for(job, "failed")
    held = wait_until(lambda: b.journal.holds())
    assert held["model-crash"].name == "MODEL_SWITCHED_OFF", "a report in between is no success of the model"
    reports = wait_until(
        lambda: (
            (r := [j for j in b.all_jobs() if j["purpose"] == "failure_report" and j["state"] == "done"])
            and len(r) == 3
            and r
        )
    )
    assert {report["card"] for report in reports} == {"model-crash"}


def test_jobs_of_a_study_have_series_numbers_of_their_own(bench: Make) -> None:
    b = bench("ok", "ok")
    b.start()
    jobs = [b.wait_for(job, "done") for job in b.jobs]
    assert [job["series_number_base"] for job in jobs] == [9000, 9010]
    texts = [(b.results.root / job["results"][0]["path"]).read_text() for job in jobs]
    assert ["9000" in texts[0], "9010" in texts[1]] == [True, True]
