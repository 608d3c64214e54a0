"""Brings a journal file to the schema of this version; refuses one from a newer version."""

from __future__ import annotations

import sqlite3

from gateway.errors import GatewayError
from gateway.journal.statements import read_sql

SCHEMA_VERSION = 1


def migrate(connection: sqlite3.Connection) -> None:
    """Create the schema in an empty file; leave a current one; refuse a newer one."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > SCHEMA_VERSION:
        raise GatewayError(
            "JOURNAL_TOO_NEW",
            f"The journal has schema {version}, this gateway knows {SCHEMA_VERSION}: "
            "start the version that wrote it, or restore a backup.",
        )
    if version == 0:
        connection.executescript(
            f"BEGIN IMMEDIATE; {read_sql('schema.sql')} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
        )
