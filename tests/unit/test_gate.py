"""Who may open an association: titles, addresses, certificates, room; and what is written down."""

from __future__ import annotations

import ipaddress
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.journal import Journal, JournalReader
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers
from gateway.receive.calls import Call, KnownPeer, Node, Refusal
from gateway.receive.gate import Gate, RefusalLog
from gateway.receive.names import Names
from gateway.receive.records import Incidents
from gateway.receive.refusals import describe
from gateway.receive.stow.access import WebCallers, WebPeer
from gateway.receive.stow.request import StoreHead, StowRefused
from gateway.receive.tls.certificates import ExpectedCertificate, PeerCertificate
from tests.waiting import wait_until

CT1 = PeerCertificate("CN=ct1,O=Clinic", "a" * 64, 2e9)
CT2 = PeerCertificate("CN=ct2,O=Clinic", "b" * 64, 2e9)
NODE = Node("AIGW", 11112, 2762)


class FixedClock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now_s(self) -> float:
        return self.s

    def monotonic_s(self) -> float:
        return self.s


def call(
    calling: str = "CT",
    address: str = "192.0.2.1",
    certificate: PeerCertificate | None = None,
    *,
    called: str = "AIGW",
    secure: bool | None = None,
    association: object = None,
) -> Call:
    is_secure = certificate is not None if secure is None else secure
    return Call(association or object(), called, calling, address, certificate, is_secure)


def identify(peers: Sequence[KnownPeer], made: Call, unknown: Literal["accept", "reject"] = "reject") -> str:
    """Name of the peer, or of the refusal."""
    return Callers(NODE, peers, unknown).identify(made).name


@pytest.mark.parametrize(
    ("address", "found"),
    [
        ("192.0.2.1", "ct"),
        ("::ffff:192.0.2.1", "ct"),
        ("10.1.2.3", "ct"),
        ("fd00::12", "ct"),
        ("fd00::12%eth0", "ct"),
        ("10.2.0.0", "ADDRESS_NOT_ALLOWED"),
        ("fe80::1", "ADDRESS_NOT_ALLOWED"),
        ("", "ADDRESS_NOT_ALLOWED"),
    ],
)
def test_a_peer_calls_from_its_host_its_addresses_and_its_ranges(address: str, found: str) -> None:
    peer = KnownPeer("ct", "CT", "192.0.2.1", addresses=("10.1.0.0/16", "fd00::/8"))
    assert identify([peer], call(address=address)) == found


def test_one_title_at_two_addresses_is_two_peers() -> None:
    peers = [KnownPeer("a", "CT", "192.0.2.1"), KnownPeer("b", "CT", "192.0.2.2")]
    assert identify(peers, call(address="192.0.2.2")) == "b"


def test_one_title_at_one_address_is_told_apart_by_certificate() -> None:
    peers = [
        KnownPeer("open", "CT", "192.0.2.1"),
        KnownPeer("a", "CT", "192.0.2.1", certificate="O=Clinic,CN=ct1"),
        KnownPeer("b", "CT", "192.0.2.1", certificate="sha256:" + "b" * 64),
    ]
    assert identify(peers, call(certificate=CT1)) == "a"
    assert identify(peers, call(certificate=CT2)) == "b"
    assert identify(peers, call()) == "open"


def test_a_certificate_binds_a_title() -> None:
    peers = [
        KnownPeer("a", "CT", "192.0.2.1", certificate="CN=ct1,O=Clinic"),
        KnownPeer("b", "MR", "192.0.2.1"),
    ]
    assert identify(peers, call(certificate=CT1)) == "a"
    assert identify(peers, call()) == "TLS_REQUIRED"
    assert identify(peers, call(secure=True)) == "CERTIFICATE_MISSING"
    assert identify(peers, call(certificate=CT2)) == "CERTIFICATE_NOT_EXPECTED"
    for unknown in ("reject", "accept"):
        assert identify(peers, call("MR", certificate=CT1), unknown) == "CERTIFICATE_OF_ANOTHER_PEER"
        assert identify(peers, call("XX", certificate=CT1), unknown) == "CERTIFICATE_OF_ANOTHER_PEER"
    assert identify(peers, call("MR", certificate=CT2)) == "b"


def test_unknown_callers_are_taken_where_that_is_wanted_but_not_instead_of_a_known_one() -> None:
    peers = [KnownPeer("ct", "CT", "192.0.2.1", tls="required")]
    assert identify(peers, call("X\x1b[2J", "192.0.2.3"), "accept") == "X\\x1b[2J@192.0.2.3"
    assert identify(peers, call("X"), "reject") == "CALLING_AE_TITLE_NOT_RECOGNISED"
    assert identify(peers, call(), "accept") == "TLS_REQUIRED"
    assert identify(peers, call(called="OTHER"), "accept") == "CALLED_AE_TITLE_NOT_RECOGNISED"


@pytest.mark.parametrize(
    "text",
    ["CN=ct1,O=Clinic", "O=Clinic, CN=ct1", "CN = ct1, O = Clinic", "cn=CT1,o=clinic", "CN=ct1+O=Clinic"],
)
def test_a_subject_is_compared_by_its_attributes(text: str) -> None:
    expected = ExpectedCertificate.parse(text)
    assert expected.matches(CT1)
    assert not expected.matches(CT2)
    assert not expected.matches(PeerCertificate("CN=ct1,O=Clinic,OU=x", "c" * 64, 0)), "all of them"


def test_values_with_commas_and_fingerprints_with_colons_are_understood() -> None:
    comma = PeerCertificate("CN=ct\\, 1,O=A \\+ B", "c" * 64, 0)
    assert ExpectedCertificate.parse("O=A \\+ B,CN=ct\\, 1").matches(comma)
    assert ExpectedCertificate.parse("SHA256:" + ":".join(["CC"] * 32)).matches(comma)
    for wrong in ("", "ct1", "sha256:12", "CN=", "=x"):
        with pytest.raises(ValueError, match=r"CN=|sha256"):
            ExpectedCertificate.parse(wrong)


@pytest.mark.parametrize(
    ("common_name", "organisation"),
    [
        (" ct1 ", "Clinic"),
        ("ct1", "#1"),
        ("ct1 ", "Clinic "),
        ("ct1\\", "a, O = b"),
        ("#", " x"),
        ("x", "A+B=C"),
    ],
)
def test_a_subject_copied_from_our_own_log_is_the_same_one(common_name: str, organisation: str) -> None:
    shown = PeerCertificate(subject(common_name, organisation), "c" * 64, 0)
    for copied in (shown.subject, shown.subject.strip(), describe(shown).rpartition(" (")[0]):
        assert ExpectedCertificate.parse(copied).matches(shown)
        assert not ExpectedCertificate.parse(copied).matches(CT2)


def test_a_subject_that_is_no_text_is_nobodys() -> None:
    """Octets in it (X.501 bit strings) cannot be written into a setting; the fingerprint can."""
    octets = PeerCertificate("CN=ct1,2.5.4.45=#ff", "c" * 64, 0)
    assert not ExpectedCertificate.parse("CN=ct1").matches(octets)
    assert ExpectedCertificate.parse("sha256:" + "c" * 64).matches(octets)


def subject(common_name: str, organisation: str) -> str:
    """As certificates.facts has it."""
    name = [
        x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
    ]
    return x509.Name(name).rfc4514_string()


def test_a_slow_name_server_holds_the_first_caller_up_for_a_moment_and_nobody_else() -> None:
    answer = threading.Event()

    def slow(_: str) -> Any:
        answer.wait(20)
        return frozenset({ipaddress.ip_address("192.0.2.1")})

    callers = Callers(NODE, [KnownPeer("ct", "CT", "ct.clinic")], "reject", Names(slow, wait_s=0.2))
    began_s = time.monotonic()
    refused = callers.identify(call())
    assert time.monotonic() - began_s < 15
    assert isinstance(refused, Refusal)
    assert (refused.name, refused.result) == ("HOST_NAME_NOT_RESOLVED", 2), "transient: it may try again"
    answer.set()
    deadline_s = time.monotonic() + 20
    while callers.identify(call()).name != "ct":
        assert time.monotonic() < deadline_s


ONE, OTHER = (frozenset({ipaddress.ip_address(f"192.0.2.{number}")}) for number in (1, 2))


def test_a_peer_that_has_moved_is_let_in_at_its_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name server knows it since the night, and our last answer is of yesterday."""
    truth = {"ct.clinic": ONE}
    callers = Callers(
        NODE, [KnownPeer("ct", "CT", "ct.clinic")], "reject", Names(lambda host: truth[host], wait_s=20)
    )
    assert callers.identify(call()).name == "ct"
    truth["ct.clinic"] = OTHER
    later(monkeypatch, 8 * 3600.0)
    assert callers.identify(call(address="192.0.2.2")).name == "ct"
    assert callers.identify(call()).name == "ADDRESS_NOT_ALLOWED", "the answer is of this minute"


def test_a_peer_that_has_moved_may_store_over_http_at_its_first_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    truth = {"ct.clinic": ONE}
    peer = KnownPeer("ct", "CT", "ct.clinic")
    web_peer = WebPeer(peer, token="t0ken")  # noqa: S106
    callers = WebCallers([web_peer], Names(lambda host: truth[host], wait_s=20))
    fields: dict[str, tuple[str, ...]] = {"authorization": ("Bearer t0ken",)}
    assert callers.identify(StoreHead("192.0.2.1", fields)) is peer
    truth["ct.clinic"] = OTHER
    later(monkeypatch, 8 * 3600.0)
    assert callers.identify(StoreHead("192.0.2.2", fields)) is peer
    with pytest.raises(StowRefused, match="which is none of its addresses"):
        callers.identify(StoreHead("192.0.2.1", fields))


def test_a_wrong_address_is_refused_for_now_only_while_nobody_knows_the_right_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer, silent = threading.Event(), threading.Event()

    def once(_: str) -> Any:
        if silent.is_set():
            answer.wait(20)
            raise OSError
        silent.set()
        return ONE

    names = Names(once, wait_s=0.2)
    callers = Callers(NODE, [KnownPeer("ct", "CT", "ct.clinic")], "reject", names)
    wait_until(lambda: names.addresses("ct.clinic"))
    later(monkeypatch, 3600.0)
    for _ in range(2):  # while the question is open, and after it has failed
        refused = callers.identify(call(address="192.0.2.2"))
        assert isinstance(refused, Refusal)
        assert (refused.name, refused.result) == ("HOST_NAME_NOT_RESOLVED", 2)
        assert callers.identify(call()).name == "ct", "the old address is still good for its own"
        answer.set()
        wait_until(lambda: names.ask("ct.clinic").under_way is None)


def test_a_peer_that_is_placed_waits_for_no_name_of_another_one_with_its_title() -> None:
    answer = threading.Event()

    def slow(_: str) -> Any:
        answer.wait(20)
        return OTHER

    peers = [KnownPeer("a", "CT", "a.clinic"), KnownPeer("b", "CT", "192.0.2.1")]
    names = Names(slow, wait_s=60)
    assert Callers(NODE, peers, "reject", names).identify(call()).name == "b"
    assert names.ask("a.clinic").under_way is not None, "nobody waited for the answer"
    answer.set()


def test_a_name_is_looked_up_again_after_there_was_no_thread_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        callers = Callers(
            NODE, [KnownPeer("ct", "CT", "ct.clinic")], "reject", Names(lambda _: ONE, wait_s=20)
        )
        assert callers.identify(call()).name == "HOST_NAME_NOT_RESOLVED"
    assert callers.identify(call()).name == "ct"


def later(monkeypatch: pytest.MonkeyPatch, by_s: float) -> None:
    """Let the clock that answers grow old by be ahead."""
    real = time.monotonic
    monkeypatch.setattr("gateway.receive.names.time.monotonic", lambda: real() + by_s)


def test_a_name_that_fails_later_keeps_its_last_address() -> None:
    answers = [frozenset({ipaddress.ip_address("192.0.2.1")})]

    def once(_: str) -> Any:
        if not answers:
            raise OSError
        return answers.pop()

    names = Names(once, wait_s=2)
    assert not names.unsure(["ct.clinic"])
    names.ask("ct.clinic").looked_up_s = float("-inf")
    deadline_s = time.monotonic() + 20
    while not names.ask("ct.clinic").failed:
        assert time.monotonic() < deadline_s
    assert names.addresses("ct.clinic") == frozenset({ipaddress.ip_address("192.0.2.1")})


# -- room, and what is written ------------------------------------------------------------------


class Door:
    """A gate with its journal and log."""

    def __init__(
        self,
        folder: Path,
        peers: Sequence[KnownPeer],
        most: int,
        unknown: Literal["accept", "reject"] = "reject",
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self.clock = FixedClock()
        self.journal = Journal(folder / "journal.db")
        self.reader = JournalReader(folder / "journal.db")
        self.associations = OpenAssociations()
        log = structlog.wrap_logger(
            None,
            processors=[self._keep],
            wrapper_class=structlog.make_filtering_bound_logger(0),
        )
        self.incidents = Incidents(self.journal, self.clock, log)
        written = RefusalLog(self.incidents)
        self.gate = Gate(Callers(NODE, peers, unknown), most, self.associations, written)

    def _keep(self, _: Any, __: str, event: Any) -> Any:
        self.lines.append(dict(event))
        raise structlog.DropEvent

    def decide(self, made: Call) -> str:
        return self.gate.decide(made).name


def test_one_peer_never_takes_every_place(tmp_path: Path) -> None:
    peers = [KnownPeer("a", "A", "192.0.2.1"), KnownPeer("b", "B", "192.0.2.1", max_associations=2)]
    door = Door(tmp_path, peers, 8)
    assert [door.decide(call("A")) for _ in range(7)] == ["a"] * 6 + ["TOO_MANY_ASSOCIATIONS_OF_PEER"]
    first = call("B")
    assert [door.decide(first), door.decide(call("B"))] == ["b", "b"]
    assert door.decide(call("B")) == "TOO_MANY_ASSOCIATIONS_OF_PEER", "its own limit"
    door.associations.closed(first.association)
    assert door.decide(call("B")) == "b"


def test_a_place_that_is_just_becoming_free_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many senders abort or close, and call again at once: the end of the first may be noticed later."""
    door = Door(tmp_path, [KnownPeer("a", "A", "192.0.2.1", max_associations=1)], 4)
    first = call("A")
    assert door.decide(first) == "a"
    with monkeypatch.context() as patch:
        patch.setattr("gateway.receive.gate.GRACE_S", 20.0)
        ending = threading.Timer(0.05, door.associations.closed, [first.association])
        ending.start()
        assert door.decide(call("A")) == "a"
        ending.join()
    assert door.decide(call("A")) == "TOO_MANY_ASSOCIATIONS_OF_PEER"
    assert door.associations.count() == 1


def test_all_places_may_be_taken_by_the_only_peer(tmp_path: Path) -> None:
    door = Door(tmp_path, [KnownPeer("a", "A", "192.0.2.1")], 4)
    assert [door.decide(call("A")) for _ in range(5)] == ["a"] * 4 + ["TOO_MANY_ASSOCIATIONS"]


def test_unknown_callers_of_one_address_are_one_whatever_they_call_themselves(tmp_path: Path) -> None:
    door = Door(tmp_path, [KnownPeer("a", "A", "192.0.2.1")], 8, "accept")
    names = [door.decide(call(f"X{n}", "192.0.2.66")) for n in range(7)]
    assert names == [*(f"X{n}@192.0.2.66" for n in range(6)), "TOO_MANY_ASSOCIATIONS_OF_PEER"]
    assert door.decide(call("A")) == "a"


def test_places_are_counted_right_with_many_threads(tmp_path: Path) -> None:
    door = Door(tmp_path, [KnownPeer("a", "A", "192.0.2.1")], 10)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(door.decide(call("A")))) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found.count("a") == 10 == door.associations.count()


def test_a_refusal_is_logged_recorded_and_counted_with_the_letter(tmp_path: Path) -> None:
    peers = [KnownPeer("ct", "CT", "192.0.2.1", certificate="CN=ct1,O=Clinic")]
    door = Door(tmp_path, peers, 4)
    door.decide(call(called="A\nB", calling="C\x1b%s"))
    door.decide(call(certificate=CT2))
    wrong, title = door.reader.refusals()
    assert title["name"] == "CALLED_AE_TITLE_NOT_RECOGNISED"
    assert title["details"] == {
        "source": "",
        "address": "192.0.2.1",
        "called": "A\\nB",
        "calling": "C\\x1b%s",
        "advice": title["details"]["advice"],
    }
    for said in (
        "192.0.2.1",
        "without TLS (port 11112)",
        "'C\\x1b%s'",
        "'A\\nB'",
        "to 'AIGW' at your system",
    ):
        assert said in title["details"]["advice"]
    assert wrong["details"]["source"] == "ct"
    for said in ("with TLS (port 2762)", "CN=ct2,O=Clinic", "sha256:" + "b" * 64, "CN=ct1,O=Clinic"):
        assert said in wrong["details"]["advice"]
    assert [line["name"] for line in door.lines] == [
        "CALLED_AE_TITLE_NOT_RECOGNISED",
        "CERTIFICATE_NOT_EXPECTED",
    ]
    assert door.lines[0]["advice"] == title["details"]["advice"]
    assert not any(c in str(line) for line in door.lines for c in "\n\x1b")


ROOT = Path(__file__).resolve().parents[2]
REJECTIONS = {
    name: tuple(int(number) for number in re.findall(r"\d+", numbers))
    for numbers, names in re.findall(
        r"^\| (\d, \d, \d(?: \(transient\))?) \| (.+) \|$",
        (ROOT / "docs" / "receive.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for name in re.findall(r"`([A-Z_]+)`", names)
}
"""Name → (result, source, reason) by the table of A-ASSOCIATE-RJ in the handbook."""

BOUND = KnownPeer("ct", "CT", "192.0.2.1", certificate="CN=ct1,O=Clinic")
TWO = (BOUND, KnownPeer("mr", "MR", "192.0.2.1", max_associations=1))
PROVOKED: dict[str, tuple[Sequence[KnownPeer], Callable[[Gate], Any]]] = {
    "CALLED_AE_TITLE_NOT_RECOGNISED": (TWO, lambda gate: gate.decide(call(called="OTHER"))),
    "CALLING_AE_TITLE_NOT_RECOGNISED": (TWO, lambda gate: gate.decide(call("NOBODY"))),
    "ADDRESS_NOT_ALLOWED": (TWO, lambda gate: gate.decide(call("MR", "192.0.2.9"))),
    "CERTIFICATE_MISSING": (TWO, lambda gate: gate.decide(call(secure=True))),
    "CERTIFICATE_NOT_EXPECTED": (TWO, lambda gate: gate.decide(call(certificate=CT2))),
    "CERTIFICATE_OF_ANOTHER_PEER": (TWO, lambda gate: gate.decide(call("MR", certificate=CT1))),
    "TLS_REQUIRED": (TWO, lambda gate: gate.decide(call())),
    "APPLICATION_CONTEXT_NOT_SUPPORTED": (
        TWO, lambda gate: gate.decide(replace(call("MR"), application_context="1.2\n3")),
    ),
    "HOST_NAME_NOT_RESOLVED": (
        [KnownPeer("us", "US", "nowhere.invalid")], lambda gate: gate.decide(call("US")),
    ),
    "INTERNAL_ERROR": (TWO, lambda gate: gate.failed(call("MR"))),
    "TOO_MANY_ASSOCIATIONS": (
        [KnownPeer("mr", "MR", "192.0.2.1")], lambda gate: [gate.decide(call("MR")) for _ in range(5)][-1],
    ),
    "TOO_MANY_ASSOCIATIONS_OF_PEER": (TWO, lambda gate: [gate.decide(call("MR")) for _ in range(2)][-1]),
}  # fmt: skip


def test_the_table_of_rejections_names_them_all() -> None:
    assert set(REJECTIONS) == set(PROVOKED)


@pytest.mark.parametrize("name", REJECTIONS)
def test_every_rejection_of_the_table_is_recorded_with_the_text_for_the_other_side(
    tmp_path: Path, name: str
) -> None:
    peers, provoke = PROVOKED[name]
    door = Door(tmp_path, peers, 4)
    refusal = provoke(door.gate)
    assert (refusal.name, refusal.result, refusal.source, refusal.diagnostic) == (name, *REJECTIONS[name])
    (record,) = door.reader.refusals()
    assert (record["subject"], record["name"], record["reason"]) == ("association", name, refusal.reason)
    advice = record["details"]["advice"]
    assert advice.startswith("Your system asked our DICOM node for an association, which we refused.")
    assert re.search(r"Please|please", advice), "what to do"
    assert "192.0.2." in advice
    assert not re.search(r"[\x00-\x1f]", advice)
    assert [(line["event"], line["advice"]) for line in door.lines] == [("association_rejected", advice)]
    assert door.incidents.counts() == {name: 1}


def test_an_association_of_no_use_is_recorded_with_what_was_proposed(tmp_path: Path) -> None:
    door = Door(tmp_path, TWO, 4)
    restricted = KnownPeer("mr", "MR", "192.0.2.1", storage_classes=("1.2",))
    for peer in (restricted, KnownPeer("X@192.0.2.9", "X", "192.0.2.9", is_configured=False)):
        told = call(peer.ae_title, peer.host)
        door.gate.narrowed(told, peer, ["CTImageStorage: not taken", "1.2.3: why"], is_useless=True)
    stranger, known = door.reader.refusals()
    assert known["name"] == stranger["name"] == "NO_PRESENTATION_CONTEXT_ACCEPTED"
    assert "dicom.storage_classes and peers.mr.storage_classes" in known["reason"]
    assert "peers." not in stranger["reason"]
    assert (known["details"]["source"], stranger["details"]["source"]) == ("mr", "")
    assert "CTImageStorage: not taken; 1.2.3: why. Please let it send" in known["details"]["advice"]
    assert "accepted without any presentation context" in known["details"]["advice"]


def test_callers_that_are_new_each_time_hide_no_other(tmp_path: Path) -> None:
    door = Door(tmp_path, TWO, 4)
    for number in range(1100):
        stranger = KnownPeer(f"X@192.0.2.{number}", "X", "192.0.2.9", is_configured=False)
        door.gate.narrowed(call("X"), stranger, ["CTImageStorage: not taken"], is_useless=False)
    door.clock.s += 100
    door.gate.narrowed(call("MR"), KnownPeer("mr", "MR", "192.0.2.1"), ["news"], is_useless=False)
    assert "mr proposed" in door.reader.refusals()[0]["reason"]


def test_an_association_that_gets_a_part_is_recorded_once_for_each_answer(tmp_path: Path) -> None:
    """A system that can send nothing that it was made for may still verify: nobody would know."""
    door = Door(tmp_path, TWO, 4)
    peer = KnownPeer("mr", "MR", "192.0.2.1")
    for answer in ("CTImageStorage: not taken", "MRImageStorage: not taken", "CTImageStorage: not taken"):
        for _ in range(2):
            door.gate.narrowed(call("MR"), peer, [answer], is_useless=False)
            door.clock.s += 100
    records = door.reader.refusals()
    assert [each["name"] for each in records] == ["PRESENTATION_CONTEXTS_REFUSED"] * 2
    assert "MRImageStorage: not taken" in records[0]["reason"]
    assert "with a part of its presentation contexts" in records[0]["details"]["advice"]
    assert "Nothing can be sent in these presentation contexts: MRImage" in records[0]["details"]["advice"]


def test_the_same_refusal_is_written_once_a_minute_and_counted_every_time(tmp_path: Path) -> None:
    door = Door(tmp_path, [KnownPeer("ct", "CT", "192.0.2.1")], 4)
    for _ in range(1000):
        door.decide(call("NOBODY"))
    assert len(door.reader.refusals()) == 1
    door.clock.s += 61
    door.decide(call("NOBODY"))
    newest, first = door.reader.refusals()
    assert "repeated" not in first["details"]
    assert newest["details"]["repeated"] == 999
    assert door.incidents.counts() == {"CALLING_AE_TITLE_NOT_RECOGNISED": 1001}
    for n in range(1000):
        door.decide(call(f"N{n}"))
    assert len(door.reader.refusals(2000)) <= 130, "ten thousand names fill no disk"


def test_the_certificate_that_a_peer_showed_last_is_remembered(tmp_path: Path) -> None:
    door = Door(tmp_path, [KnownPeer("ct", "CT", "192.0.2.1")], 4)
    door.decide(call(certificate=CT1))
    door.decide(call(certificate=CT2))
    assert door.gate.certificates_seen() == {"ct": CT2}
