"""STOW-RS when an instance cannot be kept: disk, journal, duplicates. Each part is in one sequence."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.journal import JournalReader
from gateway.journal.records import Duplicates
from gateway.receive.admit import AdmissionLimits
from gateway.receive.stow.part import Part
from tests.builders import ct_series
from tests.stow import BOUNDARY, Reply, StowServer, multipart, part10, stow_server
from tests.waiting import wait_until

SMALL = AdmissionLimits(keep_free_bytes=1 << 60)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StowServer]:
    with stow_server(tmp_path) as running:
        yield running


@pytest.fixture
def series() -> list[Dataset]:
    return ct_series((3, 8, 8))


def after(first: bytes, happens: Callable[[], object], rest: bytes) -> Iterator[bytes]:
    """A body during which something happens, when the server has stored what came before."""
    yield first
    happens()
    yield rest


def sequences(reply: Reply) -> tuple[list[str], list[tuple[str, int]], list[int]]:
    """Instances that were stored, those that failed and why, and why other parts failed."""
    found = reply.data_set
    return (
        [str(item.ReferencedSOPInstanceUID) for item in found.get("ReferencedSOPSequence", [])],
        [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in found.get("FailedSOPSequence", [])],
        [item.FailureReason for item in found.get("OtherFailuresSequence", [])],
    )


def rejections(server: StowServer) -> list[str]:
    """Names of the instances' rejections in the journal."""
    with closing(JournalReader(server.folder / "journal.db")) as reader:
        return [each["name"] for each in reader.refusals(100) if each["subject"] == "instance"]


def fills_up(server: StowServer) -> None:
    """From now on the disk is below the watermark."""
    server.admission._limits = SMALL


def loses(folder: str) -> Callable[[StowServer], None]:
    """The disk loses a folder of the spool."""
    return lambda server: shutil.rmtree(server.folder / "spool" / folder)


def breaks(server: StowServer) -> None:
    """The journal takes no row of an instance."""
    with closing(sqlite3.connect(server.folder / "journal.db")) as journal:
        journal.execute(
            "CREATE TRIGGER broken BEFORE INSERT ON instance BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
        journal.commit()


@pytest.mark.parametrize(
    ("happens", "name"),
    [
        (fills_up, "DISK_FULL"),
        (loses("incoming"), "DISK_ERROR"),
        (loses("objects"), "DISK_ERROR"),
        (breaks, "JOURNAL_UNAVAILABLE"),
    ],
    ids=["full when a part begins", "broken when a part begins", "broken when it ends", "no journal"],
)
def test_what_stops_every_part_ends_the_request_and_it_is_to_come_again(
    server: StowServer, series: list[Dataset], happens: Callable[[StowServer], None], name: str
) -> None:
    uids = [str(each.SOPInstanceUID) for each in series]
    first = multipart([part10(series[0])], end=False)
    rest = multipart([part10(each) for each in series[1:]])

    delimiter = len(f"--{BOUNDARY}")

    def when_stored() -> None:
        wait_until(server.journal.receiving_series, 20, "the first instance")
        happens(server)

    reply = server.post(after(first + rest[:delimiter], when_stored, rest[delimiter:]))
    assert (reply.status, reply.headers["retry-after"]) == (503, "30")
    assert reply.headers["warning"].startswith(f'299 aigw "{name}: ')
    assert sequences(reply) == (uids[:1], [(uids[1], 0xA700)], [])
    assert rejections(server) == [name]
    assert [note[0] for note in server.notes] == [name]
    assert server.requests.count() == 0
    assert not list((server.folder / "spool").rglob("*.part"))


def test_one_file_without_parts_meets_a_full_disk(server: StowServer, series: list[Dataset]) -> None:
    file = part10(series[0])

    def when_open() -> None:
        wait_until(lambda: server.requests.count() == 1, 20, "the request")
        fills_up(server)

    reply = server.post(after(file[:100], when_open, file[100:]), {"Content-Type": "application/dicom"})
    assert (reply.status, reply.headers["retry-after"]) == (503, "30")
    assert sequences(reply) == ([], [(series[0].SOPInstanceUID, 0xA700)], [])


def test_a_mistake_of_ours_is_a_failure_of_one_part_and_written_down(
    server: StowServer, series: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, failing = Part.finish, [True]

    def mistaken(self: Part) -> object:
        if failing:
            raise ValueError(failing.pop())
        return finish(self)

    monkeypatch.setattr(Part, "finish", mistaken)
    reply = server.post(multipart([part10(each) for each in series]))
    uids = [str(each.SOPInstanceUID) for each in series]
    assert (reply.status, sequences(reply)) == (202, (uids[1:], [(uids[0], 0x0110)], []))
    assert rejections(server) == ["INTERNAL_ERROR"]
    assert len(server.files()) == 2


@pytest.mark.parametrize("begun", [0, 50, 600], ids=["nothing", "no identity yet", "an instance"])
def test_a_part_that_never_ends_is_listed_as_failed(
    server: StowServer, series: list[Dataset], begun: int
) -> None:
    head = multipart([b""], end=False)[:-2]
    reply = server.post(multipart([part10(series[0])], end=False) + head + part10(series[1])[:begun])
    stored, failed, others = sequences(reply)
    assert (reply.status, stored) == (400, [series[0].SOPInstanceUID])
    assert (failed, others) == (
        ([(series[1].SOPInstanceUID, 0x0110)], []) if begun == 600 else ([], [0x0110])
    )


@pytest.mark.parametrize(
    ("rule", "status", "stored", "files"),
    [
        (Duplicates.REFUSE, 409, [], 1),
        (Duplicates.NEW_REVISION, 200, [None], 2),
        (Duplicates.KEEP_FIRST, 202, [0xB111], 2),
    ],
)
def test_other_bytes_of_a_known_instance_go_by_the_rule(
    tmp_path: Path, series: list[Dataset], rule: Duplicates, status: int, stored: list[int | None], files: int
) -> None:
    limits = AdmissionLimits(keep_free_bytes=0, refuse_over_fraction=1.0, duplicates=rule)
    with stow_server(tmp_path, admission_limits=limits) as server:
        assert server.post(multipart([part10(series[0])])).status == 200
        series[0].PatientComments = "another"
        reply = server.post(multipart([part10(series[0])]))
        assert reply.status == status
        warnings = [i.get("WarningReason") for i in reply.data_set.get("ReferencedSOPSequence", [])]
        assert warnings == stored
        refused = rule is Duplicates.REFUSE
        assert sequences(reply)[1:] == ([(series[0].SOPInstanceUID, 0x0111)] if refused else [], [])
        assert rejections(server) == (["DUPLICATE_SOP_INSTANCE_REFUSED"] if refused else [])
        assert len(server.files()) == files
