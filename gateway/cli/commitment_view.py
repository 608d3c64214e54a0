"""How requests for storage commitment look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from gateway.cli.common import clock_text
from gateway.cli.job_view import printable


def print_commitments(requests: Sequence[dict[str, Any]], out: Console) -> None:
    """One line for each, newest first, and one for what was told or why it was not."""
    if not requests:
        out.print("Nobody has asked for storage commitment yet.")
    for each in requests:
        count = f"{each['asked']} instance{'' if each['asked'] == 1 else 's'}"
        text = f"{clock_text(each['created_at'])}  {each['source']}: {count}, {each['state']}"
        out.print(printable(f"{text}  {each['transaction_uid']}"), soft_wrap=True)
        for line in _lines(each):
            out.print(printable(f"{'':22}{line}"), soft_wrap=True)


def _lines(each: dict[str, Any]) -> list[str]:
    if each["told"]:
        return [f"{clock_text(each['finished_at'])} reported: {each['told']}."]
    if not each["failure_name"]:
        return []
    attempts = f"{each['attempts']} attempt{'' if each['attempts'] == 1 else 's'}"
    lines = [f"{each['failure_name']} ({attempts}): {each['failure_reason']}"]
    if each["state"] == "pending":
        lines.append(f"It is tried again at {clock_text(each['next_attempt_at'])} at the latest.")
    elif each["state"] == "dead":
        lines.append(f"Given up at {clock_text(each['finished_at'])}; the peer may ask once more.")
    return lines
