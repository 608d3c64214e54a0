"""A system call filter (seccomp BPF) that leaves a process no way to a network or into other processes.

Source: Linux, Documentation/userspace-api/seccomp_filter.rst; numbers from the kernel's unistd tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
from dataclasses import dataclass

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER = 1
_ALL_THREADS = 1  # SECCOMP_FILTER_FLAG_TSYNC

_LOAD, _EQUAL, _AT_LEAST, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES
_NUMBER_AT, _ARCHITECTURE_AT, _DOMAIN_AT, _TYPE_AT = 0, 4, 16, 24  # offsets in struct seccomp_data
_TYPE_MASK = 0xF
_X32 = 0x40000000


@dataclass(frozen=True)
class _Architecture:
    """Audit number of a processor, and its numbers of the system calls that matter here."""

    audit: int
    seccomp: int
    socket: int
    denied: tuple[int, ...]


# connect, ptrace, process_vm_readv, process_vm_writev, open_by_handle_at, io_uring_setup, pidfd_getfd
_KNOWN = {
    "x86_64": _Architecture(0xC000003E, 317, 41, (42, 101, 310, 311, 304, 425, 438)),
    "aarch64": _Architecture(0xC00000B7, 277, 198, (203, 117, 270, 271, 265, 425, 438)),
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

    Sockets of the local kind that CUDA makes for itself stay possible; nothing can be connected to.
    """
    architecture = _KNOWN.get(platform.machine())
    if architecture is None:
        return f"no system call numbers are known here for {platform.machine()}"
    lines = _filter(architecture)
    array = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), array)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"no_new_privs is refused ({os.strerror(ctypes.get_errno())})"
    done = libc.syscall(
        ctypes.c_long(architecture.seccomp),
        ctypes.c_uint(_SET_MODE_FILTER),
        ctypes.c_uint(_ALL_THREADS),
        ctypes.byref(program),
    )
    return "" if done == 0 else f"the kernel refuses the filter ({os.strerror(ctypes.get_errno())})"


def _filter(architecture: _Architecture) -> list[tuple[int, int, int, int]]:
    """The program; a jump counts the instructions that it leaves out.

    Other tables of system calls (32 bit, x32) are shut: their numbers mean something else.
    """
    calls = len(architecture.denied)
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 1, 0, architecture.audit),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, calls + 7, 0, _X32),
        *((_EQUAL, calls + 6 - place, 0, call) for place, call in enumerate(architecture.denied)),
        (_EQUAL, 0, 5, architecture.socket),
        (_LOAD, 0, 0, _DOMAIN_AT),
        (_EQUAL, 0, 4, int(socket.AF_UNIX)),
        (_LOAD, 0, 0, _TYPE_AT),
        (_AND, 0, 0, _TYPE_MASK),
        (_EQUAL, 1, 0, int(socket.SOCK_DGRAM)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
