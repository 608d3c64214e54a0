"""Duplicates over the wire: what the sender is answered, and what is kept, by each rule."""

from __future__ import annotations

import shutil
import sqlite3
import struct
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from gateway.journal import JournalReader
from gateway.journal.records import Duplicates
from gateway.receive.admit import AdmissionLimits
from gateway.receive.part10 import file_header
from gateway.spool.layout import FOLDERS
from gateway.upkeep.compare import compare_folder
from tests.builders import ct_series, torso_series, with_attributes, write_series
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.peers import RawSender, Receiver, RecordingSCP, encoded, receiver, recording_scp, storescu
from tests.stow import multipart, part10, stow_server
from tests.waiting import wait_until

IMPLICIT, EXPLICIT, JPEG_LOSSLESS = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70"
QUICK = CONFIGURATION.replace("quiet_for: 1500ms", "quiet_for: 300ms")
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


def send(gateway: Receiver | GatewayProcess, datasets: Sequence[Dataset]) -> list[int]:
    """The statuses of instances that are sent on one association."""
    port = gateway.port if isinstance(gateway, Receiver) else gateway.dicom_port
    with RawSender(port, [datasets[0].SOPClassUID]) as sender:
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


# -- another transfer syntax ----------------------------------------------------------------------


@pytest.mark.parametrize("rule", Duplicates)
def test_the_same_bytes_under_another_transfer_syntax_are_refused_by_name(
    tmp_path: Path, rule: Duplicates
) -> None:
    """What is kept is not what was sent: to answer 0000 would be a lie."""
    (dataset,) = ct_series((1, 8, 8))
    with receiver(tmp_path, limits=limits(rule)) as gateway:
        assert send(gateway, [dataset]) == [0]
        (before,) = stored(tmp_path)
        content = before.read_bytes()
        for _ in range(3):
            answer = relabelled(gateway, dataset)
            assert answer.Status == 0x0111
            assert answer.ErrorComment.startswith("DUPLICATE_TRANSFER_SYNTAX_REFUSED: ")
        assert send(gateway, [dataset]) == [0]
        assert (stored(tmp_path), before.read_bytes()) == ([before], content)
        (series,) = gateway.journal.receiving_series()
        (member,) = gateway.journal.members(series.id)
        assert member.transfer_syntax_uid == EXPLICIT
        reader = JournalReader(tmp_path / "journal.db")
        names = [each["name"] for each in reader.series_details(reader.series()[0])["events"]]
        refused = [each["name"] for each in reader.refusals()]
        reader.close()
    assert names == ["opened", "DUPLICATE_TRANSFER_SYNTAX_REFUSED"]
    assert refused == ["DUPLICATE_TRANSFER_SYNTAX_REFUSED"] * 3


def test_a_damaged_file_is_not_replaced_by_the_same_bytes_under_another_transfer_syntax(
    tmp_path: Path,
) -> None:
    (dataset,) = ct_series((1, 8, 8))
    with receiver(tmp_path) as gateway:
        assert send(gateway, [dataset]) == [0]
        (file,) = stored(tmp_path)
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + b"?")
        assert relabelled(gateway, dataset).Status == 0x0111
        assert (stored(tmp_path), gateway.journal.damaged_count()) == ([], 1)
        assert send(gateway, [dataset]) == [0]
        assert (file.read_bytes(), gateway.journal.damaged_count()) == (whole, 0)


def test_a_file_that_a_crash_left_does_not_give_its_transfer_syntax_to_what_comes_later(
    tmp_path: Path,
) -> None:
    """Nobody was told that it is kept, and no row says how it came: row and file would differ."""
    (dataset,) = ct_series((1, 8, 8))
    with receiver(tmp_path) as gateway:
        assert relabelled(gateway, dataset).Status == 0
        (file,) = stored(tmp_path)
        left = file.read_bytes()
    (tmp_path / "journal.db").unlink()
    with receiver(tmp_path) as gateway:
        assert (stored(tmp_path), file.read_bytes()) == ([file], left)
        assert send(gateway, [dataset]) == [0]
        assert str(dcmread(file).file_meta.TransferSyntaxUID) == EXPLICIT
        (series,) = gateway.journal.receiving_series()
        (member,) = gateway.journal.members(series.id)
        assert member.transfer_syntax_uid == EXPLICIT
        assert send(gateway, [dataset]) == [0]
        assert relabelled(gateway, dataset).Status == 0x0111


@pytest.mark.parametrize("put_aside_before", [False, True])
def test_an_acknowledged_file_outlives_a_lost_journal_and_the_same_bytes_under_another_label(
    tmp_path: Path, put_aside_before: bool
) -> None:
    (dataset,) = ct_series((1, 8, 8))
    journal, right = tmp_path / "journal.db", tmp_path / "right.db"
    with receiver(tmp_path) as gateway:
        assert send(gateway, [dataset]) == [0]
        (file,) = stored(tmp_path)
        acknowledged = file.read_bytes()
    journal.rename(right)
    with receiver(tmp_path) as gateway:
        if put_aside_before:
            compare(gateway)
            assert stored(tmp_path) == []
        assert relabelled(gateway, dataset).Status == 0
        assert str(dcmread(file).file_meta.TransferSyntaxUID) == JPEG_LOSSLESS
        compare(gateway)
        assert [each.read_bytes() for each in unclaimed(tmp_path)] == [acknowledged]
        other = file.read_bytes()
    right.replace(journal)
    with receiver(tmp_path) as gateway:
        for _ in range(2):
            compare(gateway)
            assert file.read_bytes() == acknowledged
            assert [each.read_bytes() for each in unclaimed(tmp_path)] == [other]


def test_what_is_refused_does_not_stay_and_does_not_pile_up(tmp_path: Path) -> None:
    """A file without row, whose bytes come again and again under two labels and are refused."""
    first, other = versions("first", "other")
    uids = (other.SOPClassUID, other.SOPInstanceUID)
    with receiver(tmp_path, limits=limits(Duplicates.REFUSE)) as gateway:
        assert send(gateway, [first]) == [0]
        file = gateway.spool.store(encoded(other), file_header(*uids, EXPLICIT, "CT1"))
        for _ in range(3):
            assert relabelled(gateway, other).Status == 0x0111
            assert send(gateway, [other]) == [0x0111]
        assert len(stored(tmp_path)) == 1
        (kept,) = unclaimed(tmp_path)
        assert kept.name == Path(file.path).name
        assert str(dcmread(kept).file_meta.TransferSyntaxUID) == EXPLICIT


def test_one_string_of_bytes_that_is_two_instances_is_one_here(tmp_path: Path) -> None:
    """In Explicit VR it is the first; in Implicit VR its first element is so long that the second follows."""
    first, second = ct_series((1, 8, 8))[0], ct_series((1, 8, 8), seed=9)[0]
    begin = struct.pack("<HH2sH", 0x0008, 0x0001, b"LO", 0) + encoded(first)
    filler = 8 + int.from_bytes(b"LO\0\0", "little") - len(begin) - 12
    last = encoded(second, implicit_vr=True)
    long = struct.pack("<HH2sHL", 0x7FE1, 0x1010, b"OB", 0, filler + len(last))
    body = begin + long + bytes(filler) + last
    with receiver(tmp_path) as gateway:
        answers = []
        for dataset, syntax in ((first, EXPLICIT), (second, IMPLICIT), (first, EXPLICIT)):
            with RawSender(gateway.port, [dataset.SOPClassUID], [syntax]) as sender:
                answers.append(sender.send(dataset.SOPClassUID, dataset.SOPInstanceUID, body))
        assert [each.Status for each in answers] == [0, 0xC000, 0]
        assert answers[1].ErrorComment.startswith("BYTES_OF_ANOTHER_INSTANCE: ")
        (file,) = stored(tmp_path)
        assert dcmread(file).SOPInstanceUID == first.SOPInstanceUID
        file.write_bytes(file.read_bytes()[:-1] + b"?")  # damaged, its row still needs it
        with RawSender(gateway.port, [second.SOPClassUID], [IMPLICIT]) as sender:
            assert sender.send(second.SOPClassUID, second.SOPInstanceUID, body).Status == 0xC000
        assert str(dcmread(file).file_meta.TransferSyntaxUID) == EXPLICIT


def compare(gateway: Receiver) -> None:
    """As the keeper does, two hours later."""
    for folder in FOLDERS:
        compare_folder(gateway.spool, gateway.journal, folder, time.time() + 7200)


def unclaimed(folder: Path) -> list[Path]:
    return list((folder / "spool" / "unclaimed").glob("*/*.dcm"))


def test_so_it_is_over_http(tmp_path: Path) -> None:
    (dataset,) = ct_series((1, 8, 8))
    with stow_server(tmp_path) as gateway:
        assert gateway.post(multipart([part10(dataset)])).status == 200
        reply = gateway.post(multipart([part10(dataset, syntax=JPEG_LOSSLESS)]))
    assert reply.status == 409
    (failed,) = reply.data_set.FailedSOPSequence
    assert failed.FailureReason == 0x0111
    assert failed.ErrorComment.startswith("DUPLICATE_TRANSFER_SYNTAX_REFUSED: ")


def relabelled(gateway: Receiver, dataset: Dataset) -> Dataset:
    """The answer to the same bytes in a presentation context of another transfer syntax."""
    with RawSender(gateway.port, [dataset.SOPClassUID], [JPEG_LOSSLESS]) as sender:
        return sender.send(dataset.SOPClassUID, dataset.SOPInstanceUID, encoded(dataset))


def stored(folder: Path) -> list[Path]:
    return list((folder / "spool" / "objects").glob("*/*.dcm"))


# -- on the node ----------------------------------------------------------------------------------


SHAPE, RESULTS = (24, 48, 48), 3


@dataclass
class Decided:
    """The data folder of a node whose only series has been run, and its PACS, which has the results."""

    data: Path
    pacs: RecordingSCP
    series: list[Dataset]

    @property
    def other(self) -> Dataset:
        """Other bytes of one of its instances."""
        return with_attributes(self.series, ImageComments="changed")[3]


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Decided]:
    series, _ = torso_series(shape=SHAPE, spacing_mm=(9.0, 8.0, 8.0))
    folder = tmp_path_factory.mktemp("decided")
    with recording_scp("ORTHANC") as pacs:
        with GatewayProcess(folder, pacs.port, QUICK) as gateway:
            assert send(gateway, series) == [0] * len(series)
            wait_until(lambda: len(pacs.uids()) == RESULTS, 60, "the results")
            wait_until(lambda: jobs(gateway) == ["done"], 30, "the job to be done")
            assert gateway.terminate() == 0
        yield Decided(gateway.data, pacs, series)


@contextmanager
def node(folder: Path, decided: Decided, rule: Duplicates) -> Iterator[GatewayProcess]:
    """The node goes on, under this rule; at the end its PACS has got nothing but whole sets of results."""
    gateway = GatewayProcess(folder, decided.pacs.port, f"{QUICK}admission: {{duplicates: {rule}}}\n")
    shutil.copytree(decided.data, gateway.data, ignore=shutil.ignore_patterns("control"))  # a socket
    before = len(decided.pacs.uids())
    with gateway:
        yield gateway
        new = (len(jobs(gateway)) - 1) * RESULTS
        wait_until(lambda: len(decided.pacs.uids()) >= before + new, 60, "the results")
        assert gateway.terminate() == 0
    assert len(decided.pacs.uids()) == before + new


def test_keep_first_on_the_node(tmp_path: Path, decided: Decided) -> None:
    with node(tmp_path / "node", decided, Duplicates.KEEP_FIRST) as gateway:
        assert send(gateway, [*decided.series, decided.other]) == [0] * (SHAPE[0] + 1)
        until_all_is_decided(gateway)
        assert (revisions(gateway), jobs(gateway)) == ([1], ["done"])
        told = explained(gateway, decided.series)
        assert f"the same bytes arrived again for {SHAPE[0]} instances, {SHAPE[0]} times in all" in told
        assert "arrived again with other bytes: both are kept, the first one is used" in told


def test_new_revision_on_the_node(tmp_path: Path, decided: Decided) -> None:
    with node(tmp_path / "node", decided, Duplicates.NEW_REVISION) as gateway:
        assert send(gateway, decided.series) == [0] * SHAPE[0]
        assert (revisions(gateway), jobs(gateway)) == ([1], ["done"])
        assert send(gateway, [decided.other]) == [0]
        wait_until(lambda: jobs(gateway) == ["done"] * 2, 60, "the job of the new revision")
        assert send(gateway, [*decided.series, decided.other]) == [0] * (SHAPE[0] + 1)
        until_all_is_decided(gateway)
        assert (revisions(gateway), jobs(gateway)) == ([1, 2], ["done"] * 2)
        told = explained(gateway, decided.series)
        assert "the new ones are used from revision 2 on (admission.duplicates: new-revision)" in told
        assert "used until others took their place" in told


def test_refuse_on_the_node(tmp_path: Path, decided: Decided) -> None:
    with node(tmp_path / "node", decided, Duplicates.REFUSE) as gateway:
        sent = [*decided.series, decided.other, decided.other]
        assert send(gateway, sent) == [*[0] * SHAPE[0], 0x0111, 0x0111]
        until_all_is_decided(gateway)
        assert (revisions(gateway), jobs(gateway)) == ([1], ["done"])
        told = explained(gateway, decided.series)
        assert told.count("they were refused (admission.duplicates: refuse)") == 1


def until_all_is_decided(gateway: GatewayProcess) -> None:
    """What came before a series that is sent now has been decided when that one is."""
    fence = ct_series((1, 8, 8), seed=9)
    assert send(gateway, fence) == [0]
    query = "SELECT count(*) FROM series WHERE state = 'receiving'"
    wait_until(lambda: asked(gateway, query) == [0], 60, "the decisions")
    wait_until(lambda: set(jobs(gateway)) == {"done"}, 60, "the jobs")


def jobs(gateway: GatewayProcess) -> list[str]:
    return asked(gateway, "SELECT state FROM job ORDER BY id")


def revisions(gateway: GatewayProcess) -> list[int]:
    """Of the series that have a job."""
    query = """SELECT revision FROM series WHERE series_instance_uid IN (
        SELECT series_instance_uid FROM series JOIN job ON job.series_id = series.id) ORDER BY revision"""
    return asked(gateway, query)


def asked(gateway: GatewayProcess, query: str) -> list[Any]:
    with closing(sqlite3.connect(f"file:{gateway.data / 'journal.db'}?mode=ro", uri=True)) as journal:
        return [row[0] for row in journal.execute(query)]


def explained(gateway: GatewayProcess, series: Sequence[Dataset]) -> str:
    """What ``aigw study explain`` says, on one line."""
    return " ".join(gateway.aigw("study", "explain", str(series[0].SeriesInstanceUID)).stdout.split())


# -- what was there before ------------------------------------------------------------------------


def test_a_refused_duplicate_whose_file_was_there_before_stays(tmp_path: Path) -> None:
    """Its row may be lost with a journal: then it was acknowledged once."""
    first, other = versions("first", "other")
    with receiver(tmp_path, limits=limits(Duplicates.REFUSE)) as gateway:
        assert send(gateway, [first]) == [0]
        header = file_header(other.SOPClassUID, other.SOPInstanceUID, EXPLICIT, "CT1")
        stored = gateway.spool.store(encoded(other), header)
        assert send(gateway, [other]) == [0x0111]
        assert gateway.spool.absolute(stored.path).exists()
