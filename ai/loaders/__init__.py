"""From a model card to a model that can run. Imports torch, and only when asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module

from ai.errors import ModelError
from ai.model import (
    Model,
    ModelSpec,
    Prediction,
    Progress,
    RunContext,
    check_licence,
    find_card,
    run_to_end,
)
from ai.volume import Volume

Find = Callable[[str], ModelSpec]
"""Card by name, see :func:`ai.model.find_card`."""

_EXTRAS = {"dynamic_network_architectures": "nnunet", "onnxruntime": "onnx", "openvino": "openvino"}


@dataclass(frozen=True)
class InProcess:
    """A model asked in this process (see :class:`ai.model.Predictor`)."""

    model: Model
    deterministic: bool = False

    @property
    def spec(self) -> ModelSpec:
        """The card."""
        return self.model.spec

    @property
    def device(self) -> str:
        """Where it runs."""
        return self.model.device

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:
        """Run the model to the end."""
        return run_to_end(self.model, channels, progress, RunContext(self.deterministic))


def choose_device(wanted: str) -> str:
    """``auto`` is the first GPU if there is one, else the CPU; anything else is taken as it is."""
    if wanted != "auto":
        return wanted
    try:
        import torch
    except ImportError:
        return "cpu"  # loading the model then says what to install
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def load_model(spec: ModelSpec, device: str = "cpu", find: Find = find_card) -> Model:
    """Load the model of a card on a device.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:N``.
    find
        Finds the cards of the models that a pipeline is made of.

    Raises
    ------
    ModelError
        ``INFERENCE_NOT_INSTALLED``, ``DEVICE_UNAVAILABLE``, ``LICENCE_NOT_ACCEPTED``,
        ``MODEL_CARD_INVALID``, or what :class:`ai.model.PinnedFiles` and the loader of that kind raise.
    """
    check_licence(spec)
    try:
        import torch

        load = import_module(f"ai.loaders.{spec.loader}").load
    except ImportError as error:
        raise ModelError(
            "INFERENCE_NOT_INSTALLED",
            f"Running a model of the kind {spec.loader} needs the package {error.name}; install "
            f"dicom-ai-gateway[{_EXTRAS.get(error.name or '', 'inference')}].",
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        raise ModelError(
            "DEVICE_UNAVAILABLE", f"The device {device!r} cannot be used here: {first_line}"
        ) from error
    model: Model = load(spec, device, find)
    return model
