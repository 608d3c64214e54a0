"""Does it pay to enter the instances of several associations in one commit? Against a commit for each.

    python -m benchmarks.receive_group_commit [--rounds 5] [--folder DIR]

Two journals on the same disk (WAL, synchronous=FULL) take the same series in turn from 1, 4 and 20 threads:
one as the gateway does (``gateway/journal/arrivals.py``), one with a transaction for each instance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path

from benchmarks.receive_full_journal import enter_all, new_series
from gateway.journal import Journal
from gateway.journal.enter import enter, instance_row
from gateway.journal.records import Duplicates, NewInstance, Receipt


class PlainJournal(Journal):
    """A journal that commits each instance on its own."""

    def record_instance(
        self, instance: NewInstance, at: float, duplicates: Duplicates = Duplicates.KEEP_FIRST
    ) -> Receipt:
        """Enter an instance in a transaction of its own."""
        row = instance_row(instance, at)
        with self._connection.transaction() as work:
            return enter(work, row, duplicates)


def main() -> None:
    """Print one line for each number of threads."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=1200, help="instances of each round, of all threads")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="journals-", dir=arguments.folder) as folder:
        journals = {
            "plain": PlainJournal(Path(folder) / "plain.db"),
            "grouped": Journal(Path(folder) / "grouped.db"),
        }
        for threads in (1, 4, 20):
            rates: dict[str, list[float]] = {name: [] for name in journals}
            p99_ms: dict[str, list[float]] = {name: [] for name in journals}
            for number in range(arguments.rounds):
                order = list(journals.items())
                for name, journal in order if number % 2 else reversed(order):
                    each = arguments.count // threads
                    series = [new_series(f"{threads}.{number}.{t}", each) for t in range(threads)]
                    wall_s, taken_s = enter_all(journal, series)
                    rates[name].append(len(taken_s) / wall_s)
                    p99_ms[name].append(taken_s[int(len(taken_s) * 0.99)] * 1e3)
            ratios = [g / p for g, p in zip(rates["grouped"], rates["plain"], strict=True)]
            line = {
                "threads": threads,
                **{f"{name}_per_s": round(statistics.median(found)) for name, found in rates.items()},
                "ratio": round(statistics.median(ratios), 2),
                **{f"{name}_p99_ms": round(statistics.median(found), 2) for name, found in p99_ms.items()},
            }
            print(json.dumps(line), flush=True)
        for journal in journals.values():
            journal.close()


if __name__ == "__main__":
    main()
