"""``aigw results``: what waits for a person, and what is decided. The running gateway carries it out."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import (
    EXIT_NOT_FOUND,
    EXIT_PARTLY,
    EXIT_STATE,
    EXIT_USAGE,
    ConfigOption,
    JsonOption,
    clock_text,
    fail,
    load,
    print_json,
)
from gateway.cli.find import open_journal, resolve
from gateway.cli.job_view import printable

if TYPE_CHECKING:
    from gateway.control.orders import Answer, Order, Verb
    from gateway.journal import JournalReader
    from gateway.settings import Settings

Record = dict[str, Any]
_LONGEST_TEXT = 2000  # characters; an order is one line of at most 64 KiB
TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="JOB|SERIES",
        help="Number of a job, as explain shows it; or a Series Instance UID, or its ending behind a dot or "
        "an ellipsis (…4711): all jobs of that series.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", help="Why; kept with the decision.")]
ByOption = Annotated[str, typer.Option("--by", help="Who decides; the user of this system when left out.")]

results = typer.Typer(help="What a person decides about results.", no_args_is_help=True)


@results.callback()
def _results() -> None:
    """What a person decides about results: release, discard, send again."""


@results.command("list")
def list_results(config: ConfigOption, as_json: JsonOption = False) -> None:
    """Jobs whose results are held, or have deliveries that were given up.

    With --json: {"jobs": [...]}, each with job, model, card, part, purpose, failure_name, failure_reason,
    finished_at, destinations, held, dead (deliveries given up), study_instance_uid, series_instance_uid,
    revision.
    """
    with open_journal(load(config)) as reader:
        waiting = reader.waiting_for_a_person()
    if as_json:
        print_json({"jobs": waiting})
        return
    for each in waiting:
        sys.stdout.write(f"job {each['job']}  series {each['series_instance_uid']}  model {each['model']}\n")
        if each["held"]:
            since = clock_text(each["finished_at"])
            why = printable(f"{each['failure_name']}: {each['failure_reason']}")
            sys.stdout.write(f"  held since {since}: {why}\n")
        if each["dead"]:
            sys.stdout.write(f"  {each['dead']} deliveries were given up; see `aigw study explain`\n")
    if not waiting:
        sys.stdout.write("Nothing waits for a person.\n")


@results.command()
def release(
    target: TargetArgument,
    config: ConfigOption,
    reason: ReasonOption,
    by: ByOption = "",
    as_json: JsonOption = False,
) -> None:
    """Send results that are held, after all. Exit 6 if none of them is held, 3 if some are not."""
    _decide("release", target, load(config), reason, by, as_json=as_json)


@results.command()
def discard(
    target: TargetArgument,
    config: ConfigOption,
    reason: ReasonOption,
    by: ByOption = "",
    as_json: JsonOption = False,
) -> None:
    """Decide that held results are never sent; they stay here. Exit 6 if none of them is held."""
    _decide("discard", target, load(config), reason, by, as_json=as_json)


@results.command()
def resend(
    target: TargetArgument,
    config: ConfigOption,
    to: Annotated[str, typer.Option("--to", help="Only to this peer.")] = "",
    reason: ReasonOption = "",
    by: ByOption = "",
    as_json: JsonOption = False,
) -> None:
    """Send once more what was sent or given up: the stored objects, byte for byte, under the same UIDs."""
    settings = load(config)
    if to and to not in settings.peers:
        known = ", ".join(settings.peers)
        fail("UNKNOWN_PEER", f"{to!r} is no peer of the configuration ({known}).", EXIT_NOT_FOUND)
    jobs = _jobs(settings, target, lambda job: _was_given_to_senders(job, to))
    _carry_out(settings, _orders("resend", jobs, by, reason, to), as_json=as_json)


def _decide(verb: Verb, target: str, settings: Settings, why: str, by: str, *, as_json: bool) -> None:
    """What is to become of held results."""
    _insist_on(why)
    jobs = _jobs(settings, target, lambda job: bool(job["held"]))
    _carry_out(settings, _orders(verb, jobs, by, why), as_json=as_json)


def _insist_on(reason: str) -> None:
    if not reason.strip():
        fail("NO_REASON", "Say why with --reason: it is kept with the decision.", EXIT_USAGE)


def _was_given_to_senders(job: Record, to: str) -> bool:
    deliveries = [delivery for result in job["results"] for delivery in result["deliveries"]]
    return any(d["state"] in ("sent", "dead") and to in ("", d["destination"]) for d in deliveries)


def _jobs(settings: Settings, target: str, wanted: Callable[[Record], bool]) -> list[int]:
    """The job that is named; or those of a series, in its newest revision, that the verb is about."""
    with open_journal(settings) as reader:
        if target.isdecimal():
            return [_known_job(reader, int(target))]
        if "." not in target and "…" not in target:
            sentence = "Name a job by its number, a series by its UID, or by an ending such as …4711."
            fail("NOT_A_TARGET", sentence, EXIT_USAGE)
        records = reader.series()
        column, uid = resolve(records, target, ("series_instance_uid",))
        of_series = [record for record in records if record[column] == uid]
        newest = max(of_series, key=lambda record: int(record["revision"]))
        jobs = reader.series_details(newest)["jobs"]
    found = [int(job["id"]) for job in jobs if wanted(job)]
    if not found:
        states = ", ".join(f"job {job['id']} is {_state(job)}" for job in jobs) or "it has no job"
        fail("NOTHING_TO_DO", f"No result of series {uid} is in question: {states}.", EXIT_STATE)
    return found


def _state(job: Record) -> str:
    return f"{job['state']}, {job['failure_name']}" if job["failure_name"] else str(job["state"])


def _known_job(reader: JournalReader, number: int) -> int:
    if not reader.has_job(number):
        fail(
            "NOT_FOUND",
            f"There is no job {number}; `aigw study explain` shows their numbers.",
            EXIT_NOT_FOUND,
        )
    return number


def _orders(verb: Verb, jobs: Sequence[int], by: str, why: str, destination: str = "") -> list[Order]:
    from gateway.control import Order

    if max(len(by), len(why)) > _LONGEST_TEXT:
        fail("TOO_LONG", f"--reason and --by have at most {_LONGEST_TEXT} characters.", EXIT_USAGE)
    who, why = _clean(by) or _user(), _clean(why)
    return [Order(verb, job, who, why, destination) for job in jobs]


def _clean(text: str) -> str:
    """Without bytes that are no characters: a terminal with another encoding gives them."""
    return text.encode("utf-8", "replace").decode().strip()


def _user() -> str:
    """The user of this system; in a container it may have a number only."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def _carry_out(settings: Settings, orders: Sequence[Order], *, as_json: bool) -> None:
    """Do it, say what came of each, and leave with the exit code for all."""
    from gateway.clock import SystemClock
    from gateway.control import carry_out_orders
    from gateway.process import lock_data_dir
    from gateway.settings.runtime import profiles

    data_dir = settings.data_dir
    answers = carry_out_orders(data_dir, orders, profiles(settings), SystemClock(), lock_data_dir)
    if as_json:
        print_json({"jobs": [vars(answer) for answer in answers]})
    else:
        _tell(answers)
    refused = [answer for answer in answers if answer.refused]
    if refused:
        raise typer.Exit(EXIT_PARTLY if len(refused) < len(answers) else EXIT_STATE)


def _tell(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.refused:
            sys.stderr.write(f"job {answer.job}: {answer.refused}: {answer.text}\n")
        else:
            sys.stdout.write(f"job {answer.job}: {answer.text}\n")
