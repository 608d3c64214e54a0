"""Landlock: a process gives up for good writing to files but below folders that it names, and reading some.

Source: Linux, Documentation/userspace-api/landlock.rst and include/uapi/linux/landlock.h.
"""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every processor
_ASK_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE = 1 << 1
_READ_FILE = 1 << 2
_CHANGE_FOLDERS = sum(1 << bit for bit in range(4, 13))  # remove and make files, folders, links, devices
_REFER = 1 << 13  # since version 2
_TRUNCATE = 1 << 14  # since version 3
_SCOPES = 1 | 2  # since version 6: no abstract socket, no signal beyond this process


class _Ruleset(ctypes.Structure):
    _fields_ = (("access", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("access", ctypes.c_uint64), ("folder", ctypes.c_int32))


def version() -> int:
    """Which Landlock the kernel has; 0 for none."""
    found = _libc().syscall(
        ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION)
    )
    return max(int(found), 0)


def confine(folders: Sequence[Path], devices: Sequence[Path], readable: Sequence[Path] = ()) -> str:
    """Let this thread, and what it starts, write below ``folders`` and to ``devices`` only.

    Where ``readable`` names something, no file can be read but below that and below ``folders``. Returns why
    that could not be done, or nothing.
    """
    known = version()
    if known == 0:
        return "this kernel has no Landlock"
    if _threads() != 1:
        return "there are other threads already, and Landlock holds for one"
    in_folders = _WRITE_FILE | _CHANGE_FOLDERS | (_REFER if known >= 2 else 0)
    in_folders |= _TRUNCATE if known >= 3 else 0
    to_device = in_folders & (_WRITE_FILE | _TRUNCATE)
    read = _READ_FILE if readable else 0
    rules = [(each, in_folders | read) for each in folders] + [(each, to_device) for each in devices]
    rules += [(each, read) for each in readable]
    ruleset = _Ruleset(in_folders | read, 0, _SCOPES if known >= 6 else 0)
    size = 24 if known >= 6 else 8
    libc = _libc()
    handle = libc.syscall(
        ctypes.c_long(_CREATE_RULESET), ctypes.byref(ruleset), ctypes.c_size_t(size), ctypes.c_uint(0)
    )
    if handle < 0:
        return f"the rules are refused ({os.strerror(ctypes.get_errno())})"
    try:
        for path, access in rules:
            _allow(libc, int(handle), path, access)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.syscall(ctypes.c_long(_RESTRICT_SELF), ctypes.c_int(handle), ctypes.c_uint(0)) != 0:
            return f"the rules are not applied ({os.strerror(ctypes.get_errno())})"
    finally:
        os.close(handle)
    return ""


def all_but(hidden: Sequence[Path]) -> list[Path]:
    """What there is beside the ways to what is hidden; rules of Landlock can only allow, never except.

    What is put later into a folder on such a way is hidden too.
    """
    places = {path.resolve() for path in hidden}
    on_the_way = {parent for place in places for parent in place.parents}
    beside = []
    for folder in on_the_way - places:
        with suppress(OSError), os.scandir(folder) as entries:
            found = [Path(entry.path) for entry in entries if not entry.is_symlink()]
            beside += [path for path in found if path not in places and path not in on_the_way]
    return beside


def is_on_the_way(folder: Path, hidden: Sequence[Path]) -> bool:
    """Whether what will be put into a folder is hidden, because the folder has something hidden below it."""
    place = folder.resolve()
    while not place.is_dir():
        place = place.parent
    return any(path.resolve().is_relative_to(place) for path in hidden)


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # a device that is not there
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _WRITE_FILE | _TRUNCATE | _READ_FILE
        rule = _Beneath(access, place)
        libc.syscall(
            ctypes.c_long(_ADD_RULE),
            ctypes.c_int(ruleset),
            ctypes.c_int(_RULE_PATH_BENEATH),
            ctypes.byref(rule),
            ctypes.c_uint(0),
        )
    finally:
        os.close(place)


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
