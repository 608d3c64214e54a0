"""Takes orders of people in the running gateway, over a Unix socket in the data folder."""

from __future__ import annotations

import os
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.control.orders import (
    LONGEST_LINE_BYTES,
    SOCKET_NAME,
    Answer,
    Order,
    carry_out,
    decode_order,
    encode,
)
from gateway.control.questions import Status, answer_question
from gateway.journal import Journal
from gateway.journal.profiles import Profiles

_POLL_S = 0.25
_LINE_TIMEOUT_S = 5.0
_TROUBLE_WAIT_S = 1.0


class Desk:
    """Where orders come in; ``run`` is the body of its thread. The folder's mode (0700) says who may ask."""

    def __init__(
        self,
        data_dir: Path,
        journal: Journal,
        profiles: Profiles,
        clock: Clock,
        log: FilteringBoundLogger,
        status: Status = dict,
    ) -> None:
        self._status = status
        self._journal = journal
        self._profiles = profiles
        self._clock = clock
        self._log = log
        self._socket = _listen(data_dir)
        self._socket.settimeout(_POLL_S)

    def run(self, stopping: threading.Event) -> None:
        """Answer one after another until ``stopping``."""
        with self._socket:
            while not stopping.is_set():
                try:
                    connection, _ = self._socket.accept()
                except TimeoutError:
                    continue
                except OSError as error:  # too many open files: the others may be closed in a while
                    self._log.error("control_not_accepted", reason=error.strerror)
                    stopping.wait(_TROUBLE_WAIT_S)
                    continue
                with connection:
                    connection.settimeout(_POLL_S)
                    self._serve(connection, stopping)

    def _serve(self, connection: socket.socket, stopping: threading.Event) -> None:
        try:
            for line in _lines(connection, stopping, self._clock):
                answer = answer_question(line, self._status)
                connection.sendall(answer or encode(self._answer(decode_order(line))))
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))
        except (OSError, ValueError) as error:  # it went away, or is none of ours
            self._log.warning("order_not_understood", error=type(error).__name__)

    def _answer(self, order: Order) -> Answer:
        try:
            answer = carry_out(self._journal, order, self._clock.now_s(), self._profiles)
        except sqlite3.OperationalError as error:
            self._log.critical("journal_cannot_be_written", error=str(error))
            return Answer(order.job, f"The journal cannot be written now: {error}.", "JOURNAL_UNAVAILABLE")
        self._log.info("order", verb=order.verb, job=order.job, refused=answer.refused)
        return answer


def _lines(connection: socket.socket, stopping: threading.Event, clock: Clock) -> Iterator[bytes]:
    """What a client sends, line by line, until it or the gateway ends.

    Raises TimeoutError or ValueError for one that does not come to the end of a line: the next one waits.
    """
    received, deadline_s = b"", clock.monotonic_s() + _LINE_TIMEOUT_S
    while not stopping.is_set():
        line, end, rest = received.partition(b"\n")
        if end:
            yield line
            received, deadline_s = rest, clock.monotonic_s() + _LINE_TIMEOUT_S
            continue
        if len(received) > LONGEST_LINE_BYTES:
            raise ValueError("not a line")
        if clock.monotonic_s() > deadline_s:
            raise TimeoutError
        try:
            chunk = connection.recv(LONGEST_LINE_BYTES)
        except TimeoutError:
            continue
        if not chunk:
            return
        received += chunk


def _listen(data_dir: Path) -> socket.socket:
    """A socket in the folder; its path may be longer than a socket address (108 bytes), so it is named by
    the descriptor of the folder."""
    folder = os.open(data_dir, os.O_PATH | os.O_DIRECTORY)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        (data_dir / SOCKET_NAME).unlink(missing_ok=True)  # a killed gateway left it
        listening.bind(f"/proc/self/fd/{folder}/{SOCKET_NAME}")
        (data_dir / SOCKET_NAME).chmod(0o600)
        listening.listen()
    except OSError:
        listening.close()
        raise
    finally:
        os.close(folder)
    return listening
