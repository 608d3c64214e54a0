"""``.pt2``: programs of ``torch.export``, read only after :mod:`ai.loaders.graphs.vetting` has seen them."""

from __future__ import annotations

import io
import zipfile

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.export.passes import move_to_device_pass

from ai.errors import ModelError
from ai.loaders.graphs.runner import Dtype, Runner, Size, first_tensor
from ai.loaders.graphs.vetting import vet

_FAILURES = (RuntimeError, ValueError, LookupError, AttributeError, TypeError, AssertionError, OSError)


def open_exported(content: bytes, name: str, device: str) -> Runner:
    """Open a program that ``torch.export.save`` wrote.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNSAFE``, ``MODEL_FILE_UNREADABLE``, ``MODEL_INPUT_INVALID``.
    """
    vet(content, name)
    try:
        program = torch.export.load(io.BytesIO(content))
        if torch.device(device).type != "cpu":
            program = move_to_device_pass(program, device)
        module = program.module(check_guards=False)
    except (*_FAILURES, zipfile.BadZipFile) as error:
        raise ModelError(
            "MODEL_FILE_UNREADABLE",
            f"{name} cannot be opened as a program of torch.export by torch {torch.__version__}: "
            f"{str(error).partition(chr(10))[0][:200]}. Export it again with that version.",
        ) from error
    given, answered = _shapes(program, name)

    def forward(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return first_tensor(module(batch))

    state: dict[str, object] = {**program.state_dict, **program.constants}
    weights = [value for value in state.values() if isinstance(value, Tensor)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in weights)
    return Runner(forward, given, answered, held, dtype_of(weights))


def dtype_of(weights: list[Tensor]) -> Dtype:
    """What a torch graph takes: float32 ones may run in less where torch casts for them."""
    kinds = {tensor.dtype for tensor in weights if tensor.is_floating_point()}
    if kinds == {torch.float16}:
        return "float16"
    return "bfloat16" if kinds == {torch.bfloat16} else "any"


def _shapes(program: ExportedProgram, name: str) -> tuple[tuple[Size, ...], tuple[Size, ...] | None]:
    """Shapes of the only input and of the first output; a dimension that is a symbol takes any size."""
    nodes = {node.name: node for node in program.graph.nodes}
    specs = program.graph_signature.input_specs
    inputs = [spec.arg.name for spec in specs if spec.kind == InputKind.USER_INPUT]
    if len(inputs) != 1:
        raise ModelError("MODEL_INPUT_INVALID", f"{name} takes {len(inputs)} inputs; an image is one.")
    answered = None
    for spec in program.graph_signature.output_specs:
        value = nodes[spec.arg.name].meta.get("val") if spec.arg.name in nodes else None
        if isinstance(value, Tensor):
            answered = _sizes(value)
            break
    return _sizes(nodes[inputs[0]].meta["val"]), answered


def _sizes(value: Tensor) -> tuple[Size, ...]:
    sides: list[object] = list(value.shape)  # numbers, or symbols where any size is taken
    return tuple(side if isinstance(side, int) else None for side in sides)
