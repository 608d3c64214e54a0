"""Logs: one JSON object per line on stderr; no patient attribute ever.

Messages of pydicom, pynetdicom and highdicom may quote values of a header, so those libraries are
silent here. For the same reason an exception is logged by its type and the places it went
through (:func:`places`), without its message.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

_QUOTING_LIBRARIES = ("pydicom", "pynetdicom", "highdicom", "nibabel", "PIL", "py.warnings")


def configure(component: str) -> FilteringBoundLogger:
    """Set up this process (``serve``, ``worker``) and return its logger."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            _error_without_message,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(ensure_ascii=True, default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
    )
    log: FilteringBoundLogger = structlog.get_logger().bind(component=component)
    warnings.simplefilter("ignore")
    for name in _QUOTING_LIBRARIES:
        library = logging.getLogger(name)
        library.setLevel(logging.CRITICAL + 1)
        library.propagate = False
    threading.excepthook = lambda crash: _unhandled(log, crash.exc_value, crash.thread)
    sys.excepthook = lambda _type, error, _traceback: _unhandled(log, error, threading.current_thread())
    logging.basicConfig(handlers=[_ToStructlog(log)], level=logging.WARNING, force=True)
    return log


def places(error: BaseException) -> list[str]:
    """Where an exception came from, innermost last: ``file:line function``; never its message."""
    return [
        f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
    ]


def _unhandled(
    log: FilteringBoundLogger, error: BaseException | None, thread: threading.Thread | None
) -> None:
    """Instead of the traceback that Python prints, which has the message."""
    log.critical("unhandled_exception", thread=thread.name if thread else "", exc_info=error)


def _error_without_message(logger: object, method: str, event: EventDict) -> EventDict:
    """``log.exception`` and ``exc_info``: type and places instead of the traceback's text."""
    del logger, method
    given = event.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if error is not None:
        event.update(error=type(error).__name__, places=places(error))
    return event


class _ToStructlog(logging.Handler):
    """Warnings of other libraries (uvicorn …) as JSON lines."""

    def __init__(self, log: FilteringBoundLogger) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self._log.warning("library_message", logger=record.name, message=record.getMessage(), exc_info=error)
