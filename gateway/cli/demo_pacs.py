"""The PACS of the demo: a storage SCP that keeps files, made of our own receiving room."""

from __future__ import annotations

import io
import logging
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from structlog.typing import FilteringBoundLogger

from gateway.clock import SystemClock
from gateway.journal import Journal, JournalReader
from gateway.receive.admit import Admission
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import Callers
from gateway.receive.contexts import storage_contexts
from gateway.receive.gate import Gate, RefusalLog
from gateway.receive.records import Incidents
from gateway.receive.storage_scp import ScpLimits, StorageSCP
from gateway.spool import Spool

_KINDS = {"SEG": "seg.dcm", "SR": "sr.dcm", "OT": "overview.dcm"}


class DemoPacs:
    """Listens on a free loopback port while the block runs."""

    ae_title = "DEMOPACS"

    def __init__(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        self._journal_path = folder / "journal.db"
        self._journal = Journal(self._journal_path)
        self._spool = Spool(folder / "spool")
        clock, log = SystemClock(), _silent()
        callers = Callers(self.ae_title, (), "accept")
        associations, limits = OpenAssociations(), ScpLimits(max_associations=10)
        incidents = Incidents(self._journal, clock, log)
        self._scp = StorageSCP(
            ae_title=self.ae_title,
            host="127.0.0.1",
            port=0,
            gate=Gate(callers, limits.max_associations, associations, RefusalLog(incidents)),
            limits=limits,
            contexts=storage_contexts(),
            admission=Admission(self._spool, self._journal, clock, log),
            associations=associations,
            incidents=incidents,
            log=log,
        )

    def __enter__(self) -> Self:
        self._scp.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scp.stop(drain_timeout_s=5.0)
        self._journal.close()

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._scp.port

    def export(self, folder: Path) -> dict[str, Path]:
        """Copy what was stored to files with plain names; returns name → path, and the picture."""
        folder.mkdir(parents=True, exist_ok=True)
        reader = JournalReader(self._journal_path)
        modalities = {row["id"]: row["facts"].get("Modality", [""])[0] for row in reader.series()}
        reader.close()
        exported = {}
        for series in self._journal.receiving_series():
            name = _KINDS.get(modalities[series.id])
            for member in self._journal.members(series.id) if name else ():
                path = folder / str(name)
                shutil.copyfile(self._spool.absolute(member.path), path)
                exported[path.stem] = path
        return exported


def _silent() -> FilteringBoundLogger:
    log: FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(io.StringIO()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL),
    )
    return log
