"""What a person mistypes on the command line, or may not read, gets a sentence and its exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.app import run

ROOT = Path(__file__).parents[2]
AIGW = "import sys; from gateway.cli.app import run; run(sys.argv[1:])"
WITHOUT_ROOTS_RIGHTS = """\
import ctypes
libc = ctypes.CDLL(None)
header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
sets = (ctypes.c_uint32 * 6)()
assert libc.capget(header, sets) == 0
for index in (0, 1, 2):  # effective, permitted, inheritable
    sets[index] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
assert libc.capset(header, sets) == 0
"""


def aigw(*arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return int(caught.value.code or 0)


def kept_out(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command as somebody whom permissions keep out, even when these tests are run by root."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_ROOTS_RIGHTS + AIGW, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("calling", ["SEVENTEEN_LETTERS", "A\\B"])
@pytest.mark.parametrize("verb", [["echo", "PACS@127.0.0.1:1"], ["send", "PACS@127.0.0.1:1", __file__]])
def test_a_wrong_title_of_ours_is_refused(
    verb: list[str], calling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aigw(*verb, "--calling", calling) == 2
    assert capsys.readouterr().err.startswith("NO_AE_TITLE: ")


def test_an_ipv6_address_stands_in_brackets(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert aigw("echo", "PACS@[::1]:1") == 4
    assert "PACS@[::1]:1" in capsys.readouterr().err
    path = tmp_path / "gw.yaml"
    path.write_text("version: 1\ndata_dir: d\ndicom: {listen: {host: '::', port: 11112}}\n", encoding="utf-8")
    assert aigw("check", "-c", str(path)) == 0
    assert "AIGW on [::]:11112\n" in capsys.readouterr().out


def test_the_status_of_a_data_folder_that_is_a_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "d").touch()
    path = tmp_path / "gw.yaml"
    path.write_text("version: 1\ndata_dir: d\n", encoding="utf-8")
    assert aigw("status", "-c", str(path)) == 1
    assert capsys.readouterr().err == f"NO_ANSWER: {tmp_path / 'd'} is no folder: correct data_dir.\n"
    path.write_text("version: 1\ndata_dir: d/e\n", encoding="utf-8")
    assert aigw("status", "-c", str(path)) == 1
    assert capsys.readouterr().err.startswith("NO_ANSWER: ")


def test_the_status_of_a_closed_data_folder(tmp_path: Path) -> None:
    closed, path = tmp_path / "closed", tmp_path / "gw.yaml"
    (closed / "d").mkdir(parents=True)
    path.write_text("version: 1\ndata_dir: closed/d\n", encoding="utf-8")
    closed.chmod(0)
    try:
        done = kept_out("status", "-c", str(path))
    finally:
        closed.chmod(0o700)
    assert (done.returncode, done.stderr) == (
        1,
        f"NO_ANSWER: {closed / 'd'} is not yours to read: run this as the gateway's user.\n",
    )


@pytest.mark.parametrize("verb", [["check"], ["model", "list"], ["echo", "pacs"]])
def test_a_configuration_that_may_not_be_read_exits_78(tmp_path: Path, verb: list[str]) -> None:
    path = tmp_path / "gw.yaml"
    path.write_text("version: 1\ndata_dir: d\n", encoding="utf-8")
    path.chmod(0)
    done = kept_out(*verb, "-c", str(path))
    assert done.returncode == 78, done.stderr
    assert done.stderr.startswith(f"{path}:1:1  cannot be read: Permission denied\n")
