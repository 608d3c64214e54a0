"""Send folders to a receiver, one association each and all at the same time; a process of its own.

    python -m benchmarks.receive_sender PORT FOLDER… [--called AIGW] [--pdu 131072]

prints one JSON line: seconds from the first byte to the last answer, instances, bytes, seconds until an
association was accepted, and the seconds that answers took (median, 99th percentile).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from benchmarks.receive_files import read
from benchmarks.receive_wire import CALLED, MAX_PDU_BYTES, Association, contexts_of, encode


def main() -> None:
    """Send, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--called", default=CALLED)
    parser.add_argument("--pdu", type=int, default=MAX_PDU_BYTES)
    options = parser.parse_args()
    context = multiprocessing.get_context("fork")
    together = context.Barrier(len(options.folders))
    results: Any = context.SimpleQueue()
    senders = [
        context.Process(target=_send, args=(options, folder, together, results)) for folder in options.folders
    ]
    for sender in senders:
        sender.start()
    runs = [results.get() for _ in senders]
    for sender in senders:
        sender.join()
    failed = [str(run["error"]) for run in runs if "error" in run]
    if failed:
        raise SystemExit("; ".join(failed))
    answers_s = sorted(second for run in runs for second in run["answers_s"])
    print(
        json.dumps(
            {
                "seconds": max(run["end_s"] for run in runs) - min(run["start_s"] for run in runs),
                "instances": len(answers_s),
                "bytes": sum(run["bytes"] for run in runs),
                "associate_s": statistics.median(run["associate_s"] for run in runs),
                "answer_median_s": statistics.median(answers_s),
                "answer_p99_s": answers_s[int(0.99 * len(answers_s))],
            }
        )
    )


def _send(options: argparse.Namespace, folder: Path, together: Barrier, results: Any) -> None:
    try:
        results.put(_send_folder(options, folder, together))
    except Exception as error:  # noqa: BLE001 - the parent tells
        together.abort()
        results.put({"error": f"{folder.name}: {type(error).__name__}: {error}"})


def _send_folder(options: argparse.Namespace, folder: Path, together: Barrier) -> dict[str, Any]:
    instances = [read(path) for path in sorted(folder.glob("*.dcm"))]
    contexts = contexts_of(instances)
    asked_s = time.perf_counter()
    with Association(options.port, contexts, called=options.called, max_pdu_bytes=options.pdu) as association:
        associate_s = time.perf_counter() - asked_s
        numbers = {pair: 2 * number + 1 for number, pair in enumerate(contexts)}
        refused = [
            pair for pair, number in numbers.items() if association.accepted.get(number) not in pair[1]
        ]
        if refused:
            raise ConnectionError(f"not accepted: {refused}")
        wire = [
            encode(
                each,
                numbers[each.sop_class_uid, (each.transfer_syntax_uid,)],
                number,
                association.max_pdu_bytes,
            )
            for number, each in enumerate(instances)
        ]
        together.wait(timeout=60)
        answers_s = []
        start_s = time.perf_counter()
        for message in wire:
            sent_s = time.perf_counter()
            association.socket.sendall(message)
            association.stored()
            answers_s.append(time.perf_counter() - sent_s)
        end_s = time.perf_counter()
        association.release()
    return {
        "start_s": start_s,
        "end_s": end_s,
        "bytes": sum(map(len, wire)),
        "associate_s": associate_s,
        "answers_s": answers_s,
    }


if __name__ == "__main__":
    main()
