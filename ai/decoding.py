"""Many image planes decoded beside each other, straight into one volume."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ai.errors import SeriesRefused
from ai.geometry import FrameRef
from ai.pixels import FramePixels, NotInt16, decode_into

Voxels = npt.NDArray[np.int16] | npt.NDArray[np.float32]

_MOST_THREADS = 16  # each holds a decoded slice beside the volume


class Plane(NamedTuple):
    """An image plane of the source and how its pixels are decoded."""

    ref: FrameRef
    pixels: FramePixels


def decode(planes: Sequence[Plane], shape: tuple[int, int, int], threads: int | None = None) -> Voxels:
    """Decode planes in the given order into a new array of ``shape`` (slices, rows, columns).

    int16 as long as every value is a whole number that fits, else float32: where the headers leave it open,
    int16 is tried, and on the first value that does not fit the array is given up and decoding starts again.

    Parameters
    ----------
    threads
        How many planes are decoded at once; without it as many as this process has CPUs, at most 16.

    Raises
    ------
    SeriesRefused
        What :func:`ai.pixels.decode_into` raises, for the first plane in slice order that cannot be
        decoded. All threads have ended by then.
    """
    count = min(threads or usable_cpus(), _MOST_THREADS, len(planes))
    if all(plane.pixels.whole_int16 for plane in planes):
        whole = np.empty(shape, np.int16)
        if _fill(whole, planes, count):
            return whole
        del whole
    voxels = np.empty(shape, np.float32)
    _fill(voxels, planes, count)
    return voxels


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0))


def of_image(error: SeriesRefused, ref: FrameRef) -> SeriesRefused:
    """The same refusal, naming the image: a file name of the spool tells a person nothing."""
    return SeriesRefused(
        error.code, f"{error.reason} SOP Instance UID {ref.sop_instance_uid}, frame {ref.frame_number}."
    )


def _fill(out: Voxels, planes: Sequence[Plane], threads: int) -> bool:
    """Decode every plane; False when a value does not fit the type of ``out``."""
    work = _Work(out, planes)
    helpers = [threading.Thread(target=work.run, name=f"decode-{i}") for i in range(1, threads)]
    try:
        for helper in helpers:
            helper.start()
        work.run()
    finally:
        work.stop()
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    return work.succeeded()


class _Work:
    """Planes still to be decoded, handed out in slice order to whichever thread asks.

    Each thread finishes the plane that it has begun, so when one plane fails, every earlier one has been
    decoded or has failed too: the first failure in slice order is known and does not depend on timing.
    """

    def __init__(self, out: Voxels, planes: Sequence[Plane]) -> None:
        self._out = out
        self._planes = planes
        self._indices = iter(range(len(planes)))
        self._lock = threading.Lock()
        self._failures: dict[int, BaseException] = {}
        self._overflowed = False

    def run(self) -> None:
        """Decode planes until there are none left or one fails; failures are kept for the caller."""
        while (index := self._take()) is not None:
            try:
                decode_into(self._planes[index].pixels, self._out[index])
            except NotInt16:
                self._overflowed = True  # without the exception, whose traceback would keep the array
                self.stop()
            except BaseException as error:  # noqa: BLE001 - raised by succeeded()
                self._failures[index] = error
                self.stop()

    def stop(self) -> None:
        """Hand out no more planes."""
        with self._lock:
            self._indices = iter(range(0))

    def succeeded(self) -> bool:
        """False after an overflow. Raises the first failure in slice order."""
        if not self._failures:
            return not self._overflowed
        index = min(self._failures)
        error = self._failures.pop(index)
        self._failures.clear()
        try:
            if isinstance(error, SeriesRefused):
                raise of_image(error, self._planes[index].ref) from error
            raise error
        finally:
            del error  # its traceback holds this frame: a circle would keep the array in memory

    def _take(self) -> int | None:
        with self._lock:
            return next(self._indices, None)
