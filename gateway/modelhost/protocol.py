"""What the worker and its model process say to each other: frozen values, one JSON line each, on a socket.

Descriptors of shared memory travel beside the line that names them.
"""

from __future__ import annotations

import json
import os
import select
import socket
from collections import deque
from dataclasses import asdict, dataclass, field, fields
from typing import Any, get_args, get_origin, get_type_hints

from gateway.modelhost.share import VolumeInfo, info_from

MEMORY_STAGE = "memory"
"""Stage of the step with which a model says that it begins again with less memory (ai.inference.ladder)."""

_CHUNK = 64 * 1024
_MOST_HANDLES = 32  # in one reading; 253 is the kernel's bound
_LONGEST_LINE = 16 * 1024 * 1024


@dataclass(frozen=True)
class Begin:
    """First message to a fresh model process.

    Attributes
    ----------
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    memory_bytes
        For weights and runs together; None: what the device has, less a reserve.
    attended
        Whoever asks has the images himself: he is told what a model raises, in its words.
    """

    device: str
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    deterministic: bool = False
    attended: bool = False


@dataclass(frozen=True)
class Load:
    """Get a model ready. ``digest`` is that of the card as the worker read it."""

    id: int
    card: str
    folders: tuple[str, ...]
    digest: str
    pinned: bool = False


@dataclass(frozen=True)
class Predict:
    """Run a model; the descriptors of the channels' memory and then of the labels' come along."""

    id: int
    card: str
    folders: tuple[str, ...]
    digest: str
    priority: str
    channels: tuple[VolumeInfo, ...]


@dataclass(frozen=True)
class Cancel:
    """Forget a prediction, now if it rests, else after its step."""

    id: int


@dataclass(frozen=True)
class Hello:
    """The model process is there.

    Attributes
    ----------
    further_devices
        With ``auto``: the other GPUs of this machine.
    network, writes, reads
        What the sandbox says, see :class:`gateway.modelhost.sandbox.Sandbox`.
    """

    pid: int
    device: str
    further_devices: tuple[str, ...]
    memory_bytes: int
    network: str
    writes: str
    reads: str


@dataclass(frozen=True)
class Turn:
    """From now on it works on this; 0: on nothing.

    Attributes
    ----------
    loading
        The model's name while that is being loaded.
    slow
        Its steps are those of a CPU.
    """

    id: int
    loading: str = ""
    slow: bool = False


@dataclass(frozen=True)
class Stepped:
    """One more piece of work is done; ``seconds`` is what it took."""

    id: int
    stage: str
    fraction: float
    seconds: float


@dataclass(frozen=True)
class Loaded:
    """A model is warm."""

    id: int
    weight_bytes: int


@dataclass(frozen=True)
class Predicted:
    """The labels are in their memory."""

    id: int
    scalars: dict[str, float]
    confidence: dict[str, float]
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Refused:
    """It did not work.

    Attributes
    ----------
    kind
        ``model``: it cannot be loaded; ``run``: a named error of this run; ``series``: the input is refused;
        ``memory``: there is not enough; ``error``: an unforeseen one; ``cancelled``.
    """

    id: int
    kind: str
    code: str
    reason: str


Request = Begin | Load | Predict | Cancel
Answer = Hello | Turn | Stepped | Loaded | Predicted | Refused
Message = Request | Answer

_KINDS: dict[str, type[Message]] = {
    kind.__name__: kind
    for kind in (Begin, Load, Predict, Cancel, Hello, Turn, Stepped, Loaded, Predicted, Refused)
}


_TYPES = {kind: get_type_hints(kind) for kind in _KINDS.values()}


def encode(message: Message) -> bytes:
    """One line of UTF-8 JSON."""
    text = json.dumps({"type": type(message).__name__, **asdict(message)}, separators=(",", ":"))
    return text.encode() + b"\n"


def decode(line: bytes) -> Message:
    """Parse a line; raises ValueError for anything that is no message of this protocol."""
    values = json.loads(line)
    if not isinstance(values, dict) or values.get("type") not in _KINDS:
        raise ValueError("not a message of this protocol")
    kind = _KINDS[values.pop("type")]
    if unknown := values.keys() - {each.name for each in fields(kind)}:
        raise ValueError(f"not a {kind.__name__}: {', '.join(sorted(unknown))}")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    if kind is Predict:
        values["channels"] = tuple(info_from(each) for each in values.get("channels", ()))
    if wrong := [name for name, value in values.items() if not _fits(value, _TYPES[kind][name])]:
        raise ValueError(f"not a {kind.__name__}: {', '.join(wrong)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error


def _fits(value: object, wanted: Any) -> bool:
    """Whether a value is of a type; numbers without a fraction may stand for others."""
    origin, inner = get_origin(wanted), get_args(wanted)
    if origin is tuple:
        return isinstance(value, tuple) and all(_fits(each, inner[0]) for each in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(each, inner[1]) for each in value.values())
    if origin is not None:
        return any(_fits(value, each) for each in inner)
    if wanted is Any or wanted is float:
        return wanted is Any or type(value) in (int, float)
    return type(value) is wanted


class Line:
    """One end of the socket. Sending is for one thread at a time, so is receiving."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._unread = b""
        self._handles: deque[int] = deque()

    def send(self, message: Message, handles: tuple[int, ...] = ()) -> None:
        """Write one message; OSError when the other end is gone."""
        content = encode(message)
        sent = 0
        if handles:
            sent = socket.send_fds(self._connection, [content], list(handles))
        self._connection.sendall(content[sent:])

    def receive(self, timeout_s: float | None = None) -> Message | None:
        """The next message; None when the other end is gone. TimeoutError when there is none in time."""
        while b"\n" not in self._unread:
            if len(self._unread) > _LONGEST_LINE:
                raise ValueError("a message without an end")
            if not select.select([self._connection], [], [], timeout_s)[0]:
                raise TimeoutError
            content, handles, _, _ = socket.recv_fds(
                self._connection, _CHUNK, _MOST_HANDLES, socket.MSG_CMSG_CLOEXEC
            )
            self._handles.extend(handles)
            if not content:
                return None
            self._unread += content
        line, _, self._unread = self._unread.partition(b"\n")
        return decode(line)

    def take_handles(self, count: int) -> tuple[int, ...]:
        """The next descriptors that came along, which are then the caller's to close."""
        if len(self._handles) < count:
            raise ValueError("fewer descriptors came than were announced")
        return tuple(self._handles.popleft() for _ in range(count))

    def close(self) -> None:
        """Close the socket, and every descriptor that nobody took."""
        self.close_handles()
        self._connection.close()

    def close_handles(self) -> None:
        """Close every descriptor that came along and that nobody took."""
        while self._handles:
            os.close(self._handles.popleft())
