"""What stands between a model card and a model that runs here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ai.errors import AiError, ModelError, UnknownModel

if TYPE_CHECKING:
    from ai.model import ModelSpec
    from gateway.cli.model_process import ModelHost

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


def all_problems(spec: ModelSpec, folders: Sequence[Path], host: ModelHost) -> list[Problem]:
    """As :func:`quick_problems`; without any, the model is loaded too."""
    problems = quick_problems(spec)
    if problems:
        return problems
    try:
        host.load(spec, folders)
    except AiError as error:
        return [Problem(error.code, error.reason)]
    return []


def verdict(name: str, folders: Sequence[Path], host: ModelHost) -> dict[str, Any]:
    """What there is to say of a model; raises UnknownModel."""
    from ai.model import find_model

    record: dict[str, Any] = {"id": name}
    try:
        spec = find_model(name, folders)
        record |= record_of(spec)
        beside = [spec.folder.parent] if spec.folder else []
        problems = all_problems(spec, [*beside, *folders], host)
    except UnknownModel:
        raise
    except ModelError as error:
        problems = [Problem(error.code, error.reason)]
    return {**record, "ok": not problems, "problems": [problem._asdict() for problem in problems]}


def record_of(spec: ModelSpec) -> dict[str, Any]:
    """What a card says, for programs."""
    licence = spec.licence
    return {
        "id": spec.id,
        "version": spec.version,
        "title": spec.title,
        "loader": spec.loader,
        "licence": {
            "spdx": licence.spdx,
            "commercial": licence.commercial,
            "accepted_by": licence.accepted_by,
        },
        "modalities": list(spec.accepts.modalities),
        "structures": [structure.label for structure in spec.structures],
        "digest": spec.digest,
    }


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
