"""How one job of a series looks to a person: what it did, what it found, where its results went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from ai.profile import DEFAULT_PROFILE
from gateway.cli.common import clock_text

Record = dict[str, Any]
_SHOWN_AT_EACH_END = 4
_DECIDED_BY_PEOPLE = ("released", "discarded", "resend_asked", "RESEND_ASKED")
_DEFAULTS = vars(DEFAULT_PROFILE)


def print_job(job: Record, each: Record, out: Console) -> None:
    """Everything about a job of a series, in order."""
    line(out, f"job {job['id']}", job_text(job, each))
    _print_events(job["events"], out)
    label = "quality"
    for text in quality_lines(job["run"] or {}):
        line(out, label, text)
        label = ""
    notes = result_notes(job["run"] or {})
    for result in job["results"]:
        identity = f"SOP Instance {result['sop_instance_uid']}, series {result['series_instance_uid']}"
        line(out, result["kind"], f"{identity}{_profile_text(result, job['profiles'])}")
        for note in notes.get(result["sop_instance_uid"], ()):
            line(out, "", note)
        for delivery in result["deliveries"]:
            line(out, "", delivery_text(delivery))
            _print_events(delivery["events"], out, indent="  ")
    if job["state"] == "done" and not job["destinations"]:
        line(out, "delivery", "none: results are kept here (shadow mode, or a route without destination)")


def _print_events(events: Sequence[Record], out: Console, indent: str = "") -> None:
    """All of a few events; of many (a PACS that was down for a week) the first and the last ones.

    What a person decided is never left out.
    """
    ends = range(_SHOWN_AT_EACH_END, len(events) - _SHOWN_AT_EACH_END)
    left_out = {number for number in ends if events[number]["name"] not in _DECIDED_BY_PEOPLE}
    first = min(left_out, default=0)
    for number, event in enumerate(events):
        if len(left_out) > 1 and number == first:
            line(out, "", f"{indent}… {len(left_out)} more events, all of them with --json …")
        if len(left_out) <= 1 or number not in left_out:
            line(out, "", f"{indent}{clock_text(event['at'])} {event['name']}: {event['reason']}")


def quality_lines(run: Mapping[str, Any]) -> list[str]:
    """The verdicts on the segments of a run, counted, and the reasons of those that are not PASS.

    Runs of older versions have findings alone.
    """
    segments = [segment for segment in run.get("segments", ()) if segment.get("verdict")]
    if not segments:
        findings = [each for each in run.get("quality", ()) if each["verdict"] != "PASS"]
        return [f"{', '.join(each['structures'])}: {each['verdict']}: {each['reason']}" for each in findings]
    counts = Counter(segment["verdict"] for segment in segments)
    told = [
        f"{segment['label']}: {segment['verdict']}: {' '.join(segment.get('reasons', ()))}"
        for segment in segments
        if segment["verdict"] != "PASS"
    ]
    return [f"segments: {', '.join(f'{count} {verdict}' for verdict, count in counts.items())}", *told]


def result_notes(run: Mapping[str, Any]) -> dict[str, list[str]]:
    """What is not as a destination wants it, by SOP Instance UID; runs of older versions have no notes."""
    return {row["sop_instance_uid"]: row.get("notes", []) for row in run.get("results", ())}


def _profile_text(result: Record, profiles: Mapping[str, Any]) -> str:
    """Which profiles an object belongs to, by what they change; nothing where it is the default one alone."""
    if result["profiles"] == [""]:
        return ""
    told = []
    for key in result["profiles"]:
        settings = profiles.get(key, {})
        changed = [f"{k} {v}" for k, v in settings.items() if k in _DEFAULTS and v != _DEFAULTS[k]]
        told.append(", ".join(changed) if key else "default")
    return f", profile {' and '.join(told)}"


def job_text(job: Record, each: Record) -> str:
    """What it is, how it stands, and why."""
    labels = {part["key"]: part["label"] for part in (each["verdict"] or {}).get("parts", ())}
    part = f"{labels.get(job['part'], job['part'])}: " if job["part"] else ""
    attempts = f"{job['attempts']} attempt{'' if job['attempts'] == 1 else 's'}"
    interruptions = f", {job['interruptions']} interrupted by restarts" if job["interruptions"] else ""
    failure = f"; {job['failure_name']}: {job['failure_reason']}" if job["failure_name"] else ""
    model = f"model {job['model']} (card {job['card']})"
    if job["purpose"] == "failure_report":
        model = f"report that {model} has failed"
    priority = f", {job['priority']}" if job["priority"] != "normal" else ""
    waits = f"; waits: {job['hold_name']}: {job['hold_reason']}" if job["hold_name"] else ""
    return f"{part}{model}: {job['state']}{priority}, {attempts}{interruptions}{failure}{waits}"


def delivery_text(delivery: Record) -> str:
    """Where a result goes, and how far it is."""
    attempts = f"{delivery['attempts']} attempt{'' if delivery['attempts'] == 1 else 's'}"
    text = f"to {delivery['destination']}: {delivery['state']}, {attempts}"
    if delivery.get("held"):
        text += f"; {delivery['held']}"
    elif delivery["state"] == "pending" and delivery["attempts"]:
        text += f", next at {clock_text(delivery['next_attempt_at'])}"
    if delivery["failure_name"]:
        text += f"; {delivery['failure_name']}: {delivery['failure_reason']}"
    return text


def line(out: Console, label: str, text: str) -> None:
    """A label and what is said, on one line."""
    out.print(f"  {label:<10} {printable(text)}", soft_wrap=True)


def printable(text: str) -> str:
    """Header text may hold escape sequences; a terminal must not obey them."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
