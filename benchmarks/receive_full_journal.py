"""Does a full journal slow down receiving? A new series into an empty journal and one of a million instances.

    python -m benchmarks.receive_full_journal [--instances 1000000] [--rounds 5]

Both journals lie on the same disk and take the same series in turn, durably (WAL, synchronous=FULL): what is
compared is :meth:`Journal.record_instance` alone. The full journal is written by SQL, in seconds: studies of
three series whose results were sent, as years of work leave them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.header import FACT_KEYWORDS, InstanceHeader
from gateway.journal import Journal
from gateway.journal.records import NewInstance

_CT = "1.2.840.10008.5.1.4.1.1.2"
_EXPLICIT = "1.2.840.10008.1.2.1"
_ROOT = "1.2.826.0.1.3680043.8.498"
_PER_SERIES = 200


def facts() -> dict[str, tuple[str, ...]]:
    """As many header facts as a CT slice has: some 1.5 KB of JSON."""
    plain = sorted(FACT_KEYWORDS)[:40]
    return {
        keyword: ("0.703125", "0.703125") if i % 4 == 0 else ("SOME VALUE",)
        for i, keyword in enumerate(plain)
    }


def fill(path: Path, instances: int, digest: Callable[[int], str] | None = None) -> None:
    """Write a journal with this many instances in decided series, each with a job, results and deliveries.

    Parameters
    ----------
    digest
        SHA-256 hex of an instance by its number (from 1), where files belong to them; else random ones.
    """
    Journal(path).close()
    connection = sqlite3.connect(path, isolation_level=None)
    connection.create_function("digest", 1, digest or _digest, deterministic=True)
    indexes = _drop_indexes(connection)
    connection.executescript("PRAGMA synchronous = OFF; PRAGMA cache_size = -262144; BEGIN;")
    values = {"n": instances, "per": _PER_SERIES, "root": _ROOT, "class": _CT, "syntax": _EXPLICIT}
    for statement in _FILLING:
        connection.execute(statement, {**values, "facts": json.dumps(facts())})
    connection.execute("COMMIT")
    for sql in indexes:
        connection.execute(sql)
    connection.executescript("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA optimize;")
    connection.close()


def _digest(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def _drop_indexes(connection: sqlite3.Connection) -> list[str]:
    """Drop the indexes of the large table, and return what makes them again: at the end it is quick."""
    rows = connection.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND tbl_name = 'instance' AND sql NOT NULL"
    ).fetchall()
    for name, _ in rows:
        connection.execute(f"DROP INDEX {name}")
    return [sql for _, sql in rows]


_FILLING = (
    """
    INSERT INTO series (id, study_instance_uid, series_instance_uid, revision, state, source, instance_count,
                        opened_at, last_instance_at, decided_at, evidence, verdict, decision)
    WITH RECURSIVE number (i) AS (
      SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < (:n + :per - 1) / :per)
    SELECT i, :root || '.1.' || ((i - 1) / 3), :root || '.2.' || (i - 1), 1, 'routed', 'scanner', :per,
           i, i + 1, i + 2, '{}', '{}', '{}' FROM number
    """,
    """
    INSERT INTO instance (id, sop_instance_uid, digest, sop_class_uid, transfer_syntax_uid,
                          study_instance_uid, series_instance_uid, first_revision, role, path, size_bytes,
                          facts, frames, source, received_at)
    WITH RECURSIVE number (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM number WHERE i < :n)
    SELECT i, :root || printf('.3.%012d', i), d, :class, :syntax, :root || '.1.' || ((i - 1) / :per / 3),
           :root || '.2.' || ((i - 1) / :per), 1, 'member',
           'objects/' || substr(d, 1, 2) || '/' || d || '.dcm', 526000, :facts, '[]', 'scanner', i
    FROM (SELECT i, digest(i) AS d FROM number)
    """,
    """
    INSERT INTO job (id, series_id, part, input_digest, model, card, destinations, state, attempts,
                     not_before, created_at, finished_at, run)
    SELECT id, id, '', digest(id), 'tissue', 'ct-tissue', '["pacs"]', 'done', 1, id, id, id, '{}' FROM series
    """,
    """
    INSERT INTO result (job_id, kind, number, profiles, sop_class_uid, sop_instance_uid, series_instance_uid,
                        transfer_syntax_uid, path, digest, size_bytes, created_at)
    SELECT job.id, value, 1, '[""]', '1.2', :root || '.4.' || job.id || '.' || key,
           :root || '.5.' || job.id || '.' || key, :syntax, 'objects/' || job.id || value, 'd', 1, job.id
    FROM job, json_each('["seg","sr"]')
    """,
    """
    INSERT INTO delivery (result_id, destination, state, attempts, next_attempt_at, created_at, finished_at)
    SELECT id, 'pacs', 'sent', 1, id, id, id FROM result
    """,
    """
    INSERT INTO event (at, subject, subject_id, name, from_state, to_state, reason)
    SELECT id, 'series', id, 'settled', 'receiving', 'complete', 'quiet' FROM series
    """,
)


def new_series(name: str, count: int) -> list[NewInstance]:
    """A series that no journal knows."""
    known = facts()
    found = []
    for i in range(count):
        uid = f"{_ROOT}.9.{name}.{i}"
        digest = hashlib.sha256(uid.encode()).hexdigest()
        header = InstanceHeader(
            _CT, uid, f"{_ROOT}.8.{name}", f"{_ROOT}.7.{name}", {**known, "InstanceNumber": (str(i),)}
        )
        path = f"objects/{digest[:2]}/{digest}.dcm"
        found.append(NewInstance(header, _EXPLICIT, digest, path, 526_000, "scanner"))
    return found


def enter_all(journal: Journal, series: list[list[NewInstance]]) -> tuple[float, list[float]]:
    """Seconds in all and of each instance; one thread for each series."""
    taken_s: list[float] = []
    barrier = threading.Barrier(len(series) + 1)

    def work(mine: list[NewInstance]) -> None:
        barrier.wait()
        for each in mine:
            begun_s = time.perf_counter()
            journal.record_instance(each, time.time())
            taken_s.append(time.perf_counter() - begun_s)

    threads = [threading.Thread(target=work, args=(mine,)) for mine in series]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun_s = time.perf_counter()
    for thread in threads:
        thread.join()
    return time.perf_counter() - begun_s, sorted(taken_s)


def measure(empty: Journal, full: Journal, threads: int, rounds: int, count: int) -> Mapping[str, Any]:
    """The same series into both, in turn; medians, and the ratio of the rates."""
    rates: dict[str, list[float]] = {"empty": [], "full": []}
    p99: dict[str, list[float]] = {"empty": [], "full": []}
    for number in range(rounds):
        pairs = [("empty", empty), ("full", full)]
        for name, journal in pairs if number % 2 else reversed(pairs):
            series = [new_series(f"{threads}.{number}.{t}", count // threads) for t in range(threads)]
            wall_s, taken_s = enter_all(journal, series)
            rates[name].append(len(taken_s) / wall_s)
            p99[name].append(taken_s[int(len(taken_s) * 0.99)] * 1e3)
    ratios = [full / empty for full, empty in zip(rates["full"], rates["empty"], strict=True)]
    return {
        "threads": threads,
        "empty_per_s": round(statistics.median(rates["empty"])),
        "full_per_s": round(statistics.median(rates["full"])),
        "ratio": round(statistics.median(ratios), 3),
        "empty_p99_ms": round(statistics.median(p99["empty"]), 2),
        "full_p99_ms": round(statistics.median(p99["full"]), 2),
    }


def timed(what: Callable[[], object]) -> float:
    """Milliseconds that a call takes."""
    begun_s = time.perf_counter()
    what()
    return round((time.perf_counter() - begun_s) * 1e3, 2)


def queries(journal: Journal) -> dict[str, float]:
    """Milliseconds of what runs at each sweep, each claim and each scrape of the metrics."""
    return {
        "receiving_series": timed(journal.receiving_series),
        "claim_job": timed(lambda: journal.claim_job("lease", 1e12, 1e11)),
        "claim_delivery": timed(lambda: journal.claim_delivery("pacs", 1e11)),
        "members": timed(lambda: journal.members(3)),
        "waiting_deliveries": timed(journal.waiting_deliveries),
        "counts": timed(journal.counts),
        "paths_with_prefix of 1/256": timed(lambda: journal.paths_with_prefix("objects/a7/")),
    }


def main() -> None:
    """Print one line for each number of threads, then the times of the queries."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=800, help="instances of each new series")
    parser.add_argument("--folder", type=Path, default=Path(), help="on the disk that is measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="journals-", dir=arguments.folder) as folder:
        path = Path(folder) / "full.db"
        filled_ms = timed(lambda: fill(path, arguments.instances))
        print(f"filled with {arguments.instances} instances in {filled_ms / 1e3:.1f} s")
        print(f"{path.stat().st_size / 1e9:.2f} GB")
        begun_s = time.perf_counter()
        full, empty = Journal(path), Journal(Path(folder) / "empty.db")
        print(f"opened in {(time.perf_counter() - begun_s) * 1e3:.1f} ms")
        for threads in (1, 4, 20):
            print(json.dumps(measure(empty, full, threads, arguments.rounds, arguments.count)))
        print(json.dumps({"ms on the empty journal": queries(empty)}))
        print(json.dumps({"ms on the full journal": queries(full)}))
        full.close()
        empty.close()


if __name__ == "__main__":
    main()
