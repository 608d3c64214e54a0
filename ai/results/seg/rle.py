"""RLE Lossless of one plane of bytes (PS3.5 Annex G), at the speed of comparing neighbours.

A label map has long runs and few of them, which numpy finds at once. pydicom's own encoder goes through each
row in Python and takes twenty times as long; that of GDCM, which pydicom prefers where it is installed, ends
the process on planes of odd size.
"""

from __future__ import annotations

import struct

import numpy as np
import numpy.typing as npt

_LONGEST = 128  # bytes of one run (G.3.1)
_HEADER = struct.Struct("<16L")  # number of segments, then their offsets (G.5)


def encode_rle(plane: npt.NDArray[np.uint8]) -> bytes:
    """Encode one frame of 8 bits, rows × columns, as the bytes of its fragment.

    Each run of equal bytes within a row becomes two bytes: 1 - length, and the value. A byte that stands
    alone is a literal run of one, whose code is 0, so that the two kinds of run are written alike.
    """
    begins = np.ones(plane.shape, np.bool_)
    np.not_equal(plane[:, 1:], plane[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=plane.size)
    parts = (lengths + _LONGEST - 1) // _LONGEST
    last = np.cumsum(parts) - 1
    runs = np.empty((int(last[-1]) + 1, 2), np.uint8)
    runs[:, 0] = 257 - _LONGEST
    runs[last, 0] = (1 - (lengths - (parts - 1) * _LONGEST)).astype(np.uint8)
    runs[:, 1] = np.repeat(plane.reshape(-1)[starts], parts)
    return _HEADER.pack(1, _HEADER.size, *[0] * 14) + runs.tobytes()
