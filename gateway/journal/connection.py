"""The SQLite connections: one that writes, behind a lock, and any number that only read."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway.journal.migrate import migrate
from gateway.journal.statements import load_statements

Values = Mapping[str, Any]

_CACHED_STATEMENTS = 256  # more than there are: each is compiled once
_KEPT_WAL_BYTES = 64 << 20  # after a migration the write-ahead log is larger: the rest is given back
_CACHE_KIB = 32 * 1024  # of the one that writes: the upper pages of every index


class Transaction:
    """Named statements inside one ``BEGIN IMMEDIATE … COMMIT``."""

    def __init__(self, connection: sqlite3.Connection, statements: Mapping[str, str]) -> None:
        self._connection = connection
        self._statements = statements

    def run(self, statement: str, values: Values) -> sqlite3.Cursor:
        """Execute a named statement."""
        return self._connection.execute(self._statements[statement], values)

    def one(self, statement: str, values: Values) -> sqlite3.Row | None:
        """First row of a named query, or None."""
        row: sqlite3.Row | None = self.run(statement, values).fetchone()
        return row

    def insert(self, statement: str, values: Values) -> int:
        """Execute an INSERT and return the new row's id."""
        row_id = self.run(statement, values).lastrowid
        assert row_id is not None  # noqa: S101 - sqlite3 sets it on every INSERT
        return row_id

    def move(self, table: str, row_id: int, from_state: str, to_state: str) -> bool:
        """Compare-and-set of a state column; True if the row moved."""
        sql = f"UPDATE {table} SET state = :to WHERE id = :id AND state = :from"  # noqa: S608 - our own names
        return self._connection.execute(sql, {"id": row_id, "from": from_state, "to": to_state}).rowcount == 1


class WriteConnection:
    """The one connection that writes; durable at COMMIT (WAL, ``synchronous=FULL``).

    Queries outside a transaction have a connection of their own that cannot write: a long one keeps no
    instance waiting. They see what is committed.

    Parameters
    ----------
    durable
        False: a commit survives the end of the process, not that of the machine. For measurements alone.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._lock = threading.Lock()
        self._statements = load_statements()
        self._connection = sqlite3.connect(
            path, check_same_thread=False, isolation_level=None, cached_statements=_CACHED_STATEMENTS
        )
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
        self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        self._connection.execute(f"PRAGMA journal_size_limit = {_KEPT_WAL_BYTES}")
        self._connection.execute("PRAGMA foreign_keys = ON")
        migrate(self._connection)
        self._reading = ReadConnection(path)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction; commits at the end, rolls back when the block raises."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield Transaction(self._connection, self._statements)
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:  # after a full disk SQLite has rolled back itself
                    self._connection.execute("ROLLBACK")
                raise

    def query(self, statement: str, values: Values | None = None) -> list[sqlite3.Row]:
        """All rows of a named query."""
        return self._reading.query(statement, values)

    def close(self) -> None:
        """Close the connection; waits for a transaction that is under way."""
        self._reading.close()
        with self._lock:
            self._connection.close()


class ReadConnection:
    """A connection that cannot write, for the command line and the web pages."""

    def __init__(self, path: Path) -> None:
        self._statements = load_statements()
        self._connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro",
            uri=True,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        self._connection.row_factory = sqlite3.Row
        self._lock = threading.Lock()

    def query(self, statement: str, values: Values | None = None) -> list[sqlite3.Row]:
        """All rows of a named query."""
        with self._lock:
            return self._connection.execute(self._statements[statement], values or {}).fetchall()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._connection.close()
