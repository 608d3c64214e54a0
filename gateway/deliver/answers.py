"""Which message of a peer answers the request under way (PS3.7 9.3.1.2: Message ID Being Responded To).

pynetdicom takes whatever comes next for the answer: with a peer that answers one C-STORE twice, the next
object would count as stored although it was refused.
"""

from __future__ import annotations

import logging
import queue
from dataclasses import dataclass
from typing import Any

from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_ECHO, C_STORE

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What identifies a request on its association; ``service`` is C_STORE or C_ECHO."""

    service: type[C_ECHO] | type[C_STORE]
    context_id: int
    message_id: int

    def is_answered_by(self, context_id: int, message: Any) -> bool:
        """Whether a message is the response to it. pynetdicom has one class for request and response."""
        return (
            isinstance(message, self.service)
            and message.MessageIDBeingRespondedTo == self.message_id
            and context_id == self.context_id
        )


class Answers(queue.Queue[Any]):
    """pynetdicom's queue of messages, for an association on which the peer only answers.

    Only the response to the request under way comes in, and once. Everything else is dropped, so a second
    answer costs nothing. ``(None, None)`` says that the association is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self._awaited: Request | None = None
        self.dropped = 0
        """Messages that were dropped since the request was made."""

    def await_answer(self, request: Request) -> None:
        """A request is about to be sent."""
        self.dropped = 0
        self._awaited = request

    @property
    def has_answered(self) -> bool:
        """Whether the last request was answered, rightly or wrongly."""
        return self._awaited is None

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """By the thread that reads from the peer."""
        context_id, message = item
        if message is None:
            super().put(item, block, timeout)
        elif self._awaited is not None and self._awaited.is_answered_by(context_id, message):
            self._awaited = None  # first: once it is taken, the next request is made
            super().put(item, block, timeout)
        else:
            self.dropped += 1
            number = getattr(message, "MessageIDBeingRespondedTo", None)
            _LOG.debug("dropped %s in context %s, answers %s", type(message).__name__, context_id, number)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """By who waits for the answer. pynetdicom's own thread looks in without waiting, and gets nothing."""
        if not block:
            raise queue.Empty
        return super().get(block, timeout)


def take_only_answers(association: Association) -> Answers:
    """Have an association that we request serve nothing; call it before anything can arrive."""
    answers = Answers()
    association.dimse.msg_queue = answers
    association._serve_request = _serve_nothing  # type: ignore[method-assign]
    return answers


def _serve_nothing(msg: Any, context_id: int) -> None:
    """pynetdicom hands an N-EVENT-REPORT over without putting it into the queue."""
    _LOG.debug("dropped %s in context %s", type(msg).__name__, context_id)
