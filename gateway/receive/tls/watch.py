"""Looks after the certificates in use: reads changed files, and says in time that one ends."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.journal import Journal
from gateway.receive.tls.certificates import PeerCertificate
from gateway.receive.tls.files import end_warning
from gateway.receive.tls.source import TlsSource

_EVERY_S = 60.0
_SAY_AGAIN_S = 24 * 3600.0


@dataclass(frozen=True)
class Watched:
    """A certificate in use: ``kind`` is ours, authority, peer or web; ``name`` that of the peer, or empty."""

    kind: str
    name: str
    certificate: PeerCertificate


class CertificateWatch:
    """``run`` is the body of its thread.

    Parameters
    ----------
    sources
        Kind of our own certificate (``ours``: of DICOM; ``web``) → the listener's context.
    peers
        The certificates that peers showed last.
    warn_before_s
        A certificate with less time than this is spoken of once a day.
    """

    def __init__(
        self,
        sources: Mapping[str, TlsSource],
        peers: Callable[[], Mapping[str, PeerCertificate]],
        warn_before_s: float,
        journal: Journal,
        clock: Clock,
        log: FilteringBoundLogger,
    ) -> None:
        self._sources = sources
        self._peers = peers
        self._warn_before_s = warn_before_s
        self._journal = journal
        self._clock = clock
        self._log = log
        self._said_s: dict[str, float] = {}

    def run(self, stopping: threading.Event) -> None:
        """Look every minute until ``stopping``."""
        while not stopping.is_set():
            self.look()
            stopping.wait(_EVERY_S)

    def look(self) -> None:
        """Read files that have changed; warn of what ends, once a day for each certificate."""
        for source in self._sources.values():
            source.refresh()
        now_s = self._clock.now_s()
        for each in self.certificates():
            warning = end_warning(each.certificate, now_s, self._warn_before_s)
            key = each.certificate.sha256
            if warning and now_s - self._said_s.get(key, float("-inf")) >= _SAY_AGAIN_S:
                self._said_s[key] = now_s
                self._say(each, warning, now_s)

    def certificates(self) -> Sequence[Watched]:
        """Ours, those of the authorities, and those that peers showed last."""
        states = {kind: source.state() for kind, source in self._sources.items()}
        return [
            *(Watched(kind, "", state.ours) for kind, state in states.items()),
            *(Watched("authority", "", each) for state in states.values() for each in state.authorities),
            *(Watched("peer", name, each) for name, each in sorted(self._peers().items())),
        ]

    def problem(self) -> str:
        """Why changed files are not in use; empty if they are."""
        return " ".join(filter(None, (source.state().problem for source in self._sources.values())))

    def _say(self, each: Watched, warning: str, now_s: float) -> None:
        has_ended = each.certificate.not_after_s <= now_s
        name = "CERTIFICATE_ENDED" if has_ended else "CERTIFICATE_ENDS_SOON"
        whose = {
            "ours": "dicom.tls.certificate",
            "authority": "dicom.tls.authorities",
            "web": "web.tls.certificate",
        }
        details = {"whose": whose.get(each.kind, each.name), "subject": each.certificate.subject}
        self._log.warning("certificate_ends", name=name, reason=warning, **details)
        try:
            self._journal.record("gateway", name, warning, now_s, details)
        except sqlite3.Error as error:
            self._log.error("journal_unavailable", reason=str(error))
