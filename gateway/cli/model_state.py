"""What stands between a model card and a model that runs here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ai.errors import AiError, ModelError

if TYPE_CHECKING:
    from ai.loaders import Find
    from ai.model import Model, ModelSpec

READY = "ready"
_STATES = {
    "LICENCE_NOT_ACCEPTED": "licence not accepted",
    "MODEL_FILE_MISSING": "files missing",
    "MODEL_FILE_CHANGED": "files changed",
    "INFERENCE_NOT_INSTALLED": "package missing",
}
_PACKAGES = {
    "classical": ("torch", "scipy"),
    "network": ("torch", "safetensors"),
    "monai_bundle": ("torch", "monai"),
    "nnunet": ("torch", "dynamic_network_architectures"),
    "pipeline": ("torch",),
}
_RUNTIMES = {".onnx": ("onnxruntime", "openvino"), ".xml": ("openvino",)}  # one of them is enough
_EXTRAS = {"dynamic_network_architectures": "nnunet", "onnxruntime": "onnx", "openvino": "openvino"}


class Problem(NamedTuple):
    """A reason why a model does not run: a stable name and a sentence."""

    code: str
    reason: str


def quick_problems(spec: ModelSpec) -> list[Problem]:
    """What can be said without loading it: licence, files, packages."""
    from ai.model import PinnedFiles, check_licence

    problems = []
    try:
        check_licence(spec)
    except ModelError as error:
        problems.append(Problem(error.code, error.reason))
    problems += [Problem(error.code, error.reason) for error in PinnedFiles(spec).verify()]
    lacking = missing_package(spec)
    if lacking:
        extra = _EXTRAS.get(lacking, "inference")
        reason = f"Model {spec.id} {spec.version} needs the package {lacking}; "
        problems.append(Problem("INFERENCE_NOT_INSTALLED", f"{reason}install dicom-ai-gateway[{extra}]."))
    return problems


def all_problems(spec: ModelSpec, folders: Sequence[Path]) -> list[Problem]:
    """As :func:`quick_problems`; without any, the model is loaded on the CPU too."""
    from ai.model import find_card

    problems = quick_problems(spec)
    if problems:
        return problems
    try:
        load_for_person(spec, "cpu", partial(find_card, folders=folders)).close()
    except AiError as error:
        return [Problem(error.code, error.reason)]
    return []


def load_for_person(spec: ModelSpec, device: str, find: Find) -> Model:
    """As :func:`ai.loaders.load_model`, and MODEL_NOT_LOADED for what else the model's own code raises."""
    from ai.loaders import load_model

    try:
        return load_model(spec, device, find)
    except AiError:
        raise
    except Exception as error:
        cause = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        reason = f"Model {spec.id} {spec.version} cannot be loaded: {cause}."
        raise ModelError("MODEL_NOT_LOADED", reason) from error


def state_of(problems: Sequence[Problem]) -> str:
    """``ready``, or the gravest problem in two words."""
    known = {problem.code for problem in problems}
    return next((text for code, text in _STATES.items() if code in known), "broken" if problems else READY)


def missing_package(spec: ModelSpec) -> str:
    """The first package that a model needs and that is not installed; empty if none is missing."""
    lacking = next((name for name in _PACKAGES.get(spec.loader, ("torch",)) if find_spec(name) is None), "")
    if lacking or spec.graph is None:
        return lacking
    runtimes = _RUNTIMES.get(Path(spec.graph.file).suffix.lower(), ())
    if spec.graph.runtime in runtimes:
        runtimes = (spec.graph.runtime,)
    return "" if not runtimes or any(find_spec(name) for name in runtimes) else runtimes[0]
