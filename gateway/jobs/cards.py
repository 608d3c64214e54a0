"""The configured cards as the worker sees them: which models can be loaded, and which have changed since."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ai.errors import AiError
from ai.model import ModelSpec, find_card, shipped_card_folder
from gateway.clock import Clock
from gateway.jobs.messages import CardState

TryLoad = Callable[[str, ModelSpec], None]
"""Loads the model of a card; raises AiError when that cannot be done."""

_TRY_AGAIN_S = 60.0
_TRY_LATER_S = 3600.0
_PASSING = (
    *("NOT_ENOUGH_MEMORY", "OUT_OF_MEMORY", "DEVICE_UNAVAILABLE", "CARD_CHANGED"),
    *("MODEL_PROCESS_DOWN", "MODEL_RESTARTED"),
)
"""Problems that may go away although no file changes; the others may too, so they are tried again later."""


@dataclass(frozen=True)
class _Known:
    state: CardState
    tried_s: float


class Cards:
    """Follows the files of the configured models; safe to use from several threads."""

    def __init__(self, cards: Sequence[str], folders: Sequence[str], load: TryLoad, clock: Clock) -> None:
        self._cards = cards
        self._folders = tuple(Path(folder) for folder in folders)
        self._load = load
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Known] = {}
        self._files_of: dict[str, tuple[str, tuple[Path, ...]]] = {}

    def states(self) -> tuple[CardState, ...]:
        """As they were when each was last looked at."""
        with self._lock:
            return tuple(self._known[card].state for card in self._cards if card in self._known)

    def look(self) -> bool:
        """Load what is new, has changed, or may work by now; True if a state is another than before."""
        before = self.states()
        for card in self._cards:
            signature = self._signature(card)
            if self._is_due(card, signature):
                self._set(self._try(card, signature))
        return self.states() != before

    def failed(self, card: str, error: AiError) -> bool:
        """A model turned out not to load when a job wanted it; False for a card that is not configured."""
        if card not in self._cards:
            return False
        self._set(CardState(card, self._signature(card), error.code, error.reason))
        return True

    def _is_due(self, card: str, signature: str) -> bool:
        with self._lock:
            known = self._known.get(card)
        if known is None or known.state.signature != signature:
            return True
        waited_s = self._clock.monotonic_s() - known.tried_s
        pause_s = _TRY_AGAIN_S if known.state.name in _PASSING else _TRY_LATER_S
        return bool(known.state.name) and waited_s >= pause_s

    def _try(self, card: str, signature: str) -> CardState:
        state = CardState(card, signature)
        try:
            self._load(card, find_card(card, self._folders))
        except AiError as error:
            return replace(state, name=error.code, reason=error.reason)
        return state

    def _set(self, state: CardState) -> None:
        with self._lock:
            self._known[state.card] = _Known(state, self._clock.monotonic_s())

    def _signature(self, card: str) -> str:
        """Sizes and times of every file that the model is made of."""
        stamps = sorted({_stamp(path) for path in self._files(card)})
        return hashlib.sha256("\n".join(stamps).encode()).hexdigest()[:16]

    def _files(self, card: str, depth: int = 0) -> tuple[Path, ...]:
        """The card, what it pins, and the same of the stages of a pipeline; read when the card changes."""
        places = tuple(folder / f"{card}.yaml" for folder in (*self._folders, shipped_card_folder()))
        stamp = "\n".join(map(_stamp, places))
        known_stamp, files = self._files_of.get(card, ("", ()))
        if stamp != known_stamp:
            files = self._named_by(card, depth)
            self._files_of[card] = (stamp, files)
        return (*places, *files)

    def _named_by(self, card: str, depth: int) -> tuple[Path, ...]:
        try:
            spec = find_card(card, self._folders)
        except AiError:
            return ()
        files = [spec.folder / name for name in spec.files] if spec.folder else []
        stages = [path for stage in spec.stages if depth == 0 for path in self._files(stage.model, depth + 1)]
        return (*files, *stages)


def _stamp(path: Path) -> str:
    try:
        found = path.stat()
    except OSError:
        return f"{path} missing"
    return f"{path} {found.st_mtime_ns} {found.st_size} {found.st_ino}"
