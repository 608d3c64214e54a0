"""The sandbox of the model process, entered by a real process that then tries to get out."""

from __future__ import annotations

import json
import platform
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.modelhost import landlock, sandbox

PROGRAM = """
import json, os, resource, socket, subprocess, sys, threading
from pathlib import Path
from gateway.modelhost import sandbox
scratch, outside = Path(sys.argv[1]), Path(sys.argv[2])
address = str(outside / "mailbox")
sandbox.prepare_scratch(scratch)
box = sandbox.enter(scratch, [outside / "hidden", outside / "hidden.db"], [outside / "models"])
tries = {
    "tcp": lambda: socket.socket(),
    "tcp6": lambda: socket.socket(socket.AF_INET6),
    "udp": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "log": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "local": lambda: socket.socket(socket.AF_UNIX).connect(str(outside / "socket")),
    "pair": lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b"x", address),
    "raw": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_RAW).sendto(b"x", address),
    "create": lambda: (outside / "new").write_text("x"),
    "change": lambda: (outside / "old").write_text("x"),
    "append": lambda: (outside / "old").open("a"),
    "truncate": lambda: os.truncate(outside / "old", 0),
    "remove": lambda: (outside / "old").unlink(),
    "folder": lambda: (outside / "folder").mkdir(),
    "empty": lambda: os.open(outside / "old", os.O_RDONLY | os.O_TRUNC),
    "rights": lambda: os.chmod(outside / "old", 0),
    "rights of an open one": lambda: os.fchmod(os.open(outside / "old", os.O_RDONLY), 0),
    "owner": lambda: os.chown(outside / "old", 1, 1),
    "move in": lambda: os.rename(outside / "old", scratch / "old"),
    "move out": lambda: os.rename(scratch / "mine", outside / "mine"),
    "signal": lambda: os.kill(os.getppid(), 0),
    "limits": lambda: resource.prlimit(os.getppid(), resource.RLIMIT_CORE),
    "group": lambda: os.kill(0, 0),
    "process": lambda: subprocess.run(["true"], check=True),
    "fork": lambda: os.fork() or os._exit(0),
    "hidden folder": lambda: (outside / "hidden" / "image").read_text(),
    "hidden file": lambda: (outside / "hidden.db").read_text(),
    "by another way": lambda: (outside / "models" / ".." / "hidden.db").read_text(),
    "by a link": lambda: (outside / "link" / "image").read_text(),
    "came later": lambda: (outside / "hidden" / "later").read_text(),
    "added model": lambda: (outside / "models" / "later").read_text(),
    "scratch": lambda: (scratch / "mine").write_text("x"),
    "null": lambda: Path("/dev/null").write_text("x"),
    "local pair": lambda: socket.socketpair(),
    "itself": lambda: os.kill(os.getpid(), 0),
    "own limits": lambda: resource.prlimit(0, resource.RLIMIT_CORE),
    "library": lambda: Path(json.__file__).read_text(),
    "kernel": lambda: Path("/proc/self/status").read_text(),
    "read": lambda: (outside / "old").read_text(),
}
print("entered", flush=True)
sys.stdin.readline()
found = {}
def run():
    for name, attempt in tries.items():
        try:
            attempt()
            found[name] = "done"
        except OSError as error:
            found[name] = type(error).__name__
thread = threading.Thread(target=run)
thread.start(); thread.join()
core = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps({"box": vars(box), "found": found, "core": core, "mode": oct(scratch.stat().st_mode)}))
"""
NETWORK = ("tcp", "tcp6", "udp", "netlink", "log", "local", "pair", "raw")
WRITES = ("create", "change", "append", "truncate", "remove", "folder", "move in", "move out", "empty")
WRITES += ("rights", "rights of an open one", "owner")
PROCESSES = ("signal", "group", "limits", "process", "fork")
HIDDEN = ("hidden folder", "hidden file", "by another way", "by a link", "came later")
ALLOWED = (
    "scratch",
    "null",
    "local pair",
    "read",
    "itself",
    "own limits",
    "library",
    "kernel",
    "added model",
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("sandbox")
    outside, scratch = folder / "outside", folder / "scratch"
    for made in ("hidden", "models"):
        (outside / made).mkdir(parents=True)
    (outside / "link").symlink_to(outside / "hidden")
    for name in ("old", "hidden.db", "hidden/image"):
        (outside / name).write_text("before")
    scratch.mkdir()
    (scratch / "left-over").write_text("of an earlier process")
    command = [sys.executable, "-c", PROGRAM, str(scratch), str(outside)]
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as mailbox,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
            start_new_session=True,
        ) as process,
    ):
        mailbox.bind(str(outside / "mailbox"))
        assert process.stdout is not None
        assert process.stdout.readline() == "entered\n"
        for name in ("hidden/later", "models/later"):
            (outside / name).write_text("before")
        output, _ = process.communicate("\n", timeout=120)
    told: dict[str, object] = json.loads(output)
    told["outside"] = {path.name: path.read_text() for path in outside.iterdir() if path.is_file()}
    told["left over"] = (scratch / "left-over").exists()
    told["rights"] = (outside / "old").stat().st_mode & 0o777
    return told


needs_filter = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "aarch64"),
    reason="no system call numbers are known for this processor",
)


@needs_filter
def test_nothing_can_be_connected_to(report: dict[str, dict[str, str]]) -> None:
    assert report["box"]["network"] == sandbox.CLOSED
    assert {name: report["found"][name] for name in NETWORK} == dict.fromkeys(NETWORK, "PermissionError")


@pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock of version 3 or later")
def test_nothing_outside_the_scratch_folder_is_written(report: dict[str, dict[str, str]]) -> None:
    assert report["box"]["writes"] == sandbox.SCRATCH_ONLY
    found = {name: report["found"][name] for name in WRITES}
    assert set(found.values()) <= {"PermissionError", "FileNotFoundError", "OSError"}, found
    assert report["outside"] == {"old": "before", "hidden.db": "before"}
    assert report["rights"] != 0


@needs_filter
def test_no_other_process_is_signalled_limited_or_made(report: dict[str, dict[str, str]]) -> None:
    assert {name: report["found"][name] for name in PROCESSES} == dict.fromkeys(PROCESSES, "PermissionError")


@pytest.mark.skipif(landlock.version() < 1, reason="this kernel has no Landlock")
def test_what_is_of_patients_cannot_be_read(report: dict[str, dict[str, str]]) -> None:
    assert report["box"]["reads"] == sandbox.NO_PATIENT_FILES
    assert {name: report["found"][name] for name in HIDDEN} == dict.fromkeys(HIDDEN, "PermissionError")


def test_files_are_not_hidden_where_that_would_hide_models_too(tmp_path: Path) -> None:
    (tmp_path / "data" / "spool").mkdir(parents=True)
    hidden = [tmp_path / "data" / "spool"]
    for folder in (tmp_path, tmp_path / "data", tmp_path / "data" / "missing"):
        assert landlock.is_on_the_way(folder, hidden)
    (tmp_path / "data" / "models").mkdir()
    for folder in (tmp_path / "data" / "models", tmp_path / "data" / "models" / "missing"):
        assert not landlock.is_on_the_way(folder, hidden)


def test_what_a_model_needs_stays_possible(report: dict[str, dict[str, str]]) -> None:
    assert {name: report["found"][name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")


def test_the_scratch_folder_is_private_and_was_emptied_and_no_core_file_is_left(
    report: dict[str, object],
) -> None:
    assert report["mode"] == "0o40700"
    assert report["left over"] is False
    assert report["core"] == [0, 0]


def test_a_platform_that_allows_less_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "confine", lambda *_: "this kernel has no Landlock")
    monkeypatch.setattr(sandbox, "close_network", lambda: "")
    monkeypatch.setattr(sandbox.os, "umask", lambda _mask: 0)
    monkeypatch.setattr(sandbox.resource, "setrlimit", lambda _which, _limits: None)
    monkeypatch.chdir(tmp_path)
    box = sandbox.enter(tmp_path)
    assert not box.complete
    assert box.describe() == (
        "sandbox: network none, writes open: this kernel has no Landlock, reads open: nothing was named"
    )
