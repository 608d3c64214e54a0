"""The journal: SQLite in WAL mode with ``synchronous=FULL``; all SQL in two files, by name.

Exactly one process holds the write connection (:class:`~gateway.journal.journal.Journal`);
everybody else reads (:class:`~gateway.journal.reader.JournalReader`).
"""

from gateway.journal.journal import Journal
from gateway.journal.reader import JournalReader

__all__ = ["Journal", "JournalReader"]
