"""Networks as graphs: ``.pt2`` (torch.export), ``.onnx`` (onnxruntime, OpenVINO), TorchScript, OpenVINO IR.

A graph brings its architecture, but nothing about its images: the recipe in the card says how it is fed and
read. Files are read once, by their pinned hashes, and handed over as bytes; no library here opens a path.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import PurePosixPath

import torch

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders.graphs.runner import Runner, check_shapes, checked, probe
from ai.model import ModelSpec, PinnedFiles, Recipe

_SUFFIXES = {
    ".pt2": ("torch",),
    ".onnx": ("onnxruntime", "openvino"),
    ".ts": ("torch",),
    ".pt": ("torch",),
    ".xml": ("openvino",),
}


def load(spec: ModelSpec, device: str, _find: object = None) -> NetworkModel:
    """The graph that a card names, with the card's recipe; see :func:`ai.loaders.load_model`.

    Raises
    ------
    ModelError
        ``MODEL_FILE_UNSAFE``, ``MODEL_FILE_UNREADABLE``, ``MODEL_INPUT_INVALID``, ``MODEL_OUTPUT_INVALID``,
        ``MODEL_CARD_INVALID``, ``DEVICE_UNAVAILABLE``.
    """
    if spec.graph is None or spec.recipe is None:
        raise ModelError("MODEL_CARD_INVALID", f"The card {spec.id} needs the sections graph and recipe.")
    recipe = spec.recipe
    runner = _open(spec, recipe, device)
    check_shapes(spec, recipe, runner)
    if runner.answered is None:
        probe(spec, recipe, runner, device)
    networks = Networks((checked(spec, recipe, runner),), runner.weight_bytes, runner.dtype, runner.close)
    return NetworkModel(spec, recipe, networks, device)


def runtime_of(name: str, wanted: str, device: str) -> str:
    """Which library runs a graph file: the one the card wants, else the first for it that is installed.

    Raises
    ------
    ModelError
        ``MODEL_CARD_INVALID`` for a file that is no graph, or a library that does not read it.
    """
    readers = _SUFFIXES.get(PurePosixPath(name).suffix.lower(), ())
    if not readers or wanted not in ("auto", *readers):
        known = "; ".join(f"{suffix} by {' or '.join(by)}" for suffix, by in _SUFFIXES.items())
        raise ModelError("MODEL_CARD_INVALID", f"graph: {name} is not read by {wanted}. Known are: {known}.")
    if wanted != "auto":
        return _installed(wanted)
    if len(readers) > 1 and torch.device(device).type == "cpu":
        return _installed(next((reader for reader in readers if find_spec(reader)), readers[0]))
    return _installed(readers[0])


def _installed(library: str) -> str:
    """Its name, if it can be imported."""
    if find_spec(library) is None:
        extra = {"onnxruntime": "onnx"}.get(library, library)
        raise ModelError(
            "INFERENCE_NOT_INSTALLED",
            f"This graph needs the package {library}; install dicom-ai-gateway[{extra}].",
        )
    return library


def _open(spec: ModelSpec, recipe: Recipe, device: str) -> Runner:
    """Open the file by the library that is to run it; each is imported only when it is asked for."""
    assert spec.graph is not None  # noqa: S101  (load has checked it)
    name, files = spec.graph.file, PinnedFiles(spec)
    runtime = runtime_of(name, spec.graph.runtime, device)
    content = files.read(name)
    if runtime == "onnxruntime":
        from ai.loaders.graphs.onnx import open_onnx

        folder = PurePosixPath(name).parent
        others = {
            str(PurePosixPath(other).relative_to(folder)): files.read(other)
            for other in files.names
            if other != name and PurePosixPath(other).is_relative_to(folder)
        }
        return open_onnx(content, name, others, device)
    if runtime == "openvino":
        from ai.loaders.graphs.openvino import open_openvino

        weights = files.read(f"{name[:-4]}.bin") if name.lower().endswith(".xml") else None
        return open_openvino(content, name, weights, device, recipe.precision)
    if name.lower().endswith(".pt2"):
        from ai.loaders.graphs.exported import open_exported

        return open_exported(content, name, device)
    from ai.loaders.graphs.torchscript import open_torchscript

    return open_torchscript(content, name, device)
