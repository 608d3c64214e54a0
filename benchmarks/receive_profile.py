"""Where the time of the node goes for each instance that it receives: py-spy looks at its threads.

It looks without stopping the process, so the rate stays nearly what it is. What a thread waits for counts
like what it computes: a flush is what a durable receiver mostly does.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.receive_peers import Server
from benchmarks.receive_rates import Load, Rounds, send
from benchmarks.receive_report import Report

_SAMPLES_PER_S = 200
_THREAD = "dul.py"  # of the association: it reads, stores and answers
_STEPS: Sequence[tuple[str, str]] = (
    # A step, and the functions that do it: the innermost frame that has a step decides.
    ("poll, receive", r"(_poll|receive_into) \(\S*association/"),
    ("write", r"write_all \("),
    ("SHA-256", r"Incoming\.write \("),
    ("fsync of the file", r"Incoming\._sync \("),
    ("fsync of the directory", r"sync_directory \("),
    ("open, map, rename, close", r"(Incoming\.|file_header|check_space|Spool\.)\S* \("),
    ("journal", r" \(\S*gateway/journal/"),
    ("header", r" \(\S*(ai/source/|receive/tags)"),
    ("answer", r"PeerSocket\.send \("),
)
_REST = "the rest: Python between them"


def profile(report: Report, server: Server, load: Load, rounds: Rounds, seconds: float) -> None:
    """Note milliseconds of each instance by step, under a load, and the rate meanwhile."""
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw"
        rates = _watched(server, load, rounds, seconds, raw)
        steps = steps_of(raw.read_text(encoding="utf-8").splitlines())
    total = sum(steps.values())
    rate = sum(rates) / len(rates)
    ms = {step: len(load.folders) / rate * 1e3 * count / total for step, count in steps.most_common()}
    shares = "; ".join(f"{step} {spent:.2f}" for step, spent in ms.items()) or "too short to be seen"
    report.note(f"ms of each instance, {load.name}, {server.name} ({rate:.0f}/s)", shares)


def steps_of(lines: Sequence[str]) -> Counter[str]:
    """Samples by step, from py-spy's raw format: frames from the outermost, a count at the end."""
    found: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        if _THREAD in stack:
            found[_step(stack.split(";"))] += int(count)
    return found


def _step(frames: Sequence[str]) -> str:
    return next(_named(reversed(frames)), _REST)


def _named(frames: Iterator[str]) -> Iterator[str]:
    for frame in frames:
        for step, pattern in _STEPS:
            if re.search(pattern, frame):
                yield step


def _watched(server: Server, load: Load, rounds: Rounds, seconds: float, raw: Path) -> list[float]:
    """Send again and again while py-spy looks; the rates of the loads in instances per second."""
    py_spy = Path(sys.executable).with_name("py-spy")
    options = ["--idle", "--nonblocking", "--format", "raw", "--rate", str(_SAMPLES_PER_S)]
    command = [py_spy, "record", *options, "--duration", str(max(1, round(seconds)))]
    rates = []
    watching = subprocess.Popen(
        [*command, "--output", raw, "--pid", str(server.process_id)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s or not rates:
        rounds.renew(load)
        run = send(server, load.folders)
        rates.append(run["instances"] / run["seconds"])
    _, complaints = watching.communicate()
    if watching.returncode != 0:
        raise SystemExit(f"py-spy failed: {complaints}")
    return rates
