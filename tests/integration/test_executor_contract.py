"""What every executor owes the dispatcher, with a real journal, real series and models that misbehave.

Whatever happens to a worker or a model: no job is lost, attempts are counted for what they did, and the
queue goes on.
"""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import structlog
import yaml

from ai.model import shipped_card_folder
from gateway.clock import SystemClock
from gateway.header import InstanceHeader
from gateway.jobs.dispatch import Dispatcher
from gateway.jobs.executor import LocalExecutor
from gateway.jobs.messages import WorkerSettings
from gateway.jobs.request import DispatchSettings
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewJob, SeriesDecision
from gateway.modelhost import landlock, sandbox
from gateway.spool import Spool
from tests.builders import ct_series, write_series
from tests.waiting import wait_until

FAKES = Path(__file__).parents[1] / "fake_models"
PATIENCE_S = 120.0
MODELS = (
    "fake-ok", "fake-waits", "fake-segfault", "fake-exit", "fake-sys-exit", "fake-raises", "fake-attacks",
    "fake-oom-once", "fake-oom", "fake-huge", "fake-dies-loading", "fake-dies-early", "fake-odd-facts",
    "fake-babbles",
)  # fmt: skip

pytestmark = pytest.mark.timeout(900)

MakeExecutor = Callable[[WorkerSettings], LocalExecutor]


def local(settings: WorkerSettings) -> LocalExecutor:
    """Processes on this machine."""
    return LocalExecutor([settings], structlog.get_logger())


EXECUTORS: dict[str, MakeExecutor] = {"local": local}


class Node:
    """A journal with jobs, and a dispatcher that runs them on an executor."""

    def __init__(self, folder: Path, make: MakeExecutor, cards: Sequence[str], **limits: Any) -> None:
        self.folder = folder
        self.clock = SystemClock()
        self.journal = Journal(folder / "journal.db")
        self.spool, self.results = Spool(folder / "spool"), Spool(folder / "results")
        self.cards = folder / "cards"
        settings = WorkerSettings(
            device="cpu",
            cards=tuple(cards),
            card_folders=(str(self.cards),),
            heartbeat_s=0.2,
            deterministic=True,
            step_timeout_s=limits.get("step_timeout_s", 30.0),
            scratch=str(folder / "scratch" / "slot-0"),
            hidden=tuple(str(folder / name) for name in ("spool", "results", "journal.db")),
        )
        self.executor = make(settings)
        dispatch = DispatchSettings(
            spool_root=self.spool.root,
            results_root=self.results.root,
            card_folders=(self.cards,),
            series_number_base=9000,
            software_version="0.1.0",
            max_attempts=limits.get("max_attempts", 2),
            retry_after_s=0.1,
            job_timeout_s=600.0,
            lease_s=60.0,
        )
        self.dispatcher = Dispatcher(
            self.journal, self.executor, dispatch, self.clock, structlog.get_logger()
        )
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.dispatcher.run, args=(self.stopping, 0.5), daemon=True)
        self.series = 0

    def add(self, card: str, priority: str = "normal") -> int:
        """A job on a series of its own."""
        self.series += 1
        now = self.clock.now_s()
        datasets = ct_series((4, 16, 16), seed=self.series)
        for dataset, path in zip(datasets, write_series(datasets, self.folder / "series"), strict=True):
            uids = (
                str(dataset.SOPInstanceUID),
                str(dataset.StudyInstanceUID),
                str(dataset.SeriesInstanceUID),
            )
            header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2", *uids, {})
            content = path.read_bytes()
            begin = 144 + int.from_bytes(content[140:144], "little")  # of the data set (PS3.10 7.1)
            stored = self.spool.store(content[begin:], content[:begin])
            instance = NewInstance(
                header, "1.2.840.10008.1.2.1", stored.digest, stored.path, stored.size_bytes, "scanner"
            )
            self.journal.record_instance(instance, now)
        [received] = self.journal.receiving_series()
        job = NewJob("model", card, (), "test", "", f"digest {self.series}", priority)
        decision = SeriesDecision({}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False)
        (job_id,) = self.journal.decide_series(received, decision, now)
        return job_id

    def record(self, job_id: int) -> dict[str, Any]:
        reader = JournalReader(self.folder / "journal.db")
        try:
            details = [reader.series_details(series) for series in reader.series()]
            return next(job for each in details for job in each["jobs"] if job["id"] == job_id)
        finally:
            reader.close()

    def wait_for(self, job_id: int, state: str, what: str = "state") -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            record = self.record(job_id)
            return record if record[what] == state else None

        record: dict[str, Any] = wait_until(found, PATIENCE_S, f"job {job_id} to have the {what} {state}")
        return record

    def wait_for_step(self, job_id: int) -> None:
        """Until a job is in the model process and has made a step there."""

        def stepped() -> bool:
            slots = list(self.dispatcher._slots.values())
            return any(
                r.job.id == job_id and r.stage == "segment" for slot in slots for r in list(slot.running)
            )

        wait_until(stepped, PATIENCE_S, f"job {job_id} to be in the model")

    def release(self) -> None:
        (self.folder / "released").touch()

    def hold(self) -> None:
        (self.folder / "released").unlink(missing_ok=True)

    def close(self) -> None:
        self.release()
        self.stopping.set()
        self.thread.join(timeout=20)
        self.executor.stop()
        self.journal.close()


def write_cards(folder: Path, names: Sequence[str], **changes: object) -> None:
    """Cards of the fakes: that of the shipped model under other names."""
    folder.mkdir(exist_ok=True)
    text = (shipped_card_folder() / "ct-tissue.yaml").read_text(encoding="utf-8")
    fields = {**yaml.safe_load(text), **changes}
    for name in names:
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**fields, "id": name}), encoding="utf-8")


@contextmanager
def running(
    folder: Path, make: MakeExecutor, cards: Sequence[str], monkeypatch: pytest.MonkeyPatch, **limits: Any
) -> Iterator[Node]:
    """A node whose processes find the fake models."""
    monkeypatch.setenv("PYTHONPATH", str(FAKES))
    monkeypatch.setenv("AIGW_TEST_FOLDER", str(folder))
    node = Node(folder, make, cards, **limits)
    try:
        node.executor.start()
        node.thread.start()
        yield node
    finally:
        node.close()


@pytest.fixture(scope="module", params=EXECUTORS.values(), ids=EXECUTORS)
def make(request: pytest.FixtureRequest) -> MakeExecutor:
    chosen: MakeExecutor = request.param
    return chosen


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    """Somebody whom a model must not reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture(scope="module")
def node(
    tmp_path_factory: pytest.TempPathFactory, make: MakeExecutor, listener: socket.socket
) -> Iterator[Node]:
    folder = tmp_path_factory.mktemp("node")
    write_cards(folder / "cards", MODELS)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("AIGW_TEST_PORT", str(listener.getsockname()[1]))
        with running(folder, make, MODELS, patched) as made:
            yield made


def model_pid(node: Node) -> int:
    """The model process of the only worker."""
    worker = node.executor.health().pid
    assert worker is not None

    def found() -> list[int]:
        children = psutil.Process(worker).children()
        return [child.pid for child in children if "gateway.modelhost.host" in child.cmdline()]

    pids: list[int] = wait_until(found, PATIENCE_S, "the model process")
    assert len(pids) == 1
    return pids[0]


def test_every_job_is_done_with_its_results_and_how_it_was_run(node: Node) -> None:
    jobs = [node.add("fake-ok") for _ in range(3)]
    for job in jobs:
        record = node.wait_for(job, "done")
        assert (record["attempts"], len(record["results"])) == (1, 3)
        for result in record["results"]:
            content = (node.results.root / result["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == result["digest"]
        model = record["run"]["model"]
        assert (model["deterministic"], model["asked"], model["memory_rung"]) == (True, True, 0)


def test_a_segfault_is_counted_for_its_job_alone_and_the_queue_goes_on(node: Node) -> None:
    node.hold()
    innocent = node.add("fake-waits")
    node.wait_for_step(innocent)
    before = model_pid(node)
    guilty = node.add("fake-segfault", "urgent")
    failed = node.wait_for(guilty, "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("MODEL_CRASHED", 2)
    assert "ended with signal 11 while fake-segfault was running, 2 of 2 attempts" in failed["failure_reason"]
    assert "quarantined" in failed["failure_reason"]
    node.release()
    assert node.wait_for(innocent, "done")["attempts"] == 1
    assert model_pid(node) != before
    assert node.wait_for(node.add("fake-ok"), "done")["attempts"] == 1


def test_an_exit_of_the_model_is_a_crash_and_sys_exit_is_an_error(node: Node) -> None:
    failed = node.wait_for(node.add("fake-exit"), "failed")
    assert failed["failure_name"] == "MODEL_CRASHED"
    assert "exit code 3" in failed["failure_reason"]
    process = model_pid(node)
    odd = node.wait_for(node.add("fake-odd-facts"), "failed")
    assert (odd["failure_name"], odd["attempts"]) == ("MODEL_OUTPUT_INVALID", 1)
    for card, kind in (("fake-sys-exit", "SystemExit"), ("fake-raises", "RuntimeError")):
        failed = node.wait_for(node.add(card), "failed")
        assert (failed["failure_name"], failed["attempts"]) == ("MODEL_FAILED", 2)
        assert kind in failed["failure_reason"]
        assert "patient" not in failed["failure_reason"]
    assert model_pid(node) == process


def test_too_little_memory_is_tried_again_with_less_and_then_given_up_by_name(node: Node) -> None:
    done = node.wait_for(node.add("fake-oom-once"), "done")
    assert (done["attempts"], done["run"]["model"]["memory_rung"]) == (1, 1)
    failed = node.wait_for(node.add("fake-oom"), "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("OUT_OF_MEMORY", 2)
    assert "rung 3 of the memory ladder" in failed["failure_reason"]
    refused = node.wait_for(node.add("fake-huge"), "failed")
    assert (refused["failure_name"], refused["attempts"]) == ("NOT_ENOUGH_MEMORY", 1)
    assert "needs about 1048576.00 GiB for 4 × 16 × 16 voxels" in refused["failure_reason"]


def test_a_model_that_ends_the_process_before_its_first_step_is_blamed(node: Node) -> None:
    node.hold()
    innocent = node.add("fake-waits")
    node.wait_for_step(innocent)
    failed = node.wait_for(node.add("fake-dies-early", "urgent"), "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("MODEL_CRASHED", 2)
    assert "exit code 6 while fake-dies-early was running" in failed["failure_reason"]
    node.release()
    assert node.wait_for(innocent, "done")["attempts"] == 1


def test_a_model_that_speaks_for_its_process_ends_it_and_the_next_one_is_started(node: Node) -> None:
    failed = node.wait_for(node.add("fake-babbles"), "failed")
    assert (failed["failure_name"], failed["attempts"]) == ("MODEL_CRASHED", 2)
    assert "ended with a message that is none of its protocol while fake-babbles" in failed["failure_reason"]
    assert node.wait_for(node.add("fake-ok"), "done")["attempts"] == 1


def test_a_model_reaches_no_network_and_no_journal_and_writes_nothing(
    node: Node, listener: socket.socket
) -> None:
    scalars = node.wait_for(node.add("fake-attacks"), "done")["run"]["scalars"]
    told = node.executor.health().sandbox
    if sandbox.CLOSED not in told:
        pytest.skip(f"the platform does not allow it: {told}")
    assert (scalars["tcp"], scalars["process"]) == (0.0, 0.0)
    listener.settimeout(0.1)
    with pytest.raises(TimeoutError):
        listener.accept()
    if landlock.version() == 0:
        pytest.skip("this kernel has no Landlock")
    assert (scalars["write"], scalars["read"]) == (0.0, 0.0)
    assert not (node.folder / "written by a model").exists()


def test_a_cancelled_job_ends_at_its_next_step_and_nothing_else_does(node: Node) -> None:
    node.hold()
    job = node.add("fake-waits")
    node.wait_for_step(job)
    process, worker = model_pid(node), node.executor.health().pid
    assert worker is not None
    lease = node.dispatcher._slots[0].running[0].job.lease_id
    node.executor.cancel(0, lease, worker)
    node.wait_for(job, "CANCELLED", "failure_name")
    node.release()
    assert node.wait_for(job, "done")["attempts"] == 2
    assert (model_pid(node), node.executor.health().pid) == (process, worker)


def test_a_job_beyond_its_time_is_ended_by_name(node: Node) -> None:
    node.hold()
    settings = node.dispatcher._settings
    node.dispatcher._settings = replace(settings, job_timeout_s=0.5)
    try:
        failed = node.wait_for(node.add("fake-waits"), "failed")
    finally:
        node.dispatcher._settings = settings
        node.release()
    assert (failed["failure_name"], failed["attempts"]) == ("JOB_TIMEOUT", 2)
    assert failed["failure_reason"].endswith("2 of 2 attempts.")


def test_a_model_over_which_the_process_dies_while_loading_holds_its_jobs_and_no_others(node: Node) -> None:
    waiting = node.add("fake-dies-loading")
    assert node.wait_for(node.add("fake-ok"), "done")["attempts"] == 1
    held = node.wait_for(waiting, "MODEL_CRASHED", "hold_name")
    assert (held["state"], held["attempts"]) == ("queued", 0)
    assert "exit code 5 while fake-dies-loading was being loaded" in held["hold_reason"]


def test_an_urgent_job_overtakes_a_running_one_and_a_hundred_that_wait(node: Node) -> None:
    node.hold()
    first = node.add("fake-waits")
    node.wait_for_step(first)
    waiting = [node.add("fake-ok") for _ in range(100)]
    urgent = node.add("fake-ok", "urgent")
    assert node.wait_for(urgent, "done")["attempts"] == 1
    assert node.record(first)["state"] == "running"
    assert {node.record(job)["state"] for job in waiting[:3]} == {"queued"}


def test_draining_puts_a_job_that_needs_more_time_back_without_charging_it(node: Node) -> None:
    """The last test on this node."""
    (job,) = [each.job.id for each in node.dispatcher._slots[0].running]
    node.stopping.set()
    node.thread.join(timeout=20)
    record = node.record(job)
    assert (record["state"], record["attempts"], record["interruptions"]) == ("queued", 0, 1)
    assert record["failure_name"] == "GATEWAY_STOPPED"


def test_a_model_that_hangs_is_ended_and_the_queue_goes_on(
    tmp_path: Path, make: MakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = ("fake-hang", "fake-ok")
    write_cards(tmp_path / "cards", cards)
    with running(tmp_path, make, cards, monkeypatch, step_timeout_s=0.5, max_attempts=1) as node:
        failed = node.wait_for(node.add("fake-hang"), "failed")
        assert failed["failure_name"] == "MODEL_HUNG"
        assert "gave no sign of life for" in failed["failure_reason"]
        assert node.wait_for(node.add("fake-ok"), "done")["attempts"] == 1


def test_jobs_wait_for_a_model_whose_file_is_corrupt_and_go_on_when_it_is_repaired(
    tmp_path: Path, make: MakeExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = tmp_path / "cards"
    write_cards(cards, ("fake-ok",))
    write_cards(cards, ("fake-files",), files={"weights.bin": hashlib.sha256(b"right").hexdigest()})
    weights = cards / "fake-files" / "weights.bin"
    weights.parent.mkdir()
    weights.write_bytes(b"wrong")
    with running(tmp_path, make, ("fake-files", "fake-ok"), monkeypatch) as node:
        waiting = node.add("fake-files")
        node.wait_for(node.add("fake-ok"), "done")
        held = node.wait_for(waiting, "MODEL_FILE_CHANGED", "hold_name")
        assert (held["state"], held["attempts"]) == ("queued", 0)
        weights.write_bytes(b"right")
        done = node.wait_for(waiting, "done")
        assert (done["attempts"], done["hold_name"]) == (1, None)
        assert node.journal.holds() == {}
