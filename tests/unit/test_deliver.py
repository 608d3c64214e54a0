"""The storage SCU and the sender against a peer with scripted answers, over real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom.dimse_primitives import C_STORE

from gateway.clock import SystemClock
from gateway.deliver.send import Sender, SenderSettings
from gateway.deliver.storage_scu import (
    VERIFICATION,
    Address,
    StorageSCU,
    StoredObject,
    read_stored_object,
)
from gateway.errors import PeerError
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewJob, NewResult, SeriesDecision
from gateway.retry import Policy
from gateway.spool import Spool
from tests.hostile import wire
from tests.ports import free_port
from tests.scripted_peer import ABORT, CAPTURE, EXPLICIT_LITTLE, SEG, SILENCE, SR, ScriptedPeer
from tests.waiting import wait_until
from tests.wire_peer import WirePeer, associate_ac, response

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


def address(peer: ScriptedPeer | WirePeer, ae_title: str = "PACS") -> Address:
    return Address("pacs", ae_title, "127.0.0.1", peer.port)


@pytest.fixture
def stored(tmp_path: Path) -> StoredObject:
    path = tmp_path / "seg.dcm"
    path.write_bytes(encoded(SEG, "1.2.3"))
    return read_stored_object(path)


def peer_error(action: Callable[[], object]) -> PeerError:
    with pytest.raises(PeerError) as caught:
        action()
    return caught.value


# -- storage_scu -----------------------------------------------------------------------------------


def test_a_file_arrives_byte_for_byte(stored: StoredObject) -> None:
    with ScriptedPeer() as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 5.0) as scu:
        assert scu.store(stored) == 0x0000
        assert pacs.received == [("1.2.3", data_set_of(stored.path.read_bytes()))]


def test_pynetdicoms_own_thread_takes_no_answer(stored: StoredObject) -> None:
    """It looks at the queue at any moment, until it is paused, and drops what it finds."""
    looked: list[object] = []
    with ScriptedPeer() as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 5.0) as scu:
        dimse = scu._association.dimse
        get_msg = dimse.get_msg

        def get_what_is_left(block: bool = False) -> Any:
            if block:
                wait_until(lambda: not dimse.msg_queue.empty(), what="the answer")
                looked.append(get_msg(block=False))
            return get_msg(block)

        dimse.get_msg = get_what_is_left  # type: ignore[method-assign]
        assert scu.store(stored) == 0x0000
    assert looked == [(None, None)]


SEG_RESPONSE = partial(response, wire.C_STORE_RSP, sop_class=SEG)
FOREIGN = {
    "another Message ID": SEG_RESPONSE(0x0000, answers=99),
    "another context": SEG_RESPONSE(0x0000, context_id=3),
    "a context of nobody": SEG_RESPONSE(0x0000, context_id=77),
    "C-ECHO-RSP": response(wire.C_ECHO_RSP, 0x0000, sop_class=SEG),
    "C-FIND-RSP": response(0x8020, 0x0000, sop_class=SEG),
    "C-ECHO-RQ": wire.p_data(wire.pdv(1, wire.LAST_COMMAND, wire.c_echo_rq())),
    "N-EVENT-REPORT-RQ": wire.p_data(
        wire.pdv(
            1,
            wire.LAST_COMMAND,
            wire.command(
                wire.ui(0x0002, b"1.2.840.10008.1.20.1"),
                wire.us(0x0100, wire.N_EVENT_REPORT_RQ),
                wire.us(0x0110, 1),
                wire.us(0x0800, wire.NO_DATA_SET),
                wire.ui(0x1000, b"1.2.3"),
                wire.us(0x1002, 1),
            ),
        )
    ),
}


@pytest.mark.parametrize("foreign", FOREIGN.values(), ids=FOREIGN.keys())
def test_what_answers_another_request_is_no_answer(stored: StoredObject, foreign: bytes) -> None:
    pacs = WirePeer(associate_ac(), foreign + SEG_RESPONSE(0xA700))
    with pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 15.0) as scu:
        assert peer_error(lambda: scu.store(stored)).name == "PEER_BUSY"
        assert scu.is_established


def test_a_peer_that_answers_only_what_nobody_asked_is_silent(stored: StoredObject) -> None:
    pacs = WirePeer(associate_ac(), SEG_RESPONSE(0x0000, answers=99))
    with pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 1.0) as scu:
        error = peer_error(lambda: scu.store(stored))
    assert (error.name, error.retryable) == ("PEER_SILENT", True)
    assert "sent 1 other messages" in error.reason


def test_an_answer_without_status_breaks_the_protocol(stored: StoredObject) -> None:
    pacs = WirePeer(associate_ac(), SEG_RESPONSE(None))
    with pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 15.0) as scu:
        error = peer_error(lambda: scu.store(stored))
        assert not scu.is_established
    assert (error.name, error.retryable) == ("PEER_BREAKS_PROTOCOL", True)


ODD = {
    "Maximum Length 1": (associate_ac(user=wire.user_information(1)), "MAXIMUM_LENGTH_TOO_SMALL"),
    "Maximum Length 6": (associate_ac(user=wire.user_information(6)), "MAXIMUM_LENGTH_TOO_SMALL"),
    "Maximum Length 7": (associate_ac(user=wire.user_information(7)), "MAXIMUM_LENGTH_TOO_SMALL"),
    "Maximum Length 4095": (associate_ac(user=wire.user_information(4095)), "MAXIMUM_LENGTH_TOO_SMALL"),
    "no Maximum Length": (associate_ac(user=wire.item(0x50, b"")), "PEER_BREAKS_PROTOCOL"),
    "no user information": (associate_ac(user=b""), "PEER_BREAKS_PROTOCOL"),
    "no transfer syntax": (associate_ac([(1, None)]), "PEER_BREAKS_PROTOCOL"),
    "one without transfer syntax": (associate_ac([(1, wire.EXPLICIT), (3, None)]), "PEER_BREAKS_PROTOCOL"),
}


@pytest.mark.parametrize(("acceptance", "name"), ODD.values(), ids=ODD.keys())
def test_an_odd_acceptance_has_a_name_and_is_aborted(acceptance: bytes, name: str) -> None:
    contexts = {(SEG, EXPLICIT_LITTLE), (SR, EXPLICIT_LITTLE)}
    with WirePeer(acceptance) as pacs:
        error = peer_error(lambda: StorageSCU(address(pacs), "AIGW", contexts, 15.0))
        assert (error.name, error.retryable) == (name, True)
        wait_until(lambda: pacs.kinds == [wire.ASSOCIATE_RQ, wire.ABORT], what="the abort")


def test_what_pynetdicom_did_not_foresee_costs_the_association_and_no_more(
    stored: StoredObject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def surprise(*_: object) -> None:
        raise IndexError("out of range")

    with WirePeer(associate_ac()) as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 15.0) as scu:
        monkeypatch.setattr(scu._association.dimse, "send_msg", surprise)  # in the middle of a C-STORE
        error = peer_error(lambda: scu.store(stored))
        assert (error.name, scu.is_established) == ("PEER_BREAKS_PROTOCOL", False)
        wait_until(lambda: wire.ABORT in pacs.kinds, what="the abort")
        monkeypatch.setattr("pynetdicom.acse.negotiate_as_requestor", surprise)
        error = peer_error(lambda: StorageSCU(address(pacs), "AIGW", {stored.context}, 15.0))
        assert (error.name, "IndexError" in error.reason) == ("PEER_BREAKS_PROTOCOL", True)
        wait_until(lambda: pacs.kinds.count(wire.ABORT) == 2, what="the abort")


def test_a_file_of_ours_that_cannot_be_read_is_not_blamed_on_the_peer(stored: StoredObject) -> None:
    stored.path.unlink()
    with ScriptedPeer() as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 15.0) as scu:
        error = peer_error(lambda: scu.store(stored))
    assert (error.name, error.retryable) == ("FILE_NOT_READABLE", True)


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
def test_every_bad_answer_has_a_name(stored: StoredObject, status: int, name: str, retryable: bool) -> None:
    with ScriptedPeer([status]) as pacs, StorageSCU(address(pacs), "AIGW", {stored.context}, 1.0) as scu:
        error = peer_error(lambda: scu.store(stored))
    assert (error.name, error.retryable) == (name, retryable)


def test_a_class_that_the_peer_does_not_take_is_named(stored: StoredObject) -> None:
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


class AnsweringTwice(ScriptedPeer):
    """Answers its first C-STORE twice, and refuses everything else."""

    def _on_store(self, event: Any) -> int:
        if self.attempts:
            self.attempts.append(str(event.request.AffectedSOPInstanceUID))
            return 0xA900
        answer = C_STORE()
        answer.MessageIDBeingRespondedTo = event.request.MessageID
        answer.AffectedSOPClassUID = event.request.AffectedSOPClassUID
        answer.AffectedSOPInstanceUID = event.request.AffectedSOPInstanceUID
        answer.Status = 0x0000
        event.assoc.dimse.send_msg(answer, event.context.context_id)
        return super()._on_store(event)


def test_a_second_answer_to_one_object_is_not_the_answer_to_the_next(outbox: MakeOutbox) -> None:
    with AnsweringTwice() as pacs:
        box = outbox(pacs)
        uids = list(box.add_study(1))
        box.start()
        [_, dead, _] = box.wait_for(["sent", "dead", "dead"])
    assert pacs.uids() == uids[:1]
    assert [pacs.attempts.count(uid) for uid in uids] == [1, 3, 3]
    assert dead["failure_name"] == "OBJECT_REFUSED"


def test_an_odd_acceptance_holds_the_destination_until_it_is_mended(outbox: MakeOutbox) -> None:
    """The sender's thread goes on: its end would be the end of the node."""
    pacs = ScriptedPeer()
    pacs._entity.maximum_pdu_size = 6
    with pacs:
        box = outbox(pacs)
        uids = list(box.add_study(1))
        box.start()
        wait_until(lambda: box.deliveries()[0]["attempts"] >= 2, what="a second try")
        assert box.deliveries()[0]["failure_name"] == "MAXIMUM_LENGTH_TOO_SMALL"
        pacs._entity.maximum_pdu_size = 16384
        box.wait_for(["sent"] * 3)
    assert pacs.uids() == uids


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
