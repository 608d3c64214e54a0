"""The receivers that benchmarks/receive.py compares, each a process of its own with its best settings.

The peers run with ``TCP_NODELAY=1``: without it DCMTK's network layer, which both use, waits for up to 44 ms
before it answers. Only the rows that say "as packaged" run without.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar

import psutil

from benchmarks.receive_files import read
from benchmarks.receive_wire import CALLED, MAX_PDU_BYTES
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.ports import free_port
from tests.waiting import wait_until

_ROOT = Path(__file__).parents[1]
_ATTEMPTS = 5
_NODE_CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
  max_associations: 40
  max_connections_per_address: 64
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}
admission: {max_instance_size: 4GiB}
workers: {device: cpu}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
"""


class Server(ABC):
    """A running receiver; use as a context manager."""

    name: str
    settings: str
    called = CALLED

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.process_id = 0

    @abstractmethod
    def start(self) -> None:
        """Start it and wait until it listens."""

    @abstractmethod
    def stop(self) -> None:
        """End it."""

    def stored(self, wanted: set[str]) -> set[str]:
        """Those of the data sets, named by their SHA-256 (hex), that it has stored."""
        return wanted & {read(path).digest for path in self._files()}

    def cpu_s(self) -> float:
        """Seconds of CPU that the process has used so far, and those of its children that have ended."""
        times = psutil.Process(self.process_id).cpu_times()
        return float(times.user + times.system + times.children_user + times.children_system)

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    @abstractmethod
    def _files(self) -> Iterator[Path]:
        """Every stored Part 10 file."""


class Durable(Server):
    """Ours as a hospital runs it: ``aigw serve`` without a model, 0000 after fsync and commit."""

    name = "gateway, durable"
    settings = "aigw serve; file, directory and journal on the disk before 0000"

    def start(self) -> None:
        """See :meth:`Server.start`; ``start_s`` is the time until its ready line."""
        self.node = GatewayProcess(self.folder, free_port(), _NODE_CONFIGURATION)
        start_s = time.perf_counter()
        self.node.start()
        self.start_s = time.perf_counter() - start_s
        if self.node.died or self.node.process is None:
            raise SystemExit(f"aigw serve did not start: see {self.node.log}")
        # Starting the worker takes seconds of CPU; after that it idles, as there is no model.
        wait_until(lambda: b'"worker_ready"' in self.node.log.read_bytes(), 120, "the worker to be ready")
        self.port, self.process_id = self.node.dicom_port, self.node.process.pid

    def stop(self) -> None:
        """See :meth:`Server.stop`."""
        self.node.kill()

    def _files(self) -> Iterator[Path]:
        return (self.node.data / "spool" / "objects").glob("*/*.dcm")

    def stored(self, wanted: set[str]) -> set[str]:
        """Those that lie under their own name; it may have a million others."""
        objects = self.node.data / "spool" / "objects"
        paths = [objects / digest[:2] / f"{digest}.dcm" for digest in wanted]
        return wanted & {read(path).digest for path in paths if path.exists()}


class NotDurable(Server):
    """Ours without fsync: what the protocol and the writing cost alone."""

    name = "gateway, no fsync"
    settings = "the same receiver; nothing is flushed, the journal neither"

    def start(self) -> None:
        """See :meth:`Server.start`."""
        self.folder.mkdir(parents=True)
        command = [sys.executable, "-m", "benchmarks.receive_node", str(self.folder)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=_ROOT, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("benchmarks.receive_node did not start")
        self.port, self.process_id = int(line), self._process.pid

    def stop(self) -> None:
        """See :meth:`Server.stop`."""
        _end(self._process)

    def _files(self) -> Iterator[Path]:
        return (self.folder / "spool" / "objects").glob("*/*.dcm")


class Storescp(Server):
    """DCMTK's storescp: one association, writes and answers."""

    name = "storescp"
    options: tuple[str, ...] = ()
    environment: ClassVar[dict[str, str]] = {"TCP_NODELAY": "1"}
    settings = f"DCMTK, -pdu {MAX_PDU_BYTES} +B, TCP_NODELAY=1; never flushes"

    def start(self) -> None:
        """See :meth:`Server.start`."""
        self.folder.mkdir(parents=True)
        options = ["-q", "-pdu", str(MAX_PDU_BYTES), "+B", "-od", str(self.folder), *self.options]
        environment = {**os.environ, **self.environment}
        for _ in range(_ATTEMPTS):
            self.port = free_port()
            self._process = subprocess.Popen(["storescp", *options, str(self.port)], env=environment)
            self.process_id = self._process.pid
            if _listens(self._process, self.port):
                return
        raise SystemExit("storescp found no free port")

    def stop(self) -> None:
        """See :meth:`Server.stop`."""
        _end(self._process)

    def _files(self) -> Iterator[Path]:
        return (path for path in self.folder.iterdir() if path.is_file())


class StorescpFork(Storescp):
    """DCMTK's storescp with a process for each association."""

    name = "storescp --fork"
    options = ("--fork",)
    settings = f"DCMTK, --fork -pdu {MAX_PDU_BYTES} +B, TCP_NODELAY=1; never flushes"


class StorescpPackaged(Storescp):
    """DCMTK's storescp as it comes."""

    name = "storescp as packaged"
    environment: ClassVar[dict[str, str]] = {}
    settings = f"DCMTK, -pdu {MAX_PDU_BYTES} +B"


class OrthancDefault(Server):
    """Debian's Orthanc, which flushes every file."""

    name = "Orthanc"
    sync = True
    settings = "SyncStorageArea=true (default), StorageCompression=false, StoreMD5ForAttachments=true, " + (
        f"MaximumPduLength={MAX_PDU_BYTES}, no plugins, TCP_NODELAY=1"
    )

    def start(self) -> None:
        """See :meth:`Server.start`."""
        options = {
            "Plugins": [],
            "SyncStorageArea": self.sync,
            "StorageCompression": False,
            "StoreMD5ForAttachments": True,
            "MaximumPduLength": MAX_PDU_BYTES,
            "DicomAlwaysAllowStore": True,
            "SaveJobs": False,
        }
        self._orthanc = Orthanc(self.folder, CALLED, options, {"TCP_NODELAY": "1"})
        self._orthanc.start()
        self.port, self.process_id = self._orthanc.dicom_port, self._orthanc.process_id

    def stop(self) -> None:
        """See :meth:`Server.stop`."""
        self._orthanc.stop()

    def _files(self) -> Iterator[Path]:
        """Of its attachments those that are images; the others are headers as JSON."""
        for path in (self.folder / "db").glob("??/??/*"):
            with path.open("rb") as file:
                if file.read(132)[128:] == b"DICM":
                    yield path


class OrthancNoSync(OrthancDefault):
    """Debian's Orthanc without flushing."""

    name = "Orthanc Sync=false"
    sync = False
    settings = "as above, SyncStorageArea=false"


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it does; False if it has ended, as somebody else was given the port meanwhile."""
    while process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionError:
            time.sleep(0.05)
        else:
            return process.poll() is None
    return False


def _end(process: subprocess.Popen[str] | subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
