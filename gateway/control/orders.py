"""What a person can ask for, and what comes of it: one JSON line each."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from gateway.errors import GatewayError
from gateway.journal import Journal
from gateway.journal.decide import Person
from gateway.journal.profiles import Profiles

Verb = Literal["release", "discard", "resend"]
SOCKET_NAME = "control"
"""In the data folder."""

LONGEST_LINE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Order:
    """What is to be done with the results of a job.

    Attributes
    ----------
    by, why
        Who asks, and the reason that the event keeps.
    destination
        ``resend`` to this one only; empty: to every one.
    """

    verb: Verb
    job: int
    by: str
    why: str = ""
    destination: str = ""


@dataclass(frozen=True)
class Answer:
    """What came of it; ``refused`` is the name of the reason why not, or empty."""

    job: int
    text: str
    refused: str = ""


def carry_out(journal: Journal, order: Order, at: float, profiles: Profiles) -> Answer:
    """Do it; a refusal is an answer."""
    person = Person(order.by, order.why)
    try:
        match order.verb:
            case "release":
                text = journal.release_results(order.job, person, at, profiles)
            case "discard":
                text = journal.discard_results(order.job, person, at)
            case "resend":
                text = journal.resend_results(order.job, person, at, order.destination)
    except GatewayError as error:
        return Answer(order.job, error.reason, error.name)
    return Answer(order.job, text)


def encode(message: Order | Answer) -> bytes:
    """One line of UTF-8 JSON."""
    return json.dumps(asdict(message), ensure_ascii=False).encode() + b"\n"


def decode_order(line: bytes) -> Order:
    """Parse a line; raises ValueError for anything else."""
    fields = _fields(line, {"verb": str, "job": int, "by": str, "why": str, "destination": str})
    if fields["verb"] not in get_args(Verb) or not 0 < fields["job"] < 2**63:
        raise ValueError("not a verb, or not the number of a row")
    return Order(**fields)


def decode_answer(line: bytes) -> Answer:
    """Parse a line of the gateway; raises GatewayError for anything else."""
    try:
        return Answer(**_fields(line, {"job": int, "text": str, "refused": str}))
    except ValueError as error:
        sentence = "The gateway ended before it answered: look with `aigw study explain` what was done."
        raise GatewayError("NO_ANSWER", sentence) from error


def _fields(line: bytes, kinds: dict[str, type]) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except RecursionError as error:
        raise ValueError("not a message of this protocol") from error
    right = isinstance(fields, dict) and fields.keys() == kinds.keys()
    if not right or any(type(fields[name]) is not kind for name, kind in kinds.items()):
        raise ValueError("not a message of this protocol")
    return dict(fields)
