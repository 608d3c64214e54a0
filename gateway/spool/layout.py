"""Where the files of a spool lie. Names are made from digests, never from received text."""

from __future__ import annotations

import re

INCOMING, OBJECTS, QUARANTINE, UNCLAIMED = "incoming", "objects", "quarantine", "unclaimed"
SUFFIX = ".dcm"
FOLDERS = tuple(f"{i:02x}" for i in range(256))

_DIGEST = re.compile(r"[0-9a-f]{64}")
_OBJECT = re.compile(rf"([0-9a-f]{{64}}){SUFFIX}")
_PATH = re.compile(rf"{OBJECTS}/([0-9a-f]{{2}})/(\1[0-9a-f]{{62}}){SUFFIX}")


def relative_path(digest: str) -> str:
    """Path below the root for a SHA-256 in lower-case hex."""
    if _DIGEST.fullmatch(digest) is None:
        raise ValueError("a digest has 64 lower-case hex digits")
    return f"{OBJECTS}/{digest[:2]}/{digest}{SUFFIX}"


def digest_of_name(name: str) -> str | None:
    """The digest that made the name of a file, without its folders; None for any other name."""
    match = _OBJECT.fullmatch(name)
    return match[1] if match else None


def labelled(digest: str, label: str) -> str:
    """Name of a file that was put aside; the label tells it from others of the same body."""
    return f"{digest}{'-' if label else ''}{label}{SUFFIX}"


def without_label(name: str) -> str:
    """The name that a file had which was put aside under this one."""
    digest, mark, _ = name.partition("-")
    return f"{digest}{SUFFIX}" if mark else name


def digest_in(path: str) -> str | None:
    """The digest that made a relative path; None for any other path."""
    match = _PATH.fullmatch(path)
    return match[2] if match else None
