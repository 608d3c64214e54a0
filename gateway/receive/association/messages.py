"""DIMSE messages out of P-DATA-TF PDUs (PS3.7 6.3.1, PS3.8 9.3.5 and E): C-STOREs as they arrive.

The data set of a C-STORE goes to its receiver as it comes, all that is in the buffer at once; the response
goes out in one write. Every other message is handed on, fragment by fragment, to whom it concerns. Whatever
is announced is checked before a byte of it is kept. No pynetdicom here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from gateway.receive.association.commands import (
    C_CANCEL_RQ,
    C_ECHO_RQ,
    C_STORE_RQ,
    MAX_COMMAND_BYTES,
    RESPONSE_BIT,
    Command,
    encode_p_data,
    encode_response,
    parse_command,
)
from gateway.receive.association.inbound import Inbound
from gateway.receive.association.violations import (
    Violation,
    class_not_negotiated,
    command_invalid,
    message_unexpected,
    operation_unrecognised,
    pdv_invalid,
    too_large,
    too_slow,
)

SUCCESS = 0x0000
NO_SUCH_SOP_CLASS = 0x0118  # of DIMSE-N, PS3.7 10.1.4.1.10
SOP_CLASS_NOT_SUPPORTED = 0x0122  # PS3.4 Table B.2-1, PS3.7 9.1.5.1.4
UNRECOGNISED_OPERATION = 0x0211  # PS3.7 C.5.26
LEAST_BYTES_PER_S = 1024
"""A message that has begun must come at least so fast, over its whole length."""

_PDV = struct.Struct(">LBB")
_IS_COMMAND, _IS_LAST = 1, 2
_MOST_CHUNKS = 256  # handed on together: a peer may send fragments of one byte


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and Error Comment (ASCII, at most 64 characters) of a response."""

    status: int
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    id: int
    abstract_syntax: str
    transfer_syntax: str


class StoreReceiver(Protocol):
    """Takes the data set of one C-STORE. Its methods raise nothing."""

    def write(self, *chunks: memoryview) -> None:
        """The next bytes, in order; the views are good until this returns."""

    def finish(self) -> Answer:
        """The data set is complete: what to answer."""

    def discard(self) -> None:
        """The rest will not come; harmless after :meth:`finish`."""


class Party(Protocol):
    """Who the messages of an association are for."""

    def context(self, context_id: int) -> Context | None:
        """The accepted presentation context with this id."""

    def begin_store(self, context: Context, request: Command) -> StoreReceiver:
        """A C-STORE has begun."""

    def takes(self, context: Context, request: Command) -> bool:
        """Whether a message other than C-STORE is wanted by :meth:`forward`."""

    def forward(self, context_id: int, control: int, fragment: bytes) -> None:
        """A fragment of such a message, with its message control header."""

    def refused(self, violation: Violation) -> None:
        """A message that :meth:`takes` was asked about is being answered with a status."""

    def respond(self, p_data: bytes) -> None:
        """Send encoded P-DATA-TF PDUs."""


@dataclass(frozen=True)
class MessageLimits:
    """Longest messages, and the time that a peer may keep us waiting in one."""

    store_bytes: int
    other_bytes: int
    stall_s: float


class _Part(Enum):
    """What the next fragment belongs to."""

    COMMAND = "command"
    STORE = "store"
    FORWARD = "forward"
    DROP = "drop"


class Messages:
    """The receiving end of one association. Not for several threads.

    Parameters
    ----------
    response_bytes
        The longest PDU that the peer takes; 0: of any length.
    """

    def __init__(self, inbound: Inbound, party: Party, limits: MessageLimits) -> None:
        self._inbound = inbound
        self._party = party
        self._limits = limits
        self.response_bytes = 0
        self._part = _Part.COMMAND
        self._context: Context | None = None
        self._command = bytearray()
        self._request = Command(0, None, has_data_set=False)
        self._receiver: StoreReceiver | None = None
        self._chunks: list[memoryview] = []  # of its data set, not handed on yet
        inbound.before_fill = self._hand_on
        self._refusal: Answer | None = None
        self._size = 0
        self._waited_before_s = 0.0

    @property
    def is_in_progress(self) -> bool:
        """A message has begun and is not complete."""
        return self._context is not None

    def close(self) -> None:
        """Nothing more will come."""
        receiver, self._receiver = self._receiver, None
        self._chunks.clear()
        if receiver is not None:
            receiver.discard()
        self._next_message()

    def read_pdu(self, length: int) -> None:
        """Read the ``length`` bytes of a P-DATA-TF after its header; raises Violation."""
        self._check_pace()
        left = length
        if not left:
            raise pdv_invalid("A P-DATA-TF has no presentation data value.")
        while left:
            if left < _PDV.size:
                raise pdv_invalid(f"A P-DATA-TF ends with {left} bytes that are no presentation data value.")
            announced, context_id, control = _PDV.unpack(self._inbound.need(_PDV.size))
            if announced < 2 or announced > left - 4:
                raise pdv_invalid(f"A presentation data value says {announced} bytes, {left - 4} are left.")
            left -= 4 + announced
            self._take_fragment(context_id, control, announced - 2)

    # -- fragments ----------------------------------------------------------------------------

    def _take_fragment(self, context_id: int, control: int, size: int) -> None:
        context = self._context
        if context is None:
            context = self._begin_message(context_id)
        elif context.id != context_id:
            raise message_unexpected(
                f"A fragment for context {context_id} came inside a message of context {context.id}."
            )
        is_last = bool(control & _IS_LAST)  # the other bits mean nothing (PS3.8 E.2)
        if bool(control & _IS_COMMAND) != (self._part is _Part.COMMAND):
            kind = "command" if control & _IS_COMMAND else "data set"
            raise message_unexpected(f"A {kind} fragment came where none is due.")
        if self._part is _Part.COMMAND:
            self._take_command(context, size, is_last)
        else:
            self._take_data(context, control, size, is_last)

    def _begin_message(self, context_id: int) -> Context:
        context = self._party.context(context_id)
        if context is None:
            raise pdv_invalid(f"Presentation context {context_id} was not accepted.")
        self._context = context
        self._waited_before_s = self._inbound.waited_s
        return context

    def _take_command(self, context: Context, size: int, is_last: bool) -> None:
        if len(self._command) + size > MAX_COMMAND_BYTES:
            raise command_invalid(f"The command set is longer than {MAX_COMMAND_BYTES} bytes.")
        self._command += self._inbound.read(size)
        if not is_last:
            return
        try:
            request = parse_command(self._command)
        except ValueError as error:
            raise command_invalid(str(error)) from error
        self._request = request
        self._start(context, request)
        if not request.has_data_set:
            self._complete(context)

    def _start(self, context: Context, request: Command) -> None:
        """The command set is complete: decide what becomes of the message."""
        is_request = not request.field & RESPONSE_BIT and request.field != C_CANCEL_RQ
        if is_request and request.message_id is None:
            raise command_invalid("The request has no Message ID.")
        if request.field == C_STORE_RQ:
            self._part = _Part.STORE
            self._receiver = self._party.begin_store(context, request)
        elif not self._party.takes(context, request):
            # Nothing that we do can be cancelled, and a late response concerns nobody.
            self._part = _Part.DROP
            if is_request:
                wrong = operation_unrecognised(request.field, context.abstract_syntax)
                self._refuse(UNRECOGNISED_OPERATION, "not a service of this SOP class.", wrong)
        elif is_request and request.sop_class_uids - {context.abstract_syntax}:
            self._part = _Part.DROP
            status = SOP_CLASS_NOT_SUPPORTED if request.field == C_ECHO_RQ else NO_SUCH_SOP_CLASS
            wrong = class_not_negotiated(request.field, context.abstract_syntax)
            self._refuse(status, "not the class of the context.", wrong)
        else:
            self._part = _Part.FORWARD
            self._party.forward(context.id, _IS_COMMAND | _IS_LAST, bytes(self._command))

    def _refuse(self, status: int, comment: str, violation: Violation) -> None:
        self._refusal = Answer(status, f"{violation.name}: {comment}")
        self._party.refused(violation)

    def _take_data(self, context: Context, control: int, size: int, is_last: bool) -> None:
        self._size += size
        self._check_size()
        if self._part is _Part.FORWARD:
            self._party.forward(context.id, control, bytes(self._inbound.read(size)))
        else:
            left = size
            while left:
                chunk = self._inbound.take(left)
                left -= len(chunk)
                if self._receiver is not None:
                    self._chunks.append(chunk)
            if len(self._chunks) >= _MOST_CHUNKS:
                self._hand_on()
        if is_last:
            self._hand_on()
            self._complete(context)

    def _hand_on(self) -> None:
        """What is in the buffer, before it is filled again."""
        if self._chunks and self._receiver is not None:
            self._receiver.write(*self._chunks)
            self._chunks.clear()

    def _complete(self, context: Context) -> None:
        receiver, answer = self._receiver, self._refusal
        if receiver is not None:
            answer = receiver.finish()
            self._receiver = None
        request = self._request
        self._next_message()
        if answer is not None:
            command_set = encode_response(request, answer.status, answer.comment)
            self._party.respond(encode_p_data(context.id, command_set, self.response_bytes))

    def _next_message(self) -> None:
        self._part = _Part.COMMAND
        self._context = None
        self._command.clear()
        self._refusal = None
        self._size = 0

    # -- limits -------------------------------------------------------------------------------

    def _check_size(self) -> None:
        limits = self._limits
        if self._part is _Part.STORE and self._size > limits.store_bytes:
            setting = "admission.max_instance_size and a margin"
            raise too_large("INSTANCE_TOO_LARGE", limits.store_bytes, setting)
        if self._part is not _Part.STORE and self._size > limits.other_bytes:
            raise too_large("MESSAGE_TOO_LARGE", limits.other_bytes, "for all but C-STORE")

    def _check_pace(self) -> None:
        if self._context is None:
            return
        waited_s = self._inbound.waited_s - self._waited_before_s
        if waited_s > self._limits.stall_s + self._size / LEAST_BYTES_PER_S:
            raise too_slow(f"A message came with less than {LEAST_BYTES_PER_S} bytes per second.")
