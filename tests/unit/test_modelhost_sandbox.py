"""The sandbox of the model process, entered by a real process that then tries to get out."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.modelhost import landlock, sandbox

PROGRAM = """
import json, os, resource, socket, sys, threading
from pathlib import Path
from gateway.modelhost import sandbox
scratch, outside = Path(sys.argv[1]), Path(sys.argv[2])
sandbox.prepare_scratch(scratch)
box = sandbox.enter(scratch)
tries = {
    "tcp": lambda: socket.socket(),
    "tcp6": lambda: socket.socket(socket.AF_INET6),
    "udp": lambda: socket.socket(type=socket.SOCK_DGRAM),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "log": lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    "local": lambda: socket.socket(socket.AF_UNIX).connect(str(outside / "socket")),
    "create": lambda: (outside / "new").write_text("x"),
    "change": lambda: (outside / "old").write_text("x"),
    "append": lambda: (outside / "old").open("a"),
    "truncate": lambda: os.truncate(outside / "old", 0),
    "remove": lambda: (outside / "old").unlink(),
    "folder": lambda: (outside / "folder").mkdir(),
    "move in": lambda: os.rename(outside / "old", scratch / "old"),
    "move out": lambda: os.rename(scratch / "mine", outside / "mine"),
    "signal": lambda: os.kill(os.getppid(), 0),
    "scratch": lambda: (scratch / "mine").write_text("x"),
    "null": lambda: Path("/dev/null").write_text("x"),
    "pair": lambda: socket.socketpair(),
    "read": lambda: (outside / "old").read_text(),
}
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
NETWORK = ("tcp", "tcp6", "udp", "netlink", "log", "local")
WRITES = ("create", "change", "append", "truncate", "remove", "folder", "move in", "move out")
ALLOWED = ("scratch", "null", "pair", "read")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("sandbox")
    outside, scratch = folder / "outside", folder / "scratch"
    outside.mkdir()
    (outside / "old").write_text("before")
    scratch.mkdir()
    (scratch / "left-over").write_text("of an earlier process")
    command = [sys.executable, "-c", PROGRAM, str(scratch), str(outside)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=120
    )
    told: dict[str, object] = json.loads(done.stdout)
    told["outside"] = {path.name: path.read_text() for path in outside.iterdir()}
    told["left over"] = (scratch / "left-over").exists()
    return told


def test_nothing_can_be_connected_to(report: dict[str, dict[str, str]]) -> None:
    if platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip(f"no system call numbers are known for {platform.machine()}")
    assert report["box"]["network"] == sandbox.CLOSED
    assert {name: report["found"][name] for name in NETWORK} == dict.fromkeys(NETWORK, "PermissionError")


@pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock of version 3 or later")
def test_nothing_outside_the_scratch_folder_is_written(report: dict[str, dict[str, str]]) -> None:
    assert report["box"]["writes"] == sandbox.SCRATCH_ONLY
    found = {name: report["found"][name] for name in WRITES}
    assert set(found.values()) <= {"PermissionError", "FileNotFoundError", "OSError"}, found
    assert report["outside"] == {"old": "before"}


@pytest.mark.skipif(landlock.version() < 6, reason="this kernel's Landlock does not scope signals")
def test_no_other_process_is_signalled(report: dict[str, dict[str, str]]) -> None:
    assert report["found"]["signal"] == "PermissionError"


def test_what_a_model_needs_stays_possible(report: dict[str, dict[str, str]]) -> None:
    assert {name: report["found"][name] for name in ALLOWED} == dict.fromkeys(ALLOWED, "done")


def test_the_scratch_folder_is_private_and_was_emptied_and_no_core_file_is_left(
    report: dict[str, object],
) -> None:
    assert report["mode"] == "0o40700"
    assert report["left over"] is False
    assert report["core"] == [0, 0]


def test_a_platform_that_allows_less_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sandbox, "confine_writes", lambda _folders, _devices: "this kernel has no Landlock")
    monkeypatch.setattr(sandbox, "close_network", lambda: "")
    monkeypatch.setattr(sandbox.os, "umask", lambda _mask: 0)
    monkeypatch.setattr(sandbox.resource, "setrlimit", lambda _which, _limits: None)
    monkeypatch.chdir(tmp_path)
    box = sandbox.enter(tmp_path)
    assert not box.complete
    assert box.describe() == "sandbox: network none, writes open: this kernel has no Landlock"
