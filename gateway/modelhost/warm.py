"""Models that stay loaded, within a budget of bytes; and whether a run fits beside them. Pure bookkeeping."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Generic, TypeVar

T = TypeVar("T")


class Admission(Enum):
    """What becomes of a run that wants to begin."""

    NOW = auto()
    LATER = auto()
    """It fits once a run that is under way has ended."""
    NEVER = auto()


@dataclass
class _Entry(Generic[T]):
    model: T
    size_bytes: int
    pinned: bool
    runs: int = 0


class WarmModels(Generic[T]):
    """The loaded models of one device, least recently used first.

    Parameters
    ----------
    budget_bytes
        For the weights of all of them and the runs under way.
    close
        Called with a model that is let go.
    """

    def __init__(self, budget_bytes: int, close: Callable[[T], None]) -> None:
        self.budget_bytes = budget_bytes
        self._close = close
        self._entries: OrderedDict[Hashable, _Entry[T]] = OrderedDict()
        self._running: dict[int, tuple[Hashable, int]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    @property
    def runs(self) -> int:
        """How many runs are under way."""
        return len(self._running)

    @property
    def under_way(self) -> frozenset[int]:
        """Those runs."""
        return frozenset(self._running)

    @property
    def weight_bytes(self) -> int:
        """Of all warm models."""
        return sum(entry.size_bytes for entry in self._entries.values())

    @property
    def free_bytes(self) -> int:
        """What neither weights nor runs take; below 0 when a measurement was above its estimate."""
        return self.budget_bytes - self.weight_bytes - sum(size for _, size in self._running.values())

    def get(self, key: Hashable) -> T | None:
        """A warm model, which is the most recently used one now."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.model

    def put(self, key: Hashable, model: T, size_bytes: int, *, pinned: bool = False) -> None:
        """Keep a model that was loaded, and let others go until it fits; pinned only if it does."""
        entry = self._entries[key] = _Entry(model, size_bytes, pinned)
        entry.pinned = self.make_room(0, keep=key) and pinned

    def make_room(self, size_bytes: int, keep: Hashable = None, *, also_pinned: bool = False) -> bool:
        """Let idle models go, least recently used first, until so many bytes are free; True if they are."""
        for key in [k for k, e in self._entries.items() if k != keep and not e.runs]:
            if self.free_bytes >= size_bytes:
                break
            if also_pinned or not self._entries[key].pinned:
                self.drop(key)
        return self.free_bytes >= size_bytes

    def drop(self, key: Hashable) -> None:
        """Let a model go."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._close(entry.model)

    def drop_idle(self, keep: Hashable = None) -> None:
        """Let every model go that no run uses."""
        for key in [k for k, e in self._entries.items() if k != keep and not e.runs]:
            self.drop(key)

    def admit(self, run: int, key: Hashable, needed_bytes: int) -> Admission:
        """Begin a run of a warm model if it fits; others are let go for it, at last pinned ones too."""
        fits = self.make_room(needed_bytes, keep=key) or self.make_room(
            needed_bytes, keep=key, also_pinned=True
        )
        if not fits:
            return Admission.LATER if self._running else Admission.NEVER
        self.begin(run, key, needed_bytes)
        return Admission.NOW

    def begin(self, run: int, key: Hashable, needed_bytes: int) -> None:
        """Begin a run whether it fits or not."""
        self._entries[key].runs += 1
        self._running[run] = (key, needed_bytes)

    def end(self, run: int) -> None:
        """A run has ended; without effect for one that never began."""
        key, _ = self._running.pop(run, (None, 0))
        if key in self._entries:
            self._entries[key].runs -= 1
