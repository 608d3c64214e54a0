"""ONNX by onnxruntime, on the CPU or a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnxruntime  # type: ignore[import-untyped, unused-ignore]
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as failures  # type: ignore[import-untyped, unused-ignore]
from torch import Tensor

from ai.errors import ModelError
from ai.loaders.graphs.runner import Dtype, Runner, Size

_ERRORS_ONLY = 3
_FAILURES = (
    failures.Fail,
    failures.InvalidGraph,
    failures.InvalidProtobuf,
    failures.InvalidArgument,
    failures.NoSuchFile,
    failures.NotImplemented,
    failures.RuntimeException,
)
_KINDS: Mapping[str, tuple[Any, Dtype]] = {
    "tensor(float)": (np.float32, "float32"),
    "tensor(float16)": (np.float16, "float16"),
}


def open_onnx(content: bytes, name: str, beside: Mapping[str, bytes], device: str) -> Runner:
    """Open an ONNX model.

    Parameters
    ----------
    beside
        Bytes of the other pinned files by their name beside the graph: where its weights may lie apart
        (external data). No other file is read.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNREADABLE``, ``DEVICE_UNAVAILABLE``, ``MODEL_INPUT_INVALID``.
    """
    session = _session(content, name, beside, device)
    given, kinds = session.get_inputs(), _KINDS
    if len(given) != 1 or given[0].type not in kinds:
        described = ", ".join(f"{each.name} {each.type}" for each in given)
        raise ModelError("MODEL_INPUT_INVALID", f"{name} takes {described}; one image of floats is needed.")
    (source,), target = given, session.get_outputs()[0]
    number, dtype = kinds[source.type]

    def forward(batch: Tensor) -> Tensor:
        array = batch.detach().cpu().numpy().astype(number, copy=False)
        (answer,) = session.run([target.name], {source.name: np.ascontiguousarray(array)})
        return torch.from_numpy(answer)

    def forward_on_gpu(batch: Tensor) -> Tensor:
        image = batch.contiguous()
        index = image.device.index or 0
        binding = session.io_binding()
        binding.bind_input(source.name, "cuda", index, number, tuple(image.shape), image.data_ptr())
        binding.bind_output(target.name, "cuda", index)
        torch.cuda.current_stream(image.device).synchronize()  # onnxruntime has a stream of its own
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        return torch.utils.dlpack.from_dlpack(binding.get_outputs()[0])

    on_gpu = torch.device(device).type == "cuda"
    held = len(content) + sum(len(part) for part in beside.values())
    return Runner(
        forward_on_gpu if on_gpu else forward, sizes(source.shape), sizes(target.shape), held, dtype
    )


def sizes(shape: list[int | str | None] | None) -> tuple[Size, ...] | None:
    """A declared shape; symbols and unknown sizes are None."""
    if not shape:
        return None
    return tuple(side if isinstance(side, int) and side > 0 else None for side in shape)


def _session(content: bytes, name: str, beside: Mapping[str, bytes], device: str) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # others need the cores
    options.enable_cpu_mem_arena = False  # memory goes back between models
    if beside:
        names, parts = list(beside), list(beside.values())
        options.add_external_initializers_from_files_in_memory(names, parts, [len(part) for part in parts])
    try:
        session = onnxruntime.InferenceSession(content, options, providers=_providers(device))
    except _FAILURES as error:
        raise ModelError(
            "MODEL_FILE_UNREADABLE",
            f"{name} cannot be opened by onnxruntime {onnxruntime.__version__}: "
            f"{str(error).partition(chr(10))[0][:300]}. Weights in a file apart must be pinned beside it.",
        ) from error
    if torch.device(device).type == "cuda" and "CUDAExecutionProvider" not in session.get_providers():
        raise ModelError(
            "DEVICE_UNAVAILABLE",
            f"{name}: onnxruntime {onnxruntime.__version__} has no CUDA here; install onnxruntime-gpu in its "
            "place, or run the model on the CPU.",
        )
    return session


def _providers(device: str) -> list[Any]:
    where = torch.device(device)
    if where.type == "cpu":
        return ["CPUExecutionProvider"]
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return ["CPUExecutionProvider"]  # refused by name below
    return [("CUDAExecutionProvider", {"device_id": where.index or 0}), "CPUExecutionProvider"]
