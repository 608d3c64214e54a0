"""One network in every format: the same labels from each, and refusals that say what to do."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import textwrap
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
from scipy import ndimage
from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders import InProcess, graph_draft, load_model
from ai.loaders.graph import runtime_of
from ai.model import Model, ModelSpec
from ai.model.recipe import Recipe
from tests.model_files import COMMON, volume, write_model

SHAPE = (21, 30, 26)
TILE = [16, 16, 16]
RECIPE: dict[str, Any] = {
    "intensity": [{"op": "rescale", "source": [-1000, 1000]}],
    "tiles": {"size": TILE, "batch": 2, "step": 0.5, "weighting": "constant"},
    "precision": "float32",
}


class Thresholds(nn.Module):
    """Nothing below 0.3, 1 up to 0.7, 2 above: of the mean of 3 × 3 × 3 voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Conv3d(1, 1, 3, padding=1, bias=False)
        self.scores = nn.Conv3d(1, 3, 1)
        with torch.no_grad():
            self.mean.weight.fill_(1 / 27)
            self.scores.weight.copy_(torch.tensor([0.0, 10.0, 20.0]).view(3, 1, 1, 1, 1))
            self.scores.bias.copy_(torch.tensor([0.0, -3.0, -10.0]))  # type: ignore[union-attr]

    def forward(self, image: Tensor) -> Tensor:
        scores: Tensor = self.scores(self.mean(image))
        return scores


class Deep(nn.Module):
    """Random layers of the kinds that U-Nets have, and a second answer that is not to be taken."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.down = nn.Sequential(nn.Conv3d(1, 8, 3, 2, 1), nn.InstanceNorm3d(8, affine=True), nn.LeakyReLU())
        self.up = nn.ConvTranspose3d(8, 8, 2, 2)
        self.scores = nn.Conv3d(9, 3, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.down(image)
        return self.scores(torch.cat([self.up(coarse), image], dim=1)), coarse


def dynamic() -> tuple[dict[int, Any]]:
    auto = torch.export.Dim.AUTO
    return ({0: auto, 2: auto, 3: auto, 4: auto},)


def exported(network: nn.Module, fixed: bool = False) -> bytes:
    stream = io.BytesIO()
    example = torch.rand(1 if fixed else 2, 1, *TILE)
    shapes = None if fixed else dynamic()
    torch.export.save(torch.export.export(network.eval(), (example,), dynamic_shapes=shapes), stream)
    return stream.getvalue()


def to_onnx(network: nn.Module, fixed: bool = False) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            network.eval(),
            (torch.rand(1 if fixed else 2, 1, *TILE),),
            dynamo=True,
            dynamic_shapes=None if fixed else dynamic(),
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def script(network: nn.Module) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(network.eval(), torch.rand(1, 1, *TILE)), stream)
    return stream.getvalue()


MAKERS: dict[str, tuple[str, str, Callable[[nn.Module], bytes]]] = {
    "torch.export": ("n.pt2", "auto", exported),
    "ONNX, onnxruntime": ("n.onnx", "onnxruntime", to_onnx),
    "ONNX, OpenVINO": ("n.onnx", "openvino", to_onnx),
    "TorchScript": ("n.ts", "auto", script),
    "TorchScript named .pt": ("n.pt", "torch", script),
}


@pytest.fixture(scope="module")
def image() -> npt.NDArray[np.float32]:
    generator = np.random.default_rng(3)
    smooth = ndimage.gaussian_filter(generator.normal(size=SHAPE), 2.0)
    return (smooth / np.abs(smooth).max() * 1000).astype(np.float32)


@pytest.fixture(scope="module")
def files() -> dict[tuple[str, str], bytes]:
    """Every format of both networks, made once."""
    networks = {"thresholds": Thresholds(), "deep": Deep()}
    makers = {name: make for name, _, make in MAKERS.values()}
    return {(kind, name): makers[name](net) for kind, net in networks.items() for name in makers}


def graph_card(folder: Path, file: str, content: bytes, runtime: str = "auto", **changes: Any) -> ModelSpec:
    recipe = {**RECIPE, **changes.pop("recipe", {})}
    section = {"file": file, "runtime": runtime}
    return write_model(
        folder, "graph", {file: content}, loader="graph", graph=section, recipe=recipe, **changes
    )


def labels_of(model: Model, voxels: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    return InProcess(model).predict([volume(voxels)], lambda *_: None).labels


def refusal(call: Callable[[], object]) -> ModelError:
    with pytest.raises(ModelError) as refused:
        call()
    return refused.value


def truth_of(image: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """What :class:`Thresholds` has to find, by other means."""
    mean = ndimage.uniform_filter((image.astype(np.float64) + 1000) / 2000, 3, mode="constant")
    return np.digitize(mean, [0.3, 0.7])


@pytest.mark.parametrize("how", MAKERS)
def test_every_format_gives_the_truth_and_takes_any_tile(
    how: str, files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    name, runtime, _ = MAKERS[how]
    content = files["thresholds", name]
    whole = {"tiles": {"size": None, "multiple_of": 2}}
    truth = truth_of(image)
    assert set(np.unique(truth)) == {0, 1, 2}
    found = labels_of(load_model(graph_card(tmp_path, name, content, runtime, recipe=whole)), image)
    assert (found != truth)[1:-1, 1:-1, 1:-1].sum() <= 2  # at its border the padding counts
    reference = Networks((Thresholds().eval(),), 0, "float32")
    for tiles in (RECIPE["tiles"], {"size": [14, 18, 12], "batch": 3}):
        spec = graph_card(tmp_path, name, content, runtime, recipe={"tiles": tiles})
        recipe = Recipe.model_validate({**RECIPE, "tiles": tiles})
        direct = labels_of(NetworkModel(spec, recipe, reference, "cpu"), image)
        assert (labels_of(load_model(spec), image) != direct).sum() <= 2


@pytest.mark.parametrize("how", MAKERS)
def test_a_network_of_usual_layers_answers_alike_in_every_format(
    how: str, files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    name, runtime, _ = MAKERS[how]
    spec = graph_card(tmp_path, name, files["deep", name], runtime)
    network = Deep().eval()
    reference = Networks((lambda batch: network(batch)[0],), 0, "float32")
    direct = labels_of(NetworkModel(spec, Recipe.model_validate(RECIPE), reference, "cpu"), image)
    assert len(np.unique(direct)) == 3
    assert (labels_of(load_model(spec), image) == direct).mean() > 0.9999


@pytest.mark.parametrize("precision", ["bfloat16", "auto"])
@pytest.mark.parametrize("how", ["torch.export", "TorchScript", "ONNX, OpenVINO"])
def test_less_precision_changes_little(
    how: str,
    precision: str,
    files: dict[tuple[str, str], bytes],
    image: npt.NDArray[np.float32],
    tmp_path: Path,
) -> None:
    name, runtime, _ = MAKERS[how]
    spec = graph_card(tmp_path, name, files["deep", name], runtime)
    exact = labels_of(load_model(spec), image)
    quick = graph_card(tmp_path, name, files["deep", name], runtime, recipe={"precision": precision})
    assert (labels_of(load_model(quick), image) == exact).mean() > 0.97


@pytest.mark.parametrize(
    ("file", "make", "runtime"),
    [("n.pt2", exported, "auto"), ("n.onnx", to_onnx, "onnxruntime"), ("n.onnx", to_onnx, "openvino")],
)
def test_a_graph_of_fixed_size_needs_that_tile(
    file: str,
    make: Callable[..., bytes],
    runtime: str,
    image: npt.NDArray[np.float32],
    tmp_path: Path,
) -> None:
    content = make(Thresholds(), fixed=True)
    other = graph_card(tmp_path, file, content, runtime, recipe={"tiles": {"size": [16, 16, 24]}})
    wrong = refusal(lambda: load_model(other))
    assert wrong.code == "MODEL_INPUT_INVALID"
    assert "[16, 16, 16]" in wrong.reason
    assert "[16, 16, 24]" in wrong.reason
    whole = graph_card(tmp_path, file, content, runtime, recipe={"tiles": {"size": None}})
    assert refusal(lambda: load_model(whole)).code == "MODEL_INPUT_INVALID"
    fitting = graph_card(tmp_path, file, content, runtime, recipe={"tiles": {"size": TILE, "batch": 3}})
    model = load_model(fitting)  # exported with a batch of 1, which is kept to
    assert (labels_of(model, image) == 1).any()
    assert model.weight_bytes >= 4 * (27 + 3 + 3)


@pytest.mark.parametrize("how", MAKERS)
def test_classes_and_channels_are_held_against_the_card(
    how: str, files: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    name, runtime, _ = MAKERS[how]
    content = files["thresholds", name]
    few = graph_card(tmp_path, name, content, runtime, structures=COMMON["structures"][:1])  # type: ignore[index]
    wrong = refusal(lambda: load_model(few))
    assert wrong.code == "MODEL_OUTPUT_INVALID"
    assert "answers with 3 channels" in wrong.reason
    assert "1 structures" in wrong.reason
    if name in ("n.ts", "n.pt"):
        return  # TorchScript does not say what it takes
    two = graph_card(tmp_path, name, content, runtime, accepts={"modalities": ["CT"], "channels": ["a", "b"]})
    wrong = refusal(lambda: load_model(two))
    assert wrong.code == "MODEL_INPUT_INVALID"
    assert "takes 1 channels, the card names 2" in wrong.reason
    flat = {"dimensions": 2, "tiles": {"size": [1, 16, 16]}}
    assert (
        "dimensions: 2"
        in refusal(lambda: load_model(graph_card(tmp_path, name, content, runtime, recipe=flat))).reason
    )


@pytest.mark.parametrize("file", ["n.pt2", "n.onnx", "n.ts", "n.pt"])
def test_damage_and_other_files_are_named_errors(
    file: str, files: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    content = files["thresholds", file]
    for bad in (b"", b"no graph at all", content[: len(content) // 2]):
        wrong = refusal(lambda bad=bad: load_model(graph_card(tmp_path, file, bad)))  # type: ignore[misc]
        assert wrong.code == "MODEL_FILE_UNREADABLE"
        assert file in wrong.reason


def test_a_file_that_is_no_graph_names_those_that_are(tmp_path: Path) -> None:
    wrong = refusal(lambda: load_model(graph_card(tmp_path, "n.h5", b"x")))
    assert wrong.code == "MODEL_CARD_INVALID"
    assert ".onnx by onnxruntime or openvino" in wrong.reason
    assert refusal(lambda: runtime_of("a.pt2", "openvino", "cpu")).code == "MODEL_CARD_INVALID"
    assert runtime_of("a.onnx", "auto", "cuda:0") == "onnxruntime"
    assert (
        refusal(lambda: load_model(graph_card(tmp_path, "n.ts", torch_state(), "auto"))).code
        == "MODEL_FILE_UNREADABLE"
    )


def torch_state() -> bytes:
    stream = io.BytesIO()
    torch.save(Thresholds().state_dict(), stream)
    return stream.getvalue()


def test_weights_of_onnx_apart_are_read_only_from_pinned_files(
    files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    proto = onnx.load_from_string(files["thresholds", "n.onnx"])
    onnx.save(
        proto,
        tmp_path / "n.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="n.weights",
        size_threshold=0,
    )
    graph, weights = (tmp_path / "n.onnx").read_bytes(), (tmp_path / "n.weights").read_bytes()
    sections = {"loader": "graph", "graph": {"file": "n.onnx", "runtime": "onnxruntime"}, "recipe": RECIPE}
    spec = write_model(tmp_path / "a", "graph", {"n.onnx": graph, "n.weights": weights}, **sections)
    whole = graph_card(tmp_path / "b", "n.onnx", files["thresholds", "n.onnx"], "onnxruntime")
    assert (labels_of(load_model(spec), image) == labels_of(load_model(whole), image)).all()
    alone = write_model(tmp_path / "c", "graph", {"n.onnx": graph}, **sections)
    (tmp_path / "c" / "graph" / "n.weights").write_bytes(weights)  # there, but not pinned
    assert refusal(lambda: load_model(alone)).code == "MODEL_FILE_UNREADABLE"
    by_openvino = {**sections, "graph": {"file": "n.onnx", "runtime": "openvino"}}
    other = write_model(tmp_path / "d", "graph", {"n.onnx": graph, "n.weights": weights}, **by_openvino)
    assert "onnxruntime" in refusal(lambda: load_model(other)).reason


def test_openvino_ir_is_read_with_its_weights(
    files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    import openvino

    model = openvino.Core().read_model(files["thresholds", "n.onnx"])
    openvino.save_model(model, tmp_path / "n.xml", compress_to_fp16=False)
    parts = {name: (tmp_path / name).read_bytes() for name in ("n.xml", "n.bin")}
    spec = write_model(tmp_path, "graph", parts, loader="graph", graph={"file": "n.xml"}, recipe=RECIPE)
    whole = graph_card(tmp_path / "b", "n.onnx", files["thresholds", "n.onnx"])
    assert (labels_of(load_model(spec), image) == labels_of(load_model(whole), image)).all()


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def rewritten(content: bytes, change: Callable[[str, bytes], bytes], **more: bytes) -> bytes:
    """The archive with members changed and added."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(stream, "w") as new:
        root = old.namelist()[0].partition("/")[0]
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
        for name, extra in more.items():
            new.writestr(f"{root}/{name}", extra)
    return stream.getvalue()


def in_program(change: Callable[[Any], None]) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if not name.endswith("/models/model.json"):
            return content
        program = json.loads(content)
        change(program)
        return json.dumps(program).encode()

    return apply


def a_pickle(path: Path) -> Callable[[str, bytes], bytes]:
    def apply(name: str, content: bytes) -> bytes:
        if "sample_inputs" not in name:
            return content
        stream = io.BytesIO()
        torch.save(((torch.zeros(1), Evil(path)), {}), stream)
        return stream.getvalue()

    return apply


def evil_programs(made: Path) -> dict[str, Callable[[str, bytes], bytes]]:
    code = f"__import__('os').mkdir({str(made)!r})"

    def operator(program: Any) -> None:
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.mkdir"
        node["inputs"] = [{"name": "path", "arg": {"as_string": str(made)}, "kind": 1}]

    def expression(program: Any) -> None:
        values = program["graph_module"]["graph"]["tensor_values"]
        symbolic = next(size for value in values.values() for size in value["sizes"] if "as_expr" in size)
        symbolic["as_expr"]["expr_str"] = code

    def tree(program: Any) -> None:
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        context = json.dumps({"default_factory_module": "antigravity", "default_factory_name": "x"})
        signature["in_spec"] = json.dumps(
            [1, {"type": "collections.defaultdict", "context": context, "children_spec": []}]
        )

    def name(program: Any) -> None:
        program["graph_module"]["graph"]["inputs"][0]["as_tensor"]["name"] = f"x = {code} #"

    return {
        "pickle": a_pickle(made),
        "operator": in_program(operator),
        "expression": in_program(expression),
        "tree": in_program(tree),
        "name": in_program(name),
    }


@pytest.mark.parametrize("way", ["pickle", "operator", "expression", "tree", "name"])
def test_code_in_an_exported_program_never_runs(
    way: str, files: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    made = tmp_path / "made"
    content = rewritten(files["thresholds", "n.pt2"], evil_programs(made)[way])
    wrong = refusal(lambda: load_model(graph_card(tmp_path, "n.pt2", content)))
    assert wrong.code == "MODEL_FILE_UNSAFE"
    assert not made.exists()


def test_the_pickle_of_that_test_would_have_run(files: dict[tuple[str, str], bytes], tmp_path: Path) -> None:
    content = rewritten(files["thresholds", "n.pt2"], a_pickle(tmp_path / "made"))
    logging.disable()  # torch's own warning about it has a wrong format
    try:
        torch.export.load(io.BytesIO(content))
    finally:
        logging.disable(logging.NOTSET)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "member",
    ["data/aotinductor/model/model.so", "data/constants/opaque_obj_0", "data/constants/custom_obj_0"],
)
def test_compiled_code_and_objects_are_refused(
    member: str, files: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    content = rewritten(files["thresholds", "n.pt2"], lambda _, old: old, **{member: b"\x7fELF"})
    assert refusal(lambda: load_model(graph_card(tmp_path, "n.pt2", content))).code == "MODEL_FILE_UNSAFE"


def test_torchscript_that_touches_files_is_refused(
    files: dict[tuple[str, str], bytes], tmp_path: Path
) -> None:
    def change(name: str, content: bytes) -> bytes:
        return content + b"\n# torch.save(x, path)\n" if name.endswith(".py") else content

    content = rewritten(files["thresholds", "n.ts"], change)
    wrong = refusal(lambda: load_model(graph_card(tmp_path, "n.ts", content)))
    assert wrong.code == "MODEL_FILE_UNSAFE"
    assert "torch.save(" in wrong.reason


def test_running_onnx_opens_no_connection(files: dict[tuple[str, str], bytes], tmp_path: Path) -> None:
    """Neither library reports home: no socket is made, and OpenVINO's telemetry is not even imported."""
    for runtime in ("onnxruntime", "openvino"):
        graph_card(tmp_path / runtime, "n.onnx", files["thresholds", "n.onnx"], runtime)
    program = textwrap.dedent(
        """
        import sys
        used = []
        watched = ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
        sys.addaudithook(lambda event, args: used.append(event) if event in watched else None)
        from pathlib import Path
        import torch
        from ai.loaders import load_model
        from ai.model import load_card
        for folder in sys.argv[1:]:
            model = load_model(load_card(Path(folder) / "graph.yaml"))
            model.close()
        print(used, sys.modules.get("openvino_telemetry"), "openvino" in sys.modules)
        """
    )
    folders = [str(tmp_path / runtime) for runtime in ("onnxruntime", "openvino")]
    ran = subprocess.run(
        [sys.executable, "-c", program, *folders], capture_output=True, text=True, check=False
    )
    assert ran.stdout.strip().splitlines()[-1:] == ["[] None True"], ran.stderr


def test_a_closed_graph_gives_its_memory_back(
    files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    model = load_model(graph_card(tmp_path, "n.onnx", files["thresholds", "n.onnx"]))
    model.close()
    assert refusal(lambda: labels_of(model, image)).code == "MODEL_CLOSED"


DRAFT = """
licence: {spdx: MIT, commercial: "yes"}
accepts: {modalities: [CT]}
recipe:
  intensity: [{op: rescale, source: [-1000, 1000]}]
  tiles: {size: [16, 16, 16], weighting: constant}
structures: {1: left lung, 2: Zorbium}
graph: {runtime: onnxruntime}
"""


def test_a_graph_with_a_partial_card_becomes_a_draft_that_runs(
    files: dict[tuple[str, str], bytes], image: npt.NDArray[np.float32], tmp_path: Path
) -> None:
    source = tmp_path / "lungs"
    source.mkdir()
    proto = onnx.load_from_string(files["thresholds", "n.onnx"])
    options = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    onnx.save(proto, source / "model.onnx", **options)
    (source / "card.yaml").write_text(DRAFT, encoding="utf-8")
    (source / "notes.txt").write_text("none of the model's files", encoding="utf-8")
    found = graph_draft.draft(source)
    assert found.name == "lungs"
    assert set(found.files) == {"model.onnx", "w.data"}
    structures = found.fields["structures"]
    assert isinstance(structures, list)
    assert structures[0]["key"] == "left_lung"
    assert (found.names[2], set(found.uncoded)) == ("Zorbium", {2})
    contents = {name: path.read_bytes() for name, path in found.files.items()}
    spec = write_model(tmp_path / "models", "lungs", contents, **found.fields)
    assert spec.graph is not None
    assert spec.graph.runtime == "onnxruntime"
    assert set(np.unique(labels_of(load_model(spec), image))) == {0, 1, 2}
    assert graph_draft.draft(source / "model.onnx").fields == found.fields


def test_a_draft_says_which_sections_are_missing(tmp_path: Path) -> None:
    (tmp_path / "n.pt2").write_bytes(b"x")
    alone = refusal(lambda: graph_draft.draft(tmp_path / "n.pt2"))
    assert alone.code == "MODEL_CARD_INCOMPLETE"
    assert "accepts, recipe, structures, licence" in alone.reason
    assert "tiles: {size: [96, 96, 96]" in alone.reason
    (tmp_path / "n.yaml").write_text(
        "structures: {1: liver}\naccepts: {modalities: [MR]}\n", encoding="utf-8"
    )
    partly = refusal(lambda: graph_draft.draft(tmp_path))
    assert "n.yaml lacks the sections recipe, licence" in partly.reason
    (tmp_path / "o.onnx").write_bytes(b"x")
    two = refusal(lambda: graph_draft.draft(tmp_path))
    assert two.code == "MODEL_SOURCE_UNKNOWN"
    assert "n.pt2, o.onnx" in two.reason
    (tmp_path / "n.yaml").write_text("[1", encoding="utf-8")
    assert refusal(lambda: graph_draft.draft(tmp_path / "n.pt2")).code == "MODEL_CARD_INVALID"


def test_the_example_of_the_error_is_a_whole_card(tmp_path: Path) -> None:
    (tmp_path / "n.pt2").write_bytes(b"x")
    (tmp_path / "card.yaml").write_text(graph_draft.EXAMPLE, encoding="utf-8")
    found = graph_draft.draft(tmp_path / "n.pt2")
    spec = write_model(tmp_path / "models", "n", {"n.pt2": b"x"}, **found.fields)
    assert spec.recipe is not None
    assert spec.recipe.tiles.size == (96, 96, 96)
