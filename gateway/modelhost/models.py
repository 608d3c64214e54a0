"""The models of one device in the model process: loaded from their cards, kept warm."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ai.errors import AiError, ModelError
from ai.loaders import load_model
from ai.model import Model, ModelSpec, find_card
from gateway.modelhost.memory import allocated_bytes, gib, is_lack_of_memory, release
from gateway.modelhost.warm import WarmModels


class NotLoaded(AiError):
    """A model cannot be had; that is no fault of the image that it was wanted for."""


class Models:
    """Loads models on a device within its budget."""

    def __init__(self, device: str, budget_bytes: int) -> None:
        self.device = device
        self.warm: WarmModels[Model] = WarmModels(budget_bytes, self._close)

    def get(self, card: str, folders: Sequence[str], digest: str, *, pinned: bool = False) -> Model | None:
        """The model of a card, loaded if it is not; None while a run is in the way of its weights.

        Raises
        ------
        NotLoaded
            CARD_CHANGED, NOT_ENOUGH_MEMORY, or by the name of what finding and loading raise.
        """
        try:
            return self.warm.get(digest) or self._load(card, folders, digest, pinned=pinned)
        except AiError as error:
            raise NotLoaded(error.code, error.reason) from error
        except (Exception, SystemExit) as error:
            first_line = str(error).partition("\n")[0][:200]
            sentence = f"The model {card} cannot be loaded ({type(error).__name__}: {first_line})."
            raise NotLoaded("MODEL_NOT_LOADED", sentence) from error

    def _load(self, card: str, folders: Sequence[str], digest: str, *, pinned: bool) -> Model | None:
        find = partial(find_card, folders=[Path(folder) for folder in folders])
        spec = find(card)
        if spec.digest != digest:
            raise ModelError("CARD_CHANGED", f"The card {card} was changed a moment ago and is read again.")
        estimate = _file_bytes(spec)
        if not self.warm.make_room(estimate) and self.warm.runs:
            return None
        before = allocated_bytes(self.device)
        try:
            model = load_model(spec, self.device, find)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            self.warm.drop_idle()
            release(self.device)
            if self.warm.runs:
                return None
            model = self._load_alone(spec, find)
        measured = allocated_bytes(self.device) - before
        self.warm.put(digest, model, max(model.weight_bytes, measured), pinned=pinned)
        return model

    def _load_alone(self, spec: ModelSpec, find: partial[ModelSpec]) -> Model:
        try:
            return load_model(spec, self.device, find)
        except Exception as error:
            if not is_lack_of_memory(error):
                raise
            raise ModelError(
                "NOT_ENOUGH_MEMORY",
                f"The weights of {spec.id} {spec.version} do not fit into the memory of {self.device} "
                f"({gib(self.warm.budget_bytes)} for models).",
            ) from None

    def _close(self, model: Model) -> None:
        model.close()
        release(self.device)


def _file_bytes(spec: ModelSpec) -> int:
    """Size of the model's files: about what its weights take."""
    if spec.folder is None:
        return 0
    paths = [spec.folder / name for name in spec.files]
    return sum(path.stat().st_size for path in paths if path.is_file())
