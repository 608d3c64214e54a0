"""``aigw study``: what arrived, what was decided and why, what was sent. Reads the journal, never writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from gateway.cli.common import ConfigOption, JsonOption, console, load, print_json
from gateway.cli.find import open_journal, resolve

if TYPE_CHECKING:
    from pathlib import Path

Record = dict[str, Any]
UidArgument = Annotated[str, typer.Argument(help="Study or Series Instance UID, or any unique ending of it.")]
LimitOption = Annotated[int, typer.Option(help="Show at most this many, the newest.", min=1)]

study = typer.Typer(help="What arrived, what was decided and why, what was sent.", no_args_is_help=True)


@study.callback()
def _study() -> None:
    """What arrived, what was decided and why, what was sent."""


@study.command("list")
def list_series(config: ConfigOption, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """One line for each series (and revision of it) that arrived.

    With --json: {"series": [...]}, each with study_instance_uid, series_instance_uid, revision,
    modality, description, instances, source, state, parts, decision, job, results, deliveries, opened_at.
    """
    from gateway.cli.study_view import print_list, story, summary

    with open_journal(load(config)) as reader:
        rows = [summary(story(reader, record)) for record in reader.series()[-limit:]]
    if as_json:
        print_json({"series": rows})
    else:
        print_list(rows, console())


@study.command()
def show(uid: UidArgument, config: ConfigOption, as_json: JsonOption = False) -> None:
    """The state of a study or series: verdict, job, results with their UIDs, deliveries.

    With --json: the same object as explain.
    """
    from gateway.cli.study_view import print_state

    stories = _find(config, uid)
    if as_json:
        print_json({"series": stories})
        return
    for each in stories:
        print_state(each, console())


@study.command()
def explain(
    config: ConfigOption,
    uid: Annotated[str, typer.Argument(help="As for show; without it, what was refused lately.")] = "",
    refusals: Annotated[bool, typer.Option(help="Associations and instances refused lately.")] = False,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Why a series did or did not get a result: every decision in order, from its record.

    With --json: {"series": [...]}, each with the columns of list and evidence, verdict and decision
    (routes with every condition: wanted, seen, matched), both with parts for the volumes of the series,
    conflicts (other bytes of a UID that are not used, or not any more), copies (instances, times: the same
    bytes again), damaged (instances whose file is), jobs (part, attempts, failure, results with
    deliveries), events.
    With --refusals: {"refusals": [...]} with at, subject, name, reason, details (source, address, count,
    advice).
    """
    from gateway.cli.refusal_view import print_refusals
    from gateway.cli.study_view import print_story

    if uid and not refusals:
        stories = _find(config, uid)
        if as_json:
            print_json({"series": stories})
            return
        for each in stories:
            print_story(each, console())
        return
    with open_journal(load(config)) as reader:
        found = reader.refusals(limit)
    if as_json:
        print_json({"refusals": found})
    else:
        print_refusals(found, console())


@study.command()
def commitments(config: ConfigOption, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """Requests for storage commitment: who asked for how many instances, and what was reported.

    With --json: {"commitments": [...]} with id, source, ae_title, transaction_uid, asked, state (pending,
    reporting, reported, dead), attempts, next_attempt_at, created_at, finished_at, committed, failed ([SOP
    Class UID, SOP Instance UID, Failure Reason] each), told, failure_name, failure_reason.
    """
    from gateway.cli.commitment_view import print_commitments

    with open_journal(load(config)) as reader:
        found = reader.commitments(limit)
    if as_json:
        print_json({"commitments": found})
    else:
        print_commitments(found, console())


def _find(config: Path, uid: str) -> list[Record]:
    """The stories of the study or series that a UID, or the ending of one, names."""
    from gateway.cli.study_view import story, waiting_deliveries
    from gateway.settings.runtime import why_held

    settings = load(config)
    with open_journal(settings) as reader:
        records = reader.series()
        level, named = resolve(records, uid)
        stories = [story(reader, record) for record in records if record[level] == named]
    newest = {each["series_instance_uid"]: each["revision"] for each in stories}  # in order of arrival
    for each in stories:
        each["newest_revision"] = newest[each["series_instance_uid"]]
    for delivery in waiting_deliveries(stories):
        delivery["held"] = why_held(settings, delivery["destination"])
    return stories
