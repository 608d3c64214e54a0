"""When a model process counts as hung. Pure; the clock is an argument."""

from __future__ import annotations

import statistics
from collections import deque
from dataclasses import dataclass, field

_TIMES_MEDIAN = 20.0
_KNOWN_FROM = 3  # steps of a model after which its usual step is known
_REMEMBERED = 200
_COLD = 4.0  # the first steps of a model warm up caches and choose kernels
_LOADING_S = 300.0  # importing libraries and reading files; a slow disk is no fault of the model
_SLOW = 4.0  # on a CPU, which others use too


@dataclass
class _Work:
    """What the process has been working on since when."""

    number: int
    model: str
    since_s: float
    loading: bool
    slow: bool


@dataclass
class Watchdog:
    """Follows whose turn it is; time runs for that one only, never for what rests.

    Attributes
    ----------
    step_timeout_s
        Shortest time that a step may take before it is called hung.
    """

    step_timeout_s: float
    _work: _Work | None = None
    _steps_s: dict[str, deque[float]] = field(default_factory=dict)

    @property
    def working_on(self) -> int:
        """The prediction (or load) whose turn it is; 0 for none."""
        return self._work.number if self._work else 0

    @property
    def loading(self) -> bool:
        """Whether its model is being loaded."""
        return self._work is not None and self._work.loading

    def turn(
        self, number: int, model: str, now_s: float, *, loading: bool = False, slow: bool = False
    ) -> None:
        """It has begun to work on something else; 0: on nothing. ``slow``: its steps are those of a CPU."""
        self._work = _Work(number, model, now_s, loading, slow) if number else None

    def stepped(self, seconds: float, now_s: float, *, starts_again: bool = False) -> None:
        """A sign of life of what it works on, which may start again with less memory, perhaps on the CPU."""
        if self._work is None:
            return
        if starts_again:
            self._work.slow = True
            self._steps_s.pop(self._work.model, None)
        steps_s = self._steps_s.setdefault(self._work.model, deque(maxlen=_REMEMBERED))
        steps_s.append(seconds)
        self._work.since_s = now_s

    def limit_s(self) -> float:
        """How long what it works on may be silent: at least the floor, 20 times the usual step if longer."""
        if self.loading:
            return max(_LOADING_S, self.step_timeout_s)
        floor = self.step_timeout_s * (_SLOW if self._work and self._work.slow else 1.0)
        steps_s = self._steps_s.get(self._work.model, ()) if self._work else ()
        if len(steps_s) < _KNOWN_FROM:
            return floor * _COLD
        return max(floor, _TIMES_MEDIAN * statistics.median(steps_s))

    def hung_for_s(self, now_s: float) -> float | None:
        """How long it has been silent, if that is too long."""
        if self._work is None:
            return None
        silent_s = now_s - self._work.since_s
        return silent_s if silent_s > self.limit_s() else None
