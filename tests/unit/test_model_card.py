"""What a card says of input: each bound refuses by name, with its numbers."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from ai.errors import ModelError, SeriesRefused
from ai.geometry import VolumeGeometry
from ai.model import (
    ModelSpec,
    PinnedFiles,
    check_input,
    check_licence,
    find_card,
    find_model,
    list_cards,
    load_card,
)
from ai.model.check import extent_lps_mm
from ai.source import read_file
from ai.volume import read_series
from tests import builders
from tests.runs import even_geometry
from tests.unit.test_model import changed_card

CT = {"Modality": ("CT",)}


def accepting(**accepts: object) -> ModelSpec:
    """The default model with other demands on its input."""
    fields = find_card("ct-tissue").model_dump() | {"accepts": {"modalities": ["CT"], **accepts}}
    del fields["digest"]
    return ModelSpec.model_validate(fields)


def volume(
    orientation: str = "HFS",
    shape: tuple[int, int, int] = (20, 100, 80),
    spacing_mm: tuple[float, float, float] = (3.0, 1.0, 1.0),
) -> VolumeGeometry:
    return even_geometry(builders.affine(shape, spacing_mm, orientation), shape)


def coronal() -> VolumeGeometry:
    matrix = np.array([[0, 0, 1, 0], [3, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
    return even_geometry(matrix, (20, 100, 80))


def refusal(spec: ModelSpec, facts: dict[str, tuple[str, ...]], geometry: VolumeGeometry) -> SeriesRefused:
    with pytest.raises(SeriesRefused) as refused:
        check_input(spec, facts, geometry)
    return refused.value


def test_a_body_part_that_is_not_the_model_s_is_refused_and_an_unknown_one_is_taken() -> None:
    spec = accepting(body_parts=["CHEST", "THORAX"])
    check_input(spec, CT | {"BodyPartExamined": ("Thorax",)}, volume())
    check_input(spec, CT, volume())
    error = refusal(spec, CT | {"BodyPartExamined": ("HEAD",)}, volume())
    assert error.code == "INPUT_NOT_ACCEPTED"
    assert "takes the body part CHEST or THORAX, and the series is of HEAD" in error.reason


def test_the_plane_is_that_of_the_axis_nearest_to_the_normal() -> None:
    spec = accepting(orientations=["axial"])
    check_input(spec, CT, volume())
    error = refusal(spec, CT, coronal())
    assert error.code == "INPUT_NOT_ACCEPTED"
    assert "coronal (their normal is 0° from the anterior-posterior axis)" in error.reason
    check_input(accepting(orientations=["coronal"]), CT, coronal())
    turned = np.deg2rad(30)
    oblique = np.array(
        [
            [0, 1, 0, 0],
            [-3 * np.sin(turned), 0, np.cos(turned), 0],
            [3 * np.cos(turned), 0, np.sin(turned), 0],
            [0, 0, 0, 1],
        ]
    )
    check_input(spec, CT, even_geometry(oblique, (20, 100, 80)))
    error = refusal(accepting(orientations=["sagittal"]), CT, even_geometry(oblique, (20, 100, 80)))
    assert "axial (their normal is 30° from the superior-inferior axis)" in error.reason


@pytest.mark.parametrize("agent", ["OMNIPAQUE 350", "Iopamidol"])
def test_contrast_is_demanded_or_forbidden(agent: str) -> None:
    given = CT | {"ContrastBolusAgent": (agent,)}
    check_input(accepting(contrast="required"), given, volume())
    check_input(accepting(contrast="any"), given, volume())
    error = refusal(accepting(contrast="none"), given, volume())
    assert f"takes images without contrast agent, and the series names {agent}" in error.reason


@pytest.mark.parametrize("agent", [(), ("NONE",), ("no",)])
def test_no_contrast_may_be_said_in_words(agent: tuple[str, ...]) -> None:
    facts = CT | ({"ContrastBolusAgent": agent} if agent else {})
    check_input(accepting(contrast="none"), facts, volume())
    assert "names none" in refusal(accepting(contrast="required"), facts, volume()).reason


def test_an_enhanced_image_says_its_contrast_in_sequences() -> None:
    facts = CT | {"ContrastBolusAgentSequence": ("present",)}
    check_input(accepting(contrast="required"), facts, volume())
    refusal(accepting(contrast="none"), facts, volume())
    before = facts | {"ContrastBolusAgentAdministered": ("NO",)}  # frames before the injection
    check_input(accepting(contrast="none"), before, volume())


def test_coarse_pixels_and_thick_slices_are_refused_with_their_numbers() -> None:
    spec = accepting(maximum_pixel_spacing_mm=1.0, maximum_slice_thickness_mm=2.5)
    check_input(spec, CT, replace(volume(), slice_thickness_mm=2.5))
    check_input(spec, CT, volume())  # thickness unknown
    coarse = replace(volume(spacing_mm=(3.0, 0.9, 1.2)), slice_thickness_mm=5.0)
    error = refusal(spec, CT, coarse)
    assert error.code == "INPUT_NOT_ACCEPTED"
    assert "takes pixels of at most 1 mm, and these are 0.90 × 1.20 mm" in error.reason
    assert "takes slices of at most 2.5 mm thickness, and these have 5.00 mm" in error.reason


def test_the_field_of_view_is_measured_along_the_patient() -> None:
    assert extent_lps_mm(volume()) == pytest.approx((80.0, 100.0, 60.0))
    assert extent_lps_mm(coronal()) == pytest.approx((80.0, 60.0, 100.0))
    spec = accepting(field_of_view_mm={"minimum": {"superior_inferior": 90}, "maximum": {"right_left": 79}})
    check_input(accepting(field_of_view_mm={"minimum": {"superior_inferior": 90}}), CT, coronal())
    error = refusal(spec, CT, volume())
    assert "needs at least 90 mm superior-inferior, and the series spans 60 mm" in error.reason
    assert "needs at most 79 mm right-left, and the series spans 80 mm" in error.reason


def test_an_oblique_volume_spans_the_box_of_its_corners() -> None:
    turned = np.deg2rad(45)
    matrix = builders.affine((10, 100, 100), (1.0, 1.0, 1.0), "HFS")
    rotation = np.array([[np.cos(turned), -np.sin(turned)], [np.sin(turned), np.cos(turned)]])
    matrix[:2, :3] = rotation @ matrix[:2, :3]
    extent = extent_lps_mm(even_geometry(matrix, (10, 100, 100)))
    assert extent == pytest.approx((100 * np.sqrt(2), 100 * np.sqrt(2), 10.0))


def test_a_model_of_several_images_is_refused_for_one_series() -> None:
    error = refusal(accepting(channels=["T1", "T2", "FLAIR"]), CT, volume())
    assert error.code == "SEVERAL_CHANNELS"
    assert "takes 3 images together (T1, T2, FLAIR), and a series brings one" in error.reason


def test_a_projection_is_not_measured_along_the_patient() -> None:
    spec = accepting(
        projections=True,
        scale="attenuation",
        minimum_slices=1,
        orientations=["axial"],
        field_of_view_mm={"minimum": {"superior_inferior": 500}},
    )
    flat = replace(volume("HFS", (1, 64, 64)), is_projection=True)
    check_input(spec, CT, flat)
    limited = spec.model_copy(
        update={"accepts": spec.accepts.model_copy(update={"maximum_pixel_spacing_mm": 0.5})}
    )
    assert "1.00 × 1.00 mm" in refusal(limited, CT, flat).reason


def test_headers_are_read_for_what_cards_ask(tmp_path: Path) -> None:
    """From real files: the attributes are among those that the reader wants."""
    series = builders.ct_series(BodyPartExamined="HEAD", ContrastBolusAgent="IOHEXOL")
    files = builders.write_series(series, tmp_path)
    for spec, says in (
        (accepting(body_parts=["CHEST"]), "is of HEAD"),
        (accepting(contrast="none"), "names IOHEXOL"),
        (accepting(maximum_slice_thickness_mm=2), "these have 3.00 mm"),
    ):
        with pytest.raises(SeriesRefused, match=says):
            read_series(files, lambda facts, geometry, spec=spec: check_input(spec, facts, geometry))


def test_a_contrast_sequence_of_a_file_is_seen(tmp_path: Path) -> None:
    agent = Dataset()
    agent.CodeValue, agent.CodingSchemeDesignator, agent.CodeMeaning = "109219004", "SCT", "Iohexol"
    series = builders.ct_series()
    for dataset in series:
        dataset.ContrastBolusAgentSequence = Sequence([agent])
    files = builders.write_series(series, tmp_path)
    assert read_file(files[0]).header.facts["ContrastBolusAgentSequence"] == ("present",)
    with pytest.raises(SeriesRefused, match="without contrast agent, and the series names one"):
        read_series(files, lambda f, g: check_input(accepting(contrast="none"), f, g))


def test_a_licence_that_restricts_needs_someone_who_accepted_it(tmp_path: Path) -> None:
    terms = {"spdx": "CC-BY-NC-4.0", "commercial": "no"}
    with pytest.raises(ModelError, match="LICENCE_NOT_ACCEPTED") as refused:
        check_licence(load_card(changed_card(tmp_path, licence=terms)))
    assert "CC-BY-NC-4.0, commercial use: no" in refused.value.reason
    check_licence(load_card(changed_card(tmp_path, licence=terms | {"accepted_by": "A. Doe, 2026-11-21"})))


def test_a_bare_yes_or_no_of_yaml_is_understood(tmp_path: Path) -> None:
    for word in ("yes", "no"):
        path = changed_card(tmp_path, licence={"spdx": "MIT", "commercial": word == "yes"})
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("commercial: true", "commercial: yes"), encoding="utf-8")
        assert load_card(path).licence.commercial == word


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"accepts": {"modalities": []}}, "accepts.modalities"),
        ({"accepts": {"modalities": ["CT"], "orientations": ["oblique"]}}, "accepts.orientations.0"),
        ({"accepts": {"modalities": ["CT"], "contrast": "maybe"}}, "accepts.contrast"),
        ({"accepts": {"modalities": ["CT"], "maximum_pixel_spacing_mm": 0}}, "maximum_pixel_spacing_mm"),
        ({"accepts": {"modalities": ["CT"], "field_of_view_mm": {"minimum": {"up": 1}}}}, "minimum.up"),
        ({"loader": "graph"}, "the loader graph needs the section graph and recipe"),
        ({"loader": "magic"}, "loader"),
        ({"recipe": {"tiles": {"size": [0, 1, 1]}}}, "recipe.tiles.size.0"),
        ({"recipe": {"tiles": {"size": None}, "intensity": [{"op": "blur"}]}}, "recipe.intensity.0"),
        (
            {"quality": [{"kind": "volume_ml", "structures": ["liver"], "minimum": 1}]},
            "names 'liver', which is no structure",
        ),
        ({"quality": [{"kind": "volume_ml", "structures": ["body"]}]}, "needs a minimum or a maximum"),
        (
            {"quality": [{"kind": "pieces", "structures": ["body"], "minimum": 3, "maximum": 2}]},
            "minimum above its maximum",
        ),
        ({"stages": [{"name": "a", "model": "b", "margin_mm": -1}]}, "stages.0.margin_mm"),
        ({"accepts": {"modalities": ["MRI"]}}, "write MR"),
        ({"accepts": {"modalities": ["ct"]}}, "write CT"),
        ({"version": 1.0}, "version: must be text; put it in quotes"),
        ({"title": "a\nb"}, "title: must be one line"),
        ({"manufacturer": "a\\b"}, "manufacturer: must be one line without a backslash"),
        ({"memory_bytes": 10**40}, "memory_bytes"),
        ({"recipe": {"tiles": {"size": None}, "grid": {"axes": "RRS"}}}, "axes: RRS names an axis twice"),
        ({"recipe": {"tiles": {"size": None}, "grid": {"spacing_mm": [1e-9, 1, 1]}}}, "at least 0.01 mm"),
        ({"recipe": {"tiles": {"size": None}, "grid": {"spacing_mm": [math.inf, 1, 1]}}}, "finite"),
        ({"recipe": {"tiles": {"size": None}, "grid": {"spacing_mm": [math.nan, 1, 1]}}}, "finite"),
        ({"recipe": {"tiles": {"size": None}, "grid": {"resize": [65536, 65536, 2]}}}, "resize makes more"),
        ({"recipe": {"tiles": {"size": [2048, 2048, 2048]}}}, "size and batch make more than"),
        ({"recipe": {"tiles": {"size": [64, 64, 64], "batch": 10**6}}}, "size and batch make more than"),
        ({"recipe": {"tiles": {"size": [64, 64, 64], "step": 1e-9}}}, "recipe.tiles.step"),
    ],
)
def test_a_wrong_section_is_named_with_file_line_and_field(
    tmp_path: Path, changes: dict[str, object], place: str
) -> None:
    path = changed_card(tmp_path, **changes)
    with pytest.raises(ModelError, match="MODEL_CARD_INVALID") as refused:
        load_card(path)
    assert place in refused.value.reason
    line = int(refused.value.reason.partition("ct-tissue.yaml:")[2].partition(":")[0])
    section = next(iter(changes)) + ":"
    lines = path.read_text(encoding="utf-8").splitlines()
    is_whole_card = "card: " in refused.value.reason
    assert is_whole_card or line > lines.index(next(x for x in lines if x.startswith(section)))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]\n" for n in range(1, 12)),
            "many values",
        ),
        (
            "a0: &a0 {x: 1}\n"
            + "".join(f"a{n}: &a{n} {{<<: [{f'*a{n - 1}, ' * 10}]}}\n" for n in range(1, 9)),
            "many",
        ),
        ("x: &x {x: *x}\n", "nested too deeply"),
        ("x: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("memory_bytes: " + "9" * 5000, "a value cannot be read"),
        ("version: 2020-13-45", "a value cannot be read"),
        ("id: a\nid: b\n", "'id' is given twice; the first is in line 1"),
        ('title: "\\e[2J"\n', "'\\x1b' is not allowed"),
        ('title: "\\u202Egnp"\n', "is not allowed"),
        ("# " + "x" * (1 << 20), "larger than any card"),
        ("x: !!python/object/apply:os.system [true]", "constructor"),
    ],
)
def test_a_hostile_card_is_refused_at_once(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="MODEL_CARD_INVALID") as refused:
        load_card(path)
    assert says in refused.value.reason
    assert len(refused.value.reason) < 600


def test_a_pipe_is_no_card_and_no_file_of_a_model(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ModelError, match="no regular file"):
        load_card(tmp_path / "pipe.yaml")
    spec = load_card(changed_card(tmp_path, files={"net.pt2": "0" * 64}))
    folder = tmp_path / spec.id
    folder.mkdir()
    os.mkfifo(folder / "net.pt2")
    (error,) = PinnedFiles(spec).verify()
    assert error.code == "MODEL_FILE_MISSING"
    with pytest.raises(ModelError, match="no regular file"):
        PinnedFiles(spec).read("net.pt2")


def test_a_card_gives_codes_of_its_own(tmp_path: Path) -> None:
    coding = {
        "category": {"value": "49755003", "scheme": "SCT", "meaning": "Morphologically Abnormal Structure"},
        "type": {"value": "PLAQUE", "scheme": "99HOSPITAL", "meaning": "Plaque"},
        "region": {"value": "15825003", "scheme": "SCT", "meaning": "Aorta"},
        "rgb": [1, 2, 3],
    }
    structures = [{"number": 1, "key": "our_plaque", "label": "Plaque", "coding": coding}]
    (structure,) = load_card(changed_card(tmp_path, structures=structures, quality=[])).structures
    assert structure.coded.type.scheme == "99HOSPITAL"
    assert structure.coded.region is not None
    assert structure.coded.region.meaning == "Aorta"
    assert structure.coded.rgb == (1, 2, 3)


def test_a_model_is_found_by_name_card_or_folder(tmp_path: Path) -> None:
    card = changed_card(tmp_path, version="7")
    (tmp_path / "ct-tissue").mkdir()
    assert find_model("ct-tissue").version == "1.0.0"
    for text in (str(card), str(tmp_path / "ct-tissue"), f"{tmp_path}/ct-tissue/"):
        assert find_model(text).version == "7", text
    assert find_model("ct-tissue", [tmp_path]).version == "7"
    assert list_cards([tmp_path])["ct-tissue"] == card
    assert "ct-tissue" in list_cards()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("no/such.yaml", "is no model card"),
        ("no/folder", "folder.yaml is missing"),
        ("ct-tisue", "ct-tissue?"),
    ],
)
def test_what_is_no_model_is_said_to_be_none(text: str, says: str) -> None:
    with pytest.raises(ModelError, match="UNKNOWN_MODEL") as refused:
        find_model(text)
    assert says in refused.value.reason


def test_the_shipped_cards_are_valid_and_name_what_restricts_them() -> None:
    for name, path in list_cards().items():
        spec = find_card(name)
        assert spec.folder == path.parent / name
        assert spec.limits, name
        assert "diagnos" in spec.intended_use, name
        assert yaml.safe_load(path.read_text(encoding="utf-8"))["id"] == name
