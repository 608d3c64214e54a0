"""Debian's Orthanc as the PACS of the tests: own folder, free loopback ports, DICOMweb on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.ports import free_port

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


class Orthanc:
    """A running Orthanc; ``with Orthanc(folder) as pacs``.

    ``options`` are added to its configuration, ``environment`` to its environment.
    """

    def __init__(
        self,
        folder: Path,
        ae_title: str = "ORTHANC",
        options: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        executable = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
        if not Path(executable).exists() or not PLUGIN.exists():
            pytest.fail("Orthanc with orthanc-dicomweb is missing: run `make test-tools`")
        self._executable = executable
        self._folder = folder
        self.ae_title = ae_title
        self.dicom_port = free_port()
        self.http_port = free_port()
        self._options = dict(options or {})
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, on the same folder and ports as before if it ran already; wait until it answers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "DicomAet": self.ae_title,
            "DicomPort": self.dicom_port,
            "DicomCheckCalledAet": True,
            "HttpPort": self.http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "StorageDirectory": str(self._folder / "db"),
            "IndexDirectory": str(self._folder / "db"),
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "UnknownSopClassAccepted": True,  # label maps are younger than this Orthanc
            "OverwriteInstances": False,
            **self._options,
        }
        path = self._folder / "orthanc.json"
        path.write_text(json.dumps(configuration))
        log = (self._folder / "orthanc.log").open("ab")
        self._process = subprocess.Popen(
            [self._executable, str(path)], stdout=log, stderr=log, env=self._environment
        )
        log.close()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                self.get("/system")
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.1)
            else:
                return
        raise AssertionError(f"Orthanc did not start: see {self._folder / 'orthanc.log'}")

    def stop(self) -> None:
        """Stop it, as an outage; what it stored stays."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def __enter__(self) -> Orthanc:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process_id(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def dicom_web(self) -> str:
        """Root URL of its DICOMweb service."""
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def get_bytes(self, path: str, accept: str = "*/*") -> bytes:
        """Body of a GET on its REST interface."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}", headers={"Accept": accept}
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback http
            body: bytes = response.read()
            return body

    def get(self, path: str) -> Any:
        """JSON body of a GET on its REST interface."""
        return json.loads(self.get_bytes(path))

    def store(self, part_10_file: bytes) -> None:
        """Put one DICOM file into the archive."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}/instances", data=part_10_file, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback http
            assert json.load(response)["Status"] == "Success"

    def instances(self) -> list[dict[str, Any]]:
        """The main tags of every stored instance."""
        listing: list[dict[str, Any]] = self.get("/instances?expand")
        return listing

    def series_by_modality(self) -> dict[str, list[dict[str, Any]]]:
        """Stored series, by modality."""
        found: dict[str, list[dict[str, Any]]] = {}
        for series in self.get("/series?expand"):
            found.setdefault(series["MainDicomTags"].get("Modality", ""), []).append(series)
        return found

    def file(self, orthanc_instance_id: str) -> bytes:
        """The stored Part 10 file."""
        return self.get_bytes(f"/instances/{orthanc_instance_id}/file")
