"""``aigw check`` and ``aigw config``: what a person and a program see, and the exit codes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.cli.app import COMMANDS, run

ROOT = Path(__file__).parents[2]
ACCEPTANCE = ROOT / "tests" / "data" / "acceptance-gateway.yaml"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "DATA": "/srv/aigw",
        "DICOM_PORT": "11112",
        "PACS_PORT": "4242",
        "HTTP_PORT": "8080",
        "DEVICE": "cpu",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"GW_{name}", value)


def aigw(arguments: Sequence[str]) -> int:
    """Run the command in this process; the exit code."""
    with pytest.raises(SystemExit) as caught:
        run(arguments)
    return int(caught.value.code or 0)


def test_a_good_configuration_is_summed_up_and_exits_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert aigw(["check", "--config", str(ACCEPTANCE)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(f"{ACCEPTANCE}: ok\n")
    assert "ct-volumes: when Modality is CT and ImageType lacks LOCALIZER and instances at least 10" in out
    assert "tissue: card ct-tissue" in out


def test_a_bad_configuration_is_explained_on_stderr_and_exits_78(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        ACCEPTANCE.read_text(encoding="utf-8").replace("model: tissue", "model: tisue"), encoding="utf-8"
    )
    assert aigw(["check", "--config", str(path)]) == 78
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f'{path}:32:5  routes.0.model: unknown model "tisue", did you mean "tissue"?\n'
        "    32 |     model: tisue\n"
        "       |     ^\n"
        "1 problem. Nothing was changed.\n"
    )


def test_an_unknown_card_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(ACCEPTANCE.read_text(encoding="utf-8").replace("ct-tissue", "ct-tisue"), encoding="utf-8")
    assert aigw(["check", "--config", str(path)]) == 78
    assert f"{path}:25:12  models.tissue.card: UNKNOWN_MODEL" in capsys.readouterr().err


def test_for_programs_the_problems_are_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("version: 1\ndata_dir: x\nquite: 1\n", encoding="utf-8")
    assert aigw(["check", "--config", str(path), "--json"]) == 78
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    (problem,) = report["problems"]
    assert (problem["line"], problem["column"], problem["path"]) == (3, 1, "quite")
    assert problem["message"].startswith("unknown setting")
    assert aigw(["check", "--config", str(ACCEPTANCE), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is True
    assert report["summary"]["results"] == "live"


def test_a_missing_option_is_a_usage_error() -> None:
    assert aigw(["check"]) == 2


def test_a_missing_file_exits_78(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert aigw(["check", "--config", str(tmp_path / "none.yaml")]) == 78
    assert "cannot be read: No such file or directory" in capsys.readouterr().err


def test_the_schema_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert aigw(["config", "schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["additionalProperties"] is False
    assert "routes" in schema["properties"]


def test_check_is_light() -> None:
    code = (
        "import sys\nfrom gateway.cli.app import run\n"
        f"try: run(['check', '--config', {str(ACCEPTANCE)!r}])\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'scipy', 'pynetdicom', 'starlette', 'highdicom'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_help_shows_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert aigw(["--help"]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert f" {command} " in out
