"""What the rooms of the journal share: the connection."""

from __future__ import annotations

from gateway.journal.connection import WriteConnection


class Room:
    """Methods of :class:`gateway.journal.journal.Journal` that belong together."""

    def __init__(self, connection: WriteConnection) -> None:
        self._connection = connection
