"""A worker that does what the name of the card says; speaks the real protocol, needs no torch."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

from gateway.jobs.messages import (
    Cancel,
    CardState,
    Done,
    Failed,
    JobRequest,
    Progress,
    Ready,
    Request,
    WorkerSettings,
)
from gateway.journal.records import NewResult
from gateway.spool import Spool
from gateway.work import Line, take_over_standard_streams

obedient: set[str] = set()


def main() -> None:
    line = take_over_standard_streams()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=line.read_into, args=(requests,), daemon=True).start()
    settings = requests.get()
    assert isinstance(settings, WorkerSettings)
    line.send(Ready(os.getpid(), "cpu", tuple(state_of(card) for card in settings.cards)))
    threading.Thread(target=line.beat, args=(settings.heartbeat_s,), daemon=True).start()
    while True:
        request = requests.get()
        if isinstance(request, Cancel):
            cancelled(line, request.lease_id)
            continue
        assert isinstance(request, JobRequest)
        line.leases = (*line.leases, request.lease_id)
        if request.card == "obedient":
            obedient.add(request.lease_id)
            line.send(Progress(request.lease_id, "segment", 0.0))
            continue
        threading.Thread(target=finish, args=(line, request), daemon=True).start()


def state_of(card: str) -> CardState:
    broken = ("MODEL_CARD_INVALID", "broken") if card == "broken" else ("", "")
    return CardState(card, "signature", *broken)


def cancelled(line: Line, lease_id: str) -> None:
    """Only a job of the card ``obedient`` ends when it is asked to."""
    if lease_id not in obedient:
        return
    line.leases = tuple(lease for lease in line.leases if lease != lease_id)
    line.send(Failed(lease_id, "CANCELLED", "The run was cancelled.", retryable=True))


def finish(line: Line, request: JobRequest) -> None:
    run(line, request)
    line.leases = tuple(lease for lease in line.leases if lease != request.lease_id)


def run(line: Line, request: JobRequest) -> None:
    marker = Path(request.results_root).parent / "hanging"
    if request.reports is not None:  # no model runs
        line.send(done(request))
        return
    end(line, request)
    wait(line, request, marker)
    answer = refuse(line, request)
    line.send(answer or done(request))


def end(line: Line, request: JobRequest) -> None:
    """Cards that end or stop the process."""
    match request.card:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "decoder-crash":
            line.send(Progress(request.lease_id, "read", 0.0))
            os.kill(os.getpid(), signal.SIGSEGV)
        case "crash-beside":
            line.send(Progress(request.lease_id, "read", 0.0))
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGSEGV)
        case "silent":
            os.kill(os.getpid(), signal.SIGSTOP)


def wait(line: Line, request: JobRequest, marker: Path) -> None:
    """Cards that take their time."""
    match request.card:
        case "slow-model":
            line.send(Progress(request.lease_id, "segment", 0.0))
            time.sleep(60)
        case "hang":
            time.sleep(60)
        case "hang-once" if not marker.exists():
            marker.touch()
            time.sleep(60)
        case "slow":
            time.sleep(0.5)
        case "until-released":
            line.send(Progress(request.lease_id, "segment", 0.0))
            while not marker.with_name("released").exists():
                time.sleep(0.02)
        case "noisy":
            os.write(1, b"written by a library to descriptor 1\n")
            sys.stdout.write("{not a message of the protocol\n")
            sys.stdout.flush()


def refuse(line: Line, request: JobRequest) -> Failed | None:
    """Cards that answer with a failure."""
    match request.card:
        case "refuse":
            return Failed(request.lease_id, "PIXEL_DATA_TOO_SHORT", "Too short.", retryable=False)
        case "full":
            return Failed(request.lease_id, "DISK_FULL", "Full.", retryable=True)
        case "model-crash":
            return Failed(request.lease_id, "MODEL_CRASHED", "The model process ended", retryable=True)
        case "missing" if not (Path(request.results_root).parent / "repaired").exists():
            broken = CardState("missing", "1", "MODEL_FILE_MISSING", "Gone.")
            line.send(Ready(os.getpid(), "cpu", (broken, CardState("ok", "1"))))
            threading.Thread(target=repair, args=(line, request), daemon=True).start()
            name, reason = broken.name, broken.reason
            return Failed(request.lease_id, name, reason, retryable=False, blameless=True)
    return None


def repair(line: Line, request: JobRequest) -> None:
    while not (Path(request.results_root).parent / "repaired").exists():
        time.sleep(0.02)
    line.send(Ready(os.getpid(), "cpu", (CardState("missing", "2"), CardState("ok", "1"))))


def done(request: JobRequest) -> Done:
    """A report and a segmentation for each profile; of a failure a report alone."""
    spool = Spool(Path(request.results_root))
    results = []
    for place, profile in enumerate(request.profiles):
        for kind in ("sr",) if request.reports else ("sr", "seg"):
            text = (
                f"{kind} {profile.key} of job {request.job_id} {request.series_number_base} {request.reports}"
            )
            stored = spool.store(text.encode())
            digest = "0" * 64 if request.card == "liar" else stored.digest
            uid, size = f"2.25.{request.job_id}{len(kind)}{place}", stored.size_bytes
            result = NewResult(kind, "1.2", uid, "1.3", "1.4", stored.path, digest, size, 1, (profile.key,))
            results.append(result)
    held = ("Liver has 3 mL.",) if request.card == "implausible" else ()
    found = [{"found": request.card == "half"}, {"found": False}] if request.card in ("half", "empty") else []
    run = {"stage_times_s": {"model": 0.1}, **({"segments": found} if found else {})}
    return Done(request.lease_id, tuple(results), run, held)


if __name__ == "__main__":
    main()
