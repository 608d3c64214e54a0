"""What is no C-STORE, on its way to pynetdicom's DIMSE provider (PS3.7 9.1.5, 10.1).

pynetdicom says nothing of a message that it cannot read or that lacks something: it aborts without a reason,
or drops it. Here each of them is a violation with a name.
"""

from __future__ import annotations

from typing import Any

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import P_DATA

from gateway.receive.association.commands import (
    C_ECHO_RQ,
    N_ACTION_RQ,
    N_CREATE_RQ,
    N_DELETE_RQ,
    N_EVENT_REPORT_RQ,
    N_GET_RQ,
    N_SET_RQ,
)
from gateway.receive.association.violations import Violation, command_invalid
from gateway.receive.association.wakeup import SignallingQueue

COMMAND_OF_EVENT = {
    evt.EVT_C_ECHO: C_ECHO_RQ,
    evt.EVT_N_EVENT_REPORT: N_EVENT_REPORT_RQ,
    evt.EVT_N_GET: N_GET_RQ,
    evt.EVT_N_SET: N_SET_RQ,
    evt.EVT_N_ACTION: N_ACTION_RQ,
    evt.EVT_N_CREATE: N_CREATE_RQ,
    evt.EVT_N_DELETE: N_DELETE_RQ,
}
"""Command Field of the requests that a handler of the event serves."""

_LACKS = "The command set of a message lacks a mandatory element (PS3.7 9.3, 10.3)."
_UNREADABLE = "Evt19"  # unrecognised or invalid PDU, PS3.8 Table 9-10


class MessageQueue(SignallingQueue):
    """Messages for the association's thread: each can be served, or is a response."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put (context id, message), then tell; (None, None) says that nothing more comes.

        Raises Violation (COMMAND_INVALID) for a message that its thread would drop without an answer.
        """
        _, message = item
        if message is not None and not (message.is_valid_request or message.is_valid_response):
            raise command_invalid(_LACKS)
        super().put(item, block, timeout)


def hand_over(association: Association, context_id: int, control: int, fragment: bytes) -> None:
    """Action DT-2 for a fragment, in the thread of the upper layer; raises Violation (COMMAND_INVALID)."""
    indication = P_DATA()
    pdv: Any = [context_id, bytes((control,)) + fragment]  # pynetdicom wants a list and says tuple
    indication.presentation_data_value_list = [pdv]
    try:
        association.dimse.receive_primitive(indication)
    except Violation:
        raise
    except Exception as error:
        raise command_invalid("A message cannot be read.") from error
    if _was_unreadable(association):
        raise command_invalid("An element of a command set cannot be read.")


def _was_unreadable(association: Association) -> bool:
    """Whether pynetdicom asks for an abort; ours says why, so its own is taken back."""
    events = association.dul.event_queue
    with events.mutex:
        found = _UNREADABLE in events.queue
        if found:
            events.queue.remove(_UNREADABLE)
    return found
