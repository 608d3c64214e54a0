"""STOW-RS as origin server (PS3.18 10.5): who may store, how many at once, what is written down. No HTTP."""

from __future__ import annotations

import threading
from collections.abc import Callable

from structlog.typing import FilteringBoundLogger

from gateway.errors import GatewayError, OutOfResources
from gateway.receive.admit import Admission
from gateway.receive.associations import OpenAssociations
from gateway.receive.callers import KnownPeer
from gateway.receive.stow.access import WebCallers
from gateway.receive.stow.part import Taken
from gateway.receive.stow.request import (
    RETRY_AFTER_S,
    StoreHead,
    StowLimits,
    StowRefused,
    check_head,
    stopping,
)
from gateway.receive.stow.store import StoreRequest, unavailable

Note = Callable[[str, str, str, str, str], None]
"""Writes down that a request was refused or broken off: name, reason, address, name of the peer or empty, and
what to tell the administrator of the client."""


class StowService:
    """Takes requests; safe from threads.

    Parameters
    ----------
    requests
        A request is registered there while it is open, under the name of its source: a series is not complete
        while its source is still storing. Associations are not: they and requests take no place from each
        other.
    note
        Called for every request that is refused, broken off or not understood; limits its own rate.
    sop_classes, transfer_syntaxes
        UIDs of all that is taken.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        callers: WebCallers,
        requests: OpenAssociations,
        note: Note,
        sop_classes: frozenset[str],
        transfer_syntaxes: frozenset[str],
        limits: StowLimits,
        log: FilteringBoundLogger,
    ) -> None:
        self.limits = limits
        self._admission = admission
        self._callers = callers
        self._requests = requests
        self._note = note
        self._sop_classes = sop_classes
        self._transfer_syntaxes = transfer_syntaxes
        self._log = log
        self._lock = threading.Lock()
        self._stopping = False
        self._is_cut_off = False
        # Where several may store, the last place is for another one.
        self._most_of_one = limits.max_requests - (limits.max_requests > 1 and not callers.only_one)

    def open(self, head: StoreHead) -> StoreRequest:
        """Begin to take a request in. Raises StowRefused, which is written down then."""
        peer = None
        try:
            peer = self._callers.identify(head)
            self._check_stopping()
            body = check_head(head, self.limits)
            try:
                self._admission.check_space(body.announced_bytes)
            except OutOfResources as error:
                raise unavailable(error) from error
            taken = Taken(peer, self._sop_classes, self._transfer_syntaxes, head.study_instance_uid)
            request = StoreRequest(self._admission, taken, body, self.limits, self._log, self._closed)
            self._enter(request)
        except StowRefused as refusal:
            self.refused(refusal, head, peer)
            raise
        self._log.info("store_request_opened", source=peer.name, address=head.address)
        return request

    def refused(self, error: GatewayError, head: StoreHead, peer: KnownPeer | None = None) -> None:
        """Write down why a request was not taken, or not any further."""
        self._write_down(error, error.reason, head, peer)

    def broken_off(self, error: GatewayError, head: StoreHead, request: StoreRequest) -> None:
        """Write down that the rest of a request was not taken; what was stored before stays."""
        reason = (
            f"{error.reason} {len(request.stored)} instances of the request were stored before and stay, "
            f"{len(request.failed)} failed."
        )
        self._write_down(error, reason, head, request.peer)

    def stop(self) -> None:
        """Take no further requests; open ones go on."""
        with self._lock:
            self._stopping = True

    def wait_until_none(self, timeout_s: float) -> bool:
        """Wait for the last open request to end; False if some are still open after the time."""
        return self._requests.wait_until_none(timeout_s)

    def cut_off(self) -> None:
        """Open requests are to end now: 503 and the list of what was stored."""
        self._is_cut_off = True

    def check_cut_off(self) -> None:
        """Whoever feeds a request asks again and again. Raises StowRefused (503) after ``cut_off``."""
        if self._is_cut_off:
            raise stopping()

    def _write_down(self, error: GatewayError, reason: str, head: StoreHead, peer: KnownPeer | None) -> None:
        status = f" (HTTP status {error.status})" if isinstance(error, StowRefused) else ""
        advice = (
            f"Your system at {head.address} asked us to store images by STOW-RS, and we did not take the "
            f"request, or not all of it{status}. {error.name}: {error.reason}"
        )
        self._note(error.name, reason, head.address, peer.name if peer else "", advice)

    # -- open requests ------------------------------------------------------------------------

    def _check_stopping(self) -> None:
        if self._stopping:
            raise stopping()

    def _enter(self, request: StoreRequest) -> None:
        peer = request.peer
        with self._lock:
            self._check_stopping()
            opened = self._requests.by_source()
            total, of_peer, limit = sum(opened.values()), opened.get(peer.name, 0), self.limits.max_requests
            if total >= limit:
                raise _busy(
                    "TOO_MANY_REQUESTS",
                    f"{peer.name} stored while {total} requests were open and web.stow.max_requests is "
                    f"{limit}: the client should try again.",
                )
            if of_peer >= (peer.max_associations or self._most_of_one):
                why = f"one peer without max_associations of its own takes at most {self._most_of_one}"
                if peer.max_associations:
                    why = f"peers.{peer.name}.max_associations is {peer.max_associations}"
                raise _busy(
                    "TOO_MANY_REQUESTS_OF_PEER",
                    f"{peer.name} stored while {of_peer} of its requests were open and {why}: the client "
                    "should use fewer at a time, and try again.",
                )
            self._requests.opened(request, peer.name)

    def _closed(self, request: StoreRequest) -> None:
        self._requests.closed(request)
        stored, failed = len(request.stored), len(request.failed)
        self._log.info("store_request_ended", source=request.peer.name, stored=stored, failed=failed)


def _busy(name: str, reason: str) -> StowRefused:
    return StowRefused(name, reason, 503, retry_after_s=RETRY_AFTER_S)
