"""How the node is, in numbers and sentences, for ``aigw status``. No UID, no attribute of a patient."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.control.disk import FlushTime
from gateway.journal import Journal

_SAFE_SQLITE = (3, 51, 3)
_DAY_S = 24 * 3600.0
Json = dict[str, Any]


@dataclass(frozen=True)
class CertificateEnd:
    """A certificate in use: ``kind`` is ours, authority, peer or web; ``name`` that of the peer, or empty."""

    kind: str
    name: str
    subject: str
    sha256: str
    not_after_s: float

    def days_left(self, now_s: float) -> float:
        """Negative when it has ended."""
        return (self.not_after_s - now_s) / _DAY_S


@dataclass(frozen=True)
class Listener:
    """Where the node can be reached: ``name`` is dicom, dicom_tls or web."""

    name: str
    host: str
    port: int


@dataclass(frozen=True)
class NodeView:
    """What the status is made of; the composition root knows where it comes from.

    Attributes
    ----------
    listeners
        Known once they listen.
    associations, requests
        Peer → associations, requests of STOW-RS open now.
    last_instances
        Source → when its last instance came since the start, seconds since 1970.
    received
        (source, receipt) → instances since the start.
    refusals, rejections
        Name → associations and web requests refused or broken off, (source, name) → instances rejected,
        since the start.
    tls_problem
        Why changed TLS files are not in use, or empty.
    disk_problem
        Why no instances are taken now, or empty.
    flush
        None until it was measured.
    """

    version: str
    ae_title: str
    pid: int
    started_s: float
    data_dir: Path
    journal: Journal
    max_associations: int
    max_requests: int
    warn_before_s: float
    listeners: Callable[[], Sequence[Listener]]
    associations: Callable[[], Mapping[str, int]]
    requests: Callable[[], Mapping[str, int]]
    last_instances: Callable[[], Mapping[str, float]]
    received: Callable[[], Mapping[tuple[str, str], int]]
    refusals: Callable[[], Mapping[str, int]]
    rejections: Callable[[], Mapping[tuple[str, str], int]]
    certificates: Callable[[], Sequence[CertificateEnd]]
    tls_problem: Callable[[], str]
    disk_problem: Callable[[], str]
    flush: Callable[[], FlushTime | None]


def node_status(view: NodeView, now_s: float) -> Json:
    """Everything at once, as JSON values. Raises sqlite3.Error when the journal cannot be read."""
    counts = view.journal.counts()
    status = {
        "version": view.version,
        "ae_title": view.ae_title,
        "pid": view.pid,
        "started_at": view.started_s,
        "up_s": now_s - view.started_s,
        "data_dir": str(view.data_dir),
        "listeners": [asdict(each) for each in view.listeners()],
        "associations": _opened(view.associations(), view.max_associations),
        "store_requests": _opened(view.requests(), view.max_requests),
        "instances": {
            "stored": counts["instance"]["stored"],
            "damaged": view.journal.damaged_count(),
            "by_source": _sources(view),
        },
        "refused_associations": dict(view.refusals()),
        "rejected_instances": _rejections(view),
        "series": counts["series"],
        "jobs": counts["job"],
        "deliveries": counts["delivery"],
        "commitments": counts["commitment"],
        "held_models": [
            {"card": card, "name": failure.name, "reason": failure.reason}
            for card, failure in sorted(view.journal.holds().items())
        ],
        "disk": _disk(view),
        "journal": _journal(view),
        "certificates": [
            {**asdict(each), "days_left": round(each.days_left(now_s), 1)} for each in view.certificates()
        ],
    }
    return {**status, "warnings": _warnings(view, status, now_s)}


def _opened(by_peer: Mapping[str, int], limit: int) -> Json:
    return {"open": sum(by_peer.values()), "limit": limit, "by_peer": dict(by_peer)}


def _sources(view: NodeView) -> list[Json]:
    """Every source that has ever sent, and those of the configuration that did since the start."""
    known = {row["source"]: row for row in view.journal.received_by_source()}
    since: dict[str, dict[str, int]] = {}
    for (source, receipt), count in view.received().items():
        since.setdefault(source, {})[receipt] = count
    last = view.last_instances()
    return [
        {
            "source": source,
            "instances": known[source]["instances"] if source in known else 0,
            "last_at": max(
                known[source]["last_instance_at"] if source in known else 0.0, last.get(source, 0.0)
            ),
            "since_start": since.get(source, {}),
        }
        for source in sorted({*known, *since})
    ]


def _rejections(view: NodeView) -> Json:
    names: dict[str, int] = {}
    for (_, name), count in view.rejections().items():
        names[name] = names.get(name, 0) + count
    return names


def _disk(view: NodeView) -> Json:
    usage = shutil.disk_usage(view.data_dir)
    flush = view.flush()
    return {
        "free_bytes": usage.free,
        "total_bytes": usage.total,
        "problem": view.disk_problem(),
        "flush_ms": round(flush.flush_s * 1000, 2) if flush else None,
        "commit_ms": round(flush.commit_s * 1000, 2) if flush else None,
        "slices_per_s": round(flush.slices_per_s) if flush else None,
    }


def _journal(view: NodeView) -> Json:
    path = view.data_dir / "journal.db"
    sizes = {
        name: _size(path.with_name(path.name + end)) for name, end in (("bytes", ""), ("wal_bytes", "-wal"))
    }
    return {**sizes, "sqlite": sqlite3.sqlite_version}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _warnings(view: NodeView, status: Json, now_s: float) -> list[str]:
    """What a person should see to, most urgent first."""
    found = [each for each in (view.disk_problem(), view.tls_problem()) if each]
    if damaged := status["instances"]["damaged"]:
        found.append(
            f"{damaged} stored instances are damaged or gone: `aigw study explain` names them; "
            "check the disk, and have them sent again."
        )
    unclaimed = view.data_dir / "spool" / "unclaimed"
    if any(unclaimed.glob("*/*.dcm")):
        found.append(
            f"{unclaimed} holds files that the journal does not know: if it was lost, put it back without "
            "the journal.db-wal and journal.db-shm of another one, or send them here again; else delete them."
        )
    for each in view.certificates():
        left = each.not_after_s - now_s
        whose = f"{each.kind} {each.name}".strip()
        if left <= 0:
            found.append(f"The certificate {each.subject} ({whose}) has ended: renew it.")
        elif left <= view.warn_before_s:
            found.append(
                f"The certificate {each.subject} ({whose}) ends in {left / _DAY_S:.0f} days: renew it."
            )
    found += [f"{each['card']} does not run: {each['reason']}" for each in status["held_models"]]
    if dead := status["deliveries"].get("dead", 0):
        found.append(f"{dead} deliveries were given up: `aigw results list` shows them.")
    if dead := status["commitments"].get("dead", 0):
        found.append(f"{dead} reports of storage commitment could not be delivered and were given up.")
    if sqlite3.sqlite_version_info < _SAFE_SQLITE:
        found.append(
            f"SQLite {sqlite3.sqlite_version} is older than 3.51.3, which mends a rare corruption of "
            "journals with two writers (WAL reset). This gateway has one; let nothing else write."
        )
    return found
