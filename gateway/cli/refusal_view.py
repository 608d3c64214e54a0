"""How refused associations and instances look to a person."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console

from gateway.cli.common import clock_text
from gateway.cli.job_view import printable

_INDENT = " " * 21


def print_refusals(refusals: Sequence[dict[str, Any]], out: Console) -> None:
    """What was not taken in, newest first: who, why, how often, and what to tell the other side."""
    if not refusals:
        out.print("No association and no instance was refused.")
    for each in refusals:
        details = each["details"]
        count = details.get("count", 1) + details.get("repeated", 0)
        times = f" ({count} times)" if count != 1 else ""
        text = f"{clock_text(each['at'])}  {each['subject']:<11}  {each['name']}{times}: {each['reason']}"
        out.print(printable(text), soft_wrap=True)
        caller = " at ".join(str(details[key]) for key in ("source", "address") if details.get(key))
        if caller:
            out.print(printable(f"{_INDENT}from: {caller}"), soft_wrap=True)
        if details.get("advice"):
            out.print(printable(f"{_INDENT}tell its administrator: {details['advice']}"), soft_wrap=True)
