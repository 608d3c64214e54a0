"""The storage SCU and the sender against a peer with scripted answers, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID

from gateway.clock import SystemClock
from gateway.deliver.send import Sender, SenderSettings
from gateway.deliver.storage_scu import (
    VERIFICATION,
    Address,
    StorageSCU,
    read_stored_object,
)
from gateway.errors import PeerError
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewJob, NewResult, SeriesDecision
from gateway.retry import Policy
from gateway.spool import Spool
from tests.ports import free_port
from tests.scripted_peer import ABORT, CAPTURE, EXPLICIT_LITTLE, SEG, SILENCE, SR, ScriptedPeer

POLICY = Policy(
    first_retry_s=0.05, factor=1.5, longest_wait_s=0.2, give_up_after_s=3600.0, refused_attempts=3
)


def encoded(sop_class: str, uid: str) -> bytes:
    """A small Part 10 file whose data set a re-encoder would change (a private element of odd order)."""
    import io

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(uid)
    dataset.file_meta.TransferSyntaxUID = UID(EXPLICIT_LITTLE)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid
    dataset.PatientName = "Nobody"
    dataset.ReferencedSeriesSequence = [Dataset()]  # undefined or defined length: kept as it is
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def data_set_of(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


def address(peer: ScriptedPeer, ae_title: str | None = None) -> Address:
    return Address("pacs", ae_title or peer.ae_title, "127.0.0.1", peer.port)


def peer_error(action: Callable[[], object]) -> PeerError:
    with pytest.raises(PeerError) as caught:
        action()
    return caught.value


# -- storage_scu -----------------------------------------------------------------------------------


def test_a_file_arrives_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(SEG, "1.2.3"))
    stored = read_stored_object(path)
    with ScriptedPeer() as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 5.0) as scu:
        assert scu.store(stored) == 0x0000
        assert pacs.received == [("1.2.3", data_set_of(path.read_bytes()))]


def test_an_answer_that_pynetdicoms_own_thread_has_taken_is_not_lost(tmp_path: Path) -> None:
    """It looks at the queue at any moment, until it is paused; then the answer seemed never to come."""
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(SEG, "1.2.3"))
    stored = read_stored_object(path)
    taken: list[object] = []
    with ScriptedPeer() as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 5.0) as scu:
        association = scu._association
        get_msg = association.dimse.get_msg

        def get_what_is_left(block: bool = False) -> Any:
            if block and not taken:
                context_id, message = get_msg(block=True)
                taken.append(message)
                association._serve_request(message, context_id)  # type: ignore[arg-type]
            return get_msg(block)

        association.dimse.get_msg = get_what_is_left  # type: ignore[method-assign]
        assert scu.store(stored) == 0x0000
    assert len(taken) == 1


def test_a_peer_that_is_not_there_is_named_unreachable() -> None:
    nobody = Address("pacs", "PACS", "127.0.0.1", free_port())
    error = peer_error(lambda: StorageSCU(nobody, "AIGW", {VERIFICATION}, 2.0))
    assert (error.name, error.retryable) == ("PEER_UNREACHABLE", True)
    assert f"127.0.0.1:{nobody.port}" in error.reason


def test_an_unknown_host_name_is_named_unreachable() -> None:
    nobody = Address("pacs", "PACS", "no-such-host.invalid", 104)
    assert peer_error(lambda: StorageSCU(nobody, "AIGW", {VERIFICATION}, 2.0)).name == "PEER_UNREACHABLE"


def test_a_rejected_association_tells_what_to_ask_the_administrator() -> None:
    with ScriptedPeer(check_titles=True) as pacs:
        error = peer_error(lambda: StorageSCU(address(pacs), "STRANGER", {VERIFICATION}, 2.0))
        assert error.name == "ASSOCIATION_REJECTED"
        assert "register our AE title STRANGER" in error.reason
        error = peer_error(lambda: StorageSCU(address(pacs, "WRONG"), "AIGW", {VERIFICATION}, 2.0))
        assert "check the AE title WRONG" in error.reason
        with StorageSCU(address(pacs), "AIGW", {VERIFICATION}, 2.0) as scu:
            scu.echo()


def test_a_port_that_speaks_no_dicom_is_told_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        web = Address("pacs", "PACS", "127.0.0.1", listener.getsockname()[1])
        error = peer_error(lambda: StorageSCU(web, "AIGW", {VERIFICATION}, 1.0))
    assert (error.name, "check the port" in error.reason) == ("ASSOCIATION_ABORTED", True)


@pytest.mark.parametrize(
    ("status", "name", "retryable"),
    [
        (0xA700, "PEER_BUSY", True),
        (0x0122, "SOP_CLASS_NOT_SUPPORTED", True),
        (0xC000, "OBJECT_REFUSED", False),
        (0xA900, "OBJECT_REFUSED", False),
        (ABORT, "ASSOCIATION_ABORTED", True),
        (SILENCE, "PEER_SILENT", True),
    ],
)
def test_every_bad_answer_has_a_name(tmp_path: Path, status: int, name: str, retryable: bool) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(SEG, "1.2.3"))
    stored = read_stored_object(path)
    with ScriptedPeer([status]) as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 1.0) as scu:
        error = peer_error(lambda: scu.store(stored))
    assert (error.name, error.retryable) == (name, retryable)


def test_a_class_that_the_peer_does_not_take_is_named(tmp_path: Path) -> None:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(SEG, "1.2.3"))
    stored = read_stored_object(path)
    contexts = {stored.context, (SR, EXPLICIT_LITTLE)}
    with ScriptedPeer(classes=[SR]) as pacs:
        with StorageSCU(address(pacs), "AIGW", contexts, 2.0) as scu:
            assert peer_error(lambda: scu.store(stored)).name == "NO_PRESENTATION_CONTEXT"
        error = peer_error(lambda: StorageSCU(address(pacs), "AIGW", {stored.context}, 2.0))
        assert error.name == "NO_PRESENTATION_CONTEXT"
        assert SEG in error.reason


def test_a_file_that_is_not_dicom_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    with pytest.raises(ValueError, match="not a DICOM file"):
        read_stored_object(path)


# -- sender ----------------------------------------------------------------------------------------


class Outbox:
    """A journal with finished jobs, and a sender for their destination."""

    def __init__(self, folder: Path, peer: ScriptedPeer, **policy: Any) -> None:
        self.path = folder / "journal.db"
        self.journal = Journal(self.path)
        self.results = Spool(folder / "results")
        self.clock = SystemClock()
        self.peer = peer
        self.policy = Policy(**{**vars(POLICY), **policy})
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None

    def add_study(self, number: int) -> dict[str, bytes]:
        """A finished job with SEG, SR and picture; SOP Instance UID → file."""
        now = self.clock.now_s()
        header = InstanceHeader("1.2", f"1.9.{number}", "1.3", f"1.4.{number}", {})
        self.journal.record_instance(NewInstance(header, "1", f"{number}", f"{number}", 1, "scanner"), now)
        [series] = self.journal.receiving_series()
        job = NewJob("model", "card", ("pacs",), "test")
        self.journal.decide_series(
            series, SeriesDecision({}, {}, {}, "ROUTE_MATCHED", "test", (job,), refused=False), now
        )
        claimed = self.journal.claim_job(f"lease {number}", now + 60, now)
        assert claimed is not None
        contents = {}
        results = []
        for index, (kind, sop_class) in enumerate((("seg", SEG), ("sr", SR), ("overview", CAPTURE))):
            uid = f"2.25.{number}.{index}"
            contents[uid] = encoded(sop_class, uid)
            stored = self.results.store(contents[uid])
            results.append(
                NewResult(kind, sop_class, uid, "1.5", EXPLICIT_LITTLE, stored.path, stored.digest, 1)
            )
        self.journal.finish_job(claimed, results, {}, now)
        return contents

    def start(self) -> None:
        settings = SenderSettings(
            "pacs", address(self.peer), "AIGW", self.results.root, self.policy, timeout_s=1.0
        )
        sender = Sender(self.journal, settings, self.clock, structlog.get_logger())
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=sender.run, args=(self.stopping,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.stopping.set()
        if self.thread is not None:
            self.thread.join(timeout=10)
            assert not self.thread.is_alive()

    def deliveries(self) -> list[dict[str, Any]]:
        reader = JournalReader(self.path)
        try:
            details = [reader.series_details(series) for series in reader.series()]
        finally:
            reader.close()
        return [d for s in details for j in s["jobs"] for r in j["results"] for d in r["deliveries"]]

    def wait_for(self, states: list[str], timeout_s: float = 15.0) -> list[dict[str, Any]]:
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            found = self.deliveries()
            if [d["state"] for d in found] == states:
                return found
            time.sleep(0.05)
        raise AssertionError(f"{[d['state'] for d in self.deliveries()]} instead of {states}")


MakeOutbox = Callable[..., Outbox]


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[MakeOutbox]:
    made: list[Outbox] = []

    def make(peer: ScriptedPeer, **policy: Any) -> Outbox:
        made.append(Outbox(tmp_path, peer, **policy))
        return made[-1]

    yield make
    for each in made:
        each.stop()
        each.journal.close()


def test_results_arrive_in_order_over_one_association_byte_for_byte(outbox: MakeOutbox) -> None:
    with ScriptedPeer() as pacs:
        box = outbox(pacs)
        contents = {**box.add_study(1), **box.add_study(2)}
        box.start()
        box.wait_for(["sent"] * 6)
        assert pacs.received == [(uid, data_set_of(content)) for uid, content in contents.items()]
        assert pacs.associations == 1


def test_a_pacs_that_is_down_gets_everything_once_when_it_is_up_again(outbox: MakeOutbox) -> None:
    pacs = ScriptedPeer()
    box = outbox(pacs)
    contents = [uid for number in range(1, 4) for uid in box.add_study(number)]
    box.start()
    deadline_s = time.monotonic() + 10
    while sum(d["attempts"] for d in box.deliveries()) < 4:
        assert time.monotonic() < deadline_s
        time.sleep(0.02)
    attempts = [d["attempts"] for d in box.deliveries()]
    assert attempts[3:] == [0] * 6  # an outage does not burn through the queue
    assert box.deliveries()[0]["failure_name"] == "PEER_UNREACHABLE"
    with pacs:
        box.wait_for(["sent"] * 9)
    assert pacs.uids() == contents


def test_a_busy_pacs_is_tried_again_and_gets_it_once(outbox: MakeOutbox) -> None:
    with ScriptedPeer([0xA700, 0xA700, ABORT, SILENCE]) as pacs:
        box = outbox(pacs)
        contents = box.add_study(1)
        box.start()
        box.wait_for(["sent"] * 3)
    assert sorted(pacs.uids()) == sorted(contents)


def test_a_duplicate_answer_counts_as_stored(outbox: MakeOutbox) -> None:
    with ScriptedPeer([0x0111, 0xB000]) as pacs:
        box = outbox(pacs)
        box.add_study(1)
        box.start()
        sent = box.wait_for(["sent"] * 3)
    assert [d["attempts"] for d in sent] == [1, 1, 1]


def test_a_refused_object_is_dead_after_some_attempts_and_the_others_pass(outbox: MakeOutbox) -> None:
    with ScriptedPeer(refused={SEG: 0xC000}) as pacs:
        box = outbox(pacs)
        uids = list(box.add_study(1))
        box.start()
        [dead, *_] = box.wait_for(["dead", "sent", "sent"])
    assert (pacs.uids(), pacs.attempts.count(uids[0])) == (uids[1:], 3)
    assert dead["failure_name"] == "OBJECT_REFUSED"
    assert "0xC000" in dead["failure_reason"]
    assert "refused 3 times" in dead["failure_reason"]


def test_a_class_that_the_pacs_does_not_take_waits_and_the_others_pass(outbox: MakeOutbox) -> None:
    with ScriptedPeer(classes=[SR, CAPTURE]) as pacs:
        box = outbox(pacs)
        box.add_study(1)
        box.start()
        [waiting, *_] = box.wait_for(["pending", "sent", "sent"])
    assert waiting["failure_name"] == "NO_PRESENTATION_CONTEXT"


def test_a_delivery_is_given_up_at_its_age(outbox: MakeOutbox) -> None:
    box = outbox(ScriptedPeer(), give_up_after_s=0.3)
    box.add_study(1)
    box.start()
    dead = box.wait_for(["dead"] * 3)
    assert all("delivery.give_up_after" in d["failure_reason"] for d in dead)


def test_a_damaged_result_is_never_sent(outbox: MakeOutbox) -> None:
    with ScriptedPeer() as pacs:
        box = outbox(pacs)
        seg, sr, _ = box.add_study(1)
        for path in box.results.root.glob("objects/*/*"):
            if seg.encode() in path.read_bytes():
                path.write_bytes(path.read_bytes()[:-2])
            elif sr.encode() in path.read_bytes():
                path.unlink()
        box.start()
        dead = box.wait_for(["dead", "dead", "sent"])
    assert [d["failure_name"] for d in dead[:2]] == ["RESULT_FILE_DAMAGED", "RESULT_FILE_MISSING"]
    assert pacs.attempts == [pacs.uids()[0]]


def test_after_a_restart_only_what_was_not_confirmed_is_sent_again_unchanged(outbox: MakeOutbox) -> None:
    with ScriptedPeer() as pacs:
        box = outbox(pacs)
        contents = box.add_study(1)
        claimed = box.journal.claim_delivery("pacs", box.clock.now_s())  # and the gateway dies here
        assert claimed is not None
        box.journal.recover(box.clock.now_s())
        box.start()
        box.wait_for(["sent"] * 3)
    assert pacs.uids() == list(contents)
