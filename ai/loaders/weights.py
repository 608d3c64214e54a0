"""Weights from bytes: the one place of the project where ``torch.load`` is called.

Pickles are code. A file is read only if it is safetensors, or a PyTorch file (zip or the older pickle
stream) that ``weights_only=True`` can read: that unpickler knows tensors, containers and numbers, and calls
nothing else. Numbers of NumPy are allowed as well, since trainers keep losses beside the weights.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pickle import UnpicklingError  # noqa: TID251  (an exception; nothing here reads a pickle)
from typing import Any

import numpy as np
import torch
from numpy._core.multiarray import _reconstruct, scalar
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ai.errors import ModelError

USUAL_WRAPPINGS = ("state_dict", "model_state_dict", "network_weights", "model", "net")
"""Keys under which trainers (Lightning, nnU-Net, MONAI, Ignite) put the weights of a network."""
USUAL_PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before the names of weights."""

_PYTORCH_ZIP = b"PK\x03\x04"
_PYTORCH_STREAM = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number of torch.save until 1.5
_MOST_GROWTH, _SMALL_BYTES = 8, 64 << 20
_PICKLE = re.compile(rb"\x80[\x02-\x05]|\(d|\]q|c[a-z_.]+\n")
_NOT_ALLOWED = re.compile(r"unsupported (global|class)|unrecognized function|Can only (build|create)", re.I)
_DAMAGED = (
    RuntimeError,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    struct.error,
)
_NUMPY: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    np.dtype,
    np.ndarray,
    scalar,
    _reconstruct,
    (scalar, "numpy.core.multiarray.scalar"),  # as NumPy 1 names it
    (_reconstruct, "numpy.core.multiarray._reconstruct"),
    *(type(np.dtype(kind)) for kind in "?bBhHiIlLqQefdU"),
]


def read_checkpoint(content: bytes, name: str, device: str = "cpu") -> dict[str, Any]:
    """Everything that a file of weights holds, nested as it was saved.

    Parameters
    ----------
    content
        The bytes of the file, as :meth:`ai.model.PinnedFiles.read` checked them.
    name
        Name of the file, for errors.
    device
        Where tensors are put.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNSAFE`` when reading it would run code; ``MODEL_FILE_UNREADABLE`` when it is damaged
        or another kind of file.
    """
    if content.startswith((_PYTORCH_ZIP, _PYTORCH_STREAM)):
        refuse_bomb(content, name)
        found = _read_pytorch(content, name, device)
    elif content[8:9] == b"{":
        found = _read_safetensors(content, name, device)
    elif _PICKLE.match(content):
        raise _unsafe(name, "it is a pickle")
    else:
        raise _unreadable(name, "it is neither safetensors nor a PyTorch file")
    if not isinstance(found, Mapping):
        raise _unreadable(name, f"it holds a {type(found).__name__}, not weights by name")
    return {str(key): value for key, value in found.items()}


def read_state(
    content: bytes,
    name: str,
    device: str = "cpu",
    *,
    unwrap: Sequence[str] = (),
    strip: Sequence[str] = (),
) -> dict[str, Tensor]:
    """The weights of a network by name.

    Parameters
    ----------
    unwrap
        Keys under which they may lie deeper, such as :data:`USUAL_WRAPPINGS`; the first that is there is
        followed, once. Empty: they lie on top.
    strip
        Prefixes taken away where every name has them, such as :data:`USUAL_PREFIXES`.

    Raises
    ------
    ModelError
        As :func:`read_checkpoint`; ``MODEL_FILE_UNREADABLE`` also when something there is no tensor.
    """
    found: Mapping[str, Any] = read_checkpoint(content, name, device)
    if not any(isinstance(value, Tensor) for value in found.values()):
        found = next((found[key] for key in unwrap if isinstance(found.get(key), Mapping)), found)
    others = [key for key, value in found.items() if not isinstance(value, Tensor)]
    if others or not found:
        what = f"{', '.join(map(str, others[:4]))} hold no tensors" if others else "it is empty"
        raise _unreadable(name, f"as weights of a network: {what}")
    state = {str(key): value for key, value in found.items()}
    for prefix in strip:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def refuse_bomb(content: bytes, name: str) -> None:
    """Refuse an archive that would unpack to far more than it has; weights hardly compress.

    Raises ModelError ``MODEL_FILE_UNSAFE``; what is no zip passes.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            size = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, *_DAMAGED):
        return  # whoever reads it says so
    if size > _MOST_GROWTH * len(content) + _SMALL_BYTES:
        raise ModelError(
            "MODEL_FILE_UNSAFE",
            f"{name} has {len(content)} bytes and would unpack to {size}; save it without compression.",
        )


def reads_safely(content: bytes) -> bool:
    """Whether a PyTorch file holds nothing but what ``weights_only`` reads, without any allowance."""
    try:
        torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)  # noqa: TID251
    except (UnpicklingError, *_DAMAGED):
        return False
    return True


def _read_safetensors(content: bytes, name: str, device: str) -> dict[str, Tensor]:
    try:
        state = load_safetensors(content)
    except (SafetensorError, *_DAMAGED) as error:
        raise _unreadable(name, f"damaged safetensors ({_first_line(error)})") from error
    return {key: tensor.to(device) for key, tensor in state.items()}


def _read_pytorch(content: bytes, name: str, device: str) -> object:
    try:
        with torch.serialization.safe_globals(_NUMPY):
            return torch.load(  # noqa: TID251
                io.BytesIO(content), map_location=device, weights_only=True
            )
    except UnpicklingError as error:
        refused = _NOT_ALLOWED.search(str(error))
        if refused is None:
            raise _unreadable(name, "its list of weights is damaged") from error
        raise _unsafe(name, _what_it_calls(str(error))) from error
    except _DAMAGED as error:
        if "TorchScript" in str(error):
            raise _unreadable(name, "it is TorchScript: a model of the loader `graph`") from error
        raise _unreadable(name, f"damaged ({_first_line(error)})") from error


def _what_it_calls(message: str) -> str:
    named = re.search(r"GLOBAL ([\w.]+)|function (\S+)", message)
    return f"it calls {named.group(1) or named.group(2)}" if named else "it holds more than weights"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].strip()[:160] or type(error).__name__


def _unsafe(name: str, why: str) -> ModelError:
    return ModelError(
        "MODEL_FILE_UNSAFE",
        f"{name} is not read, because reading it would run code: {why}. Save the weights alone as "
        "safetensors (safetensors.torch.save_file), or as torch.save(network.state_dict(), file).",
    )


def _unreadable(name: str, why: str) -> ModelError:
    return ModelError("MODEL_FILE_UNREADABLE", f"{name} cannot be read: {why}.")
