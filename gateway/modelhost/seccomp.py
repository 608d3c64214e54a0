"""A system call filter (seccomp BPF) that leaves a process no way to a network or into other processes.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; numbers from the kernel's unistd tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
from collections.abc import Mapping
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ERROR = 0x00050000
_ALLOW, _KILL = 0x7FFF0000, 0x80000000
_DENY, _UNKNOWN_CALL = _ERROR | errno.EACCES, _ERROR | errno.ENOSYS
_NUMBER_AT, _ARCHITECTURE_AT, _ARGUMENTS_AT = 0, 4, 16  # offsets in struct seccomp_data
_TYPE_MASK = 0xF
_CLONE_THREAD = 0x10000
_HOW_TO_OPEN = os.O_ACCMODE | os.O_TRUNC
_X32 = 0x40000000

_Lines = list[tuple[int, int, int, int]]
"""Instructions: code, how many to leave out if true, if false, value."""

_DENIED = (
    # to a network or another process: sockets that are there already, other ways to ask the kernel
    *("connect", "ptrace", "process_vm_readv", "process_vm_writev", "open_by_handle_at", "io_uring_setup"),
    *("pidfd_getfd", "pidfd_send_signal", "tkill"),
    # what Landlock knows nothing of, or not in every version: contents and rights of files, by name
    *("truncate", "chmod", "fchmod", "fchmodat", "fchmodat2"),
    *("chown", "fchown", "lchown", "fchownat"),
    *("fork", "vfork"),
)
_TO_ITSELF = ("kill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_TO_ITSELF_OR_0 = ("prlimit64",)


@dataclass(frozen=True)
class _Architecture:
    """Audit number of a processor, and its numbers of the system calls that matter here."""

    audit: int
    calls: Mapping[str, int]


_EVERYWHERE = {
    "io_uring_setup": 425,
    "pidfd_send_signal": 424,
    "clone3": 435,
    "pidfd_getfd": 438,
    "openat2": 437,
    "fchmodat2": 452,
}
_KNOWN = {
    "x86_64": _Architecture(
        0xC000003E,
        {
            **_EVERYWHERE,
            "seccomp": 317,
            "socket": 41,
            "socketpair": 53,
            "connect": 42,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "open_by_handle_at": 304,
            "kill": 62,
            "tkill": 200,
            "tgkill": 234,
            "rt_sigqueueinfo": 129,
            "rt_tgsigqueueinfo": 297,
            "prlimit64": 302,
            "clone": 56,
            "fork": 57,
            "vfork": 58,
            "open": 2,
            "openat": 257,
            "truncate": 76,
            "chmod": 90,
            "fchmod": 91,
            "fchmodat": 268,
            "chown": 92,
            "fchown": 93,
            "lchown": 94,
            "fchownat": 260,
        },
    ),
    "aarch64": _Architecture(
        0xC00000B7,
        {
            **_EVERYWHERE,
            "seccomp": 277,
            "socket": 198,
            "socketpair": 199,
            "connect": 203,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "open_by_handle_at": 265,
            "kill": 129,
            "tkill": 130,
            "tgkill": 131,
            "rt_sigqueueinfo": 138,
            "rt_tgsigqueueinfo": 240,
            "prlimit64": 261,
            "clone": 220,
            "openat": 56,
            "truncate": 45,
            "fchmod": 52,
            "fchmodat": 53,
            "fchown": 55,
            "fchownat": 54,
        },
    ),
}


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


def close_network() -> str:
    """Filter every thread of this process, for good; returns why that could not be done, or nothing.

    Local sockets in pairs, which CUDA makes for itself, stay possible; nothing can be connected to. There
    can be more threads, but no more processes, and no signal to another one.
    """
    architecture = _KNOWN.get(platform.machine())
    if architecture is None:
        return f"no system call numbers are known here for {platform.machine()}"
    lines = _filter(architecture, os.getpid())
    array = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), array)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"no_new_privs is refused ({os.strerror(ctypes.get_errno())})"
    done = libc.syscall(
        ctypes.c_long(architecture.calls["seccomp"]),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        ctypes.byref(program),
    )
    return "" if done == 0 else f"the kernel refuses the filter ({os.strerror(ctypes.get_errno())})"


def _filter(architecture: _Architecture, process: int) -> _Lines:
    """The program, for the process with this number.

    Other tables of system calls (32 bit, x32) are shut: their numbers mean something else.
    """
    calls = architecture.calls
    blocks: dict[str, _Lines] = {
        **{call: [_answer(_DENY)] for call in _DENIED},
        "clone3": [_answer(_UNKNOWN_CALL)],  # its arguments cannot be seen; the C library tries clone then
        "clone": [_argument(0), (_ANY_BIT, 1, 0, _CLONE_THREAD), _answer(_DENY), _answer(_ALLOW)],
        "open": _no_empty_reading(1),
        "openat": _no_empty_reading(2),
        "openat2": [_answer(_UNKNOWN_CALL)],  # nor can its flags; callers know older kernels
        "socket": _local_stream(),
        "socketpair": _local_stream(),
        **{call: _only(process) for call in _TO_ITSELF},
        **{call: _only(process, 0) for call in _TO_ITSELF_OR_0},
    }
    known = [(calls[name], block) for name, block in blocks.items() if name in calls]
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        _answer(_KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 0, 1, _X32),
        _answer(_DENY),
        *(line for number, block in known for line in ((_EQUAL, 0, len(block), number), *block)),
        _answer(_ALLOW),
    ]


def _answer(value: int) -> tuple[int, int, int, int]:
    return _RETURN, 0, 0, value


def _argument(place: int) -> tuple[int, int, int, int]:
    """Load the low half of an argument; the kernel takes no more of those that are used here."""
    return _LOAD, 0, 0, _ARGUMENTS_AT + 8 * place


def _only(*values: int) -> _Lines:
    """Allowed where the first argument is one of these."""
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return [_argument(0), *tests, _answer(_DENY), _answer(_ALLOW)]


def _no_empty_reading(flags_at: int) -> _Lines:
    """No file is emptied by opening it to be read, which Landlock knows of since its version 3."""
    return [
        _argument(flags_at),
        (_AND, 0, 0, _HOW_TO_OPEN),
        (_EQUAL, 0, 1, os.O_RDONLY | os.O_TRUNC),
        _answer(_DENY),
        _answer(_ALLOW),
    ]


def _local_stream() -> _Lines:
    """Local sockets that must be connected before they can send.

    Not datagrams, which are sent to whom one likes; and the kernel makes raw ones datagrams.
    """
    return [
        _argument(0),
        (_EQUAL, 0, 4, int(socket.AF_UNIX)),
        _argument(1),
        (_AND, 0, 0, _TYPE_MASK),
        (_EQUAL, 2, 0, int(socket.SOCK_STREAM)),
        (_EQUAL, 1, 0, int(socket.SOCK_SEQPACKET)),
        _answer(_DENY),
        _answer(_ALLOW),
    ]
