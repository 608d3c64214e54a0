"""What looks after stored instances: crash leftovers, lost files, and files that rot."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.clock import SystemClock
from gateway.journal import Journal, JournalReader
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.arrival import Arrival
from gateway.receive.part10 import file_header
from gateway.spool import Spool, relative_path
from gateway.upkeep import Keeper, keeper
from gateway.upkeep.compare import compare_folder, compare_results
from tests.builders import ct_series
from tests.peers import encoded

ROOT = Path(__file__).parents[2]
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class Store:
    """Spool, journal, admission and keeper in one folder."""

    def __init__(self, folder: Path) -> None:
        self.lines: list[dict[str, Any]] = []
        log = structlog.wrap_logger(
            None, processors=[self._keep_line], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        clock = SystemClock()
        self.spool = Spool(folder / "spool")
        self.journal = Journal(folder / "journal.db")
        limits = AdmissionLimits(keep_free_bytes=0, refuse_over_fraction=1.0)
        self.admission = Admission(self.spool, self.journal, clock, log, limits)
        self.keeper = Keeper(self.spool, self.journal, clock, log, verify_bytes_per_s=1 << 40)

    def _keep_line(self, _: Any, method: str, event: Any) -> Any:
        self.lines.append({**event, "level": method})
        raise structlog.DropEvent

    def admit(self, dataset: Any) -> Path:
        """Take an instance in; where its file is."""
        arrival = Arrival("scanner", "SCANNER", CT, str(dataset.SOPInstanceUID), EXPLICIT)
        before = self.files()
        self.admission.admit(encoded(dataset), arrival)
        return next(iter(self.files() - before), Path())

    def files(self) -> set[Path]:
        return {path for path in self.spool.root.glob("objects/*/*") if path.is_file()}

    def quarantined(self) -> set[Path]:
        rows = self.journal.paths_with_prefix("objects/")
        return {self.spool.absolute(each.path) for each in rows if each.is_quarantined}

    def events(self, level: str) -> list[str]:
        return [line["event"] for line in self.lines if line["level"] == level]

    def verify_all(self) -> None:
        for _ in range(256):
            self.keeper.verify_next_folder()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(keeper, "_PAUSE_S", 0.0)
    made = Store(tmp_path)
    yield made
    made.journal.close()


def damage(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[-10] ^= 1
    path.write_bytes(raw)


def age(*paths: Path, hours: float = 2.0) -> None:
    """As if the files had been written so long ago."""
    for path in paths:
        written_s = path.stat().st_mtime - hours * 3600
        os.utime(path, (written_s, written_s))


def test_old_files_without_row_are_put_aside_with_an_alarm_and_all_others_stay(store: Store) -> None:
    kept = {store.admit(dataset) for dataset in ct_series((5, 8, 8))}
    old = [store.spool.absolute(store.spool.store(f"{i}".encode()).path) for i in range(20)]
    young = store.spool.absolute(store.spool.store(b"left by a crash a moment ago").path)
    age(*old, *kept)
    assert store.keeper.compare() == 20
    assert store.files() == {*kept, young}
    assert len(list(store.spool.root.glob("unclaimed/*/*.dcm"))) == 20
    assert store.events("critical") == ["FILES_WITHOUT_ROW"]
    assert store.keeper.compare() == 20  # until somebody has seen to them
    assert store.events("critical") == ["FILES_WITHOUT_ROW"] * 2
    shutil.rmtree(store.spool.root / "unclaimed")
    store.lines.clear()
    assert store.keeper.compare() == 0
    assert store.events("critical") == []


def test_a_journal_that_is_lost_loses_no_image_and_comes_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody starts the node without its journal, or with an old backup, and then with the right one."""
    monkeypatch.setattr(keeper, "_PAUSE_S", 0.0)
    first = Store(tmp_path)
    series = ct_series((6, 8, 8))
    before = {path: path.read_bytes() for path in map(first.admit, series)}
    first.journal.close()
    age(*before)
    (tmp_path / "journal.db").rename(tmp_path / "right.db")
    empty = Store(tmp_path)
    assert empty.keeper.compare() == 6
    assert empty.files() == set()
    again = empty.admit(series[0])
    assert again.read_bytes() == before[again]
    empty.journal.close()
    (tmp_path / "right.db").rename(tmp_path / "journal.db")
    right = Store(tmp_path)
    assert right.keeper.compare() == 0
    assert {path: path.read_bytes() for path in right.files()} == before
    assert list(right.spool.root.glob("unclaimed/*/*.dcm")) == []
    assert (right.quarantined(), right.events("critical")) == (set(), [])
    right.journal.close()


def test_files_that_are_gone_are_an_alarm_and_written_down_once(store: Store) -> None:
    paths = [store.admit(dataset) for dataset in ct_series((5, 8, 8))]
    for path in paths[:2]:
        path.unlink()
    store.keeper.compare()
    assert store.quarantined() == set(paths[:2])
    (line,) = [line for line in store.lines if line["level"] == "critical"]
    assert line["event"] == "INSTANCE_FILE_MISSING"
    assert line["reason"].startswith("2 files that the journal knows are gone")
    store.lines.clear()
    store.keeper.compare()
    assert store.events("critical") == []


def test_a_file_that_comes_back_is_no_alarm_any_more(store: Store) -> None:
    path = store.admit(ct_series((1, 8, 8))[0])
    content = path.read_bytes()
    path.unlink()
    store.keeper.compare()
    assert store.quarantined() == {path}
    path.write_bytes(content)
    store.keeper.compare()
    assert store.quarantined() == set()


def test_rot_is_found_put_aside_and_told_loudly(store: Store) -> None:
    paths = [store.admit(dataset) for dataset in ct_series((6, 8, 8))]
    damage(paths[3])
    store.verify_all()
    assert store.quarantined() == {paths[3]}
    assert store.files() == {*paths} - {paths[3]}
    (aside,) = (store.spool.root / "quarantine").iterdir()
    assert aside.name == f"{paths[3].stem}-1.dcm"
    assert store.events("critical") == ["INSTANCE_DAMAGED"]
    store.verify_all()
    assert store.events("critical") == ["INSTANCE_DAMAGED"]


def test_a_damaged_instance_that_is_sent_again_is_whole_again(store: Store) -> None:
    dataset = ct_series((1, 8, 8))[0]
    path = store.admit(dataset)
    content = path.read_bytes()
    damage(path)
    store.verify_all()
    assert store.admit(dataset) == path
    assert path.read_bytes() == content
    assert store.quarantined() == set()


def test_rot_that_nobody_had_found_is_found_when_the_same_is_sent_again(store: Store) -> None:
    dataset = ct_series((1, 8, 8))[0]
    path = store.admit(dataset)
    content = path.read_bytes()
    damage(path)
    store.admit(dataset)
    assert path.read_bytes() == content
    assert store.quarantined() == set()
    assert store.events("critical") == ["INSTANCE_DAMAGED"]
    assert len(list((store.spool.root / "quarantine").iterdir())) == 1


def test_the_turn_outlives_a_restart(store: Store, tmp_path: Path) -> None:
    for _ in range(3):
        store.keeper.verify_next_folder()
    assert (tmp_path / "spool" / "verified").read_text() == "03"
    (tmp_path / "spool" / "verified").write_text("zz")
    store.keeper.verify_next_folder()
    assert (tmp_path / "spool" / "verified").read_text() == "01"


def test_whatever_stands_where_the_turn_is_kept_it_begins_anew(store: Store, tmp_path: Path) -> None:
    for written in (b"\xb3f", b"", bytes(2), "٠٠".encode()):
        (tmp_path / "spool" / "verified").write_bytes(written)
        store.keeper.verify_next_folder()
        assert (tmp_path / "spool" / "verified").read_text() == "01"


def test_a_file_that_cannot_be_read_is_told_once_and_keeps_no_other_from_being_verified(store: Store) -> None:
    paths = sorted(store.admit(dataset) for dataset in ct_series((5, 8, 8)))
    content = paths[0].read_bytes()
    paths[0].unlink()
    paths[0].mkdir()  # no user can read that, not even root
    for path in paths[1:]:
        damage(path)
    for _ in range(2):
        store.verify_all()
        assert store.quarantined() == set(paths[1:])
        (line,) = [line for line in store.lines if line["event"] == "FILES_UNREADABLE"]
        assert line["reason"].startswith(f"1 files of {paths[0].parent} cannot be verified")
        assert paths[0].name in line["reason"]
    paths[0].rmdir()
    paths[0].write_bytes(content)
    store.verify_all()
    assert store.quarantined() == set(paths[1:])
    paths[0].unlink()
    paths[0].mkdir()
    store.verify_all()
    assert store.events("critical").count("FILES_UNREADABLE") == 2


def test_a_file_that_came_back_and_cannot_be_read_does_not_end_the_comparison(store: Store) -> None:
    paths = sorted(store.admit(dataset) for dataset in ct_series((3, 8, 8)))
    paths[0].unlink()
    store.keeper.compare()
    paths[0].mkdir()
    paths[1].unlink()
    store.keeper.compare()
    assert store.quarantined() == set(paths[:2])


def test_a_damaged_file_that_no_row_counts_on_is_told_and_written_down(store: Store, tmp_path: Path) -> None:
    path = store.spool.absolute(store.spool.store(b"body", file_header("1.2", "1.3", EXPLICIT, "CT")).path)
    damage(path)
    store.verify_all()
    assert store.events("critical") == ["INSTANCE_DAMAGED"]
    assert "if the journal was lost, it may have been acknowledged" in store.lines[-1]["reason"]
    reader = JournalReader(tmp_path / "journal.db")
    assert [each["name"] for each in reader.refusals()] == ["INSTANCE_DAMAGED"]
    reader.close()


def test_a_file_of_another_transfer_syntax_than_its_row_heals_nothing(store: Store) -> None:
    (dataset,) = ct_series((1, 8, 8))
    path = store.admit(dataset)
    content = path.read_bytes()
    path.unlink()
    store.keeper.compare()
    uids = (CT, str(dataset.SOPInstanceUID))
    store.spool.store(encoded(dataset), file_header(*uids, "1.2.840.10008.1.2", "OTHER"))
    store.keeper.compare()
    assert store.quarantined() == {path}
    path.write_bytes(content)
    store.keeper.compare()
    assert store.quarantined() == set()


RECEIVE_AND_DIE = """
import os, subprocess, sys
from pathlib import Path
from tests.journals import Site

folder, backup = Path(sys.argv[1]), sys.argv[2]
site = Site(folder / "journal.db")
for number in range(60):
    site.receive(f"1.2.{number % 7}")
subprocess.run(["bash", "-e", "-c", backup], cwd=folder, check=True)
for number in range(300):
    site.receive(f"1.3.{number % 7}")
os._exit(9)
"""


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 of the command line is not here")
def test_a_backup_is_made_and_put_back_as_the_manual_says(tmp_path: Path) -> None:
    """After ``kill -9``: what the newer journal left beside itself must not get into the copy."""
    manual = (ROOT / "docs" / "receive.md").read_text(encoding="utf-8")
    backup, restore = (manual.split(f"```sh {name}\n")[1].split("```")[0] for name in ("backup", "restore"))
    command = [sys.executable, "-c", RECEIVE_AND_DIE, str(tmp_path), backup]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 9
    assert (tmp_path / "journal.db-wal").stat().st_size > 0
    subprocess.run(["bash", "-e", "-c", restore], cwd=tmp_path, check=True)
    journal = Journal(tmp_path / "journal.db")
    assert sum(series.instance_count for series in journal.receiving_series()) == 60
    journal.close()
    with closing(sqlite3.connect(tmp_path / "journal.db")) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_comparing_takes_nothing_away_from_those_who_store_meanwhile(store: Store) -> None:
    """The race: a file without row yet, and a file without row that is just being relied on again."""
    batches = [ct_series((40, 8, 8), seed=seed) for seed in (1, 2, 3)]
    for dataset in batches[0]:  # left by a crash: the same bytes come again
        store.spool.store(encoded(dataset))
    over = threading.Event()

    def compare() -> None:
        while not over.is_set():
            for folder in range(256):
                compare_folder(store.spool, store.journal, f"{folder:02x}", time.time() + 7200)

    comparing = threading.Thread(target=compare)
    admitting = [
        threading.Thread(target=lambda batch=batch: [store.admit(each) for each in batch])
        for batch in batches
    ]
    for thread in (comparing, *admitting):
        thread.start()
    for thread in admitting:
        thread.join(60)
    over.set()
    comparing.join(60)
    rows = {each.path for each in store.journal.paths_with_prefix("objects/")}
    assert len(rows) == 120
    assert {path.relative_to(store.spool.root).as_posix() for path in store.files()} == rows


def test_the_keeper_ends_at_once_in_the_middle_of_a_slow_file(store: Store) -> None:
    store.admit(ct_series((1, 64, 64))[0])
    slow = Keeper(store.spool, store.journal, SystemClock(), structlog.get_logger(), verify_bytes_per_s=1)
    stopping = threading.Event()
    thread = threading.Thread(target=slow.run, args=(stopping,))
    thread.start()
    stopping.set()
    thread.join(5)
    assert not thread.is_alive()


def test_results_are_compared_with_a_set_of_paths(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known, unknown = spool.store(b"known").path, spool.store(b"unknown").path
    lost = relative_path("0" * 64)
    now_s = time.time()
    assert compare_results(spool, {known, lost}, now_s) == (0, (lost,))
    assert compare_results(spool, {known, lost}, now_s + 7200) == (1, (lost,))
    assert not spool.absolute(unknown).exists()
    assert compare_results(spool, {known, unknown}, now_s + 7200) == (0, ())
    assert spool.absolute(unknown).read_bytes() == b"unknown"
    assert compare_results(spool, {known}, now_s + 7200) == (1, ())
    assert compare_results(spool, {known}, now_s + 29 * 86400) == (0, ())
    assert compare_results(spool, {known}, now_s + 31 * 86400) == (1, ())
    assert compare_results(spool, {known, unknown}, now_s) == (0, (unknown,))
