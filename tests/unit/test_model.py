"""Model cards: reading, checking, finding."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from ai.errors import ModelError, NotAVolumeError, SeriesRefused, UnknownModel
from ai.geometry import Note, NoteCode, VerdictCode, VolumeGeometry
from ai.model import Accepts, check_input, find_card, load_card, shipped_card_folder
from tests.runs import even_geometry

SHIPPED = shipped_card_folder() / "ct-tissue.yaml"


def changed_card(tmp_path: Path, **changes: object) -> Path:
    fields = yaml.safe_load(SHIPPED.read_text(encoding="utf-8")) | changes
    path = tmp_path / "ct-tissue.yaml"
    path.write_text(yaml.safe_dump(fields, sort_keys=False), encoding="utf-8")
    return path


def geometry(slices: int, spacing_mm: float) -> VolumeGeometry:
    return even_geometry(np.diag([spacing_mm, 1.0, 1.0, 1.0]), (slices, 8, 8))


def test_the_shipped_card_reads_and_carries_the_digest_of_its_bytes() -> None:
    spec = find_card("ct-tissue")
    assert spec.digest == hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    assert [structure.label for structure in spec.structures] == [
        "Body",
        "Left lung",
        "Right lung",
        "Bone",
        "Metal implant",
    ]
    assert spec.parameters["metal_threshold_hu"] == 3000
    assert "Not for diagnosis" in spec.intended_use


def test_a_changed_threshold_changes_the_digest(tmp_path: Path) -> None:
    assert load_card(changed_card(tmp_path, version="1.0.1")).digest != find_card("ct-tissue").digest


def test_a_wrong_field_is_named_with_file_and_line(tmp_path: Path) -> None:
    path = changed_card(tmp_path, licence={"spdx": "MIT", "commercial": "perhaps"})
    line = path.read_text(encoding="utf-8").splitlines().index("  commercial: perhaps") + 1
    with pytest.raises(ModelError, match="MODEL_CARD_INVALID") as refused:
        load_card(path)
    assert f"ct-tissue.yaml:{line}: licence.commercial:" in refused.value.reason


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"treshold: unknown field; did you mean threshold\?"):
        load_card(changed_card(tmp_path, treshold=1))


def test_structure_numbers_must_run_from_one_without_gaps(tmp_path: Path) -> None:
    structures = [
        {"number": 1, "key": "body", "label": "Body"},
        {"number": 3, "key": "bone", "label": "Bone"},
    ]
    with pytest.raises(ModelError, match=r"numbered \[1, 3\]"):
        load_card(changed_card(tmp_path, structures=structures))


def test_a_structure_that_cannot_be_coded_is_refused(tmp_path: Path) -> None:
    path = changed_card(tmp_path, structures=[{"number": 1, "key": "speen", "label": "Speen"}], quality=[])
    line = path.read_text(encoding="utf-8").splitlines().index("  key: speen") + 1
    with pytest.raises(ModelError, match="STRUCTURE_NOT_CODED") as refused:
        load_card(path)
    assert f"ct-tissue.yaml:{line}: structures.0.key: " in refused.value.reason
    assert "spleen" in refused.value.reason


@pytest.mark.parametrize(
    ("content", "complaint"),
    [("id: [", "not YAML"), ("- a\n- b\n", "is a mapping"), ("", "is a mapping"), ("digest: x\n", "digest")],
)
def test_what_is_no_card_is_refused(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=complaint) as refused:
        load_card(path)
    assert refused.value.code == "MODEL_CARD_INVALID"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        load_card(tmp_path / "absent.yaml")


def test_an_unknown_model_is_named_with_the_closest_one() -> None:
    with pytest.raises(UnknownModel) as refused:
        find_card("ct-tisue")
    assert refused.value.code == "UNKNOWN_MODEL"
    assert "Did you mean ct-tissue?" in refused.value.reason


@pytest.mark.parametrize("name", ["../models/ct-tissue", "/etc/passwd", "", "CT-TISSUE"])
def test_a_model_name_is_never_a_path(name: str) -> None:
    with pytest.raises(UnknownModel):
        find_card(name)


def test_a_card_in_a_given_folder_goes_before_the_shipped_one(tmp_path: Path) -> None:
    changed_card(tmp_path, version="9.9")
    assert find_card("ct-tissue", [tmp_path]).version == "9.9"


def test_a_card_whose_id_is_not_its_file_name_is_refused(tmp_path: Path) -> None:
    changed_card(tmp_path).rename(tmp_path / "other.yaml")
    with pytest.raises(ModelError, match="the file is named 'other'"):
        find_card("other", [tmp_path])


@pytest.mark.parametrize(
    ("modality", "slices", "spacing_mm", "code", "says"),
    [
        ("MR", 20, 2.0, "INPUT_NOT_ACCEPTED", "takes CT, and the series is MR"),
        ("CT", 1, 2.0, "SINGLE_SLICE", "needs at least 2"),
        ("CT", 20, 12.5, "SLICES_TOO_FAR_APART", "12.50 mm apart; the model takes at most 10 mm"),
    ],
)
def test_input_outside_the_card_is_refused_with_the_numbers(
    modality: str, slices: int, spacing_mm: float, code: str, says: str
) -> None:
    with pytest.raises(SeriesRefused) as refused:
        check_input(find_card("ct-tissue"), {"Modality": (modality,)}, geometry(slices, spacing_mm))
    assert refused.value.code == code
    assert says in refused.value.reason


def test_a_tilted_volume_is_taken_where_the_card_allows_resampling_and_refused_elsewhere() -> None:
    spec = find_card("ct-tissue")
    note = Note(NoteCode.GANTRY_TILT, "The slices are tilted by 15.0°.")
    tilted = replace(geometry(20, 2.0), needs=(VerdictCode.GANTRY_TILT,), notes=(note,))
    check_input(spec, {"Modality": ("CT",)}, tilted)
    strict = spec.model_copy(update={"accepts": Accepts(modalities=("CT",))})
    with pytest.raises(NotAVolumeError, match=r"GANTRY_TILT: The slices are tilted by 15\.0°") as refused:
        check_input(strict, {"Modality": ("CT",)}, tilted)
    assert refused.value.verdict.code == "GANTRY_TILT"


def test_what_a_card_may_have_resampled_is_a_known_name(tmp_path: Path) -> None:
    accepts = {"modalities": ["CT"], "resampled": ["MISSING_SLICE"]}
    with pytest.raises(ModelError, match=r"accepts.resampled.*GANTRY_TILT"):
        load_card(changed_card(tmp_path, accepts=accepts))


def test_input_at_the_limits_of_the_card_is_accepted() -> None:
    check_input(find_card("ct-tissue"), {"Modality": ("CT",)}, geometry(2, 10.0))


def test_reading_a_card_does_not_import_torch() -> None:
    code = "import sys, ai.model, ai.measure, ai.compare, ai.loaders; ai.model.find_card('ct-tissue'); "
    code += "sys.exit('torch' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
