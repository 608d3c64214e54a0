"""Duplicates over the wire: what the sender is answered, and what is kept, by each rule."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.journal import JournalReader
from gateway.journal.records import Duplicates
from gateway.receive.admit import AdmissionLimits
from tests.builders import ct_series, write_series
from tests.peers import RawSender, Receiver, encoded, receiver, storescu

ASSOCIATIONS, SLICES = 6, 8


def limits(rule: Duplicates) -> AdmissionLimits:
    return AdmissionLimits(keep_free_bytes=0, refuse_over_fraction=1.0, duplicates=rule)


def versions(*descriptions: str) -> list[Dataset]:
    """One slice, the same UIDs, another Series Description each."""
    first, *others = [ct_series((1, 8, 8), SeriesDescription=each)[0] for each in descriptions]
    for other in others:
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
            setattr(other, keyword, getattr(first, keyword))
        other.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
    return [first, *others]


def send(gateway: Receiver, datasets: Sequence[Dataset]) -> list[int]:
    """The statuses of instances that are sent on one association."""
    with RawSender(gateway.port, [datasets[0].SOPClassUID]) as sender:
        return [sender.send(d.SOPClassUID, d.SOPInstanceUID, encoded(d)).Status for d in datasets]


def used(gateway: Receiver) -> list[str]:
    """Series Descriptions of the members of what is being received."""
    (series,) = gateway.journal.receiving_series()
    return [member.facts["SeriesDescription"][0] for member in gateway.journal.members(series.id)]


@pytest.mark.parametrize(
    ("rule", "answers", "member", "kept"),
    [
        (Duplicates.KEEP_FIRST, [0, 0, 0], "first", 2),
        (Duplicates.NEW_REVISION, [0, 0, 0], "other", 2),
        (Duplicates.REFUSE, [0, 0x0111, 0], "first", 1),
    ],
)
def test_other_bytes_are_answered_and_kept_by_the_rule(
    tmp_path: Path, rule: Duplicates, answers: list[int], member: str, kept: int
) -> None:
    first, other = versions("first", "other")
    with receiver(tmp_path, limits=limits(rule)) as gateway:
        assert send(gateway, [first, other, first]) == answers
        assert used(gateway) == [member]
        assert len(list((tmp_path / "spool" / "objects").glob("*/*.dcm"))) == kept
        reader = JournalReader(tmp_path / "journal.db")
        refused = [each["name"] for each in reader.refusals()]
        reader.close()
    assert refused == (["DUPLICATE_SOP_INSTANCE_REFUSED"] if rule is Duplicates.REFUSE else [])


def test_dcmtk_sees_the_status_of_a_refused_duplicate(tmp_path: Path) -> None:
    first, other = versions("first", "other")
    files = [write_series([each], tmp_path / str(n)) for n, each in enumerate((first, other))]
    with receiver(tmp_path / "gateway", limits=limits(Duplicates.REFUSE)) as gateway:
        answers = [storescu(gateway.port, *paths) for paths in files]
    said = [answer.stdout + answer.stderr for answer in answers]
    assert "Received Store Response (Success)" in said[0]
    assert "Received Store Response (Unknown Status: 0x111)" in said[1]  # it has no name for it


def test_the_same_series_on_many_associations_at_once_is_stored_once(tmp_path: Path) -> None:
    """The journal enters them in common commits: every one is answered, and each instance is there once."""
    series = ct_series((SLICES, 8, 8))
    answers: list[list[int]] = []
    with receiver(tmp_path) as gateway:
        threads = [
            threading.Thread(target=lambda: answers.append(send(gateway, series)))
            for _ in range(ASSOCIATIONS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60.0)
        assert answers == [[0] * SLICES] * ASSOCIATIONS
        (row,) = gateway.journal.receiving_series()
        assert row.instance_count == len(gateway.journal.members(row.id)) == SLICES
        reader = JournalReader(tmp_path / "journal.db")
        details = reader.series_details(reader.series()[0])
        reader.close()
    assert details["copies"] == {"instances": SLICES, "times": SLICES * (ASSOCIATIONS - 1)}
    assert details["conflicts"] == []


def test_a_refused_duplicate_whose_file_was_there_before_stays(tmp_path: Path) -> None:
    """Its row may be lost with a journal: then it was acknowledged once."""
    first, other = versions("first", "other")
    with receiver(tmp_path, limits=limits(Duplicates.REFUSE)) as gateway:
        assert send(gateway, [first]) == [0]
        stored = gateway.spool.store(encoded(other))
        assert send(gateway, [other]) == [0x0111]
        assert gateway.spool.absolute(stored.path).exists()
