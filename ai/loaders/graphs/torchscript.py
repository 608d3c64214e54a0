"""TorchScript: deprecated by PyTorch, read because hospitals have it; nothing writes it here."""

from __future__ import annotations

import io
import re
import zipfile

import torch
from torch import Tensor, nn

from ai.errors import ModelError
from ai.loaders.graphs.exported import dtype_of
from ai.loaders.graphs.runner import Runner, first_tensor
from ai.loaders.weights import refuse_bomb

_REACHES_OUT = re.compile(rb"torch\.(save|from_file|load)\(|ops\.(?!aten|prim|quantized|torchvision)\w+\.")


def open_torchscript(content: bytes, name: str, device: str) -> Runner:
    """Open an archive of ``torch.jit.save`` to be run; raises as :func:`load_script`."""
    module = load_script(content, name, device)

    def forward(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return first_tensor(module(batch))

    weights = [*module.parameters(), *module.buffers()]
    held = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    return Runner(forward, None, None, held, dtype_of(weights))


def load_script(content: bytes, name: str, device: str) -> nn.Module:
    """The module of an archive of ``torch.jit.save``, for evaluation.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNSAFE`` when its code reads or writes files or calls foreign operators,
        ``MODEL_FILE_UNREADABLE``.
    """
    _vet(content, name)
    try:
        module: nn.Module = torch.jit.load(  # type: ignore[no-untyped-call]
            io.BytesIO(content), map_location=device
        )
    except (RuntimeError, ValueError) as error:
        raise _unreadable(name, str(error).partition("\n")[0][:200]) from error
    return module.eval()


def _vet(content: bytes, name: str) -> None:
    """TorchScript is a language without Python, but with operators that touch files."""
    refuse_bomb(content, name)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            code = [member for member in archive.namelist() if "/code/" in member and member.endswith(".py")]
            if not code:
                raise _unreadable(name, "it holds no TorchScript; state dictionaries have the loader network")
            found = next((hit for each in code if (hit := _REACHES_OUT.search(archive.read(each)))), None)
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise _unreadable(name, f"it is no archive ({error})") from error
    if found is not None:
        raise ModelError(
            "MODEL_FILE_UNSAFE",
            f"{name} is not opened, because its code calls {found.group().decode()}…; export it to ONNX.",
        )


def _unreadable(name: str, why: str) -> ModelError:
    return ModelError("MODEL_FILE_UNREADABLE", f"{name} cannot be opened as TorchScript: {why}.")
