"""Cards drafted for bundles from elsewhere, with the traps that metadata of real ones have set."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ai.errors import ModelError
from ai.loaders.drafts import Draft, draft
from ai.model import ModelSpec, pin

APACHE = "Apache License\nVersion 2.0, January 2004\nhttp://www.apache.org/licenses/\n"
ARGMAX = [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "argmax": True}]
REGIONS = [{"_target_": "Activationsd", "sigmoid": True}, {"_target_": "AsDiscreted", "threshold": 0.5}]


def make(
    folder: Path,
    *,
    image: Mapping[str, Any] | None = None,
    pred: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
    after: object = ARGMAX,
    out_channels: int = 2,
    texts: Mapping[str, str] | None = None,
    weights: str = "models/model.pt",
    **metadata: object,
) -> Path:
    """A bundle's files, without real weights: drafting reads none."""
    found = {
        "version": "0.5.3",
        "name": "Spleen CT segmentation",
        "description": "A pre-trained model for the spleen in 3D CT",
        "authors": "MONAI team",
        "intended_use": "This is an example, not to be used for diagnostic purposes",
        "references": ["Xia et al. 2018", "Kerfoot et al. 2019"],
        "network_data_format": {
            "inputs": {
                "image": {"modality": "CT", "format": "hounsfield", "num_channels": 1, **(image or {})}
            },
            "outputs": outputs
            if outputs is not None
            else {"pred": {"channel_def": {"0": "background", "1": "spleen"}, **(pred or {})}},
        },
        **metadata,
    }
    config = {
        "network_def": {"_target_": "UNet", "out_channels": out_channels},
        "postprocessing": {"_target_": "Compose", "transforms": after},
        "checkpointloader": {"_target_": "CheckpointLoader", "load_path": f"$@bundle_root + '/{weights}'"},
    }
    files = {
        "configs/metadata.json": json.dumps(found),
        "configs/inference.json": json.dumps(config),
        "configs/train.json": "{}",
        weights: "weights",
        **({"LICENSE": APACHE} if texts is None else texts),
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def spec_of(found: Draft) -> ModelSpec:
    """The draft must make a valid card once it has an id and hashes."""
    return ModelSpec.model_validate({"id": "trial", "files": {}, **found.fields})


def test_a_plain_bundle_needs_no_hand(tmp_path: Path) -> None:
    folder = make(
        tmp_path / "spleen", texts={"LICENSE": APACHE, "docs/README.md": "x", "scripts/a/b.py": "y"}
    )
    found = draft(folder)
    spec = spec_of(found)
    (warning,) = found.warnings
    assert "brings code (1 expression and scripts/a/b.py)" in warning
    assert [(s.number, s.key) for s in spec.structures] == [(1, "spleen")]
    assert (spec.licence.spdx, spec.licence.commercial) == ("Apache-2.0", "yes")
    assert (spec.version, spec.accepts.modalities) == ("0.5.3", ("CT",))
    assert spec.references == ("Xia et al. 2018", "Kerfoot et al. 2019")
    assert "not to be used for diagnostic" in spec.intended_use
    assert set(found.files) == {
        "LICENSE",
        "configs/inference.json",
        "configs/metadata.json",
        "docs/README.md",
        "models/model.pt",
        "scripts/a/b.py",
    }
    assert pin(folder, tuple(found.files)).keys() == found.files.keys()


def test_regions_are_painted_whole_first(tmp_path: Path) -> None:
    names = {"0": "Tumor core", "1": "Whole tumor", "2": "Enhancing tumor"}
    image = {"modality": "MR", "format": "magnitude", "num_channels": 4}
    image["channel_def"] = {"0": "T1c", "1": "T1", "2": "T2", "3": "FLAIR"}
    found = draft(make(tmp_path, image=image, pred={"channel_def": names}, after=REGIONS, out_channels=3))
    spec = spec_of(found)
    assert spec.accepts.channels == ("T1c", "T1", "T2", "FLAIR")
    assert spec.accepts.modalities == ("MR",)
    assert spec.bundle is not None
    assert dict(spec.bundle.channels) == {1: 1, 0: 2, 2: 3}
    assert any("Whole tumor, Tumor core, Enhancing tumor" in text for text in found.warnings)
    assert [(s.key, s.includes) for s in spec.structures] == [
        ("brain_whole_tumor", (2, 3)),
        ("brain_tumor_core", (3,)),
        ("brain_enhancing_tumor", ()),
    ]
    assert not found.uncoded
    assert any("4 images together" in text for text in found.warnings)


def test_regions_whose_nesting_nobody_knows_are_told(tmp_path: Path) -> None:
    found = draft(make(tmp_path, pred={"channel_def": {"0": "liver", "1": "spleen"}}, after=REGIONS))
    assert [s.includes for s in spec_of(found).structures] == [(), ()]
    assert any("liver, spleen may overlap" in text and "write includes" in text for text in found.warnings)


def test_gaps_between_channels_are_closed(tmp_path: Path) -> None:
    names = {"0": "background", "1": "spleen", "3": "liver"}
    spec = spec_of(draft(make(tmp_path, pred={"channel_def": names}, out_channels=4)))
    assert [s.key for s in spec.structures] == ["spleen", "liver"]
    assert spec.bundle is not None
    assert dict(spec.bundle.channels) == {1: 1, 3: 2}


def test_a_bundle_that_does_not_name_its_channels_is_told_of(tmp_path: Path) -> None:
    found = draft(make(tmp_path, outputs={"pred": {"num_channels": 3}}, out_channels=3))
    assert len(spec_of(found).structures) == 2
    assert any("no channel_def" in text for text in found.warnings)
    assert found.uncoded == {1: "has no code", 2: "has no code"}


def test_an_mr_model_that_claims_hounsfield_units(tmp_path: Path) -> None:
    found = draft(make(tmp_path, image={"modality": "MRI"}))
    assert spec_of(found).accepts.modalities == ("MR",)
    assert any("Hounsfield" in text for text in found.warnings)


def test_an_unknown_modality_is_guessed_aloud(tmp_path: Path) -> None:
    guessed = draft(make(tmp_path / "a", image={"modality": "n/a"}, description="prostate on MRI", name="x"))
    assert spec_of(guessed).accepts.modalities == ("MR",)
    unknown = draft(make(tmp_path / "b", image={"modality": "n/a"}, description="x", name="x"))
    assert spec_of(unknown).accepts.modalities == ("CT",)
    for found in (guessed, unknown):
        assert any("check it" in text for text in found.warnings)


LICENCES = {
    "none": ({}, "LicenseRef-unknown", "no"),
    "restricted": ({"LICENSE": APACHE + "\nThe weights are for non-commercial use."}, "Apache-2.0", "no"),
    "data": ({"LICENSE": APACHE, "docs/data_license.txt": "Research use only."}, "Apache-2.0", "no"),
    "open data": ({"LICENSE": APACHE, "docs/data_license.txt": "CC BY 4.0"}, "Apache-2.0", "yes"),
    "cc": ({"LICENSE": "Creative Commons Attribution-NonCommercial 4.0"}, "CC-BY-NC-4.0", "no"),
}


@pytest.mark.parametrize("name", LICENCES)
def test_terms_are_read_strictly(name: str, tmp_path: Path) -> None:
    texts, spdx, commercial = LICENCES[name]
    licence = spec_of(draft(make(tmp_path, texts=texts))).licence
    assert (licence.spdx, licence.commercial) == (spdx, commercial)


def test_what_is_no_segmentation_is_refused(tmp_path: Path) -> None:
    boxes = make(tmp_path / "a", outputs={"pred_boxes": {}, "pred_scores": {}})
    prompted = make(
        tmp_path / "b", pred={"channel_def": {str(n): f"class {n}" for n in range(133)}}, out_channels=1
    )
    for folder in (boxes, prompted):
        with pytest.raises(ModelError, match="MODEL_KIND_UNKNOWN"):
            draft(folder)


def test_missing_files_are_named(tmp_path: Path) -> None:
    folder = make(tmp_path, weights="models/model_key.pt")
    assert "models/model_key.pt" in draft(folder).files
    (folder / "models/model_key.pt").unlink()
    with pytest.raises(ModelError, match=r"MODEL_FILE_MISSING.*large_files"):
        draft(folder)
    (folder / "configs/inference.json").unlink()
    with pytest.raises(ModelError, match=r"MODEL_FILE_MISSING.*inference\.yaml"):
        draft(folder)
