"""Run a function that was not made to be paused, and pause it: in a thread that waits where it says so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class _Ended(BaseException):
    """Raised inside the work when nobody waits for it any more; no handler of MONAI's catches it."""


class stepwise(Generic[T]):
    """Iterate over the pauses of ``work``, which runs only while the next one is asked for.

    ``work`` is called with a function ``pause``. When the iteration is given up, ``pause`` raises in the work
    and its thread ends. ``result`` holds the answer, once, when the iteration is over.
    """

    def __init__(self, work: Callable[[Callable[[], None]], T]) -> None:
        self.result: list[T] = []
        self._work = work
        self._go = threading.Semaphore(0)
        self._rests = threading.Semaphore(0)
        self._ended = False
        self._done = False
        self._error: BaseException | None = None

    def __iter__(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="bundle", daemon=True)
        thread.start()
        try:
            while self._goes_on():
                yield
        finally:
            self._ended = True
            self._go.release()
            thread.join()
        if self._error is not None:
            raise self._error

    def _goes_on(self) -> bool:
        self._go.release()
        self._rests.acquire()
        return not self._done

    def _pause(self) -> None:
        self._rests.release()
        self._go.acquire()
        if self._ended:
            raise _Ended

    def _run(self) -> None:
        self._go.acquire()
        try:
            if not self._ended:
                self.result.append(self._work(self._pause))
        except _Ended:
            pass
        except BaseException as error:  # noqa: BLE001  (handed over to who asked)
            self._error = error
        finally:
            self._done = True
            self._rests.release()
