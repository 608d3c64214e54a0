"""One C-STORE: from its data set to its status (PS3.4 B.2.3). No exception leaves this module."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from structlog.typing import FilteringBoundLogger

from gateway.errors import Rejected
from gateway.logs import places
from gateway.receive.admit import Admission, Intake
from gateway.receive.arrival import Arrival
from gateway.receive.association.messages import SOP_CLASS_NOT_SUPPORTED, SUCCESS, Answer
from gateway.receive.text import ascii_text, uid_text

OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000
_ERROR_COMMENT_CHARACTERS = 64  # VR LO, (0000,0902)


class InstanceReceiver:
    """Takes the data set of one C-STORE in. Once it is refused, the rest is dropped and counted.

    Parameters
    ----------
    storage_class_uid
        Of the presentation context that the request came in; None if that is not for storage.
    """

    def __init__(
        self, admission: Admission, arrival: Arrival, storage_class_uid: str | None, log: FilteringBoundLogger
    ) -> None:
        self._admission = admission
        self._arrival = arrival
        self._storage_class_uid = storage_class_uid
        self._log = log
        self._intake: Intake | None = None
        self._answer: Answer | None = None
        self._attempt(self._begin)

    def write(self, *chunks: memoryview) -> None:
        """The next bytes."""
        intake = self._intake
        if self._answer is None and intake is not None:
            self._attempt(lambda: intake.write(*chunks))

    def finish(self) -> Answer:
        """The status to answer: 0000 only if the instance survives a power cut."""
        if self._answer is None:
            self._attempt(self._finish)
        return self._answer or Answer(SUCCESS)

    def discard(self) -> None:
        """The rest will not come."""
        if self._intake is not None:
            with suppress(Exception):
                self._intake.discard()

    def _begin(self) -> None:
        arrival = self._arrival
        if arrival.sop_class_uid != self._storage_class_uid:
            context = self._storage_class_uid or "another service than storage"
            wanted = uid_text(arrival.sop_class_uid)
            rejection = Rejected(
                "SOP_CLASS_NOT_NEGOTIATED",
                f"The request is for {wanted} in a presentation context for {context}.",
                SOP_CLASS_NOT_SUPPORTED,
            )
            self._admission.note(rejection, arrival, 0)
            raise rejection
        self._intake = self._admission.begin(arrival)

    def _finish(self) -> None:
        intake = self._intake
        if intake is None:
            raise RuntimeError("nothing was begun")
        receipt = intake.finish()
        self._log.debug("instance_admitted", receipt=receipt)

    def _attempt(self, step: Callable[[], object]) -> None:
        """Do it, or know what to answer."""
        try:
            step()
        except Rejected as rejection:
            self._answer = _answer(rejection.dimse_status, f"{rejection.name}: {rejection.reason}")
        except OSError as error:
            self._log.error("store_failed", reason=error.strerror or type(error).__name__)
            sentence = "DISK_ERROR: the gateway cannot store now, send again later."
            self._answer = _answer(OUT_OF_RESOURCES, sentence)
        except Exception as error:  # noqa: BLE001 - the peer must get an answer that we chose
            # Names and places only: the text of an unforeseen exception may quote the data set.
            self._log.error("store_failed", error=type(error).__name__, frames=places(error))
            self._answer = _answer(CANNOT_UNDERSTAND, "INTERNAL_ERROR: see the log of the gateway.")
        if self._answer is not None:
            self.discard()


def _answer(status: int, comment: str) -> Answer:
    return Answer(status, ascii_text(comment, _ERROR_COMMENT_CHARACTERS))
