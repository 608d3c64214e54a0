"""What a peer does against the protocol: each ends its association with an A-ABORT of the provider."""

from __future__ import annotations

# Reason/diagnostic of an A-ABORT whose source is the service provider (PS3.8 Table 9-26).
REASON_NOT_SPECIFIED = 0
UNRECOGNISED_PDU = 1
UNEXPECTED_PDU = 2
UNEXPECTED_PARAMETER = 5
INVALID_PARAMETER = 6


class Violation(Exception):
    """A peer broke the protocol or a limit.

    Parameters
    ----------
    name
        Stable, upper case.
    reason
        One sentence; without anything that the peer sent, except numbers.
    abort_reason
        What the A-ABORT says.
    """

    def __init__(self, name: str, reason: str, abort_reason: int) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason
        self.abort_reason = abort_reason


def pdu_invalid(reason: str) -> Violation:
    """A PDU that is not built as PS3.8 9.3 says."""
    return Violation("PDU_INVALID", reason, INVALID_PARAMETER)


def pdv_invalid(reason: str) -> Violation:
    """A presentation data value that is not built as PS3.8 9.3.5.1 and E.2 say."""
    return Violation("PDV_INVALID", reason, INVALID_PARAMETER)


def message_unexpected(reason: str) -> Violation:
    """Fragments of messages in an order that PS3.7 6.3.1 does not know."""
    return Violation("MESSAGE_UNEXPECTED", reason, UNEXPECTED_PARAMETER)


def command_invalid(reason: str) -> Violation:
    """A command set that cannot be read, or lacks what an answer needs (PS3.7 6.3.1, 9.3)."""
    return Violation("COMMAND_INVALID", reason, INVALID_PARAMETER)


def operation_unrecognised(command_field: int, abstract_syntax: str) -> Violation:
    """A request of a service that is not there: answered, the association goes on."""
    reason = (
        f"A request with the Command Field {command_field:04X} came in a presentation context for "
        f"{abstract_syntax}, which has no such service here: let the calling system send it elsewhere."
    )
    return Violation("UNRECOGNISED_OPERATION", reason, UNEXPECTED_PARAMETER)


def class_not_negotiated(command_field: int, abstract_syntax: str) -> Violation:
    """A request that names another SOP class than its context: answered, the association goes on."""
    reason = (
        f"A request with the Command Field {command_field:04X} came in the presentation context for "
        f"{abstract_syntax} and names another SOP class: that is a fault of the calling system."
    )
    return Violation("SOP_CLASS_NOT_NEGOTIATED", reason, UNEXPECTED_PARAMETER)


def too_slow(reason: str) -> Violation:
    """The peer began something and does not go on."""
    return Violation("PEER_TOO_SLOW", reason, REASON_NOT_SPECIFIED)


def too_large(name: str, limit_bytes: int, setting: str) -> Violation:
    """A message far over its limit."""
    reason = (
        f"More than {limit_bytes >> 20} MiB ({setting}) came in one message; the association was aborted."
    )
    return Violation(name, reason, REASON_NOT_SPECIFIED)
