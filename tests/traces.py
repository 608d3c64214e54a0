"""What a process really asked of the operating system, and in which order, by strace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "fsync,fdatasync,sync_file_range,rename,renameat,renameat2,"
    "pwrite64,pwritev,write,writev,sendto,sendmsg,unlink"
)

_HEX = re.compile(r"\\x([0-9a-f]{2})")
_WHOLE = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<text>.*)\)\s+= (?P<result>-?\d+)")
_BEGUN = re.compile(r"^(?P<thread>\d+) +(?P<name>\w+)\((?P<text>.*?)\s*<unfinished \.\.\.>$")
_ENDED = re.compile(r"^(?P<thread>\d+) +<\.\.\. (?P<name>\w+) resumed>(?P<text>.*)\)\s+= (?P<result>-?\d+)")
_DESCRIPTOR = re.compile(r"^\d+<(?P<what>.*?)>(?:,|$)", re.DOTALL)


def strace(output: Path, longest_text: int = 512) -> tuple[str, ...]:
    """The command that goes before another one, and writes its trace; that one keeps its process id."""
    what = ("-e", f"trace={CALLS}", "-e", "signal=none", "-xx", "-s", str(longest_text))
    return ("strace", "-D", "-f", "--seccomp-bpf", "-yy", *what, "-o", str(output))


@dataclass(frozen=True)
class Call:
    """A system call that returned; ``begun`` and ``ended`` are places in the trace.

    Attributes
    ----------
    what
        The file or connection that its first argument stands for; empty if that is none.
    text
        All arguments, strings decoded byte for byte.
    """

    thread: int
    name: str
    what: str
    text: str
    result: int
    begun: int
    ended: int


def has_ended(path: Path, process_id: int) -> bool:
    """Whether the trace goes on to the end of a process, with exit code 0; strace pads short numbers."""
    text = path.read_text(encoding="latin-1")
    return re.search(rf"^{process_id} +\+\+\+ exited with 0 \+\+\+$", text, re.MULTILINE) is not None


def read_trace(path: Path) -> list[Call]:
    """Every call that returned, in the order of their ends."""
    return list(_calls(path.read_text(encoding="latin-1").splitlines()))


def _calls(lines: Sequence[str]) -> Iterator[Call]:
    open_calls: dict[tuple[int, str], tuple[int, str]] = {}
    for number, line in enumerate(lines):
        begun = _BEGUN.match(line)
        if begun is not None:
            open_calls[int(begun["thread"]), begun["name"]] = (number, begun["text"])
            continue
        ended = _ENDED.match(line)
        found = ended or _WHOLE.match(line)
        if found is None:
            continue
        key = (int(found["thread"]), found["name"])
        start, before = open_calls.pop(key, (number, "")) if ended else (number, "")
        text = before + found["text"]
        descriptor = _DESCRIPTOR.match(text)
        what = _decoded(descriptor["what"]) if descriptor else ""
        yield Call(*key, what, _decoded(text), int(found["result"]), start, number)


def _decoded(text: str) -> str:
    return _HEX.sub(lambda match: chr(int(match[1], 16)), text)
