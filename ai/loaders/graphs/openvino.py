"""ONNX and OpenVINO IR by OpenVINO, on the CPU; quickest on Intel processors with bfloat16 (AMX)."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ai.errors import ModelError
from ai.loaders.graphs.runner import Runner, Size

# Importing openvino reports to its makers' web analytics, unless their package for it cannot be imported.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino  # type: ignore[import-untyped, unused-ignore]  # noqa: E402

_FAILURES = (RuntimeError, ValueError, OSError)


def open_openvino(content: bytes, name: str, weights: bytes | None, device: str, precision: str) -> Runner:
    """Open an ONNX model, or the ``.xml`` of an IR with the bytes of its ``.bin`` as ``weights``.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNREADABLE``, ``DEVICE_UNAVAILABLE``, ``MODEL_INPUT_INVALID``.
    """
    if torch.device(device).type != "cpu":
        raise ModelError(
            "DEVICE_UNAVAILABLE",
            f"{name}: OpenVINO runs on the CPU here, not on {device}; runtime: onnxruntime in the card may.",
        )
    try:
        core = openvino.Core()
        model = core.read_model(content, weights or b"")
        compiled = core.compile_model(model, "CPU", _settings(core, precision))
    except _FAILURES as error:
        raise ModelError(
            "MODEL_FILE_UNREADABLE",
            f"{name} cannot be opened by OpenVINO {openvino.__version__}: "
            f"{' '.join(str(error).split())[:300]}. Weights in a file apart need runtime: onnxruntime.",
        ) from error
    if len(compiled.inputs) != 1:
        raise ModelError(
            "MODEL_INPUT_INVALID", f"{name} takes {len(compiled.inputs)} inputs; an image is one."
        )
    source, target = compiled.input(0), compiled.output(0)
    half = source.element_type == openvino.Type.f16
    number = np.float16 if half else np.float32
    request = compiled.create_infer_request()

    def forward(image: Tensor) -> Tensor:
        array = np.ascontiguousarray(image.detach().cpu().numpy().astype(number, copy=False))
        request.infer({source: array}, share_inputs=True)
        return torch.from_numpy(np.array(request.get_output_tensor(0).data))

    held = len(content) + len(weights or b"")
    given, answered = _sizes(source.partial_shape), _sizes(target.partial_shape)
    return Runner(forward, given, answered, held, "float16" if half else "float32")


def _settings(core: Any, precision: str) -> dict[str, str]:
    """bfloat16 inside where the processor has it and the recipe does not want float32."""
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    inside = "bf16" if has_bf16 and precision in ("auto", "bfloat16") else "f32"
    threads = str(torch.get_num_threads())
    return {"INFERENCE_PRECISION_HINT": inside, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1"}


def _sizes(shape: Any) -> tuple[Size, ...] | None:
    if shape.rank.is_dynamic:
        return None
    return tuple(None if side.is_dynamic else side.get_length() for side in shape)
