"""The core installs from a wheel without torch, and receives."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests.builders import ct_series, write_series
from tests.gateway_process import CONFIGURATION
from tests.peers import storescu
from tests.ports import free_port
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def run(*command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done


def test_a_core_install_without_torch_receives_and_keeps(tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", tmp_path, ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "venv", with_pip=True)
    python, aigw = tmp_path / "venv/bin/python", tmp_path / "venv/bin/aigw"
    run(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel)
    run(python, "-c", "import importlib.util as u; assert not u.find_spec('torch')", cwd=tmp_path)

    ports = {name: str(free_port()) for name in ("GW_DICOM_PORT", "GW_PACS_PORT", "GW_HTTP_PORT")}
    environment = {**os.environ, **ports, "GW_DATA": str(tmp_path / "data")}
    config, log = tmp_path / "gateway.yaml", tmp_path / "log"
    config.write_text(CONFIGURATION)
    with log.open("wb") as sink:
        command = [str(aigw), "serve", "--config", str(config)]
        process = subprocess.Popen(command, env=environment, stderr=sink, cwd=tmp_path)
    try:
        wait_until(lambda: b'"event": "ready"' in log.read_bytes(), 60, f"the ready line in {log}")
        write_series(ct_series(), tmp_path / "series")
        series = str(tmp_path / "series")
        storescu(int(ports["GW_DICOM_PORT"]), "+sd", series, calling="SCANNER", called="AIGW")
        listing = run(
            aigw, "study", "list", "--json", "--config", config, env=environment, cwd=tmp_path
        ).stdout
        assert '"instances": 12' in listing
    finally:
        process.terminate()
        assert process.wait(timeout=60) == 0
