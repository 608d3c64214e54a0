"""One STOW-RS request while its body arrives: parts → admission → results (PS3.18 10.5.2)."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from structlog.typing import FilteringBoundLogger

from gateway.errors import GatewayError, OutOfResources, Rejected
from gateway.logs import places
from gateway.receive.admit import Admission
from gateway.receive.arrival import Arrival
from gateway.receive.callers import KnownPeer
from gateway.receive.stow.inflate import Inflater
from gateway.receive.stow.multipart import MultipartLimits, MultipartParser, PartBegin, PartData
from gateway.receive.stow.multipart_header import MultipartError
from gateway.receive.stow.part import Part, Taken, arrival_of
from gateway.receive.stow.request import (
    RETRY_AFTER_S,
    Body,
    StowLimits,
    StowRefused,
    refused,
    stopping,
    too_large,
)
from gateway.receive.stow.response import PROCESSING_FAILURE, Answer, Failed, Stored, respond

_MOST_NOTES = 10
_INCOMPLETE = Rejected("INCOMPLETE", "The request ended in this part: send it again.", PROCESSING_FAILURE)


class StoreRequest:
    """Feed it the body as it arrives, then ``finish``, ``answer`` and ``close`` it; one call at a time.

    Parameters
    ----------
    on_close
        Called once, when it is closed.
    """

    def __init__(
        self,
        admission: Admission,
        taken: Taken,
        body: Body,
        limits: StowLimits,
        log: FilteringBoundLogger,
        on_close: Callable[[StoreRequest], None],
    ) -> None:
        self._admission = admission
        self._taken = taken
        self._limits = limits
        self._log = log
        self._on_close = on_close
        self._inflater = Inflater() if body.gzip else None
        self._parser = None
        if body.boundary is not None:
            self._parser = MultipartParser(body.boundary, MultipartLimits(max_parts=limits.max_instances))
        self._part: Part | None = None
        self._bytes = 0
        self._lock = threading.Lock()
        self._closed = False
        self._notes: Counter[str] = Counter()
        self.stored: list[Stored] = []
        self.failed: list[Failed] = []

    @property
    def peer(self) -> KnownPeer:
        """Who sends it."""
        return self._taken.peer

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body. Raises StowRefused when the rest need not be sent."""
        with self._lock:
            if self._closed:
                raise stopping()  # its task was cancelled while this call was under way: nobody hears it
            for piece in self._inflated(chunk):
                self._bytes += len(piece)
                if self._bytes > self._limits.max_request_bytes:
                    raise too_large(self._limits)
                self._take(piece)

    def finish(self) -> None:
        """The body is complete. Raises StowRefused if it says otherwise."""
        with self._lock:
            if self._inflater is not None:
                self._inflater.finish()
            if self._parser is None:
                self._end_part()
                return
            try:
                self._parser.finish()
            except MultipartError as error:
                raise refused(error) from error

    def answer(self, error: GatewayError | None) -> Answer:
        """What to answer, after ``error`` or without one."""
        return respond(self.stored, self.failed, error)

    def close(self) -> None:
        """End it: a part that is not complete has failed. Waits for a call that is under way."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            try:
                self._fail_part(_INCOMPLETE)
                self._note_the_others()
            finally:
                self._on_close(self)

    # -- body ---------------------------------------------------------------------------------

    def _inflated(self, chunk: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            yield chunk
        else:
            yield from self._inflater.feed(chunk)

    def _take(self, piece: bytes) -> None:
        if self._parser is None:  # one file, without parts
            if self._part is None and not self.failed:
                self._begin_part({})
            self._write(piece)
            return
        try:
            for event in self._parser.feed(piece):
                if isinstance(event, PartBegin):
                    self._begin_part(event.fields)
                elif isinstance(event, PartData):
                    self._write(event.data)
                else:
                    self._end_part()
        except MultipartError as error:
            raise refused(error) from error

    def _begin_part(self, fields: Mapping[str, str]) -> None:
        self._part = Part(self._admission, self._taken, self._note)
        with self._failing():
            self._part.begin(fields)

    def _write(self, data: memoryview | bytes) -> None:
        if self._part is not None:
            with self._failing():
                self._part.write(data)

    def _end_part(self) -> None:
        if self._part is not None:
            with self._failing():
                self.stored.append(self._part.finish())
                self._part = None

    @contextmanager
    def _failing(self) -> Iterator[None]:
        """What goes wrong with a part is its failure; what would stop every part ends the request (503)."""
        try:
            yield
        except Exception as error:
            rejection = self._named(error)
            self._fail_part(rejection)
            if isinstance(rejection, OutOfResources):
                raise unavailable(rejection) from error

    def _fail_part(self, rejection: Rejected) -> None:
        part, self._part = self._part, None
        if part is not None:
            self.failed.append(part.failed(rejection))

    def _named(self, error: Exception) -> Rejected:
        if isinstance(error, Rejected):
            return error
        if isinstance(error, OSError):
            self._log.error("store_failed", reason=error.strerror or type(error).__name__)
            return OutOfResources("DISK_ERROR", "The gateway cannot store now, send again later.")
        # Names and places only: the text of an unforeseen exception may quote the data set.
        self._log.error("store_failed", error=type(error).__name__, places=places(error))
        rejection = Rejected("INTERNAL_ERROR", "See the log of the gateway.", PROCESSING_FAILURE)
        if self._part is not None:
            self._part.note(rejection)
        return rejection

    def _note(self, rejection: Rejected, arrival: Arrival, size_bytes: int) -> None:
        """Count each part that fails, and write down the first that fail alike: there may be thousands."""
        self._admission.tally.rejected(arrival.source, rejection.name)
        self._notes[rejection.name] += 1
        if self._notes[rejection.name] <= _MOST_NOTES:
            self._admission.record(rejection, arrival, size_bytes)

    def _note_the_others(self) -> None:
        for name, count in self._notes.items():
            if count > _MOST_NOTES:
                sentence = (
                    f"{count - _MOST_NOTES} further parts of the same request were not taken for this reason."
                )
                self._admission.record(Rejected(name, sentence), arrival_of(self._taken), 0)


def unavailable(error: OutOfResources) -> StowRefused:
    """Nothing can be stored now."""
    return StowRefused(error.name, error.reason, 503, retry_after_s=RETRY_AFTER_S)
