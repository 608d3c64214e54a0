"""A storage SCP that keeps the exact bytes it gets and answers what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from pynetdicom import AE, evt

from tests.ports import free_port

SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.34"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
ABORT = -1
"""Instead of a status: end the association in the middle of the C-STORE."""
SILENCE = -2
"""Instead of a status: do not answer for longer than anybody waits."""


class ScriptedPeer:
    """``with ScriptedPeer() as pacs``; ``statuses`` are used up one per C-STORE, then 0000.

    ``refused``: SOP Class UID → the status that its objects always get.
    """

    def __init__(
        self,
        statuses: Sequence[int] = (),
        classes: Sequence[str] = (SEG, SR, CAPTURE),
        ae_title: str = "PACS",
        *,
        refused: Mapping[str, int] | None = None,
        check_titles: bool = False,
    ) -> None:
        self.ae_title = ae_title
        self.port = free_port()
        self.statuses = list(statuses)
        self.refused = dict(refused or {})
        self.received: list[tuple[str, bytes]] = []
        """(SOP Instance UID, data set as it came over the wire) of what was answered 0000."""
        self.attempts: list[str] = []
        self.associations = 0
        self._silence = threading.Event()
        self._entity = AE(ae_title=ae_title)
        self._entity.require_called_aet = check_titles
        if check_titles:
            self._entity.require_calling_aet = ["AIGW"]
        self._entity.add_supported_context("1.2.840.10008.1.1")
        for sop_class in classes:
            self._entity.add_supported_context(sop_class, EXPLICIT_LITTLE)
        self._server: Any = None

    def start(self) -> None:
        """Listen, on the same port every time."""
        handlers: list[Any] = [(evt.EVT_C_STORE, self._on_store), (evt.EVT_ACCEPTED, self._on_accepted)]
        self._server = self._entity.start_server(("127.0.0.1", self.port), block=False, evt_handlers=handlers)

    def stop(self) -> None:
        """An outage; what was received stays."""
        self._silence.set()
        if self._server is not None:
            self._server.shutdown()
            self._server = None

    def __enter__(self) -> ScriptedPeer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def uids(self) -> list[str]:
        """SOP Instance UIDs in order of arrival."""
        return [uid for uid, _ in self.received]

    def _on_accepted(self, _: Any) -> None:
        self.associations += 1

    def _on_store(self, event: Any) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.attempts.append(uid)
        always = self.refused.get(str(event.request.AffectedSOPClassUID))
        status = always if always is not None else self.statuses.pop(0) if self.statuses else 0x0000
        if status == ABORT:
            event.assoc.abort()
            return 0xC000
        if status == SILENCE:
            self._silence.wait(5.0)
            return 0x0000
        if status in (0x0000, 0xB000):
            self.received.append((uid, event.request.DataSet.getvalue()))
        return status
