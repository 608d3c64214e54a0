"""What associations cost a receiver that has nothing to store: setting them up, and leaving them open."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack

from benchmarks.receive_peers import Server
from benchmarks.receive_report import Report, Verdict
from benchmarks.receive_wire import Association, Context
from gateway.receive.contexts import storage_contexts

_IDLE = 8
_MOST_CONTEXTS = 128  # their numbers are odd and one byte (PS3.8 9.3.2.2)
_MOST_SET_UP_MS, _MOST_IDLE_PERCENT = 10.0, 2.0
_SYNTAXES = (
    b"1.2.840.10008.1.2.1",
    b"1.2.840.10008.1.2",
    b"1.2.840.10008.1.2.4.70",
    b"1.2.840.10008.1.2.4.90",
)
_CT: Context = (b"1.2.840.10008.5.1.4.1.1.2", _SYNTAXES)


def set_up(report: Report, servers: Sequence[Server], count: int) -> None:
    """Milliseconds from connecting to the acceptance: of one context, and of as many as one can ask for."""
    classes = [str(context.abstract_syntax).encode() for context in storage_contexts()]
    asked: dict[str, list[Context]] = {
        "one context": [_CT],
        f"{_MOST_CONTEXTS} contexts": [(each, _SYNTAXES) for each in classes[:_MOST_CONTEXTS]],
    }
    for name, contexts in asked.items():
        for server in servers:
            ms = [_set_up_ms(server, contexts) for _ in range(count)]
            report.note(
                f"set-up, {name}, {server.name}", f"{statistics.median(ms):.2f} ms, most {max(ms):.2f}"
            )
            if server is servers[0]:
                what = f"(e) association set-up, {name}, node with {len(classes)} storage classes"
                report.judge(_most(what, statistics.median(ms), _MOST_SET_UP_MS, "ms"))


def idle(report: Report, servers: Sequence[Server], seconds: float) -> None:
    """Per cent of a core that eight open, silent associations cost; and without any."""
    for server in servers:
        alone = _load_percent(server, 0, seconds)
        loaded = _load_percent(server, _IDLE, seconds)
        report.note(
            f"idle, {server.name}", f"{loaded:.2f} % with {_IDLE} associations, {alone:.2f} % with none"
        )
        if server is servers[0]:
            what = f"(e) {_IDLE} idle associations, of a core, the node's own idling included"
            report.judge(_most(what, loaded, _MOST_IDLE_PERCENT, "%"))


def _most(measure: str, found: float, target: float, unit: str) -> Verdict:
    return Verdict(measure, found, target, unit, at_least=False)


def _set_up_ms(server: Server, contexts: Sequence[Context]) -> float:
    start_s = time.perf_counter()
    with Association(server.port, contexts, called=server.called) as association:
        taken_ms = 1e3 * (time.perf_counter() - start_s)
        association.release()
    return taken_ms


def _load_percent(server: Server, associations: int, seconds: float) -> float:
    with ExitStack() as stack:
        for _ in range(associations):
            stack.enter_context(Association(server.port, [_CT], called=server.called))
        time.sleep(min(1.0, seconds))
        before_s, start_s = server.cpu_s(), time.perf_counter()
        time.sleep(seconds)
        return 100 * (server.cpu_s() - before_s) / (time.perf_counter() - start_s)
