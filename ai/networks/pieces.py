"""Networks that answer piece by piece, so that others can have the processor in between."""

from __future__ import annotations

from collections.abc import Generator

from torch import Tensor


def run(pieces: Generator[None, None, Tensor]) -> Tensor:
    """The answer without rests."""
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            answer: Tensor = end.value
            return answer
