"""``aigw serve`` as a process of its own, as a hospital runs it; for tests that kill it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.ports import free_port
from tests.waiting import wait_until

_PORT_ATTEMPTS = 3

CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}
  pacs: {ae_title: ORTHANC, host: 127.0.0.1, port: "${GW_PACS_PORT}", roles: [source, destination]}
completion: {quiet_for: 1500ms, at_most: 1m}
models:
  tissue: {card: ct-tissue}
routes:
  - name: ct-volumes
    when: {Modality: CT, ImageType: {lacks: [LOCALIZER]}}
    model: tissue
    send: [pacs]
delivery: {first_retry: 500ms, longest_wait: 1s, timeout: 20s}
results: {status: live}
workers: {device: cpu, retry_after: 200ms}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
"""


class GatewayProcess:
    """One data folder and configuration, and the process that serves it; may be started many times."""

    def __init__(self, folder: Path, pacs_port: int, configuration: str = CONFIGURATION) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.dicom_port, self.http_port = free_port(), free_port()
        self.config = folder / "gateway.yaml"
        self.config.write_text(configuration)
        self.environment = {
            **os.environ,
            "GW_DATA": str(self.data),
            "GW_DICOM_PORT": str(self.dicom_port),
            "GW_PACS_PORT": str(pacs_port),
            "GW_HTTP_PORT": str(self.http_port),
            "GW_DEVICE": "cpu",
        }
        self.log = folder / "gateway.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self, extra: Mapping[str, str] | None = None, *, wait: bool = True, under: Sequence[str] = ()
    ) -> None:
        """Start ``aigw serve``; wait for its ready line, or for its death when a failpoint hits first.

        ``under`` is a command to run it with, such as ``strace``. A port that somebody else was given
        meanwhile is soon free again.
        """
        for _ in range(_PORT_ATTEMPTS):
            size = self.log.stat().st_size if self.log.exists() else 0
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*under, sys.executable, "-m", "gateway", "serve", "--config", str(self.config)],
                    env={**self.environment, **(extra or {})},
                    stderr=log,
                    stdout=log,
                    cwd=Path(__file__).parent.parent,
                )
            if not wait:
                return
            wait_until(partial(self._is_ready_or_dead, size), 60, f"the ready line in {self.log}")
            if not (self.died and self._has_logged(b"PORT_NOT_FREE", size)):
                return
            time.sleep(1.0)
        raise AssertionError(f"a port of the gateway stays taken: {self.log}")

    def _is_ready_or_dead(self, offset: int) -> bool:
        return self.died or self._has_logged(b'"event": "ready"', offset)

    def _has_logged(self, text: bytes, offset: int) -> bool:
        return text in self.log.read_bytes()[offset:]

    @property
    def died(self) -> bool:
        return self.process is not None and self.process.poll() is not None

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=30)

    def terminate(self, timeout_s: float = 60) -> int:
        """SIGTERM; returns the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=timeout_s)

    def __enter__(self) -> GatewayProcess:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def events(self) -> list[dict[str, Any]]:
        """Every JSON line of the log."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{")]

    def aigw(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another ``aigw`` command on the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *arguments, "--config", str(self.config)],
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def studies(self) -> Any:
        """What ``aigw study list --json`` prints."""
        return json.loads(self.aigw("study", "list", "--json").stdout)
