"""MONAI bundles: what our loader finds against what MONAI itself finds in the same bundle, from NIfTI."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import DynUNet, UNet

from ai.errors import ModelError
from ai.inference.engine import NetworkModel
from ai.loaders import load_model
from ai.loaders.bundle.compatible import CompatibleModel, as_tensors, decide, on_source
from ai.measure import dice
from ai.model import ModelSpec, RunContext
from tests import bundles
from tests.builders import ORIENTATIONS
from tests.bundles import Written, answer, monai_answer, scan, write_bundle, write_images

pytestmark = pytest.mark.filterwarnings("ignore")  # MONAI's own deprecations
State = Mapping[str, Any]

UNET = {
    "_target_": "UNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "channels": [8, 16],
    "strides": [2],
    "norm": "instance",
}
REGIONS_UNET = {**UNET, "in_channels": 4, "out_channels": 2}
DYNUNET = {
    "_target_": "monai.networks.nets.DynUNet",
    "spatial_dims": 3,
    "in_channels": 1,
    "out_channels": 3,
    "kernel_size": [3, 3, 3],
    "strides": [1, 2, 2],
    "upsample_kernel_size": [2, 2],
    "filters": [4, 8, 8],
}


def step(name: str, keys: object = "image", /, **arguments: object) -> dict[str, Any]:
    return {"_target_": name, "keys": keys, **arguments}


LOAD = [step("LoadImaged"), step("EnsureChannelFirstd"), step("EnsureTyped")]
RAS = step("Orientationd", axcodes="RAS")
SPACING = step("Spacingd", pixdim=[2.0, 2.0, 2.0], mode="bilinear")
SCALE = step("ScaleIntensityRanged", a_min=0, a_max=1000, b_min=0.0, b_max=1.0, clip=True)
SOFTMAX = step("Activationsd", "pred", softmax=True)
SIGMOID = step("Activationsd", "pred", sigmoid=True)
ARGMAX = step("AsDiscreted", "pred", argmax=True)
THRESHOLD = step("AsDiscreted", "pred", threshold=0.5)
SAVE = step("SaveImaged", "pred", output_dir="@output_dir", separate_folder=False, print_log=False)


def invert(*, nearest: bool = False) -> dict[str, Any]:
    return step("Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=nearest)


WINDOW = {
    "_target_": "SlidingWindowInferer",
    "roi_size": [24, 24, 24],
    "sw_batch_size": 2,
    "overlap": 0.5,
    "mode": "gaussian",
}
USUAL_POST = [SOFTMAX, invert(), ARGMAX, SAVE]


def config(
    before: Sequence[object],
    after: Sequence[object] = USUAL_POST,
    inferer: Mapping[str, object] | None = None,
    network: Mapping[str, object] = UNET,
    **more: object,
) -> dict[str, Any]:
    """A configuration as the bundles of MONAI's zoo have it."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": "/workspace/trial",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "dataset_dir": "/workspace/data/Task09",
        "network_def": dict(network),
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": [*LOAD, *before]},
        "inferer": dict(inferer or WINDOW),
        "postprocessing": {"_target_": "Compose", "transforms": list(after)},
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        **more,
    }


@pytest.fixture(scope="module")
def trained() -> State:
    return bundles.trained(_arguments(UNET))


@pytest.fixture(scope="module")
def trained_regions() -> State:
    return bundles.trained(_arguments(REGIONS_UNET), regions=True)


def _arguments(network: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != "_target_"}


def same(one: np.ndarray, other: np.ndarray) -> float:
    """Share of voxels that agree; both must have found both structures."""
    for labels in (one, other):
        assert {1, 2} <= set(np.unique(labels)), "a comparison of nothing says nothing"
    return float((one == other).mean())


FAST = {
    "as the spleen bundle": config([RAS, SPACING, SCALE]),
    "other axes, no resampling": config([step("Orientationd", axcodes="PLI"), SCALE]),
    "inverted by nearest neighbour": config([RAS, SPACING, SCALE], [SOFTMAX, ARGMAX, invert(nearest=True)]),
    "logits are interpolated": config([RAS, SPACING, SCALE], [invert(), ARGMAX]),
    "values change before the grid does": config([SCALE, RAS, SPACING]),
    "percentiles": config(
        [
            RAS,
            SPACING,
            step("ScaleIntensityRangePercentilesd", lower=1, upper=99.9, b_min=0, b_max=1.0, clip=True),
        ]
    ),
    "z-score, nonzero": config([RAS, SPACING, SCALE, step("NormalizeIntensityd", nonzero=True)]),
    "minimum and maximum": config([RAS, SPACING, step("ScaleIntensityd", minv=0.0, maxv=1.0)]),
    "cropped to the foreground": config(
        [step("CropForegroundd", source_key="image", allow_smaller=True), RAS, SPACING, SCALE]
    ),
    "small image, padded": config(
        [RAS, step("Spacingd", pixdim=3.1), SCALE, step("SpatialPadd", spatial_size=[24, 24, 24])],
        inferer={**WINDOW, "roi_size": [24, 28, 24]},
    ),
    "constant weights, other overlap": config(
        [RAS, SPACING, SCALE], inferer={**WINDOW, "mode": "constant", "overlap": 0.25, "roi_size": 20}
    ),
    "the whole image at once": config(
        [RAS, SPACING, SCALE, step("DivisiblePadd", k=4)], inferer={"_target_": "SimpleInferer"}
    ),
    "largest piece of each": config(
        [RAS, SPACING, SCALE],
        [*USUAL_POST[:3], step("KeepLargestConnectedComponentd", "pred", applied_labels=[1, 2])],
    ),
}


@pytest.mark.parametrize("name", FAST)
def test_translated_transforms_find_what_monai_finds(name: str, trained: State, tmp_path: Path) -> None:
    written = write_bundle(tmp_path, FAST[name], trained, bundle={"mode": "fast"})
    volumes = scan("oblique")
    (path,) = write_images(tmp_path / "images", volumes)
    mine = answer(load_model(written.spec), volumes)
    theirs = monai_answer(written, {"image": path}, tmp_path / "out")[0]
    assert same(mine, theirs) >= 0.999


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_comes_back_to_its_own_grid(
    orientation: str, trained: State, tmp_path: Path
) -> None:
    written = write_bundle(
        tmp_path, FAST["as the spleen bundle"], trained, configuration="configs/inference.yaml"
    )
    volumes = scan(orientation)
    mine = answer(load_model(written.spec), volumes, deterministic=orientation != "HFS")
    theirs = monai_answer(
        written, {"image": write_images(tmp_path / "images", volumes)[0]}, tmp_path / "out"
    )[0]
    assert same(mine, theirs) >= 0.999
    assert dice(mine == 1, bundles.truth(volumes[0]) == 1) > 0.7


COMPATIBLE = {
    "an expression": config([RAS, SPACING, SCALE, step("Lambdad", func="$lambda x: x ** 1.0")]),
    "spacing before orientation": config([SPACING, RAS, SCALE]),
    "no orientation": config([SPACING, SCALE]),
    "holes filled, specks dropped": config(
        [RAS, SPACING, SCALE], [*USUAL_POST[:3], step("FillHolesd", "pred", applied_labels=[2]), SAVE]
    ),
    "another padding": config(
        [RAS, step("Spacingd", pixdim=3.1), SCALE], inferer={**WINDOW, "padding_mode": "reflect"}
    ),
    "one-hot": config(
        [RAS, SPACING, SCALE], [invert(), step("AsDiscreted", "pred", argmax=True, to_onehot=3)]
    ),
    "one axis at a time": config([RAS, SPACING, SCALE], inferer={**WINDOW, "overlap": [0.5, 0.25, 0.5]}),
    "a list elsewhere": config(
        [],
        preprocessing={"_target_": "Compose", "transforms": "$@steps + []"},
        steps=[*LOAD, RAS, SPACING, SCALE],
    ),
}


@pytest.mark.parametrize("name", COMPATIBLE)
def test_other_transforms_are_run_by_monai_in_memory(name: str, trained: State, tmp_path: Path) -> None:
    written = write_bundle(tmp_path, COMPATIBLE[name], trained)
    # MONAI's Spacing without an Orientation before it starts elsewhere on an oblique grid when the affine has
    # the rounding of NIfTI's float32, and only then: so it is compared where that is exact.
    volumes = scan("FFS" if name in ("spacing before orientation", "no orientation") else "oblique")
    model = load_model(written.spec)
    assert isinstance(model, CompatibleModel)
    before = set(tmp_path.rglob("*"))
    mine = answer(model, volumes)
    assert set(tmp_path.rglob("*")) == before, "nothing is written"
    theirs = monai_answer(written, {"image": write_images(tmp_path / "images", volumes)[0]}, tmp_path / "out")
    whole = theirs.argmax(0) if len(theirs) > 1 else theirs[0]
    assert same(mine, whole) >= 0.9999


def test_both_ways_agree_and_the_record_says_which_it_was(trained: State, tmp_path: Path) -> None:
    volumes = scan("coronal")
    found = {}
    for mode in ("fast", "compatible"):
        written = write_bundle(tmp_path / mode, FAST["as the spleen bundle"], trained, bundle={"mode": mode})
        found[mode] = answer(load_model(written.spec), volumes)
    assert same(found["fast"], found["compatible"]) >= 0.999

    written = write_bundle(tmp_path, COMPATIBLE["holes filled, specks dropped"], trained)
    steps = load_model(written.spec).steps(volumes, RunContext())
    facts = _end(steps).facts
    assert facts == {"transforms": "MONAI", "not_translated_because": "FillHolesd has no counterpart"}


def _end(steps: Any) -> Any:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


# Four images together, regions that overlap

KEYS = ["t1", "t1c", "t2", "flair"]
SEPARATE = [step(name, KEYS) for name in ("LoadImaged", "EnsureChannelFirstd")]
NORMALISE = step("ScaleIntensityRanged", a_min=0, a_max=1000, b_min=0.0, b_max=1.0)
REGIONS = {
    "fast": config(
        [step("ScaleIntensityd", channel_wise=True), RAS, SPACING],
        [SIGMOID, invert(), THRESHOLD, SAVE],
        network=REGIONS_UNET,
    ),
    "fast, logits": config(
        [RAS, SPACING, NORMALISE], [SIGMOID, THRESHOLD, invert(nearest=True)], network=REGIONS_UNET
    ),
    "compatible": config(
        [RAS, SPACING, NORMALISE, step("Lambdad", func="$lambda x: x + 0.0")],
        [SIGMOID, invert(), THRESHOLD, SAVE],
        network=REGIONS_UNET,
    ),
}
ONE_AFTER_THE_OTHER = config(
    [],
    [SIGMOID, invert(), THRESHOLD],
    network=REGIONS_UNET,
    preprocessing={
        "_target_": "Compose",
        "transforms": [*SEPARATE, step("ConcatItemsd", KEYS, name="image"), RAS, SPACING, NORMALISE],
    },
)


@pytest.mark.parametrize("name", [*REGIONS, "keys of their own"])
@pytest.mark.parametrize("mode", ["auto", "compatible"])
def test_four_channels_and_overlapping_regions(
    name: str, mode: str, trained_regions: State, tmp_path: Path
) -> None:
    whole = REGIONS.get(name, ONE_AFTER_THE_OTHER)
    inner_first = {"mode": mode, "channels": {0: 2, 1: 1}}  # the network's first channel is the inner region
    written = write_bundle(tmp_path, whole, trained_regions, channels=bundles.CHANNELS, bundle=inner_first)
    volumes = scan("sagittal", channels=4)
    paths = write_images(tmp_path / "images", volumes)
    mine = answer(load_model(written.spec), volumes)
    images = {"image": paths} if name in REGIONS else dict(zip(KEYS, paths, strict=True))
    inner, outer = monai_answer(written, images, tmp_path / "out")
    painted = np.where(inner > 0, 2, np.where(outer > 0, 1, 0))
    assert same(mine, painted) >= 0.999
    assert dice(mine >= 1, bundles.truth(volumes[0]) >= 1) > 0.7


@pytest.mark.parametrize("mode", ["auto", "compatible"])
def test_regions_of_another_number_are_no_structures(
    mode: str, trained_regions: State, tmp_path: Path
) -> None:
    """A background channel, or one that the card does not know, would move every name by one."""
    whole = REGIONS["compatible" if mode == "compatible" else "fast"]
    written = write_bundle(
        tmp_path, whole, trained_regions, channels=bundles.CHANNELS, number_of_structures=1
    )
    with pytest.raises(ModelError, match=r"MODEL_OUTPUT_INVALID.*2 channels"):
        answer(load_model(written.spec), scan("HFS", channels=4))
    wrong = changed(written, channels={0: 1, 5: 2})
    with pytest.raises(ModelError, match="MODEL_OUTPUT_INVALID"):
        answer(load_model(wrong), scan("HFS", channels=4))


def test_a_recipe_says_which_region_is_which(trained_regions: State, tmp_path: Path) -> None:
    whole, channels = REGIONS["fast, logits"], bundles.CHANNELS
    named = {"mode": "auto", "channels": {0: 2, 1: 1}}
    written = write_bundle(tmp_path, whole, trained_regions, channels=channels, bundle=named)
    model, volumes = load_model(written.spec), scan("HFS", channels=4)
    assert isinstance(model, NetworkModel)
    recipe = model.recipe.model_dump()
    for output, first in (([2, 1], 2), (None, 1)):
        own = {**recipe, "output": {**recipe["output"], "channels": output}}
        bare = load_model(changed(written, recipe=own))
        assert isinstance(bare, NetworkModel)
        inner_first = answer(bare, volumes)
        assert dice(inner_first == 3 - first, bundles.truth(volumes[0]) >= 1) > 0.7, "the outer one covers"
        assert (inner_first == first).sum() < 0.02 * (inner_first > 0).sum()


def test_pieces_are_those_of_the_structure_that_a_channel_is(trained: State, tmp_path: Path) -> None:
    largest = step("KeepLargestConnectedComponentd", "pred", applied_labels=1)
    whole = config([RAS, SPACING, SCALE], [*USUAL_POST[:3], largest])
    swapped = write_bundle(tmp_path, whole, trained, bundle={"mode": "fast", "channels": {1: 2, 2: 1}})
    model = load_model(swapped.spec)
    assert isinstance(model, NetworkModel)
    assert [keep.structures for keep in model.recipe.after] == [(2,)]
    merged = changed(swapped, 1, mode="auto", channels={1: 1, 2: 1})
    assert isinstance(load_model(merged), CompatibleModel)


def test_a_recipe_that_cannot_say_it_is_left_to_monai(trained: State, tmp_path: Path) -> None:
    finest = step("Spacingd", pixdim=[0.001, 2.0, 2.0], mode="bilinear")
    for name, transform in (("grid", finest), ("axes", step("Orientationd", axcodes="LLL"))):
        whole = config([RAS, transform, SCALE] if name == "grid" else [transform, SCALE])
        spec = write_bundle(tmp_path / name, whole, trained, bundle={"mode": "fast"}).spec
        with pytest.raises(ModelError, match=r"MODEL_CARD_INVALID|MODEL_CONFIG_INVALID"):
            load_model(spec)


def test_scores_that_are_no_numbers_are_no_answer_of_a_bundle() -> None:
    found = np.full((3, 2, 2, 2), np.nan, np.float32)
    with pytest.raises(ModelError, match="SCORES_NOT_FINITE"):
        decide(found, False, None, 2)
    with pytest.raises(ModelError, match="MODEL_OUTPUT_INVALID"):
        decide(np.zeros((3, 2, 2, 2), np.float32), False, None, 3)


def changed(written: Written, count: int = 2, recipe: object = None, **bundle: object) -> ModelSpec:
    """The card of a written bundle with other structures, a recipe, or another section bundle."""
    fields = written.spec.model_dump(exclude={"digest"})
    fields |= {"structures": bundles.structures(count), "recipe": recipe}
    fields["bundle"] |= {"channels": {}, **bundle}
    spec = ModelSpec.model_validate(fields)
    spec._folder = written.spec.folder
    return spec


def test_a_bundle_without_inversion_is_brought_back_as_monai_saves_it(trained: State, tmp_path: Path) -> None:
    import nibabel as nib

    save = {**SAVE, "resample": True}
    written = write_bundle(tmp_path, config([RAS, SPACING, SCALE], [SOFTMAX, ARGMAX, save]), trained)
    volumes = scan("FFS")
    mine = answer(load_model(written.spec), volumes)
    monai_answer(written, {"image": write_images(tmp_path / "images", volumes)[0]}, tmp_path / "out")
    (saved,) = (tmp_path / "out").rglob("*.nii.gz")
    theirs = np.asarray(nib.load(saved).dataobj).transpose(2, 1, 0)
    assert same(mine, theirs) >= 0.999


def test_torchscript_and_wrapped_checkpoints(trained: State, tmp_path: Path) -> None:
    network = UNet(**_arguments(UNET)).eval()
    network.load_state_dict(trained)
    script = tmp_path / "model.ts"
    torch.jit.trace(network, torch.zeros(1, 1, 24, 24, 24)).save(script)
    whole, volumes = FAST["as the spleen bundle"], scan()
    wrapped = {"model": {f"module.{key}": value for key, value in trained.items()}, "epoch": 7}
    found = [
        answer(load_model(write_bundle(tmp_path / name, whole, state).spec), volumes)
        for name, state in (("plain", trained), ("script", script.read_bytes()), ("wrapped", wrapped))
    ]
    assert same(found[0], found[1]) >= 0.9999
    assert np.array_equal(found[0], found[2])


class Writes(torch.nn.Module):
    """A network that keeps a copy of the image."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        torch.save(image, "copy.pt")
        return image


def test_torchscript_that_writes_files_is_refused(tmp_path: Path) -> None:
    torch.jit.script(Writes()).save(tmp_path / "model.ts")
    whole, content = FAST["as the spleen bundle"], (tmp_path / "model.ts").read_bytes()
    with pytest.raises(ModelError, match=r"MODEL_FILE_UNSAFE.*torch\.save\("):
        load_model(write_bundle(tmp_path / "bundle", whole, content).spec)


def test_a_dynunet_with_random_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    network = DynUNet(**_arguments(DYNUNET))
    written = write_bundle(tmp_path, config([RAS, SPACING, SCALE], network=DYNUNET), network.state_dict())
    volumes = scan("prone")
    mine = answer(load_model(written.spec), volumes)
    theirs = monai_answer(
        written, {"image": write_images(tmp_path / "images", volumes)[0]}, tmp_path / "out"
    )[0]
    assert float((mine == theirs).mean()) >= 0.999


# Place


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_voxels_and_affine_go_there_and_back(orientation: str) -> None:
    (volume,) = scan(orientation)
    image = as_tensors([volume], ["image"], "image")["image"]
    index = np.array([3, 1, 2])  # column, row, slice
    place = image.affine.numpy() @ [*index, 1]
    lps = volume.geometry.index_to_lps @ [*index[::-1], 1]
    assert np.allclose(place[:3], lps[:3] * (-1, -1, 1))
    assert np.array_equal(on_source(image, volume)[0], volume.voxels)


# Code of a bundle

ADD = "import numpy\nfrom scripts.part import AMOUNT\n\ndef change(x):\n    return x + AMOUNT\n"


def scripted(folder: Path, state: State, amount: str) -> Written:
    change = step("Lambdad", func="$change")
    whole = config([RAS, SPACING, SCALE, change], imports=["$from scripts.change import change"])
    extra = {"scripts/change.py": ADD, "scripts/part.py": f"AMOUNT = {amount}\n"}
    return write_bundle(folder, whole, state, extra=extra)


def test_scripts_of_two_bundles_do_not_meet(trained: State, tmp_path: Path) -> None:
    first = load_model(scripted(tmp_path / "a", trained, "0.0").spec)
    second = load_model(scripted(tmp_path / "b", trained, "5.0").spec)
    plain = load_model(write_bundle(tmp_path, COMPATIBLE["an expression"], trained).spec)
    volumes = scan()
    assert np.array_equal(answer(first, volumes), answer(plain, volumes))
    assert not np.array_equal(answer(second, volumes), answer(plain, volumes))


def test_a_changed_script_is_not_run(trained: State, tmp_path: Path) -> None:
    written = scripted(tmp_path, trained, "0.0")
    (written.folder / "scripts/part.py").write_text("raise SystemExit('ran')\n")
    with pytest.raises(ModelError, match="MODEL_FILE_CHANGED"):
        load_model(written.spec)


def test_a_script_that_is_not_pinned_is_not_found(trained: State, tmp_path: Path) -> None:
    written = scripted(tmp_path, trained, "0.0")
    kept = {name: digest for name, digest in written.spec.files.items() if name != "scripts/part.py"}
    spec = written.spec.model_copy(update={"files": kept})
    with pytest.raises(ModelError, match=r"No module named 'scripts.part'"):
        load_model(spec)


OUTSIDE = {
    "absolute": config([RAS, SCALE], network={**UNET, "act": "$open('/etc/passwd').read()"}),
    "above": config([RAS, SCALE], network={**UNET, "act": "$open(@bundle_root + '/../other/x').read()"}),
    "by reference": config(
        [RAS, SCALE, step("Lambdad", func="$torch.jit.load(@other)")], other="/opt/other.ts"
    ),
    "another file": config([RAS, SCALE], inferer={"_target_": "%/etc/inferer.json::a"}),
    "the network": config([RAS, SCALE, step("Lambdad", func="$fetch('https://example.org/x')")]),
    "not pinned": config([RAS, SCALE], network={**UNET, "act": "$open(@bundle_root + '/models/other.pt')"}),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_bundle_does_not_reach_for_other_files(name: str, trained: State, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="MODEL_CONFIG_OUTSIDE"):
        load_model(write_bundle(tmp_path, OUTSIDE[name], trained).spec)


def test_wrong_bundles_say_what_is_wrong(trained: State, tmp_path: Path) -> None:
    def code(name: str, whole: Mapping[str, Any], state: State = trained, **more: Any) -> str:
        with pytest.raises(ModelError) as error:
            load_model(write_bundle(tmp_path / name, whole, state, **more).spec)
        return error.value.code

    plain = config([RAS, SCALE])
    without = {key: value for key, value in plain.items() if not key.startswith("network")}
    assert code("a", without) == "MODEL_CONFIG_INVALID"
    assert code("b", config([RAS, SCALE], network={**UNET, "channels": [4, 8]})) == "MODEL_WEIGHTS_MISMATCH"
    assert code("c", config([RAS, SCALE], network={"_target_": "NoNet"})) == "MODEL_CONFIG_INVALID"
    assert code("d", config([SCALE]), bundle={"mode": "fast"}) == "MODEL_CARD_INVALID"
    assert code("e", plain, bundle={"channels": {1: 9}}) == "MODEL_CARD_INVALID"
    assert code("g", plain, bundle={"channels": {1: 1, 2: -2}}) == "MODEL_CARD_INVALID"
    assert code("h", plain, bundle={"channels": {1: 1}}) == "MODEL_CARD_INVALID", "2 is never found"
    assert code("i", plain, bundle={"channels": {0: 1, 1: 2}}) == "MODEL_OUTPUT_INVALID", "of three channels"
    assert code("j", plain, number_of_structures=1) == "MODEL_OUTPUT_INVALID"
    assert code("f", plain, bundle={"configuration": "configs/other.json"}) == "MODEL_FILE_NOT_PINNED"


def test_a_transform_that_fails_is_named(trained: State, tmp_path: Path) -> None:
    broken = config([RAS, SCALE, step("Lambdad", func="$lambda x: x.no_such_thing")])
    model = load_model(write_bundle(tmp_path, broken, trained).spec)
    with pytest.raises(ModelError, match=r"MODEL_RUN_FAILED.*Lambdad.*no_such_thing"):
        answer(model, scan())


# Steps


@pytest.mark.parametrize("mode", ["fast", "compatible"])
def test_it_rests_between_tiles_and_can_be_given_up(mode: str, trained: State, tmp_path: Path) -> None:
    written = write_bundle(tmp_path, FAST["as the spleen bundle"], trained, bundle={"mode": mode})
    model, volumes = load_model(written.spec), scan()
    steps = model.steps(volumes, RunContext(deterministic=True))
    seen = [next(steps).fraction for _ in range(4)]
    assert seen == sorted(seen)
    whole = answer(model, volumes)  # another one overtakes while the first rests
    assert np.array_equal(_end(steps).labels, whole)

    threads = threading.active_count()
    given_up = model.steps(volumes, RunContext())
    for _ in range(4):
        next(given_up)
    given_up.close()
    assert threading.active_count() == threads, "no thread is left behind"


def test_on_a_higher_rung_it_asks_for_one_tile_at_a_time(trained: State, tmp_path: Path) -> None:
    written = write_bundle(tmp_path, FAST["as the spleen bundle"], trained, bundle={"mode": "compatible"})
    model, volumes = load_model(written.spec), scan()
    ends = [_end(model.steps(volumes, RunContext(rung=rung))).labels for rung in (0, 2)]
    counts = [sum(1 for _ in model.steps(volumes, RunContext(rung=rung))) for rung in (0, 2)]
    assert np.array_equal(*ends)
    assert counts[1] == counts[0] + 4, "8 tiles, of which 2 went together"
    assert model.needed_bytes((100, 100, 100), (1.0, 1.0, 1.0)) > 4e6
