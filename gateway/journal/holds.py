"""Models that do not run at present: what ``explain``, the health page and the metrics tell of them."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.journal.connection import Transaction
from gateway.journal.edges import write_event
from gateway.journal.records import Failure


def replace_holds(work: Transaction, holds: Mapping[str, Failure], at: float) -> None:
    """Make the table say ``holds``; each card that begins or ends to be held is an event."""
    known = {row["card"]: Failure(row["name"], row["reason"]) for row in work.run("holds", {}).fetchall()}
    for card in sorted(known.keys() - holds.keys()):
        work.run("delete_hold", {"card": card})
        reason = f"The model {card} runs again; its jobs go on."
        write_event(work, "gateway", None, "MODEL_RUNS_AGAIN", reason, at, details={"card": card})
    for card, failure in holds.items():
        if known.get(card) == failure:
            continue
        work.run("delete_hold", {"card": card})
        work.run("insert_hold", {"card": card, **vars(failure), "at": at})
        write_event(work, "gateway", None, failure.name, failure.reason, at, details={"card": card})
