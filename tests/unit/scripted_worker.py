"""A worker that does what the name of the card says; speaks the real protocol, needs no torch."""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from pathlib import Path

from gateway.jobs.messages import Done, Failed, JobRequest, Progress, Ready, Request, WorkerSettings
from gateway.journal.records import NewResult
from gateway.spool import Spool
from gateway.work import Line, take_over_standard_streams


def main() -> None:
    line = take_over_standard_streams()
    requests: queue.SimpleQueue[Request] = queue.SimpleQueue()
    threading.Thread(target=line.read_into, args=(requests,), daemon=True).start()
    settings = requests.get()
    assert isinstance(settings, WorkerSettings)
    if settings.cards == ("broken",):
        line.send(Ready(os.getpid(), "cpu", (), ("MODEL_CARD_INVALID: broken",)))
    else:
        line.send(Ready(os.getpid(), "cpu", settings.cards, ()))
    threading.Thread(target=line.beat, args=(settings.heartbeat_s,), daemon=True).start()
    while True:
        request = requests.get()
        assert isinstance(request, JobRequest)
        line.lease_id = request.lease_id
        run(line, request)
        line.lease_id = ""


def run(line: Line, request: JobRequest) -> None:
    marker = Path(request.results_root).parent / "hanging"
    match request.card:
        case "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        case "decoder-crash":
            line.send(Progress(request.lease_id, "read", 0.0))
            os.kill(os.getpid(), signal.SIGSEGV)
        case "slow-model":
            line.send(Progress(request.lease_id, "segment", 0.0))
            time.sleep(60)
        case "silent":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "hang":
            time.sleep(60)
        case "hang-once" if not marker.exists():
            marker.touch()
            time.sleep(60)
        case "slow":
            time.sleep(0.5)
        case "noisy":
            os.write(1, b"written by a library to descriptor 1\n")
            sys.stdout.write("{not a message of the protocol\n")
            sys.stdout.flush()
        case "refuse":
            line.send(Failed(request.lease_id, "PIXEL_DATA_TOO_SHORT", "Too short.", retryable=False))
            return
        case "full":
            line.send(Failed(request.lease_id, "DISK_FULL", "Full.", retryable=True))
            return
    spool = Spool(Path(request.results_root))
    results = []
    for kind in ("sr", "seg"):
        stored = spool.store(f"{kind} of job {request.job_id}".encode())
        digest = "0" * 64 if request.card == "liar" else stored.digest
        uid = f"2.25.{request.job_id}{len(kind)}"
        results.append(NewResult(kind, "1.2", uid, "1.3", "1.4", stored.path, digest, stored.size_bytes))
    line.send(Done(request.lease_id, tuple(results), {"stage_times_s": {"model": 0.1}}))


if __name__ == "__main__":
    main()
