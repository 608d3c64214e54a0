"""``aigw status``: how the running gateway is."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rich.console import Console

from gateway.cli.common import (
    EXIT_PEER,
    ConfigOption,
    JsonOption,
    clock_text,
    console,
    fail,
    load,
    place_text,
    print_json,
)
from gateway.cli.job_view import printable

_GIB = 1024**3
_MIB = 1024**2


def status(config_file: ConfigOption, as_json: JsonOption = False) -> None:
    """How the running gateway is: listeners, sources, disk, journal, certificates, work; exit 4 if none runs.

    With --json: version, ae_title, pid, started_at, up_s, data_dir, listeners, associations,
    store_requests, instances, refused_associations, rejected_instances, series, jobs, deliveries,
    commitments, held_models, disk, journal, certificates, warnings.
    """
    from gateway.control.questions import ask_status

    settings = load(config_file)
    try:
        found = ask_status(settings.data_dir)
    except FileNotFoundError:  # the folder itself
        found = None
    if found is None:
        fail("NOT_RUNNING", f"No gateway runs on {settings.data_dir}: start it with aigw serve.", EXIT_PEER)
    if as_json:
        print_json(found)
        return
    print_status(found, console())


def print_status(found: dict[str, Any], out: Console) -> None:
    """The status for a person; warnings first."""
    up = timedelta(seconds=round(found["up_s"]))
    out.print(f"{found['ae_title']}: aigw {found['version']}, process {found['pid']}, up {up}")
    for warning in found["warnings"]:
        _line(out, "WARNING", warning)
    for each in found["listeners"]:
        _line(out, each["name"], place_text(each["host"], each["port"]))
    _opened("associations", found["associations"], out)
    _opened("STOW-RS", found["store_requests"], out)
    _instances(found, out)
    for name in ("series", "jobs", "deliveries", "commitments"):
        _line(out, name, _counts(found[name]))
    for name in ("refused_associations", "rejected_instances"):
        if found[name]:
            _line(out, name.partition("_")[0], f"{name.replace('_', ' ')}: {_counts(found[name])}")
    _disk(found, out)
    for each in found["certificates"]:
        whose = each["name"] or each["kind"]
        _line(out, "certificate", (f"{whose}: {each['subject']}, {each['days_left']:.0f} days left"))


def _opened(label: str, opened: dict[str, Any], out: Console) -> None:
    peers = f" ({_counts(opened['by_peer'])})" if opened["by_peer"] else ""
    _line(out, label, f"{opened['open']} of {opened['limit']} open{peers}")


def _instances(found: dict[str, Any], out: Console) -> None:
    instances = found["instances"]
    damaged = f", {instances['damaged']} damaged" if instances["damaged"] else ""
    _line(out, "instances", f"{instances['stored']} stored{damaged}")
    for each in instances["by_source"]:
        since = _counts(each["since_start"]) if each["since_start"] else "none"
        last = clock_text(each["last_at"])
        text = f"{each['source']}: {each['instances']}, last {last}; since the start {since}"
        _line(out, "", printable(text))


def _disk(found: dict[str, Any], out: Console) -> None:
    disk, journal = found["disk"], found["journal"]
    free, total = disk["free_bytes"] / _GIB, disk["total_bytes"] / _GIB
    _line(out, "disk", f"{free:.1f} of {total:.1f} GiB free on {found['data_dir']}")
    if disk["flush_ms"] is not None:
        _line(
            out,
            "",
            f"512 KiB are durable in {disk['flush_ms']:g} ms and a commit in {disk['commit_ms']:g} ms: "
            f"at most {disk['slices_per_s']} slices/s in one association",
        )
    size = (journal["bytes"] + journal["wal_bytes"]) / _MIB
    _line(out, "journal", f"{size:.1f} MiB, SQLite {journal['sqlite']}")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {printable(name)}" for name, count in sorted(counts.items())) or "none"


def _line(out: Console, label: str, text: str) -> None:
    out.print(f"  {label:<13} {printable(text)}", soft_wrap=True)
