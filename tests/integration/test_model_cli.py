"""``aigw model``: a model comes in, is listed, verified, changed, and refused, as a person does it."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.bundle.config_parser import ConfigParser
from monai.networks.nets import UNet

from ai.errors import ModelError
from ai.loaders import load_model
from ai.loaders.graphs.torchscript import open_torchscript
from ai.loaders.graphs.vetting import vet
from ai.loaders.weights import read_checkpoint
from ai.model import RunContext, find_card, load_card, run_to_end
from gateway.cli.app import run
from gateway.cli.card_text import card_text, with_acceptance
from gateway.cli.model_add import _copied
from tests.model_files import COMMON, volume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

Ended = tuple[int, str, str]
Call = Callable[..., Ended]
RECIPE = {
    "intensity": [{"op": "rescale", "source": [-1000, 1000]}],
    "tiles": {"size": [8, 8, 8], "step": 0.5, "weighting": "constant"},
    "precision": "float32",
}
UNET: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [4, 8],
    "strides": [2],
    "norm": "instance",
}


class Threshold(torch.nn.Module):
    """Structure 1 where the value is above one half, structure 2 above nine tenths."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = torch.nn.Conv3d(1, 3, 1)
        with torch.no_grad():
            self.scores.weight.copy_(torch.tensor([0.0, 10.0, 30.0]).view(3, 1, 1, 1, 1))
            self.scores.bias.copy_(torch.tensor([0.0, -5.0, -23.0]))  # type: ignore[union-attr]

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.scores(image)
        return scores


@pytest.fixture
def aigw(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``aigw model``: exit code, stdout, stderr."""
    monkeypatch.delenv("AIGW_CONFIG", raising=False)

    def call(*arguments: object) -> Ended:
        with pytest.raises(SystemExit) as ended:
            run(["model", *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture(scope="module")
def onnx_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as somebody hands it over: a graph and a card without hashes."""
    folder = tmp_path_factory.mktemp("handed-over")
    image = torch.zeros(1, 1, 8, 8, 8)
    torch.onnx.export(
        Threshold().eval(), (image,), str(folder / "net.onnx"), dynamo=True, external_data=False
    )
    fields = {**COMMON, "loader": "graph", "graph": {"file": "net.onnx"}, "recipe": RECIPE, "id": "steps"}
    (folder / "card.yaml").write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return folder


def write_bundle(
    root: Path, licence: str = "Apache License Version 2.0, January 2004", organ: str = "liver"
) -> Path:
    """A pretend bundle, written by MONAI's own tools."""
    (root / "configs").mkdir(parents=True)
    (root / "models").mkdir()
    torch.manual_seed(3)
    torch.save(UNet(**UNET).state_dict(), root / "models" / "model.pt")
    keys = {"keys": "image"}
    before = [
        {"_target_": "LoadImaged", **keys},
        {"_target_": "EnsureChannelFirstd", **keys},
        {"_target_": "Orientationd", **keys, "axcodes": "RAS"},
        {"_target_": "ScaleIntensityd", **keys},
    ]
    after = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    inference = {
        "bundle_root": ".",
        "device": "cpu",
        "network_def": {"_target_": "UNet", **UNET},
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [8, 8, 8], "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": after},
    }
    metadata = {
        "version": "0.2.1",
        "name": "Pretend organs",
        "task": "Segmentation of organs",
        "authors": "A laboratory",
        "copyright": "A laboratory",
        "network_data_format": {
            "inputs": {"image": {"modality": "CT", "num_channels": 1, "channel_def": {"0": "image"}}},
            "outputs": {"pred": {"channel_def": {"0": "background", "1": "spleen", "2": organ}}},
        },
    }
    ConfigParser.export_config_file(inference, str(root / "configs" / "inference.json"), fmt="json", indent=2)
    ConfigParser.export_config_file(metadata, str(root / "configs" / "metadata.json"), fmt="json", indent=2)
    if licence:
        (root / "LICENSE").write_text(licence, encoding="utf-8")
    return root


def problems(ended: Ended) -> list[str]:
    return [p["code"] for row in json.loads(ended[1])["models"] for p in row["problems"]]


def test_an_onnx_file_with_a_card_is_added_listed_verified_and_runs(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    to = tmp_path / "models"
    code, said, _ = aigw("add", onnx_source, "--to", to)
    assert code == 0, said
    assert f"model_dirs: [{to}]" in said
    assert "      card: steps" in said
    spec = load_card(to / "steps.yaml")
    content = (onnx_source / "net.onnx").read_bytes()
    assert dict(spec.files) == {"net.onnx": hashlib.sha256(content).hexdigest()}
    assert (to / "steps" / "net.onnx").read_bytes() == content
    (row,) = (
        r for r in json.loads(aigw("list", "--model-dir", to, "--json")[1])["models"] if r["id"] == "steps"
    )
    assert (row["loader"], row["state"], row["structures"]) == ("graph", "ready", ["Body", "Bone"])
    assert aigw("verify", "steps", "--model-dir", to)[:2] == (0, "steps 1.0.0: ok\n")
    image = np.full((9, 10, 11), -1000, np.float32)
    image[2:5] = 500
    image[5:7] = 1000
    found = run_to_end(load_model(spec), [volume(image)], lambda *_: None, RunContext()).labels
    assert np.unique(found[2:5]).tolist() == [1]
    assert np.unique(found[5:7]).tolist() == [2]
    assert not found[:2].any()


def test_a_graph_with_a_few_sections_beside_it_is_enough(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    source = tmp_path / "Two Lungs"
    source.mkdir()
    (source / "network.onnx").write_bytes((onnx_source / "net.onnx").read_bytes())
    card = {"licence": COMMON["licence"], "accepts": {"modalities": ["CT"]}, "recipe": RECIPE}
    card["structures"] = {1: "lung left", 2: "Right Lung"}
    (source / "card.yaml").write_text(yaml.safe_dump(card), encoding="utf-8")
    assert aigw("add", source, "--to", tmp_path / "models")[0] == 0
    spec = load_card(tmp_path / "models" / "two-lungs.yaml")
    assert [structure.key for structure in spec.structures] == ["left_lung", "right_lung"]
    assert aigw("verify", tmp_path / "models" / "two-lungs")[0] == 0


def test_a_bundle_is_added_with_codes_warnings_and_verified(aigw: Call, tmp_path: Path) -> None:
    bundle, to = write_bundle(tmp_path / "Pretend_Organs", organ="thingummy"), tmp_path / "models"
    code, said, err = aigw("add", bundle, "--to", to, "--json", "--private-codes")
    assert code == 0, err
    record = json.loads(said)
    assert (record["id"], record["version"], record["loader"]) == ("pretend-organs", "0.2.1", "monai_bundle")
    assert record["structures"] == ["Spleen", "Thingummy"]
    assert record["licence"]["spdx"] == "Apache-2.0"
    assert any("99GATEWAY:THINGUMMY" in warning for warning in record["warnings"])
    assert {"configs/metadata.json", "configs/inference.json", "models/model.pt"} <= record["files"].keys()
    card = Path(record["card"])
    assert aigw("verify", card)[0] == 0
    edited = card.read_text(encoding="utf-8").replace("title: ", "title: Our ")
    card.write_text(edited, encoding="utf-8")  # the card is meant to be edited; the files are pinned
    code, said, _ = aigw("verify", to / "pretend-organs", "--json")
    assert code == 0
    assert json.loads(said)["models"][0]["title"].startswith("Our ")


def test_a_structure_without_a_code_is_refused_by_name_until_a_person_gives_one(
    aigw: Call, tmp_path: Path
) -> None:
    bundle, to = write_bundle(tmp_path / "Pretend_Organs", organ="thingummy"), tmp_path / "models"
    code, _, err = aigw("add", bundle, "--to", to)
    assert (code, err.partition(":")[0]) == (2, "STRUCTURE_NOT_CODED")
    for said in ("1 of the model's 2 structures", "'thingummy' has no code", "--code NAME=key", "--private"):
        assert said in " ".join(err.split())
    assert not list(to.glob("*")) if to.exists() else True
    code, _, err = aigw("add", bundle, "--to", to, "--code", "thingummy=livr")
    assert (code, err.partition(":")[0]) == (2, "STRUCTURE_NOT_CODED")
    assert "Close ones are: liver" in " ".join(err.split())
    code, _, err = aigw("add", bundle, "--to", to, "--code", "gadget=liver")
    assert (code, err.partition(":")[0]) == (2, "CODE_NAME_UNKNOWN")
    assert aigw("add", bundle, "--to", to, "--code", "thingummy=liver")[0] == 0
    assert [s.coded.key for s in load_card(to / "pretend-organs.yaml").structures] == ["spleen", "liver"]
    table = tmp_path / "codes.csv"
    table.write_text("name,type_scheme,type_value,type_meaning\nthingummy,SCT,15776009,Pancreas\n")
    assert aigw("add", bundle, "--to", to, "--name", "other", "--codes", table)[0] == 0
    assert load_card(to / "other.yaml").structures[1].coded.type.meaning == "Pancreas"
    assert aigw("verify", "other", "--model-dir", to)[0] == 0


def test_terms_that_are_not_known_must_be_given(aigw: Call, tmp_path: Path) -> None:
    bundle, to = write_bundle(tmp_path / "nameless", licence=""), tmp_path / "models"
    code, _, err = aigw("add", bundle, "--to", to)
    assert (code, err.partition(":")[0]) == (2, "LICENCE_UNKNOWN")
    assert "--licence SPDX" in err
    assert not list(to.glob("*")) if to.exists() else True
    assert aigw("add", bundle, "--to", to, "--licence", "LicenseRef-Lab")[0] == 2
    assert aigw("add", bundle, "--to", to, "--licence", "LicenseRef-Lab", "--commercial", "contract")[0] == 0
    assert load_card(to / "nameless.yaml").licence.commercial == "contract"


def test_restricting_terms_are_a_gate_until_a_person_accepts_them(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    to = tmp_path / "models"
    code, said, _ = aigw("add", onnx_source, "--to", to, "--commercial", "no")
    assert code == 0
    assert "NOT ACCEPTED" in said
    ended = aigw("verify", "steps", "--model-dir", to, "--json")
    assert (ended[0], problems(ended)) == (1, ["LICENCE_NOT_ACCEPTED"])
    listed = json.loads(aigw("list", "--model-dir", to, "--json")[1])["models"]
    assert next(row for row in listed if row["id"] == "steps")["state"] == "licence not accepted"
    assert aigw("add", "steps", "--to", to)[0] == 6
    before = (to / "steps.yaml").read_text(encoding="utf-8")
    assert aigw("add", "steps", "--to", to, "--accept-licence", 'Dr. "A" Doe')[0] == 0
    after = (to / "steps.yaml").read_text(encoding="utf-8")
    assert [line for line in after.splitlines() if line not in before.splitlines()] == [
        f"  accepted_by: {load_card(to / 'steps.yaml').licence.accepted_by!r}".replace("'", '"').replace(
            '"A"', '\\"A\\"'
        )
    ]
    assert load_card(to / "steps.yaml").licence.accepted_by.startswith('Dr. "A" Doe, 20')
    assert aigw("verify", "steps", "--model-dir", to)[0] == 0


def test_acceptance_comes_from_a_person_here_and_never_from_the_source(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    fields = yaml.safe_load((onnx_source / "card.yaml").read_text(encoding="utf-8"))
    fields["licence"] = {"spdx": "CC-BY-NC-4.0", "commercial": "no", "accepted_by": "the maker"}
    source = tmp_path / "source"
    source.mkdir()
    (source / "steps.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    (source / "net.onnx").write_bytes((onnx_source / "net.onnx").read_bytes())
    assert aigw("add", source / "steps.yaml", "--to", tmp_path / "models")[0] == 0
    assert load_card(tmp_path / "models" / "steps.yaml").licence.accepted_by == ""


def test_a_changed_or_missing_file_is_seen_by_list_and_verify(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    to = tmp_path / "models"
    aigw("add", onnx_source, "--to", to)
    file = to / "steps" / "net.onnx"
    content = file.read_bytes()
    for change, state, code in (
        (lambda: file.write_bytes(content + b"\0"), "files changed", "MODEL_FILE_CHANGED"),
        (file.unlink, "files missing", "MODEL_FILE_MISSING"),
    ):
        change()
        listed = json.loads(aigw("list", "--model-dir", to, "--json")[1])["models"]
        assert next(row for row in listed if row["id"] == "steps")["state"] == state
        ended = aigw("verify", "steps", "--model-dir", to, "--json")
        assert (ended[0], problems(ended)) == (1, [code])
    assert (
        "steps 1.0.0: does not run\n  MODEL_FILE_MISSING: " in aigw("verify", "steps", "--model-dir", to)[1]
    )


def test_another_version_needs_a_word_and_then_takes_the_place(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    to = tmp_path / "models"
    aigw("add", onnx_source, "--to", to)
    code, said, _ = aigw("add", onnx_source, "--to", to)
    assert code == 0
    assert "is there already, unchanged" in said
    code, _, err = aigw("add", onnx_source, "--to", to, "--version", "2.0.0")
    assert code == 6
    assert "MODEL_EXISTS" in err
    assert "steps 1.0.0 already, and this is 2.0.0" in err
    assert load_card(to / "steps.yaml").version == "1.0.0"
    assert aigw("add", onnx_source, "--to", to, "--version", "2.0.0", "--name", "steps-2")[0] == 0
    (to / "steps" / "left-over.bin").write_bytes(b"old")
    assert aigw("add", onnx_source, "--to", to, "--version", "2.0.0", "--replace")[0] == 0
    assert load_card(to / "steps.yaml").version == "2.0.0"
    assert [path.name for path in (to / "steps").iterdir()] == ["net.onnx"]
    assert sorted(path.name for path in to.iterdir()) == ["steps", "steps-2", "steps-2.yaml", "steps.yaml"]


def test_the_configuration_says_where_models_are(aigw: Call, onnx_source: Path, tmp_path: Path) -> None:
    config = tmp_path / "gateway.yaml"
    config.write_text(
        "version: 1\ndata_dir: data\nmodel_dirs: [models]\nmodels:\n  s: {card: steps}\n"
        "dicom: {ae_title: AIGW}\n",
        encoding="utf-8",
    )
    assert aigw("add", onnx_source, "--config", config)[0] == 0
    assert (tmp_path / "models" / "steps.yaml").is_file()
    assert aigw("verify", "steps", "--config", config)[0] == 0
    code, _, err = aigw("add", onnx_source)
    assert (code, err.partition(":")[0]) == (2, "TARGET_NEEDED")
    assert "--to DIR" in err


def test_links_out_of_the_source_and_devices_are_refused(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "card.yaml").write_bytes((onnx_source / "card.yaml").read_bytes())
    (source / "net.onnx").symlink_to(onnx_source / "net.onnx")
    code, _, err = aigw("add", source, "--to", tmp_path / "models")
    assert (code, err.partition(":")[0]) == (1, "MODEL_SOURCE_UNSAFE")
    assert str(onnx_source) in err
    assert not list((tmp_path / "models").iterdir())


def test_what_a_file_became_since_it_was_looked_at_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(OSError, match="symbolic links"):
        _copied(tmp_path / "link", tmp_path / "copy", 6)
    (tmp_path / "grew").write_bytes(b"x" * 100)
    assert _copied(tmp_path / "grew", tmp_path / "bounded", 6) == hashlib.sha256(b"x" * 6).hexdigest()


def test_acceptance_is_recorded_where_the_same_model_is_there_already(
    aigw: Call, onnx_source: Path, tmp_path: Path
) -> None:
    to = tmp_path / "models"
    aigw("add", onnx_source, "--to", to, "--commercial", "contract")
    assert (
        aigw("add", onnx_source, "--to", to, "--commercial", "contract", "--accept-licence", "A. Doe")[0] == 0
    )
    assert load_card(to / "steps.yaml").licence.accepted_by.startswith("A. Doe, 20")


def test_a_bundle_says_that_it_brings_code_and_code_that_breaks_is_named(aigw: Call, tmp_path: Path) -> None:
    """`add` runs nothing; `verify` runs what the bundle says, and names what it raises."""
    bundle, to = write_bundle(tmp_path / "Pretend"), tmp_path / "models"
    configuration = bundle / "configs" / "inference.json"
    fields = json.loads(configuration.read_text())
    fields["network"] = f"$open({str(tmp_path / 'was-here')!r}, 'w') and @network_def"
    configuration.write_text(json.dumps(fields))
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "own.py").write_text("raise SystemError")
    code, said, _ = aigw("add", bundle, "--to", to, "--json")
    assert code == 0
    (told,) = (
        warning for warning in json.loads(said)["warnings"] if "code" in warning and "verify" in warning
    )
    assert "scripts/own.py" in told
    assert "1 expression" in told
    assert aigw("list", "--model-dir", to)[0] == 0
    assert not (tmp_path / "was-here").exists()
    code, said, _ = aigw("verify", to / "pretend")
    assert code == 1
    assert "MODEL_CONFIG_OUTSIDE" in said
    assert not (tmp_path / "was-here").exists()


def test_a_source_larger_than_the_bound_is_refused(
    aigw: Call, onnx_source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.cli.model_add._MOST_FILE_BYTES", 100)
    code, _, err = aigw("add", onnx_source, "--to", tmp_path / "models")
    assert (code, err.partition(":")[0]) == (1, "MODEL_SOURCE_TOO_LARGE")


@pytest.mark.parametrize(
    ("card", "code", "says"),
    [
        ({"graph": {"file": "../net.onnx"}}, "MODEL_SOURCE_UNKNOWN", "has: net.onnx"),
        ({"graph": {"file": "other.onnx"}}, "MODEL_SOURCE_UNKNOWN", "has: net.onnx"),
        ({"files": {"../net.onnx": "0" * 64}}, "MODEL_CARD_INVALID", "below the model's folder"),
        ({"files": {"other.onnx": "0" * 64}}, "MODEL_FILE_MISSING", "other.onnx"),
        ({"accepts": {"modalities": []}}, "MODEL_CARD_INVALID", "accepts.modalities"),
        ({"files": {"net.onnx": "0" * 64}, "version": None}, "MODEL_CARD_INVALID", "version"),
    ],
)
def test_a_card_that_is_wrong_is_refused_and_nothing_is_left_behind(
    aigw: Call, onnx_source: Path, tmp_path: Path, card: dict[str, object], code: str, says: str
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fields = yaml.safe_load((onnx_source / "card.yaml").read_text(encoding="utf-8")) | card
    (source / "card.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")
    (source / "net.onnx").write_bytes((onnx_source / "net.onnx").read_bytes())
    ended, _, err = aigw("add", source, "--to", tmp_path / "models")
    assert (ended, err.partition(":")[0]) == (1, code)
    assert says in err
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


def test_an_unknown_source_is_told_what_is_known(aigw: Call, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    code, _, err = aigw("add", tmp_path, "--to", tmp_path / "models")
    assert (code, err.partition(":")[0]) == (1, "MODEL_SOURCE_UNKNOWN")
    for kind in ("MONAI bundle", "nnU-Net", ".onnx", "model card"):
        assert kind in err
    (tmp_path / "net.pt2").write_bytes(b"")
    code, _, err = aigw("add", tmp_path / "net.pt2", "--to", tmp_path / "models")
    assert (code, err.partition(":")[0]) == (1, "MODEL_CARD_INCOMPLETE")
    assert aigw("add", tmp_path / "absent", "--to", tmp_path / "models")[0] == 5
    assert aigw("add", "--to", tmp_path / "models")[0] == 2
    assert aigw("add", tmp_path, "--from-bundle", "x", "--to", tmp_path / "models")[0] == 2
    code, _, err = aigw("verify", "no-such-model")
    assert code == 5
    assert "--model-dir DIR" in err


def test_a_bundle_of_the_zoo_is_fetched_by_monai_s_own_downloader(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The downloader is told name, version and a folder, and what it leaves there is added."""
    asked: dict[str, object] = {}

    def download(**given: object) -> None:
        asked.update(given)
        write_bundle(Path(str(given["bundle_dir"])) / "pretend_ct")

    monkeypatch.setattr("monai.bundle.scripts.download", download)
    to = tmp_path / "models"
    code, said, err = aigw("add", "--from-bundle", "pretend_ct", "--version", "0.2.1", "--to", to)
    assert code == 0, err
    assert (asked["name"], asked["version"]) == ("pretend_ct", "0.2.1")
    assert not Path(str(asked["bundle_dir"])).exists()
    assert load_card(to / "pretend-ct.yaml").loader == "monai_bundle"
    assert "pretend-ct 0.2.1" in said


@pytest.mark.parametrize("error", [OSError("no route to host"), ValueError("no such bundle")])
def test_without_internet_a_bundle_is_said_not_to_come(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def download(**_: object) -> None:
        raise error

    monkeypatch.setattr("monai.bundle.scripts.download", download)
    code, _, err = aigw("add", "--from-bundle", "spleen_ct_segmentation", "--to", tmp_path / "models")
    assert (code, err.partition(":")[0]) == (1, "BUNDLE_NOT_DOWNLOADED")
    assert str(error) in err
    assert "aigw model add FOLDER" in err
    assert aigw("add", "--from-bundle", "../x", "--to", tmp_path / "models")[0] == 1


@pytest.mark.parametrize("inside", ["model.pt", "model.pt2", "model.ts"])
def test_an_archive_that_unpacks_to_a_hundred_times_its_size_is_not_unpacked(
    tmp_path: Path, inside: str
) -> None:
    path = tmp_path / inside
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model/models/model.json", b"0" * (80 << 20))
        archive.writestr("model/code/model.py", b"")
    read = {".pt": read_checkpoint, ".pt2": vet, ".ts": lambda *given: open_torchscript(*given, "cpu")}
    with pytest.raises(ModelError, match=r"MODEL_FILE_UNSAFE.*would unpack to"):
        read[path.suffix](path.read_bytes(), inside)


@pytest.mark.parametrize(
    "metadata",
    [
        '{"network_data_format": {"outputs": {"pred": {"channel_def": {"1": 1e999}}}}}',
        '{"name": ' + "[" * 900 + "]" * 900 + "}",
        '{"version": {"a": [1]}, "authors": "a\\\\b", "references": {"a": null}}',
    ],
)
def test_a_bundle_that_says_nonsense_is_added_with_notes_or_refused_by_name(
    aigw: Call, tmp_path: Path, metadata: str
) -> None:
    bundle = write_bundle(tmp_path / "nonsense")
    (bundle / "configs" / "metadata.json").write_text(metadata)
    code, _, err = aigw("add", bundle, "--to", tmp_path / "models", "--private-codes")
    assert code == 0 or (code == 1 and err.startswith("MODEL_"))


def test_every_shipped_model_is_listed_and_verified(aigw: Call) -> None:
    code, said, _ = aigw("verify", "--json")
    verified = json.loads(said)
    assert code == 0, verified
    assert "ct-tissue" in {row["id"] for row in verified["models"]}
    code, said, _ = aigw("list")
    assert code == 0
    assert "ct-tissue" in said
    assert "ready" in said


def test_a_broken_card_does_not_hide_the_others(aigw: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("id: broken\n", encoding="utf-8")
    rows = {
        row["id"]: row for row in json.loads(aigw("list", "--model-dir", tmp_path, "--json")[1])["models"]
    }
    assert rows["broken"]["state"] == "card invalid"
    assert rows["ct-tissue"]["state"] == "ready"
    ended = aigw("verify", "broken", "--model-dir", tmp_path)
    assert ended[0] == 1
    assert "MODEL_CARD_INVALID" in ended[1]


def test_a_written_card_reads_back_as_it_was(tmp_path: Path) -> None:
    fields = find_card("ct-tissue").model_dump(mode="json", exclude={"digest"}, exclude_defaults=True)
    text = card_text("ct-tissue", fields)
    assert yaml.safe_load(text) == fields
    path = tmp_path / "ct-tissue.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_card(path).model_dump(exclude={"digest"}) == find_card("ct-tissue").model_dump(
        exclude={"digest"}
    )
    assert max(map(len, text.splitlines())) < 400
    assert "# What it is for" in text


@pytest.mark.parametrize(
    "licence",
    [
        "licence: {spdx: MIT, commercial: no}",
        "licence:\n  spdx: MIT  # why\n  accepted_by: ''\n  commercial: no",
    ],
)
def test_acceptance_is_written_into_any_style_of_card(licence: str) -> None:
    text = f"id: x\n# a comment\n{licence}\ntitle: Y\n"
    for _ in range(2):
        text = with_acceptance(text, "Å. Doe: 2026")
        assert yaml.safe_load(text)["licence"]["accepted_by"] == "Å. Doe: 2026"
    assert "# a comment" in text
    assert yaml.safe_load(text)["title"] == "Y"
