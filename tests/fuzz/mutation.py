"""Hypothesis strategies that damage right input where readers are weak: lengths, ends, repetitions."""

from __future__ import annotations

import os
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("AIGW_FUZZ_EXAMPLES", "600"))
"""Per property; many more in `make soak`."""

fuzzed = settings(
    max_examples=EXAMPLES,
    suppress_health_check=[HealthCheck.data_too_large],
)

INTERESTING = (
    b"\0\0",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff",  # an item, its end, and the end of a sequence
    b"\xfe\xff\x0d\xe0\0\0\0\0",
    b"\xfe\xff\xdd\xe0\0\0\0\0",
    b"\x40\x00\x60\xa7SQ\0\0\xff\xff\xff\xff",
    b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff",
    b"UN\0\0",
    b"\r\n--fuzz\r\n",
    b"\r\n--fuzz--",
    b"\r\n\r\n",
    b"\x04\0\0\0\0\x06\0\0\0\x02\x01\x03",
)


@st.composite
def damaged(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One of the seeds after one to six changes."""
    data = bytearray(draw(st.sampled_from(list(seeds))))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        size = draw(st.integers(1, 40))
        how = draw(st.sampled_from(["byte", "bytes", "insert", "remove", "repeat", "cut", "swap", "number"]))
        if how == "byte" and data:
            data[at] = draw(st.integers(0, 255))
        elif how == "bytes":
            data[at : at + 4] = draw(st.sampled_from(INTERESTING))
        elif how == "insert":
            data[at:at] = draw(st.sampled_from(INTERESTING) | st.binary(max_size=20))
        elif how == "remove":
            del data[at : at + size]
        elif how == "repeat":
            data[at:at] = bytes(data[at : at + size]) * draw(st.integers(1, 30))
        elif how == "cut":
            del data[at:]
        elif how == "swap":
            data[at : at + 2] = data[at : at + 2][::-1]
        elif data:
            data[at : at + 2] = draw(st.integers(0, 65535)).to_bytes(
                2, draw(st.sampled_from(["big", "little"]))
            )
    return bytes(data)


PIECES = st.lists(st.integers(1, 5000), min_size=1, max_size=5)
"""How a stream may be cut."""
