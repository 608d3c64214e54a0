"""Storage commitment as SCP, over real associations: same one, another one, none; and the truth in each."""

from __future__ import annotations

import queue
import struct
import time
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.clock import SystemClock
from gateway.completion import Complete, CompletionRules, decide
from gateway.journal import JournalReader
from gateway.receive.commitment import lines as commitment_lines
from gateway.receive.commitment import reporter as commitment_reporter
from gateway.receive.commitment.link import ReportAddress
from gateway.retry import Policy
from gateway.upkeep import Keeper
from tests.builders import ct_series, uid
from tests.commitment_site import (
    CT_IMAGE,
    IMPLICIT,
    CommitmentSCU,
    CommittingNode,
    ReportSCP,
    committed,
    committing_node,
    failed,
)
from tests.peers import SCANNER, SCANNER_AE_TITLE
from tests.ports import free_port
from tests.waiting import wait_until

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
ALL_COMMITTED, FAILURES_EXIST = 1, 2


@pytest.fixture(scope="module")
def images() -> list[Dataset]:
    return ct_series((5, 32, 40))


@pytest.fixture
def hangs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The peer hangs up in a moment: on a busy machine too, before it seems to wait for the report."""
    monkeypatch.setattr(commitment_lines, "QUIET_S", 10.0)


def at(port: int) -> ReportAddress:
    return ReportAddress("scanner", SCANNER_AE_TITLE, "127.0.0.1", port)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", IMPLICIT])
def test_a_peer_that_waits_is_told_on_its_own_association(
    tmp_path: Path, images: list[Dataset], syntax: str
) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port, syntax=syntax, role=True) as scu:
        asked = scu.store(images)
        assert scu.ask("1.9.1", asked).Status == 0x0000
        kind, report = scu.report()
        assert (kind, report.TransactionUID) == (ALL_COMMITTED, "1.9.1")
        assert committed(report) == [instance for _, instance in asked]
        assert "FailedSOPSequence" not in report
        (row,) = node.wait_for("reported")
        assert (row["attempts"], row["source"], row["ae_title"]) == (1, "scanner", SCANNER_AE_TITLE)
        scu.store(ct_series((2, 32, 40), seed=7))  # the association is as good as before
        with pytest.raises(queue.Empty):
            scu.report(0.7)  # and is told nothing twice


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_that_hangs_up_at_once_is_called(tmp_path: Path, images: list[Dataset]) -> None:
    with ReportSCP() as there, committing_node(tmp_path, [at(there.port)]) as node:
        with CommitmentSCU(node.port) as scu:
            asked = scu.store(images)
            assert scu.ask("1.9.1", asked).Status == 0x0000
        kind, report = there.report()
        assert (kind, committed(report)) == (ALL_COMMITTED, [instance for _, instance in asked])
        assert there.callers == [f"AIGW->{SCANNER_AE_TITLE}"]
        assert there.roles == [(False, True)]  # we are the SCP of an association that we request
        node.wait_for("reported")
        assert scu.told.empty()


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_that_negotiates_no_roles_is_told_all_the_same(tmp_path: Path, images: list[Dataset]) -> None:
    with ReportSCP(roles=False) as there, committing_node(tmp_path, [at(there.port)]) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        assert there.report()[0] == ALL_COMMITTED


@pytest.mark.usefixtures("hangs_up")
def test_several_requests_of_a_peer_are_told_on_one_association(
    tmp_path: Path, images: list[Dataset]
) -> None:
    port = free_port()
    with committing_node(tmp_path, [at(port)]) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        for number in range(3):
            scu.ask(f"1.9.{number}", asked[: number + 1])
    with ReportSCP(port) as there, committing_node(tmp_path, [at(port)]) as node:
        assert {there.report()[1].TransactionUID for _ in range(3)} == {"1.9.0", "1.9.1", "1.9.2"}
        node.wait_for("reported", count=3)
        assert len(there.callers) == 1


def test_the_report_says_what_is_true_of_each_instance(tmp_path: Path, images: list[Dataset]) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        stored = scu.store(images)
        files = {
            kept.sop_instance_uid: kept.path for kept in node.journal.kept_instances([u for _, u in stored])
        }
        (node.spool.root / files[stored[1][1]]).unlink()
        damaged = node.spool.root / files[stored[2][1]]
        damaged.write_bytes(damaged.read_bytes()[:-1])
        node.journal.quarantine(files[stored[3][1]], "bit rot", time.time())
        asked = [*stored[:4], (MR_IMAGE, stored[4][1]), (CT_IMAGE, "1.2.3.4.5")]
        assert scu.ask("1.9.1", asked).Status == 0x0000
        kind, report = scu.report()
        assert (kind, committed(report)) == (FAILURES_EXIST, [stored[0][1]])
        assert failed(report) == {
            stored[1][1]: 0x0110,
            stored[2][1]: 0x0110,
            stored[3][1]: 0x0110,
            stored[4][1]: 0x0119,
            "1.2.3.4.5": 0x0112,
        }
        (row,) = node.wait_for("reported")
        assert '"committed":1' in row["outcome"]
        # What is sent again is committed when it is asked for again.
        scu.store(images)
        scu.ask("1.9.2", stored)
        assert scu.report()[0] == ALL_COMMITTED


def test_damage_that_nobody_has_noticed_is_found_before_a_peer_deletes_its_images(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        stored = scu.store(images)
        (kept,) = node.journal.kept_instances([stored[1][1]])
        path = node.spool.root / kept.path
        content = bytearray(path.read_bytes())
        content[-9] ^= 0x10  # the length is right
        path.write_bytes(content)
        assert scu.ask("1.9.1", stored).Status == 0x0000
        kind, report = scu.report()
        assert (kind, failed(report)) == (FAILURES_EXIST, {stored[1][1]: 0x0110})
        assert len(committed(report)) == len(stored) - 1
        (kept,) = node.journal.kept_instances([stored[1][1]])
        assert kept.is_quarantined
        assert not path.exists()


def test_an_instance_whose_file_another_sender_has_healed_is_committed_again(
    tmp_path: Path, images: list[Dataset]
) -> None:
    """The new file names another sender in its file meta information, so it has another length."""
    with committing_node(tmp_path, peers=(SCANNER, replace(SCANNER, name="ct2", ae_title="C"))) as node:
        with CommitmentSCU(node.port) as scu:
            stored = scu.store(images)
            (kept,) = node.journal.kept_instances([stored[1][1]])
            path = node.spool.root / kept.path
            size_bytes = path.stat().st_size
            path.write_bytes(path.read_bytes()[:-1] + b"!")
            scu.ask("1.9.1", stored)
            assert failed(scu.report()[1]) == {stored[1][1]: 0x0110}
        with CommitmentSCU(node.port, ae_title="C") as other:
            other.store(images)
            assert path.stat().st_size < size_bytes
            other.ask("1.9.2", stored)
            assert other.report()[0] == ALL_COMMITTED
        path.unlink()
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.3", stored)
            assert failed(scu.report()[1]) == {stored[1][1]: 0x0110}


def test_who_sent_an_instance_does_not_matter_to_who_asks(tmp_path: Path, images: list[Dataset]) -> None:
    archive = replace(SCANNER, name="archive", ae_title="ARCHIVE")
    with committing_node(tmp_path, peers=(SCANNER, archive)) as node:
        with CommitmentSCU(node.port) as scanner:
            stored = scanner.store(images)
        with CommitmentSCU(node.port, ae_title="ARCHIVE") as asking:
            asking.ask("1.9.1", stored)
            assert asking.report()[0] == ALL_COMMITTED


def test_a_report_with_nothing_committed_has_no_empty_sequence(tmp_path: Path) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        scu.ask("1.9.1", [(CT_IMAGE, "1.2.3.4.5")])
        kind, report = scu.report()
        assert (kind, failed(report)) == (FAILURES_EXIST, {"1.2.3.4.5": 0x0112})
        assert "ReferencedSOPSequence" not in report


@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
@pytest.mark.parametrize(
    ("change", "status", "name"),
    [
        ({"action": 2}, 0x0123, "NO_SUCH_ACTION"),
        ({"instance": "1.2.840.10008.1.20.1.9"}, 0x0112, "NO_SUCH_SOP_INSTANCE"),
        ({"references": []}, 0x0115, "REFERENCES_MISSING"),
        ({"references": [(CT_IMAGE, "1.2..3")]}, 0x0115, "REFERENCE_INVALID"),
        ({"transaction_uid": "../.."}, 0x0115, "TRANSACTION_UID_INVALID"),
    ],
)
def test_what_cannot_be_served_is_refused_by_name(
    tmp_path: Path, change: dict[str, object], status: int, name: str
) -> None:
    arguments = {"transaction_uid": "1.9.1", "references": [(CT_IMAGE, "1.2.3")], **change}
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        answer = scu.ask(**arguments)  # type: ignore[arg-type]
        assert answer.Status == status
        assert str(answer.ErrorComment).startswith(f"{name}: ")
        reader = JournalReader(tmp_path / "journal.db")
        (refusal,) = reader.refusals()
        reader.close()
        assert (refusal["subject"], refusal["name"]) == ("commitment", name)
        assert refusal["reason"].startswith("scanner: ")
        assert node.commitments() == []
        assert scu.association.is_established


def test_the_same_transaction_is_told_again_and_never_for_other_instances(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        assert scu.ask("1.9.1", asked).Status == 0x0000
        first = scu.report()
        assert scu.ask("1.9.1", asked).Status == 0x0000
        assert scu.report()[1] == first[1]
        node.wait_for("reported")
        refused = scu.ask("1.9.1", asked[:2])
        assert refused.Status == 0x0115
        assert len(node.commitments()) == 1


def test_a_peer_that_goes_on_sending_is_told_when_it_pauses(tmp_path: Path, images: list[Dataset]) -> None:
    """A report between two C-STOREs would be taken for the answer to one."""
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        scu.ask("1.9.1", scu.store(images))
        until = time.monotonic() + 1.0
        sent = 0
        while time.monotonic() < until:
            scu.store(ct_series((1, 32, 40), seed=100 + sent))
            sent += 1
            assert scu.told.empty()
        assert scu.report()[0] == ALL_COMMITTED


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_that_is_down_is_told_when_it_is_back(tmp_path: Path, images: list[Dataset]) -> None:
    port = free_port()
    with committing_node(tmp_path, [at(port)]) as node:
        with CommitmentSCU(node.port) as scu:
            asked = scu.store(images)
            scu.ask("1.9.1", asked)
        row = node.wait_for_failure("PEER_UNREACHABLE")
        assert "check its host and port" in row["failure_reason"]
        with ReportSCP(port) as there:
            assert committed(there.report()[1]) == [instance for _, instance in asked]
            node.wait_for("reported")
            with pytest.raises(queue.Empty):
                there.report(0.8)


@pytest.mark.usefixtures("hangs_up")
def test_a_report_that_waits_survives_a_restart_and_says_what_is_true_then(
    tmp_path: Path, images: list[Dataset]
) -> None:
    port = free_port()
    with committing_node(tmp_path, [at(port)]) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        scu.ask("1.9.1", asked)
        scu.association.release()
        (kept,) = node.journal.kept_instances([asked[0][1]])
    (tmp_path / "spool" / kept.path).unlink()
    with ReportSCP(port) as there, committing_node(tmp_path, [at(port)]):
        kind, report = there.report()
        assert (kind, failed(report)) == (FAILURES_EXIST, {asked[0][1]: 0x0110})
        assert len(committed(report)) == 4


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_that_refuses_the_report_is_given_up_with_its_status(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with ReportSCP(answer=0x0112) as there, committing_node(tmp_path, [at(there.port)]) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        (row,) = node.wait_for("dead")
        assert row["failure_name"] == "REPORT_REFUSED"
        assert "0x0112" in row["failure_reason"]
        reader = JournalReader(tmp_path / "journal.db")
        (series,) = reader.series()
        events = [event["name"] for event in reader.series_details(series)["events"]]
        reader.close()
        assert events[-1] == "COMMITMENT_NOT_REPORTED"


def test_a_report_that_is_refused_on_the_open_association_is_told_on_another(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with (
        ReportSCP() as there,
        committing_node(tmp_path, [at(there.port)]) as node,
        CommitmentSCU(node.port, answer=0x0211) as scu,
    ):
        scu.ask("1.9.1", scu.store(images))
        assert there.report()[0] == ALL_COMMITTED
        node.wait_for("reported")
        assert scu.association.is_established


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_without_port_is_told_on_the_next_association_that_it_opens(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with committing_node(tmp_path) as node:
        with CommitmentSCU(node.port) as scu:
            asked = scu.store(images)
            scu.ask("1.9.1", asked)
        row = node.wait_for_failure("PEER_WITHOUT_PORT")
        assert "peers.scanner.port" in row["failure_reason"]
        with CommitmentSCU(node.port) as again:
            assert committed(again.report()[1]) == [instance for _, instance in asked]
            node.wait_for("reported")


@pytest.mark.usefixtures("hangs_up")
def test_a_peer_that_takes_tls_only_is_never_called_in_clear(tmp_path: Path, images: list[Dataset]) -> None:
    policy = Policy(0.1, 2.0, 0.2, 0.8, 1)
    with committing_node(tmp_path, policy=policy, tls_only=frozenset({"scanner"})) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        (row,) = node.wait_for("dead")
        assert row["failure_name"] == "PEER_TAKES_TLS_ONLY"


@pytest.mark.usefixtures("hangs_up")
def test_a_report_that_can_never_be_told_is_given_up(tmp_path: Path, images: list[Dataset]) -> None:
    policy = Policy(0.1, 2.0, 0.2, 0.8, 1)
    with committing_node(tmp_path, policy=policy) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        (row,) = node.wait_for("dead")
        assert row["failure_name"] == "PEER_WITHOUT_PORT"
    with committing_node(tmp_path / "2", [at(free_port())], policy=policy) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        (row,) = node.wait_for("dead")
        assert row["failure_name"] == "PEER_UNREACHABLE"
        assert "commitment.give_up_after" in row["failure_reason"]


def test_ten_thousand_references_are_answered_and_reported(tmp_path: Path, images: list[Dataset]) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        stored = scu.store(images)
        asked = stored + [(CT_IMAGE, uid(9, number)) for number in range(9995)]
        assert scu.ask("1.9.1", asked).Status == 0x0000
        kind, report = scu.report(60)
        assert (kind, len(committed(report)), len(failed(report))) == (FAILURES_EXIST, 5, 9995)
        assert scu.association.is_established


def test_a_request_for_all_of_a_series_completes_it_while_the_association_is_open(
    tmp_path: Path, images: list[Dataset]
) -> None:
    rules = CompletionRules(30.0, 900.0)
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        scu.ask("1.9.1", asked[:4])
        (series,) = node.journal.receiving_series()
        assert not isinstance(decide(series, 1, time.time(), rules), Complete)
        scu.ask("1.9.2", asked)
        (series,) = node.journal.receiving_series()
        outcome = decide(series, node.associations.count("scanner"), time.time() + 2.0, rules)
        assert isinstance(outcome, Complete)
        assert outcome.evidence["open_associations"] == 1
        assert len(node.asked) == 2  # whoever decides was woken


def test_a_request_cut_off_in_its_middle_leaves_nothing(tmp_path: Path) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        connection = scu.association.dul.socket.socket
        (context,) = (c for c in scu.association.accepted_contexts if c.abstract_syntax != CT_IMAGE)
        command = b"\x00\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00"
        pdv = struct.pack(">LBB", len(command) + 2, context.context_id, 1) + command
        connection.sendall(struct.pack(">BxL", 4, len(pdv)) + pdv)
        scu.association.abort()
        deadline = time.monotonic() + 10
        while node.associations.count() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert node.associations.count() == 0
        assert node.commitments() == []


def test_a_node_that_stops_tells_the_peers_that_wait(tmp_path: Path, images: list[Dataset]) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        node.stopping.set()
        scu.ask("1.9.1", asked)
        assert scu.report()[0] == ALL_COMMITTED
        node.wait_for("reported")


# -- trouble of ours ----------------------------------------------------------------------------


def unreadable(node: CommittingNode, sop_instance_uid: str) -> tuple[str, bytes]:
    """Make a file one that cannot be opened, also for root; its path below the spool, and its content."""
    (kept,) = node.journal.kept_instances([sop_instance_uid])
    path = node.spool.root / kept.path
    content = path.read_bytes()
    path.unlink()
    path.symlink_to(path.name)
    return kept.path, content


def test_a_file_that_cannot_be_opened_keeps_no_other_report_back(
    tmp_path: Path, images: list[Dataset]
) -> None:
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        stored = scu.store(images)
        path, content = unreadable(node, stored[0][1])
        scu.ask("1.9.1", stored)
        scu.ask("1.9.2", stored[1:])
        assert scu.report()[1].TransactionUID == "1.9.2"

        def waits() -> bool:
            row = node.commitments()[1]
            return bool(row["failure_name"] == "INSTANCE_NOT_VERIFIED" and path in row["failure_reason"])

        wait_until(waits, what="the reason why it is not told")
        (tmp_path / "restored").write_bytes(content)
        (tmp_path / "restored").replace(node.spool.root / path)
        kind, report = scu.report()
        assert (kind, report.TransactionUID) == (ALL_COMMITTED, "1.9.1")


@pytest.mark.parametrize("has_port", [False, True])
def test_a_report_whose_files_can_never_be_read_is_given_up_after_few_attempts(
    tmp_path: Path, images: list[Dataset], has_port: bool
) -> None:
    """Also while the peer waits on its association, on which it could be told at any time."""
    policy = Policy(1.0, 1.0, 1.0, 2.0, 1)
    with ReportSCP() as there:
        addresses = [at(there.port)] if has_port else []
        with committing_node(tmp_path, addresses, policy=policy) as node, CommitmentSCU(node.port) as scu:
            stored = scu.store(images)
            unreadable(node, stored[0][1])
            scu.ask("1.9.1", stored)
            (row,) = node.wait_for("dead")
            assert row["failure_name"] == "INSTANCE_NOT_VERIFIED"
            assert "commitment.give_up_after" in row["failure_reason"]
            assert row["attempts"] <= 5, "half a second lies between two"
            assert scu.told.empty()
            assert there.told.empty()


@pytest.mark.usefixtures("hangs_up")
def test_a_clock_that_is_set_back_makes_no_storm_of_attempts(tmp_path: Path, images: list[Dataset]) -> None:
    class Clock(SystemClock):
        back_s = 0.0

        def now_s(self) -> float:
            return super().now_s() - self.back_s

    clock, policy = Clock(), Policy(10.0, 2.0, 900.0, 3 * 86400.0, 1)
    with committing_node(tmp_path, policy=policy, clock=clock) as node:
        with CommitmentSCU(node.port) as scu:
            scu.ask("1.9.1", scu.store(images))
        node.wait_for_failure("PEER_WITHOUT_PORT")
        clock.back_s = 3600.0
        wait_until(lambda: node.commitments()[0]["attempts"] == 2, what="the overdue one")
        time.sleep(1.0)
        assert node.commitments()[0]["attempts"] == 2


def test_a_disk_that_is_too_full_for_images_is_too_full_for_requests(tmp_path: Path) -> None:
    with committing_node(tmp_path, keep_free_bytes=1 << 60) as node, CommitmentSCU(node.port) as scu:
        answer = scu.ask("1.9.1", [(CT_IMAGE, uid(9, 1))])
        assert answer.Status == 0x0213
        assert answer.ErrorComment.startswith("DISK_FULL: ")
        assert node.commitments() == []
        reader = JournalReader(tmp_path / "journal.db")
        (refusal,) = reader.refusals(subjects=["commitment"])
        reader.close()
        assert (refusal["name"], refusal["details"]["dimse_status"]) == ("DISK_FULL", "0213")


@pytest.mark.usefixtures("hangs_up")
def test_while_a_peer_is_down_an_attempt_reads_the_files_of_one_request_only(
    tmp_path: Path, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    examine = Keeper.examine

    def counted(self: Keeper, paths: list[str]) -> int:
        read.extend(paths)
        return examine(self, paths)

    monkeypatch.setattr(Keeper, "examine", counted)
    with committing_node(tmp_path, [at(free_port())], policy=Policy(2.0, 1.0, 2.0, 60.0, 1)) as node:
        with CommitmentSCU(node.port) as scu:
            for number, reference in enumerate(scu.store(images)):
                scu.ask(f"1.9.{number}", [reference])

        def attempts() -> int:
            return sum(row["attempts"] for row in node.commitments())

        wait_until(lambda: attempts() >= 2, what="a second attempt")
        files = len(read)
        assert files <= attempts() + 1  # one that may be under way


def test_a_request_that_was_told_long_ago_is_shortened_and_can_be_asked_for_again(
    tmp_path: Path, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_reporter, "_TOLD_IN_FULL_S", 0.0)
    with committing_node(tmp_path) as node, CommitmentSCU(node.port) as scu:
        asked = scu.store(images)
        scu.ask("1.9.1", asked)
        assert scu.report()[0] == ALL_COMMITTED
        wait_until(lambda: not node.journal.commitment_references(1), what="the references to be forgotten")
        assert node.commitments()[0]["asked"] == len(asked)
        assert scu.ask("1.9.1", asked[1:]).Status == 0x0115
        assert scu.ask("1.9.1", asked).Status == 0x0000
        assert committed(scu.report()[1]) == [instance for _, instance in asked]
