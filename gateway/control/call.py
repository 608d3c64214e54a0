"""Asks the running gateway; while none runs, opens the journal itself, under the lock of the data folder."""

from __future__ import annotations

import os
import socket
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from gateway.clock import Clock
from gateway.control.orders import (
    LONGEST_LINE_BYTES,
    SOCKET_NAME,
    Answer,
    Order,
    carry_out,
    decode_answer,
    encode,
)
from gateway.errors import GatewayError
from gateway.journal import Journal
from gateway.journal.profiles import Profiles

_ANSWER_TIMEOUT_S = 30.0

Lock = Callable[[Path], AbstractContextManager[object]]
"""``gateway.process.lock_data_dir``: raises GatewayError when a gateway has the folder."""


def carry_out_orders(
    data_dir: Path, orders: Sequence[Order], profiles: Profiles, clock: Clock, lock: Lock
) -> tuple[Answer, ...]:
    """Have orders carried out, one after another; a refused one does not keep the others from it.

    Raises
    ------
    GatewayError
        NO_ANSWER, DATA_DIR_IN_USE (a gateway that starts or ends just now), NOT_THE_GATEWAYS_USER,
        JOURNAL_UNUSABLE.
    """
    connection = connect(data_dir)
    if connection is not None:
        with connection:
            return tuple(_ask(connection, orders))
    if data_dir.stat().st_uid != os.geteuid():
        sentence = (
            f"No gateway is running, and {data_dir} belongs to another user: run this as the gateway's user."
        )
        raise GatewayError("NOT_THE_GATEWAYS_USER", sentence)
    with _alone(data_dir, lock):
        try:
            journal = Journal(data_dir / "journal.db")
            try:
                return tuple(carry_out(journal, order, clock.now_s(), profiles) for order in orders)
            finally:
                journal.close()
        except sqlite3.Error as error:
            sentence = f"{data_dir / 'journal.db'} cannot be written ({error}): check its disk and owner."
            raise GatewayError("JOURNAL_UNUSABLE", sentence) from error


def _alone(data_dir: Path, lock: Lock) -> AbstractContextManager[object]:
    try:
        return lock(data_dir)
    except GatewayError as error:
        if error.name != "DATA_DIR_IN_USE":
            raise
        sentence = (
            f"A gateway runs on {data_dir} and takes no orders: it starts or stops just now, so try again; "
            "or its log says why (event control_not_open), then stop it first."
        )
        raise GatewayError(error.name, sentence) from error


def connect(data_dir: Path) -> socket.socket | None:
    """A connection to the gateway that runs on a data folder, or None; raises GatewayError (NO_ANSWER)."""
    folder = _open_folder(data_dir)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(_ANSWER_TIMEOUT_S)
    try:
        connection.connect(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
    except (FileNotFoundError, ConnectionRefusedError):
        connection.close()
        return None
    except OSError as error:
        connection.close()
        sentence = f"The gateway on {data_dir} cannot be asked ({error.strerror}): run this as its user."
        raise GatewayError("NO_ANSWER", sentence) from error
    finally:
        os.close(folder)
    return connection


def _open_folder(data_dir: Path) -> int:
    """A descriptor of the data folder; raises GatewayError (NO_ANSWER), FileNotFoundError."""
    try:
        return os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    except PermissionError as error:
        sentence = f"{data_dir} is not yours to read: run this as the gateway's user."
        raise GatewayError("NO_ANSWER", sentence) from error
    except NotADirectoryError as error:
        raise GatewayError("NO_ANSWER", f"{data_dir} is no folder: correct data_dir.") from error


def _ask(connection: socket.socket, orders: Sequence[Order]) -> list[Answer]:
    answers = []
    with connection.makefile("rb") as incoming:
        for order in orders:
            try:
                connection.sendall(encode(order))
                line = incoming.readline(LONGEST_LINE_BYTES)
            except OSError:
                line = b""
            answers.append(decode_answer(line))
    return answers
