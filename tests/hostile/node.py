"""The real node in a process of its own, its probes, and what must be true after an attack."""

from __future__ import annotations

import copy
import json
import os
import re
import sqlite3
import time
from contextlib import closing
from functools import cache
from itertools import count
from pathlib import Path

import psutil
from pydicom.dataset import Dataset

from tests.builders import ct_series
from tests.gateway_process import GatewayProcess
from tests.hostile.peer import RawPeer, digest
from tests.peers import dcmtk, encoded
from tests.waiting import wait_until

ASSOCIATION_TIMEOUT_S = IDLE_TIMEOUT_S = 3.0
AT_ONCE_S = 2.0  # less than every timeout: something else than the time must end it
CYCLES = int(os.environ.get("AIGW_HOSTILE_CYCLES", "1500"))
"""How long the endurance tests are; 10,000 in `make soak`."""
JOURNAL_CACHE_MIB = 32.0
"""What the writer of the journal keeps of its pages (gateway/journal/connection.py): full after 20,000
instances, and no leak until then."""
MOST_GROWN_MIB = 64.0
"""Over the memory of a node that has just stored its first instances, after whatever was done to it: what
the allocator keeps of many threads. The endurance tests have narrower bounds."""
PLANTED = "Planted^Patient"
LONGEST_LINE_BYTES = 4096

CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
  unknown_callers: UNKNOWN_CALLERS
  association_timeout: 3s
  idle_timeout: 3s
  max_associations: 12
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source], web: {token: a-token-of-the-tests}}
  attacker: {ae_title: ATTACKER, host: 127.0.0.66, roles: [source]}
completion: {quiet_for: 1h, at_most: 2h}
admission: {max_instance_size: 64MiB, keep_free: 16MiB, refuse_when_disk_over: 100%}
workers: {device: cpu}
drain_timeout: 5s
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
  stow: {idle_timeout: 3s}
"""

_OURS = re.compile(
    r"data/(spool/(objects/[0-9a-f]{2}/[0-9a-f]{64}\.dcm|incoming/[\w.-]+|verified)|journal\.db(-wal|-shm|-journal)?)"
    r"|gateway\.log"
)
_numbers = count(100_000)


class HostileNode(GatewayProcess):
    """``aigw serve`` four folders below ``root``, so that a path that climbs out is seen."""

    def __init__(self, root: Path, unknown_callers: str = "reject", tls: str = "") -> None:
        configuration = CONFIGURATION.replace("UNKNOWN_CALLERS", unknown_callers)
        configuration = configuration.replace("  max_associations: 12\n", f"  max_associations: 12\n{tls}")
        super().__init__(root / "a" / "b" / "node", pacs_port=1, configuration=configuration)
        self.root = root
        self.acknowledged: dict[str, str] = {}
        self._files: set[Path] = set()
        self._at_rest = (0, 0)
        self._at_start_mib = self._before_mib = 0.0
        self._log_read = 0

    def __enter__(self) -> HostileNode:
        """Start, warm up, and measure the base line."""
        super().__enter__()
        assert not self.died, self.log.read_text()
        with RawPeer(self.dicom_port) as peer:
            peer.associated()
            for _ in range(5):
                assert self.store_good(peer) == 0
                assert peer.echo() == 0
            peer.release()
        time.sleep(0.5)
        self._files = set(self.root.rglob("*"))
        self._at_rest = (self.threads, self.descriptors)
        self._at_start_mib = self.own_mib
        self.begin()
        return self

    def begin(self) -> None:
        """A test begins: ``grown_mib`` counts from here. What it must come back to stays what it was."""
        self._before_mib = self.rss_mib

    # -- probes -------------------------------------------------------------------------------

    @property
    def _process(self) -> psutil.Process:
        assert self.process is not None
        return psutil.Process(self.process.pid)

    @property
    def rss_mib(self) -> float:
        """Resident memory of the node; its worker is a process of its own."""
        return float(self._process.memory_info().rss) / 2**20

    @property
    def own_mib(self) -> float:
        """The same without the pages of the journal."""
        journal_mib = (self.data / "journal.db").stat().st_size / 2**20
        return self.rss_mib - min(journal_mib, JOURNAL_CACHE_MIB)

    @property
    def threads(self) -> int:
        """Threads now."""
        return int(self._process.num_threads())

    @property
    def descriptors(self) -> int:
        """Open files and sockets now."""
        return int(self._process.num_fds())

    @property
    def stored(self) -> int:
        """Objects in the spool."""
        return len(list(self.data.glob("spool/objects/*/*.dcm")))

    @property
    def grown_mib(self) -> float:
        """Resident memory over that at the beginning of the test."""
        return self.rss_mib - self._before_mib

    def is_calm(self) -> bool:
        """Threads and descriptors are what they were before anybody attacked, hours ago perhaps."""
        threads, descriptors = self._at_rest
        return self.threads <= threads + 1 and self.descriptors <= descriptors + 2

    # -- a good peer meanwhile ----------------------------------------------------------------

    def store_good(self, peer: RawPeer, context: int = 1) -> int:
        """Store a correct instance with a patient's name; remembered if it was acknowledged."""
        dataset = good_instance()
        data_set = encoded(dataset)
        status = peer.store(str(dataset.SOPInstanceUID), data_set, context).status
        if status == 0:
            self.acknowledged[str(dataset.SOPInstanceUID)] = digest(data_set)
        return status

    def serves(self, within_s: float = 5.0, source: str = "127.0.0.1") -> None:
        """A good peer associates, echoes, stores and releases in this time."""
        started_s = time.monotonic()
        with RawPeer(self.dicom_port, source) as peer:
            peer.associated()
            assert peer.echo() == 0
            assert self.store_good(peer) == 0
            peer.release()
        took_s = time.monotonic() - started_s
        assert took_s < within_s, f"a good peer had to wait {took_s:.1f} s"

    def serves_dcmtk(self, folder: Path, timeout_s: float = 30.0) -> None:
        """The same with DCMTK's storescu."""
        dataset = good_instance()
        path = folder / f"{dataset.SOPInstanceUID}.dcm"
        dataset.save_as(path, enforce_file_format=True)
        sent = dcmtk("storescu", self.dicom_port, "-R", path, timeout_s=timeout_s)
        assert sent.returncode == 0, sent.stderr
        self.acknowledged[str(dataset.SOPInstanceUID)] = digest(encoded(dataset))

    # -- what must be true --------------------------------------------------------------------

    def refusals(self) -> list[tuple[str, str, str]]:
        """(subject, name, reason) of every refusal in the journal, oldest first."""
        sql = "SELECT subject, name, reason FROM event WHERE name GLOB '[A-Z]*' ORDER BY id"
        return [(subject, name, reason) for subject, name, reason in self._rows(sql)]

    def refusal_names(self) -> list[str]:
        """Only the names."""
        return [name for _, name, _ in self.refusals()]

    def association_lines(self, address: str) -> list[dict[str, object]]:
        """The log lines that say what became of the association requests of an address; waits for one."""

        def found() -> list[dict[str, object]]:
            lines = [line for line in self.events() if line.get("address") == address]
            return [line for line in lines if line["event"] in ("association_opened", "association_rejected")]

        wait_until(found, 15, f"a line about an association of {address}")
        return found()

    def told(self, name: str) -> str:
        """What the other side's administrator is told by the newest refusal of this name; empty: none."""
        sql = "SELECT name, details FROM event WHERE name GLOB '[A-Z]*' ORDER BY id DESC"
        found = (details for each, details in self._rows(sql) if each == name)
        return str(json.loads(next(found, "{}"))["advice"]) if name in self.refusal_names() else ""

    def _rows(self, sql: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(f"file:{self.data / 'journal.db'}?mode=ro", uri=True)) as journal:
            return journal.execute(sql).fetchall()

    def finish(self) -> None:
        """All that must be true after whatever was done; ends the node."""
        self.is_unhurt()
        assert self.terminate() == 0
        self.check_log()
        self.check_files()
        self.check_instances()

    def is_unhurt(self) -> None:
        """It serves a good peer, and log, threads, descriptors and memory are as they were at its start."""
        assert not self.died, self.log.read_text()[-2000:]
        self.serves()
        self.check_log()
        wait_until(self.is_calm, 30, f"threads and descriptors {self._at_rest} as at the start", 0.005)
        grown_mib = self.own_mib - self._at_start_mib
        assert grown_mib < MOST_GROWN_MIB, f"{grown_mib:.0f} MiB more than at the start"

    def check_log(self) -> None:
        """What is new in the log: one escaped JSON object per line, and nothing that we did not foresee."""
        with self.log.open("rb") as log:
            log.seek(self._log_read)
            raw = log.read()
        raw = raw[: raw.rfind(b"\n") + 1]
        self._log_read += len(raw)
        assert re.fullmatch(rb"[\x20-\x7e\n]*", raw), "raw control bytes in the log"
        assert len(max(raw.split(b"\n"), key=len)) < LONGEST_LINE_BYTES, "a peer decides how long a line is"
        lines = [json.loads(line) for line in raw.decode("ascii").splitlines()]
        assert all(isinstance(line, dict) and line["event"] for line in lines)
        broken = [line for line in lines if line.get("level") in ("error", "critical")]
        shown = [(line["event"], line.get("error"), line.get("places", [])[-3:]) for line in broken]
        assert not broken, shown[:3]

    def check_files(self) -> None:
        """Nothing was written but objects of the spool, and nobody's name is anywhere but there."""
        new = [path for path in self.root.rglob("*") if path not in self._files and path.is_file()]
        strange = [p for p in new if not _OURS.fullmatch(p.relative_to(self.folder).as_posix())]
        assert not strange, strange
        assert not list((self.data / "spool" / "incoming").iterdir()), "half an instance was left"
        planted = PLANTED.split("^")[0].lower().encode()
        for path in (self.log, *self.data.glob("journal.db*")):
            assert planted not in path.read_bytes().lower(), path

    def check_instances(self) -> None:
        """Every acknowledged instance is in the journal and on the disk, byte for byte."""
        rows = self._rows("SELECT sop_instance_uid, digest, path FROM instance")
        found = {(uid, known): path for uid, known, path in rows}
        assert len(set(found.values())) == len(list(self.data.glob("spool/objects/*/*.dcm")))
        for uid, known in self.acknowledged.items():
            raw = (self.data / "spool" / found[uid, known]).read_bytes()
            assert raw[:132] == bytes(128) + b"DICM"
            group_length = int.from_bytes(raw[140:144], "little")
            assert digest(raw[144 + group_length :]) == known


def good_instance() -> Dataset:
    """A small correct CT instance and series that nobody has sent before; its patient must appear nowhere."""
    dataset = copy.deepcopy(_template())
    number = next(_numbers)
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = f"2.25.31{number}", f"2.25.32{number}"
    return dataset


@cache
def _template() -> Dataset:
    return ct_series((1, 16, 16), seed=100_000, PatientName=PLANTED, PatientID="PLANTED-1")[0]


def good_bytes() -> tuple[bytes, bytes]:
    """SOP Instance UID and data set of a new good instance."""
    dataset = good_instance()
    return str(dataset.SOPInstanceUID).encode(), encoded(dataset)
