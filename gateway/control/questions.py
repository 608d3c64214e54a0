"""What can be asked of a running gateway besides orders: how it is. One JSON line each way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.control.call import connect
from gateway.errors import GatewayError

STATUS_LINE = b'{"ask": "status"}'
LONGEST_ANSWER_BYTES = 4 << 20

Status = Callable[[], Mapping[str, Any]]


def answer_question(line: bytes, status: Status) -> bytes | None:
    """The answer to a line that asks for the status; None for any other line."""
    if line.strip() != STATUS_LINE:
        return None
    return json.dumps(status(), ensure_ascii=False).encode() + b"\n"


def ask_status(data_dir: Path) -> dict[str, Any] | None:
    """The status of the gateway that runs on a data folder; None if none runs.

    Raises
    ------
    GatewayError
        NO_ANSWER: one runs, and it cannot be asked, or did not answer.
    """
    connection = connect(data_dir)
    if connection is None:
        return None
    with connection, connection.makefile("rb") as incoming:
        try:
            connection.sendall(STATUS_LINE + b"\n")
            found = json.loads(incoming.readline(LONGEST_ANSWER_BYTES))
        except (OSError, ValueError, RecursionError):
            found = None
    if not isinstance(found, dict):
        sentence = f"The gateway on {data_dir} did not answer: it ends just now, or is of another version."
        raise GatewayError("NO_ANSWER", sentence)
    return found
