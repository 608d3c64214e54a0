"""How a series' story looks to a person and to a program; from records, nothing is recomputed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table

from gateway.cli.common import clock_text
from gateway.cli.job_view import delivery_text, job_text, line, print_job, printable

if TYPE_CHECKING:
    from gateway.journal import JournalReader

Record = dict[str, Any]
_ENDING = 8
_WIDE = 160  # characters that the full table needs
_COLUMNS = (
    "STUDY", "SERIES", "MOD", "DESCRIPTION", "FROM", "N",
    "STATE", "DECISION", "JOB", "RESULTS", "DELIVERY", "ARRIVED",
)  # fmt: skip
_TOLD_OF_ARRIVAL = (
    "opened",
    "DUPLICATE_SOP_INSTANCE",
    "DUPLICATE_SOP_INSTANCE_REPLACED",
    "DUPLICATE_SOP_INSTANCE_REFUSED",
    "DUPLICATE_TRANSFER_SYNTAX_REFUSED",
    "COMMITMENT_ASKED",
    "COMMITMENT_REPORTED",
    "COMMITMENT_NOT_REPORTED",
)
_NARROW_COLUMNS = ("SERIES", "MOD", "DESCRIPTION", "FROM", "N", "DECISION", "JOB", "DELIVERY")


def story(reader: JournalReader, record: Record) -> Record:
    """Everything that the journal knows of one series revision, with the header facts people look for."""
    details = reader.series_details(record)
    facts = details.pop("facts")
    decision = details["decision"] or {}
    return {
        "study_instance_uid": details["study_instance_uid"],
        "series_instance_uid": details["series_instance_uid"],
        "revision": details["revision"],
        "modality": _first(facts, "Modality"),
        "description": _first(facts, "SeriesDescription"),
        "instances": details["instance_count"],
        "source": details["source"],
        "state": details["state"],
        "name": decision.get("name"),
        "reason": decision.get("reason"),
        **{key: details[key] for key in ("opened_at", "last_instance_at", "decided_at")},
        **{key: details[key] for key in ("evidence", "verdict", "decision")},
        **{key: details[key] for key in ("conflicts", "copies", "damaged", "jobs", "events")},
    }


def summary(each: Record) -> Record:
    """The line that ``list`` shows of a story."""
    results = [result for job in each["jobs"] for result in job["results"]]
    deliveries = Counter(d["state"] for result in results for d in result["deliveries"])
    keys = ("study_instance_uid", "series_instance_uid", "revision", "modality", "description", "instances")
    return {
        **{key: each[key] for key in (*keys, "source", "state")},
        "parts": len(_parts(each)),
        "decision": each["name"],
        "job": _job_states(each["jobs"]),
        "results": [result["kind"] for result in results],
        "deliveries": dict(deliveries),
        "opened_at": each["opened_at"],
    }


def _job_states(jobs: Sequence[Record]) -> str | None:
    """State of the only job; of several, how many are in each state. Reports of failures do not count."""
    states = Counter(job["state"] for job in jobs if job["purpose"] == "run")
    if states.total() <= 1:
        return next(iter(states), None)
    return ", ".join(f"{count} {state}" for state, count in states.items())


def waiting_deliveries(stories: Sequence[Record]) -> list[Record]:
    """The deliveries of some stories that have not been sent yet."""
    results = [result for each in stories for job in each["jobs"] for result in job["results"]]
    return [d for result in results for d in result["deliveries"] if d["state"] == "pending"]


def print_list(rows: Sequence[Record], out: Console) -> None:
    """A table, one row for each series revision; a narrow terminal gets the columns that matter most."""
    if not rows:
        out.print("Nothing has arrived yet.")
        return
    headings = _COLUMNS if out.width >= _WIDE else _NARROW_COLUMNS
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        justify: Literal["left", "right"] = "right" if heading == "N" else "left"
        table.add_column(heading, no_wrap=heading != "DESCRIPTION", justify=justify)
    for row in rows:
        cells = _cells(row)
        table.add_row(*(cells[heading] for heading in headings))
    out.print(table)


def _cells(row: Record) -> dict[str, str]:
    revision = f" r{row['revision']}" if row["revision"] > 1 else ""
    return {
        "STUDY": _ending(row["study_instance_uid"]),
        "SERIES": _ending(row["series_instance_uid"]) + revision,
        "MOD": printable(row["modality"] or "-"),
        "DESCRIPTION": printable(row["description"] or "-")[:32],
        "FROM": row["source"],
        "N": str(row["instances"]),
        "STATE": row["state"],
        "DECISION": (row["decision"] or "-") + (f" ({row['parts']} parts)" if row["parts"] > 1 else ""),
        "JOB": row["job"] or "-",
        "RESULTS": ", ".join(row["results"]) or "-",
        "DELIVERY": ", ".join(f"{count} {state}" for state, count in row["deliveries"].items()) or "-",
        "ARRIVED": clock_text(row["opened_at"]),
    }


def print_state(each: Record, out: Console) -> None:
    """Where a series stands: the outcome of every step, without the reasons on the way."""
    _heading(each, out)
    line(out, "state", each["state"])
    line(out, "decision", f"{each['name']}: {each['reason']}" if each["name"] else "not decided yet")
    if each["verdict"]:
        line(out, "geometry", _verdict(each["verdict"]))
    _print_instances(each, out)
    for job in each["jobs"]:
        line(out, f"job {job['id']}", job_text(job, each))
        for result in job["results"]:
            line(out, result["kind"], f"SOP Instance {result['sop_instance_uid']}")
            line(out, "", f"series {result['series_instance_uid']}")
            for delivery in result["deliveries"]:
                line(out, "", delivery_text(delivery))
    out.print()


def print_story(each: Record, out: Console) -> None:
    """Every decision in order, with what it was based on."""
    _heading(each, out)
    arrived = f"{clock_text(each['opened_at'])} to {clock_text(each['last_instance_at'])}"
    line(out, "arrived", f"{_counted(each['instances'], 'instance')} from {each['source']}, {arrived}")
    for event in each["events"]:
        if event["name"] in _TOLD_OF_ARRIVAL:
            line(out, "", f"{clock_text(event['at'])} {event['reason']}")
    _print_instances(each, out)
    if each["decided_at"] is None:
        line(out, "complete", "not yet: instances may still arrive")
        out.print()
        return
    line(out, "complete", f"{clock_text(each['decided_at'])} {each['evidence']['reason']}")
    parts = _parts(each)
    if len(parts) > 1:
        verdict = each["verdict"]
        line(out, "geometry", f"{verdict['verdict']} {verdict['code']}: {len(parts)} parts")
        for number, (label, verdict, decision) in enumerate(parts, start=1):
            line(out, f"part {number}", label)
            _print_decided(verdict, decision, out)
    else:
        _print_decided(each["verdict"], each["decision"], out)
    for job in each["jobs"]:
        print_job(job, each, out)
    for event in each["events"]:
        if event["name"] == "JOB_ADOPTED":
            line(out, "", f"{clock_text(event['at'])} {event['reason']}")
    out.print()


def _print_instances(each: Record, out: Console) -> None:
    """What is to be said of single instances: the same bytes again, other bytes, damaged files."""
    copies = each["copies"]
    if copies["times"]:
        which = f"{_counted(copies['instances'], 'instance')}, {_counted(copies['times'], 'time')} in all"
        line(out, "copies", f"the same bytes arrived again for {which}: counted, nothing runs again")
    for conflict in each["conflicts"]:
        was_member = conflict["role"] == "member"
        used = "used until others took their place" if was_member else "kept and not used"
        times = f", arrived {_counted(conflict['copies'], 'time')}" if conflict["copies"] > 1 else ""
        which = f"SOP Instance {conflict['sop_instance_uid']}, SHA-256 {conflict['digest'][:12]}…"
        line(out, "other bytes", f"{which}: {used}{times}")
    for damaged in each["damaged"]:
        when = clock_text(damaged["quarantined_at"])
        line(out, "damaged", f"{when} SOP Instance {damaged['sop_instance_uid']}: {damaged['reason']}")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _parts(each: Record) -> list[tuple[str, Record, Record]]:
    """What each part is, its verdict and its decision; nothing where neither was looked for."""
    verdicts = (each["verdict"] or {}).get("parts", ())
    decisions = (each["decision"] or {}).get("parts", ())
    found = []
    for verdict, decision in zip(verdicts, decisions, strict=True):
        count = verdict["images"]
        images = f"{count} image{'' if count == 1 else 's'}"
        found.append((f"{verdict['label']} ({images})", verdict, decision))
    return found


def _print_decided(verdict: Record, decision: Record, out: Console) -> None:
    """Geometry, routes and decision of a series, or of one part of it."""
    line(out, "geometry", _verdict(verdict))
    for note in verdict["notes"]:
        line(out, "", f"{note['code']}: {note['text']}")
    _print_routes(decision["routes"], out)
    line(out, "decision", f"{decision['name']}: {decision['reason']}")


def _verdict(verdict: Record) -> str:
    same = verdict["verdict"] == verdict["code"]
    name = verdict["code"] if same else f"{verdict['verdict']} {verdict['code']}"
    return f"{name}: {verdict['reason']}"


def _print_routes(routes: Sequence[Record], out: Console) -> None:
    label = "routes"
    for route in routes:
        outcome = "matched" if route["matched"] else "not matched"
        line(out, label, f"{route['name']}: {outcome}" + ("" if route["conditions"] else " (no conditions)"))
        label = ""
        for condition in route["conditions"]:
            wanted = f"{condition['condition']} {condition['wanted']}"
            verdict = "ok    " if condition["matched"] else "FAILED"
            line(out, "", f"  {verdict}  {wanted:<36}  seen: {condition['seen']}")


def _heading(each: Record, out: Console) -> None:
    described = " ".join(text for text in (each["modality"], each["description"]) if text)
    revision = f"  revision {each['revision']}" if each["newest_revision"] > 1 else ""
    if each["revision"] < each["newest_revision"]:
        revision += f" (later instances made revision {each['newest_revision']}, see below)"
    text = f"Series {each['series_instance_uid']}  {described}{revision}"
    out.print(printable(text), style="bold")
    line(out, "study", each["study_instance_uid"])


def _ending(uid: str) -> str:
    return uid if len(uid) <= _ENDING + 1 else f"…{uid[-_ENDING:]}"


def _first(facts: Record, keyword: str) -> str | None:
    value = facts.get(keyword)
    return "\\".join(value) if value else None
