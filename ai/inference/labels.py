"""From scores on the network's grid to labels on the source's, without scores of the source's size.

The work goes through blocks of the network's grid. In a block only those classes are interpolated that can
win anywhere in it. Interpolated scores are weighted means of the block's own, so a class whose highest score
is below the highest of all lowest scores cannot win: leaving it out changes nothing. Inside an organ one
class is left and the block is filled with it. The answer is that of interpolating all classes and taking the
highest, to the last rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import product

import torch
from torch import Tensor

from ai.inference.ring import Sums
from ai.inference.spans import WHOLE, Spans, Way, interpolate, nearest, span, spans_of
from ai.model.recipe import Output

_BLOCK = 16  # voxels of the network's grid: fits into the cache of a processor with all classes
_SMALL = 8  # where several classes meet
_FEW = 3  # classes that are interpolated without looking closer
_AT_A_TIME = 16  # classes interpolated together
_CERTAIN = 12.0  # e⁻¹²: what scores less beside the best adds nothing to a probability


class Painter:
    """Paints finished planes onto the label map of the source.

    Parameters
    ----------
    ways
        The three axes, the ring axis first.
    target
        uint8 label map of the source in the same order of axes; it is painted on.
    planes
        How many planes are finished at a time: blocks of few planes are wider, so that they are not too small
        to be worth the calls.
    """

    def __init__(self, output: Output, ways: Sequence[Way], target: Tensor, planes: int = _BLOCK) -> None:
        self._output = output
        self._ways = tuple(ways)
        self._target = target
        self._next = ways[0].begin
        device = target.device
        wide = math.isqrt(_BLOCK // min(max(planes, 1), _BLOCK)) * _BLOCK
        size = wide if device.type == "cpu" else WHOLE
        self._split = _SMALL if device.type == "cpu" else WHOLE
        self._depth = _BLOCK if device.type == "cpu" else 8
        self._spans = [spans_of(way, size, self._split, device) for way in ways[1:]]
        self._margins = torch.zeros(256, dtype=torch.float64, device=device)
        self._counts = torch.zeros(256, dtype=torch.float64, device=device)

    @property
    def next(self) -> int:
        """The first plane that is still needed."""
        return self._next

    def paint(self, sums: Sums, finished: int) -> None:
        """Paint what planes before ``finished`` decide."""
        with _one_thread(self._target.device):
            self._paint(sums, finished)

    def _paint(self, sums: Sums, finished: int) -> None:
        ring = self._ways[0]
        ready = finished if ring.exact or finished >= ring.end else finished - 1
        while self._next < min(ready, ring.end):
            stop = min(self._next + self._depth, ready, ring.end)
            planes = span(ring, self._next, stop, self._target.device, self._split)
            for rows in self._spans[0]:
                for columns in self._spans[1]:
                    self._block(sums, (planes, rows, columns))
            self._next = stop

    def confidence(self) -> dict[int, float]:
        """Mean margin between the best and the second best class, by structure number; see Prediction."""
        found = torch.nonzero(self._counts).flatten().tolist()
        return {int(n): round(float(self._margins[n] / self._counts[n]), 4) for n in found if n}

    def _block(self, sums: Sums, spans: Spans) -> None:
        scores = self._activated(sums.read(*(part.read for part in spans)))
        into = self._target[tuple(part.rows for part in spans)]
        own = scores[(slice(None), *(slice(part.own) for part in spans))]
        if self._output.kind == "labels":
            into.copy_(self._numbers(scores)[nearest(scores, spans)])
        elif self._output.kind == "regions":
            self._regions(scores, own, into, spans)
        else:
            self._softmax(scores, own, into, spans)

    def _activated(self, scores: Tensor) -> Tensor:
        output = self._output
        if output.kind == "labels" or output.interpolated == "logits" or output.activation == "none":
            return scores
        return scores.sigmoid() if self._output.kind == "regions" else scores.softmax(0)

    def _softmax(self, scores: Tensor, own: Tensor, into: Tensor, spans: Spans) -> None:
        numbers = self._numbers(scores)
        low, high = torch.aminmax(scores.flatten(1), dim=1)
        surest = low.max()
        chosen = torch.nonzero(high >= surest).flatten()
        if len(chosen) == 1:
            into.fill_(int(numbers[chosen]))
            if not numbers[chosen]:
                return
        else:
            _paint(scores[chosen], numbers[chosen], into, spans)
        likely = chosen
        if not self._probabilities:
            likely = torch.nonzero(high >= surest - _CERTAIN).flatten()
        winner, margin = _margin(own[likely], numbers[likely], self._probabilities)
        self._add(winner, margin)

    def _regions(self, scores: Tensor, own: Tensor, into: Tensor, spans: Spans) -> None:
        threshold = self._threshold
        numbers = self._numbers(scores)
        into.zero_()
        low, high = torch.aminmax(scores.flatten(1), dim=1)
        painted = torch.zeros(own.shape[1:], dtype=torch.long, device=own.device)
        margin = torch.zeros(own.shape[1:], device=own.device)
        for channel in torch.nonzero(high > threshold).flatten().tolist():
            number = int(numbers[channel])
            if float(low[channel]) > threshold:
                into.fill_(number)
            else:
                into[interpolate(scores[channel][None], spans)[0] > threshold] = number
            inside = own[channel] > threshold
            painted[inside] = number
            certain = own[channel] if self._probabilities else own[channel].sigmoid()
            margin[inside] = (2.0 * certain - 1.0).abs()[inside]
        self._add(painted, margin)

    def _add(self, winner: Tensor, margin: Tensor) -> None:
        flat = winner.reshape(-1)
        self._margins += torch.bincount(flat, margin.reshape(-1).double(), minlength=256)
        self._counts += torch.bincount(flat, minlength=256)

    @property
    def _probabilities(self) -> bool:
        return self._output.activation == "none" or self._output.interpolated == "probabilities"

    @property
    def _threshold(self) -> float:
        share = self._output.threshold
        return share if self._probabilities else math.log(share / (1.0 - share))

    def _numbers(self, scores: Tensor) -> Tensor:
        """Structure number of each channel, int64."""
        if self._output.kind == "labels":
            named = self._output.channels or tuple(range(256))
        else:
            first = 1 if self._output.kind == "regions" else 0
            named = self._output.channels or tuple(range(first, first + len(scores)))
        return torch.tensor(named, device=scores.device)


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """Blocks are too small to be shared between the cores of a processor: waiting costs more than work."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _paint(scores: Tensor, numbers: Tensor, into: Tensor, spans: Spans) -> None:
    """Paint the numbers of the highest classes, in smaller blocks where many classes may win."""
    planes, rows, columns = (part.parts or (part,) for part in spans)
    if len(scores) <= _FEW or not any(part.parts for part in spans):
        into.copy_(_highest(scores, numbers, spans))
        return
    for piece in product(planes, rows, columns):
        places = [part.of(outer) for part, outer in zip(piece, spans, strict=True)]
        inner = scores[(slice(None), *(read for read, _ in places))]
        target = into[tuple(inside for _, inside in places)]
        if not target.numel():
            continue
        low, high = torch.aminmax(inner.flatten(1), dim=1)
        chosen = torch.nonzero(high >= low.max()).flatten()
        if len(chosen) == 1:
            target.fill_(int(numbers[chosen]))
        else:
            target.copy_(_highest(inner[chosen], numbers[chosen], piece))


def _highest(scores: Tensor, numbers: Tensor, spans: Spans) -> Tensor:
    """uint8 ``(planes, rows, columns)`` of the source: the number of the highest class, first of equals."""
    small = numbers.to(torch.uint8)
    best = interpolate(scores[:1], spans)[0]
    winner = small[0].repeat(best.shape)
    for start in range(1, len(scores), _AT_A_TIME):
        group = slice(start, start + _AT_A_TIME)
        for here, number in zip(interpolate(scores[group], spans), small[group], strict=True):
            winner = torch.where(here > best, number, winner)
            best = torch.maximum(best, here)
    return winner


def _margin(own: Tensor, numbers: Tensor, probabilities: bool) -> tuple[Tensor, Tensor]:
    """Winner and margin between the probabilities of best and second best, ``(planes, rows, columns)``."""
    best, winner = own[0], numbers[0].expand(own.shape[1:])
    second = torch.full_like(best, 0.0 if probabilities else -math.inf)
    for scores, number in zip(own[1:], numbers[1:], strict=True):
        winner = torch.where(scores > best, number, winner)
        second = torch.maximum(second, torch.minimum(scores, best))
        best = torch.maximum(best, scores)
    if probabilities:
        return winner, best - second
    return winner, (1.0 - torch.exp(second - best)) / torch.exp(own - best).sum(0)
