"""What a person sees of requests for storage commitment: `aigw study commitments` and explain."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

from rich.console import Console

from gateway.cli.commitment_view import print_commitments
from gateway.journal import JournalReader
from gateway.journal.commitment_records import NewCommitment, Outcome
from gateway.journal.records import Failure
from tests.journals import SERIES, Site

CT = "1.2.840.10008.5.1.4.1.1.2"
DOWN = Failure("PEER_UNREACHABLE", "scanner cannot be called: check its host and port.")


def shown(path: Path) -> str:
    console = Console(width=300, record=True, file=StringIO())
    reader = JournalReader(path)
    print_commitments(reader.commitments(), console)
    reader.close()
    return console.export_text()


def test_nothing_was_asked(tmp_path: Path) -> None:
    Site(tmp_path / "journal.db")
    assert shown(tmp_path / "journal.db") == "Nobody has asked for storage commitment yet.\n"


def test_each_request_says_what_was_told_or_why_it_was_not(tmp_path: Path) -> None:
    site = Site(tmp_path / "journal.db")
    site.receive()
    here, gone = (CT, f"{SERIES}.1"), (CT, "1.2.3.4.5")
    outcome = Outcome((here,), ((*gone, 0x0112),), {("1.2", SERIES): 1}, {("1.2", SERIES): 1})
    for number in range(4):
        request = NewCommitment("scanner", "SCANNER", f"1.9.{number}", (here, gone))
        site.journal.ask_commitment(request, outcome, site.at, site.tick(), 10)
    first, second, third, _ = (
        site.journal.claim_commitment(each.id, site.tick()) for each in site.journal.waiting_commitments(1e9)
    )
    site.journal.commitment_reported(first, outcome, "there", site.tick())
    site.journal.commitment_postponed(second, DOWN, site.at + 60, site.tick())
    site.journal.commitment_dead(third, outcome, DOWN, site.tick())
    lines = shown(tmp_path / "journal.db").splitlines()
    assert [line.split("scanner: ")[1] for line in lines if "scanner: " in line] == [
        "2 instances, reporting  1.9.3",
        "2 instances, dead  1.9.2",
        "2 instances, pending  1.9.1",
        "2 instances, reported  1.9.0",
    ]
    text = " ".join(" ".join(lines).split())
    assert "reported: 1 of 2 instances committed; 1 never arrived (0112)." in text
    assert text.count("PEER_UNREACHABLE (1 attempt): scanner cannot be called") == 2
    assert "It is tried again at 1970-01-01 00:01:" in text
    assert "the peer may ask once more" in text
    told = [e["name"] for e in site.stories()[0]["events"] if e["name"].startswith("COMMITMENT")]
    assert told == ["COMMITMENT_ASKED"] * 4 + ["COMMITMENT_REPORTED", "COMMITMENT_NOT_REPORTED"]
