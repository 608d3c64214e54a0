"""From a model card to a model that can run. Imports torch, and only when asked."""

from __future__ import annotations

from ai.errors import ModelError
from ai.model import Model, ModelSpec


def choose_device(wanted: str) -> str:
    """``auto`` is the first GPU if there is one, else the CPU; anything else is taken as it is."""
    if wanted != "auto":
        return wanted
    try:
        import torch
    except ImportError:
        return "cpu"  # loading the model then says what to install
    return "cuda:0" if torch.cuda.is_available() else "cpu"


def load_model(spec: ModelSpec, device: str = "cpu") -> Model:
    """Load the model of a card on a device.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``cuda:N``.

    Raises
    ------
    ModelError
        ``INFERENCE_NOT_INSTALLED``, ``DEVICE_UNAVAILABLE`` or ``MODEL_CARD_INVALID``.
    """
    try:
        import torch

        from ai.loaders.classical import CtTissue
    except ImportError as error:
        raise ModelError(
            "INFERENCE_NOT_INSTALLED",
            f"Running a model needs the package {error.name}; install dicom-ai-gateway[inference].",
        ) from error
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).partition("\n")[0]
        raise ModelError(
            "DEVICE_UNAVAILABLE", f"The device {device!r} cannot be used here: {first_line}"
        ) from error
    return CtTissue(spec, device)
