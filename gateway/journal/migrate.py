"""Brings a journal file to the schema of this version; refuses one from a newer version."""

from __future__ import annotations

import sqlite3

from gateway.errors import GatewayError
from gateway.journal.statements import read_sql

SCHEMA_VERSION = 6


def migrate(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file, bring an older one up to date; refuse a newer one.

    Each step is one transaction together with its version number, so a crash leaves the file at the step
    before or behind. Foreign keys are off meanwhile: a step may build a table anew.

    Raises
    ------
    GatewayError
        JOURNAL_TOO_NEW.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise GatewayError(
            "JOURNAL_TOO_NEW",
            f"The journal has schema {version}, this gateway knows {SCHEMA_VERSION}: "
            "start the version that wrote it, or restore a backup.",
        )
    if version == 0:
        _step(connection, "schema.sql", SCHEMA_VERSION)
        return
    connection.execute("PRAGMA foreign_keys = OFF")
    for target in range(version + 1, SCHEMA_VERSION + 1):
        _step(connection, f"migrate_{target}.sql", target)
    connection.execute("PRAGMA foreign_keys = ON")


def _step(connection: sqlite3.Connection, script: str, version: int) -> None:
    try:
        connection.executescript(
            f"BEGIN IMMEDIATE; {read_sql(script)} PRAGMA user_version = {version}; COMMIT;"
        )
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
