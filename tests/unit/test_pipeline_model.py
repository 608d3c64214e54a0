"""Pipelines: lung → lesion, localise → crop → segment, and what is wrong with a card told at loading."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from ai.errors import ModelError
from ai.loaders import load_model
from ai.loaders.pipeline import Pipeline
from ai.model import Model, ModelSpec, Prediction, RunContext
from ai.pipeline import judge
from ai.quality import Verdict
from ai.volume import Volume, read_series
from gateway.cli.model_add import Wishes, add_model
from tests import builders, small_models
from tests.pipelines import Bright, Floors, Front, Halves, Spots, write_network, write_pipeline

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
LUNGS = ("left_lung", "right_lung")
NODULE = 3
FINE = {"spacing_mm": [2.0, 2.0, 2.0]}

LOCALISE_LUNGS = {"name": "lungs", "model": "ct-tissue", "keep": {key: key for key in LUNGS}}
FIND_NODULES = {
    "name": "nodules",
    "model": "spots",
    "inside": "lungs",
    "region": list(LUNGS),
    "margin_mm": 80.0,
    "within_mm": 6.0,
    "keep": {"lung_nodule": "lung_nodule"},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every network of these tests."""
    folder = tmp_path_factory.mktemp("models")
    write_network(folder, "spots", Spots(), "lung_nodule", grid=FINE)
    write_network(folder, "front", Front(), "eye", grid={"spacing_mm": [4.0, 4.0, 4.0]})
    write_network(folder, "halves", Halves(), "left_eyeball", "right_eyeball")
    write_network(folder, "bright", Bright(), "bone")
    keys = [f"vertebra_l{n}" for n in range(1, 6)]
    write_network(folder, "floors", Floors(), *keys, grid={"axes": "IPL"})
    return folder


def loaded(spec: ModelSpec, folder: Path) -> Model:
    return load_model(spec, "cpu", small_models.finder(folder))


def stages_of(prediction: Prediction) -> dict[str, dict[str, Any]]:
    facts = prediction.facts["stages"]
    assert isinstance(facts, list)
    return {fact["name"]: fact for fact in facts}


# -- lung → lesion ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chest() -> tuple[Volume, npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """A torso with a ball in the middle of each lung, and one in the air in front of it."""
    shape, spacing_mm = (40, 72, 80), (6.0, 5.0, 5.0)
    matrix = builders.affine(shape, spacing_mm)
    voxels, truth = builders.torso_voxels(shape, matrix)
    inside, outside = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for number in (2, 3):
        deepest = ndimage.distance_transform_edt(truth == number, sampling=spacing_mm)
        inside |= ball(shape, spacing_mm, np.unravel_index(deepest.argmax(), shape), 11.0)
    front = int(np.flatnonzero((truth[20] > 0).any(1))[0])
    outside |= ball(shape, spacing_mm, (20, front - 5, 40), 11.0)
    voxels[inside | outside] = 40
    return Volume(voxels, small_models.grid(matrix, shape)), inside, outside


def ball(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], centre: tuple[Any, ...], radius_mm: float
) -> npt.NDArray[np.bool_]:
    offsets = [
        (np.arange(length) - middle) * step
        for length, middle, step in zip(shape, centre, spacing_mm, strict=True)
    ]
    z, y, x = np.ix_(*offsets)
    return np.asarray(z**2 + y**2 + x**2 <= radius_mm**2)


@pytest.fixture(scope="module")
def lung_nodules(models: Path) -> ModelSpec:
    return write_pipeline(models, "lung-nodules", (*LUNGS, "lung_nodule"), [LOCALISE_LUNGS, FIND_NODULES])


def share(found: npt.NDArray[np.bool_], where: npt.NDArray[np.bool_]) -> float:
    return float(np.count_nonzero(found & where) / np.count_nonzero(where))


def test_nodules_are_found_in_the_lungs_and_dropped_outside(
    chest: tuple[Volume, npt.NDArray[np.bool_], npt.NDArray[np.bool_]], models: Path, lung_nodules: ModelSpec
) -> None:
    volume, inside, outside = chest
    context = RunContext()
    found = small_models.predict(loaded(lung_nodules, models), volume, run=context)
    nodules = found.labels == NODULE
    assert share(nodules, inside) > 0.7
    assert not (nodules & outside).any()
    lungs = np.isin(found.labels, (1, 2))
    assert np.count_nonzero(lungs) > 20 * np.count_nonzero(nodules)
    reach = ndimage.distance_transform_edt(~lungs, sampling=volume.geometry.spacing_mm)
    assert reach[nodules].max() <= 12.0  # within 6 mm of the lungs, whose margin nodules took
    facts = stages_of(found)
    assert facts["lungs"]["shared"] is False
    assert [facts["lungs"]["model"], facts["nodules"]["model"]] == ["ct-tissue", "spots"]
    assert facts["nodules"]["precision"] == "float32"
    assert json.loads(json.dumps(found.facts)) == found.facts  # run.json takes it as it is
    (first, last), *_ = facts["nodules"]["box"]
    assert 0 <= first < last <= volume.voxels.shape[0]

    # Without the distance the ball in the air before the chest counts, for it lies in the box.
    anywhere = write_pipeline(
        models,
        "anywhere",
        (*LUNGS, "lung_nodule"),
        [LOCALISE_LUNGS, {**FIND_NODULES, "within_mm": None}],
    )
    again = small_models.predict(loaded(anywhere, models), volume, run=context)
    assert share(again.labels == NODULE, outside) > 0.7
    assert stages_of(again)["lungs"]["shared"] is True  # the lungs were not looked for a second time
    np.testing.assert_array_equal(again.labels == 1, found.labels == 1)


def test_an_answer_that_is_shared_is_used_as_it_is(
    chest: tuple[Volume, npt.NDArray[np.bool_], npt.NDArray[np.bool_]], models: Path, lung_nodules: ModelSpec
) -> None:
    volume, inside, _ = chest
    lungs = small_models.finder(models)("ct-tissue")
    one = np.zeros(volume.voxels.shape, np.uint8)
    one[:, :, 40:][inside[:, :, 40:]] = 2  # a lung of another opinion: the ball on the left alone
    context = RunContext(shared={(lungs.id, lungs.digest): Prediction(one.copy())})
    found = small_models.predict(loaded(lung_nodules, models), volume, run=context)
    assert stages_of(found)["lungs"]["shared"] is True
    assert (found.labels == NODULE)[:, :, 40:].any()
    assert not found.labels[:, :, :40].any()
    np.testing.assert_array_equal(context.shared[lungs.id, lungs.digest].labels, one)  # nothing wrote into it


def test_without_a_region_nothing_is_found_and_the_record_says_why(
    models: Path, lung_nodules: ModelSpec
) -> None:
    air = small_models.volume_of(np.full((12, 40, 40), -1000, np.int16), (5.0, 4.0, 4.0))
    found = small_models.predict(loaded(lung_nodules, models), air)
    assert not found.labels.any()
    skipped = stages_of(found)["nodules"]
    assert skipped["skipped"] == "the region was not found by the stage lungs"
    assert "box" not in skipped


def test_a_nodule_of_a_real_chest_is_found_inside_the_lungs_box(
    models: Path, lung_nodules: ModelSpec
) -> None:
    folder = FIXTURES / "ct_chest_lidc0314"
    if not folder.is_dir():
        pytest.skip("the real images (../shared/data) are not on this machine: ct_chest_lidc0314")
    import nibabel

    volume = read_series(sorted((folder / "dicom_native_sub").iterdir())).volume
    readers: Any = nibabel.load(folder / "labels" / "nodule_consensus_50pct.nii.gz")  # type: ignore[attr-defined]
    to_readers = np.linalg.inv(readers.affine) @ np.diag([-1, -1, 1, 1]) @ volume.geometry.index_to_lps
    slices, rows, columns = np.indices(volume.voxels.shape).reshape(3, -1)
    index = np.rint((to_readers @ [slices, rows, columns, np.ones(slices.size)])[:3]).astype(int)
    marked = np.asarray(readers.dataobj).transpose(1, 0, 2) > 0  # the file has rows before columns
    truth = marked[tuple(index)].reshape(volume.voxels.shape)
    assert 0.0 < np.median(volume.voxels[truth]) < 100.0
    assert np.count_nonzero(truth) > 4000
    found = small_models.predict(loaded(lung_nodules, models), volume)
    box = tuple(slice(*ends) for ends in stages_of(found)["nodules"]["box"])
    assert np.count_nonzero(truth[box]) == np.count_nonzero(truth)
    assert share(found.labels == NODULE, truth) > 0.5


# -- localise → crop → segment ---------------------------------------------------------------------


GLOBES = ("left_eyeball", "right_eyeball")
COMPARE_GLOBES = [{"kind": "left_right", "structures": list(GLOBES), "maximum": 25.0}]
GLOBE_STAGES = [
    {"name": "orbits", "model": "front"},
    {
        "name": "globes",
        "model": "halves",
        "inside": "orbits",
        "margin_mm": 8.0,
        "keep": {key: key for key in GLOBES},
    },
]


def head(orientation: str, right_radius_mm: float = 12.0) -> tuple[Volume, npt.NDArray[np.float64]]:
    """A head with two globes in front, and something as bright at the back; and its points in LPS."""
    shape, spacing_mm = (44, 52, 48), (4.0, 4.0, 4.0)
    geometry = small_models.grid(builders.affine(shape, spacing_mm, orientation), shape)
    index = np.stack([*np.indices(shape), np.ones(shape)])
    lps = np.einsum("ij,jzyx->izyx", geometry.index_to_lps, index)[:3]
    voxels = np.full(shape, -1000, np.int16)

    def inside(centre: tuple[float, float, float], radius_mm: float) -> npt.NDArray[np.bool_]:
        offsets = lps - np.array(centre)[:, None, None, None]
        return np.asarray((offsets**2).sum(0) <= radius_mm**2)

    voxels[inside((0.0, 0.0, 0.0), 80.0)] = 40
    voxels[inside((32.0, -55.0, 10.0), 12.0)] = 110  # left: LPS x grows to the left
    voxels[inside((-32.0, -55.0, 10.0), right_radius_mm)] = 110
    voxels[inside((0.0, 60.0, 0.0), 10.0)] = 110
    return Volume(voxels, geometry), lps


@pytest.mark.parametrize("orientation", ["HFS", "FFS", "prone", "coronal", "sagittal"])
def test_globes_are_localised_cropped_and_told_apart_however_the_head_was_stored(
    models: Path, orientation: str
) -> None:
    spec = write_pipeline(models, "globes", GLOBES, GLOBE_STAGES, quality=COMPARE_GLOBES)
    volume, lps = head(orientation)
    found = small_models.predict(loaded(spec, models), volume)
    for number, side in ((1, 1.0), (2, -1.0)):
        expected = (volume.voxels == 110) & (side * lps[0] > 10.0)
        np.testing.assert_array_equal(found.labels == number, expected)
    measured, findings = judge(spec, volume, found.labels, {})
    assert [m.found for m in measured] == [True, True]
    assert {finding.verdict for finding in findings} == {Verdict.PASS}


def test_a_globe_that_is_much_smaller_than_the_other_is_suspect(models: Path) -> None:
    spec = write_pipeline(models, "globes", GLOBES, GLOBE_STAGES, quality=COMPARE_GLOBES)
    volume, _ = head("HFS", right_radius_mm=8.0)
    found = small_models.predict(loaded(spec, models), volume)
    _, findings = judge(spec, volume, found.labels, {})
    suspect = [finding for finding in findings if finding.verdict is Verdict.SUSPECT]
    assert len(suspect) == 1
    assert "expected at most 25 %" in suspect[0].reason


VERTEBRAE = tuple(f"vertebra_l{n}" for n in range(1, 6))
IN_ORDER = [{"kind": "order", "structures": list(VERTEBRAE), "axis": "superior_inferior"}]


def spine_stages(keep: dict[str, str]) -> list[dict[str, Any]]:
    return [
        {"name": "spine", "model": "bright"},
        {"name": "vertebrae", "model": "floors", "inside": "spine", "keep": keep},
    ]


def spine() -> Volume:
    """Five blobs above each other, 10 voxels from one to the next, far from the borders."""
    voxels = np.zeros((80, 24, 24), np.int16)
    for storey in range(5):
        top = 70 - 10 * storey
        voxels[top - 6 : top, 8:15, 9:16] = 200
    return small_models.volume_of(voxels, (3.0, 2.0, 2.0))


def test_vertebrae_are_numbered_in_the_box_of_the_spine_and_their_order_is_checked(models: Path) -> None:
    spec = write_pipeline(
        models, "vertebrae", VERTEBRAE, spine_stages({key: key for key in VERTEBRAE}), quality=IN_ORDER
    )
    volume = spine()
    found = small_models.predict(loaded(spec, models), volume)
    for number in range(1, 6):
        top = 80 - 10 * number
        assert set(np.flatnonzero((found.labels == number).any((1, 2)))) == set(range(top - 6, top))
    np.testing.assert_array_equal(found.labels > 0, volume.voxels > 0)
    (finding,) = (f for f in judge(spec, volume, found.labels, {})[1] if f.rule == "order")
    assert finding.verdict is Verdict.PASS


def test_vertebrae_that_are_named_out_of_order_are_suspect(models: Path) -> None:
    names = dict(zip(VERTEBRAE, VERTEBRAE, strict=True)) | {
        "vertebra_l2": "vertebra_l3",
        "vertebra_l3": "vertebra_l2",
    }
    spec = write_pipeline(models, "swapped", VERTEBRAE, spine_stages(names), quality=IN_ORDER)
    found = small_models.predict(loaded(spec, models), spine())
    (finding,) = (f for f in judge(spec, spine(), found.labels, {})[1] if f.rule == "order")
    assert finding.verdict is Verdict.SUSPECT


# -- painting --------------------------------------------------------------------------------------


def test_several_keys_make_a_union_and_a_later_stage_lies_on_top(models: Path) -> None:
    stages = [
        {"name": "over", "model": "halves", "inside": "all", "keep": {"left_eyeball": "left_eyeball"}},
        {"name": "all", "model": "front", "keep": {"eye": "eye"}},
        {"name": "both", "model": "halves", "keep": {"left_eyeball": "bone", "right_eyeball": "bone"}},
    ]
    spec = write_pipeline(models, "painted", ("eye", "left_eyeball", "bone"), stages)
    volume, _ = head("HFS")
    model = loaded(spec, models)
    assert isinstance(model, Pipeline)
    assert [stage.name for stage, _ in model.stages] == ["all", "over", "both"]  # over waits for its box
    found = small_models.predict(model, volume).labels
    np.testing.assert_array_equal(found == 3, volume.voxels == 110)  # painted last, over everything
    assert set(np.unique(found)) <= {0, 1, 3}  # of the first stage only what it drew too wide
    upside = write_pipeline(models, "painted-otherwise", ("eye", "left_eyeball", "bone"), stages[::-1])
    labels = small_models.predict(loaded(upside, models), volume).labels
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    assert (labels[(volume.voxels == 110)] == 2).any()


def test_a_pipeline_can_be_a_stage_of_another(models: Path) -> None:
    write_pipeline(models, "globes", GLOBES, GLOBE_STAGES)
    outer = write_pipeline(
        models, "outer", GLOBES, [{"name": "all", "model": "globes", "keep": {key: key for key in GLOBES}}]
    )
    volume, _ = head("HFS")
    found = small_models.predict(loaded(outer, models), volume)
    inner = small_models.predict(loaded(small_models.finder(models)("globes"), models), volume)
    np.testing.assert_array_equal(found.labels, inner.labels)


# -- what it holds ---------------------------------------------------------------------------------


def test_weights_add_up_and_the_largest_need_counts(models: Path) -> None:
    spec = write_pipeline(models, "globes", GLOBES, GLOBE_STAGES)
    pipeline = loaded(spec, models)
    parts = [loaded(small_models.finder(models)(name), models) for name in ("front", "halves")]
    shape, spacing_mm = (44, 52, 48), (4.0, 4.0, 4.0)
    assert pipeline.weight_bytes == sum(part.weight_bytes for part in parts)
    assert pipeline.needed_bytes(shape, spacing_mm) == max(p.needed_bytes(shape, spacing_mm) for p in parts)
    pipeline.close()


def test_a_pipeline_rests_between_tiles_and_can_be_given_up(models: Path, lung_nodules: ModelSpec) -> None:
    volume, _ = head("HFS")
    model = loaded(write_pipeline(models, "globes", GLOBES, GLOBE_STAGES), models)
    steps = model.steps([volume], RunContext())
    assert next(steps).stage == "orbits"
    assert next(steps).fraction < 0.5
    steps.close()
    assert small_models.predict(model, volume).labels.any()  # nothing was left behind


# -- cards that do not fit together ----------------------------------------------------------------


def wrong(models: Path, stages: list[dict[str, Any]], *keys: str, **more: Any) -> str:
    spec = write_pipeline(models, "wrong", keys or ("eye",), stages, **more)
    with pytest.raises(ModelError) as refused:
        loaded(spec, models)
    assert refused.value.code == "MODEL_CARD_INVALID"
    return refused.value.reason


EYES = {"name": "eyes", "model": "front", "keep": {"eye": "eye"}}


def test_stages_inside_each_other_are_refused(models: Path) -> None:
    stages = [{**EYES, "inside": "more"}, {"name": "more", "model": "front", "inside": "eyes"}]
    assert "the stages eyes, more lie inside each other" in wrong(models, stages)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"inside": "eye"}, "which is no stage (did you mean 'eyes'?)"),
        (
            {"inside": "eyes", "region": ["eys"]},
            "in its region, which model front does not find",
        ),
        ({"keep": {"eys": "eye"}}, "keeps 'eys', which model front does not find (did you mean 'eye'?)"),
        ({"keep": {"eye": "eyy"}}, "which is no structure of the pipeline (did you mean 'eye'?)"),
        ({"name": "eyes"}, "two stages have the name 'eyes'"),
        ({"margin_mm": 3.0}, "a region, a margin or a distance, and lies inside none"),
    ],
)
def test_what_a_stage_names_must_be_there(models: Path, changes: dict[str, Any], told: str) -> None:
    assert told in wrong(models, [EYES, {"name": "second", "model": "front", **changes}])


def test_a_structure_that_no_stage_finds_is_refused(models: Path) -> None:
    assert "no stage keeps anything as the structure 'bone'" in wrong(models, [EYES], "eye", "bone")


def test_a_stage_takes_what_the_pipeline_takes(models: Path) -> None:
    assert "takes MR, and its stage 'eyes' does not" in wrong(models, [EYES], accepts={"modalities": ["MR"]})
    told = wrong(models, [EYES], accepts={"modalities": ["CT"], "scale": "suv_bw"})
    assert "values of the scale suv_bw" in told
    told = wrong(models, [EYES], accepts={"modalities": ["CT"], "channels": ["T1", "T2"]})
    assert "takes the channel 'image'" in told


def test_a_pipeline_inside_itself_is_refused(models: Path) -> None:
    inner = write_pipeline(models, "inner-loop", ("eye",), [EYES])
    outer = write_pipeline(
        models, "outer-loop", ("eye",), [{"name": "all", "model": "inner-loop", "keep": {"eye": "eye"}}]
    )
    looped = [{**EYES, "model": "outer-loop"}]
    find = small_models.finder(models)
    again = inner.model_copy(
        update={"stages": write_pipeline(models, "x", ("eye",), looped).stages, "digest": ""}
    )

    def confused(name: str) -> ModelSpec:
        return again if name == "inner-loop" else find(name)

    with pytest.raises(ModelError, match="stage of itself"):
        load_model(outer, "cpu", confused)


def test_a_stage_must_be_pinned_as_it_is(models: Path) -> None:
    spec = write_pipeline(models, "pinned", ("eye",), [EYES])
    (stage,) = spec.stages
    loose = spec.model_copy(update={"stages": (stage.model_copy(update={"digest": None}),)})
    with pytest.raises(ModelError, match="MODEL_STAGE_NOT_PINNED") as refused:
        loaded(loose, models)
    assert str(stage.digest) in refused.value.reason
    other = spec.model_copy(update={"stages": (stage.model_copy(update={"digest": "0" * 64}),)})
    with pytest.raises(ModelError, match="MODEL_STAGE_CHANGED"):
        loaded(other, models)


def test_adding_a_pipeline_pins_its_stages_and_a_changed_one_must_be_added_again(
    models: Path, tmp_path: Path
) -> None:
    card = write_pipeline(tmp_path / "source", "added", ("eye",), [{**EYES, "digest": None}], find_in=models)
    assert card.stages[0].digest is None
    to = tmp_path / "models"
    shutil.copytree(models, to)
    source = tmp_path / "source" / "added.yaml"
    assert add_model(source, to, Wishes()).spec.stages[0].digest == small_models.finder(to)("front").digest
    assert not add_model(source, to, Wishes()).is_new
    with (to / "front.yaml").open("a", encoding="utf-8") as stage:
        stage.write("# another card\n")
    with pytest.raises(ModelError, match="MODEL_STAGE_CHANGED"):
        loaded(small_models.finder(to)("added"), to)
    with pytest.raises(ModelError, match="MODEL_EXISTS"):
        add_model(source, to, Wishes())
    renewed = add_model(source, to, Wishes(replace=True)).spec
    assert loaded(renewed, to).spec.digest == renewed.digest


def test_models_that_were_loaded_are_given_back_when_a_later_one_cannot_be(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai.inference.engine import NetworkModel

    closed: list[str] = []
    monkeypatch.setattr(NetworkModel, "close", lambda model: closed.append(model.spec.id))
    spec = write_pipeline(
        models, "half", ("eye",), [EYES, {"name": "second", "model": "halves", "inside": "eyes"}]
    )
    find = small_models.finder(models)

    def broken(name: str) -> ModelSpec:
        card = find(name)
        return card if name == "front" else card.model_copy(update={"graph": replace_file(card)})

    with pytest.raises(ModelError, match="MODEL_FILE_NOT_PINNED"):
        load_model(spec, "cpu", broken)
    assert closed == ["front"]


def replace_file(card: ModelSpec) -> Any:
    assert card.graph is not None
    return card.graph.model_copy(update={"file": "another.pt2"})
