"""The whole way of a volume through a network, against MONAI's and a plain loop's."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Invertd, Orientationd, Spacingd
from scipy import ndimage
from torch import Tensor, nn

from ai.errors import ModelError
from ai.geometry import FrameRef, VolumeGeometry
from ai.inference.engine import NetworkModel, Networks
from ai.model import ModelSpec, Prediction, Recipe, RunContext, Step, run_to_end
from ai.volume import Volume

RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def geometry(shape: tuple[int, ...], spacing_mm: tuple[float, float, float]) -> VolumeGeometry:
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[3, 3] = 1.0
    frames = tuple(FrameRef(f"2.25.{index}") for index in range(shape[0]))
    origins = np.arange(shape[0])[:, None] * affine[:3, 0]
    return VolumeGeometry(affine, (shape[0], shape[1], shape[2]), frames, origins, "2.25.1")


def volume(shape=(40, 64, 56), spacing_mm=(2.0, 1.0, 1.0), seed: int = 0, unit: str = "HU") -> Volume:
    rng = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(rng.normal(size=shape), 3.0) * 8000
    voxels = (smooth + rng.normal(size=shape) * 30).astype(np.int16)
    return Volume(voxels, geometry(shape, spacing_mm), unit)


def card(classes: int, **fields: Any) -> ModelSpec:
    plain = {
        "id": "engine-test",
        "version": "1",
        "title": "Engine test",
        "loader": "network",
        "algorithm": "random weights",
        "manufacturer": "tests",
        "intended_use": "tests",
        "limits": [],
        "references": [],
        "licence": {"spdx": "Apache-2.0", "commercial": "yes"},
        "accepts": {"modalities": ["CT"]},
        "network": {"name": "none", "weights": ["none"]},
        "recipe": {"tiles": {"size": None}},
        "structures": [{"number": n, "key": f"s{n}", "label": f"S{n}"} for n in range(1, classes)],
    }
    return ModelSpec.model_validate(plain | fields)


def recipe(**fields: Any) -> Recipe:
    plain = {
        "grid": {"axes": "RAS", "spacing_mm": (1.5, 1.5, 1.5), "alignment": "first_voxel"},
        "intensity": [{"op": "rescale", "source": [-500, 500], "target": [-1, 1]}],
        "tiles": {"size": (24, 24, 24), "rule": "monai"},
        "precision": "float32",
    }
    return Recipe.model_validate(plain | fields)


def network(inputs: int = 1, classes: int = 5, flat: bool = False, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    conv = nn.Conv2d if flat else nn.Conv3d
    return nn.Sequential(conv(inputs, 8, 3, padding=1), nn.ReLU(), conv(8, classes, 3, padding=1)).eval()


def model(forward: Callable[[Tensor], Tensor], how: Recipe, classes: int = 5, **fields: Any) -> NetworkModel:
    return NetworkModel(card(classes, **fields), how, Networks((forward,), 1000), "cpu")


def run(subject: NetworkModel, *channels: Volume, **context: Any) -> Prediction:
    return run_to_end(subject, channels, lambda _stage, _share: None, RunContext(**context))


def monai_labels(given: Volume, forward: Callable[[Tensor], Tensor], how: Recipe) -> np.ndarray:
    """The same by MONAI: transforms, sliding window, inversion of all scores, argmax."""
    affine = torch.from_numpy(RAS @ given.geometry.index_to_lps)
    image = MetaTensor(torch.from_numpy(given.voxels.astype(np.float32))[None], affine=affine)
    before = Compose(
        [
            Orientationd(keys="image", axcodes="RAS", labels=None),
            Spacingd(keys="image", pixdim=how.grid.spacing_mm, mode="bilinear"),
        ]
    )
    data = before({"image": image})
    seen = data["image"] / 500
    inferer = SlidingWindowInferer(
        how.tiles.size, 1, 1 - how.tiles.step, mode=how.tiles.weighting, cval=float(how.tiles.pad)
    )
    with torch.no_grad():
        scores = inferer(seen[None], forward)
    data["scores"] = MetaTensor(scores[0], meta=data["image"].meta)
    data["scores"].applied_operations = data["image"].applied_operations
    back = Invertd(keys="scores", transform=before, orig_keys="image", nearest_interp=False)
    return back(data)["scores"].argmax(0).numpy().astype(np.uint8)


@pytest.mark.parametrize("weighting", ["gaussian", "constant"])
@pytest.mark.parametrize("shape", [(40, 64, 56), (9, 40, 90)])
def test_the_labels_are_those_of_monai(weighting: str, shape: tuple[int, int, int]) -> None:
    given, forward = volume(shape), network()
    how = recipe(tiles={"size": (24, 24, 24), "rule": "monai", "step": 0.75, "weighting": weighting})
    found = run(model(forward, how), given)
    expected = monai_labels(given, forward, how)
    assert len(np.unique(expected)) > 2
    assert (found.labels == expected).mean() > 0.9999
    assert found.facts["precision"] == "float32"


def plain_nnunet(given: Volume, forwards: list[nn.Module], mirrors: list[tuple[int, ...]]) -> np.ndarray:
    """nnU-Net's order of work, everything at once: crop, normalise, whole image, average, argmax, uncrop."""
    inside = np.nonzero(given.voxels)
    box = tuple(slice(int(axis.min()), int(axis.max()) + 1) for axis in inside)
    image = torch.from_numpy(given.voxels[box].astype(np.float32))
    image = ((image - image.mean()) / image.std(correction=0))[None, None]
    with torch.no_grad():
        scores = [f(image.flip(axes)).flip(axes) for f in forwards for axes in mirrors]
    labels = np.zeros(given.voxels.shape, np.uint8)
    labels[box] = torch.stack(scores).mean(0)[0].argmax(0).numpy()
    return labels


def test_folds_and_mirrors_are_averaged() -> None:
    given = volume((20, 24, 28))
    given.voxels[:3] = given.voxels[:, :, -5:] = 0
    forwards = [network(seed=seed) for seed in range(3)]
    how = recipe(
        grid={"crop": "nonzero", "intensity": "before"},
        intensity=[{"op": "standardise"}],
        tiles={"size": None, "mirror_axes": (0, 2), "weighting": "constant"},
    )
    subject = NetworkModel(card(5), how, Networks(tuple(forwards), 1), "cpu")
    found = run(subject, given)
    expected = plain_nnunet(given, forwards, [(), (2,), (4,), (2, 4)])
    assert (found.labels == expected).mean() > 0.9999
    assert found.facts["crop"][0] == [3, 20]
    assert not np.array_equal(found.labels, plain_nnunet(given, forwards[:1], [()]))


def test_several_channels_each_with_its_own_values() -> None:
    first, second = volume(seed=1), volume(seed=2)
    how = recipe(
        grid={},
        intensity=(),
        channel_intensity=[
            [{"op": "rescale", "source": [0, 100]}],
            [{"op": "rescale", "source": [0, 1000]}],
        ],
    )
    seen = []

    def forward(tile: Tensor) -> Tensor:
        seen.append(tile)
        return torch.cat([tile[:, :1] * 0, tile], 1)

    spec_fields = {"accepts": {"modalities": ["MR"], "channels": ("T1", "T2")}}
    found = run(model(forward, how, 3, **spec_fields), first, second)
    scores = np.stack([first.voxels * 0.0, first.voxels / 100, second.voxels / 1000])
    assert (found.labels == scores.argmax(0)).mean() > 0.9999
    with pytest.raises(ModelError, match="CHANNELS_DIFFER"):
        run(model(forward, how, 3, **spec_fields), first, volume((10, 20, 20)))


def test_a_network_of_images_sees_batches_of_slices() -> None:
    given, forward = volume((13, 40, 36)), network(flat=True)
    shapes = []

    def spied(tile: Tensor) -> Tensor:
        shapes.append(tuple(tile.shape))
        return forward(tile)

    how = recipe(
        dimensions=2,
        grid={},
        tiles={"size": None, "batch": 4, "multiple_of": 4, "weighting": "constant"},
    )
    found = run(model(spied, how), given)
    assert shapes == [(4, 1, 40, 36)] * 3 + [(1, 1, 40, 36)]
    with torch.no_grad():
        expected = forward(torch.from_numpy(given.voxels.astype(np.float32))[:, None] / 500).argmax(1)
    assert (found.labels == expected.numpy()).mean() > 0.9999


def test_numbers_about_the_whole_image() -> None:
    how = recipe(grid={}, tiles={"size": None}, output={"kind": "scalar", "scalars": ("mean", "maximum")})
    given = volume((8, 16, 16))
    found = run(model(lambda x: torch.stack([x.mean(), x.max()])[None], how), given)
    assert found.scalars == pytest.approx(
        {"mean": given.voxels.mean() / 500, "maximum": given.voxels.max() / 500}, rel=1e-4
    )
    assert not found.labels.any()


def test_an_exact_size_is_padded_and_cut_around_the_centre() -> None:
    given = volume((20, 48, 30), (1.0, 1.0, 1.0))
    how = recipe(grid={"size": (32, 32, 30)}, tiles={"size": None})
    shapes = []

    def forward(tile: Tensor) -> Tensor:
        shapes.append(tuple(tile.shape[2:]))
        return torch.cat([tile * 0 - 1, tile * 0 + 1], 1)

    found = run(model(forward, how, 2), given)
    assert shapes == [(32, 32, 30)]
    assert found.labels[:, 8:40].all()
    assert not found.labels[:, :8].any()
    assert not found.labels[:, 40:].any()


@pytest.mark.parametrize(("pad", "expected"), [(-3.0, -3.0), ("minimum", None), ("edge", None)])
def test_padding_to_a_tile(pad: float | str, expected: float | None) -> None:
    given = volume((4, 30, 30))
    seen = []

    def forward(tile: Tensor) -> Tensor:
        seen.append(tile[0, 0].clone())
        return torch.cat([tile, -tile], 1)

    run(model(forward, recipe(grid={}, tiles={"size": (10, 30, 30), "pad": pad}), 2), given)
    tile, image = seen[0].numpy(), (given.voxels / 500).astype(np.float32)
    np.testing.assert_allclose(tile[3:7], image, atol=1e-5)
    if pad == "edge":
        np.testing.assert_allclose(tile[:3], np.repeat(image[:1], 3, 0), atol=1e-5)
    else:
        np.testing.assert_allclose(tile[:3], image.min() if expected is None else expected, atol=1e-5)


def phantom() -> Volume:
    """A body of soft tissue beside a table, in air."""
    _, y, x = np.ogrid[:30, :100, :100]
    voxels = np.full((30, 100, 100), -1000, np.int16)
    body = ((y - 50) / 25) ** 2 + ((x - 50) / 35) ** 2 < 1
    voxels[np.broadcast_to(body, voxels.shape)] = 40
    voxels[:, 85:87, 10:90] = 100
    return Volume(voxels, geometry(voxels.shape, (3.0, 3.0, 3.0)))


def test_the_body_is_cut_out_and_the_table_is_not_seen() -> None:
    given = phantom()
    how = recipe(grid={"crop": "body", "crop_margin_mm": 6.0}, tiles={"size": (16, 16, 16)})
    found = run(model(lambda x: torch.cat([-0.1 - x, x + 0.1], 1), how, 2), given)
    rows, columns = found.facts["crop"][1:]
    assert found.facts["crop"][0] == [0, 30]
    assert 15 <= rows[0] <= 25
    assert 75 <= rows[1] <= 85
    assert 5 <= columns[0] <= 15
    assert np.array_equal(found.labels[:, :85] == 1, given.voxels[:, :85] > -50)
    assert not found.labels[:, 85:].any()


def test_pieces_of_the_body_are_kept_but_specks_are_not() -> None:
    given = phantom()
    voxels = np.full(given.voxels.shape, -1000, np.int16)
    voxels[:, 20:40, 10:30] = voxels[:, 60:80, 70:90] = 40  # two legs
    voxels[14:18, 92:96, 2:6] = 40
    how = recipe(grid={"crop": "body"}, tiles={"size": (16, 16, 16)})
    found = run(model(lambda x: torch.cat([-x, x], 1), how, 2), replace(given, voxels=voxels))
    assert found.facts["crop"][1][0] <= 20
    assert 80 <= found.facts["crop"][1][1] <= 90


def test_an_empty_volume_is_no_error() -> None:
    given = replace(phantom(), voxels=np.zeros((30, 100, 100), np.int16))
    for crop in ("nonzero", "foreground", "body"):
        how = recipe(grid={"crop": crop}, tiles={"size": (16, 16, 16), "step": 1.0})
        assert not run(model(lambda x: torch.cat([x + 1, x], 1), how, 2), given).labels.any()


def test_a_grid_beyond_reason_is_refused_before_memory_is_spent() -> None:
    how = recipe(grid={"spacing_mm": (0.01, 0.01, 0.01)})
    with pytest.raises(ModelError, match=r"GRID_TOO_LARGE.* × .* voxels.*0\.01") as refused:
        run(model(network(), how), volume())
    assert refused.value.code == "GRID_TOO_LARGE"


def test_fractions_rise_and_the_last_is_1() -> None:
    steps = model(network(), recipe()).steps([volume()], RunContext())
    seen: list[Step] = list(steps)
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert len([step for step in seen if step.stage == "tiles"]) == 36


class Piecewise:
    """A network that rests twice, and says whether torch was set for inference while it worked."""

    def __init__(self, inner: nn.Module) -> None:
        self.inner = inner
        self.settings: list[tuple[bool, bool]] = []

    def __call__(self, _given: Tensor) -> Tensor:
        raise AssertionError("it is asked for pieces")

    def pieces(self, given: Tensor) -> Generator[None, None, Tensor]:
        for _ in range(2):
            self._note()
            yield
        self._note()
        scores: Tensor = self.inner(given)
        return scores

    def _note(self) -> None:
        self.settings.append((torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()))


def test_a_network_in_pieces_rests_between_them_and_holds_nothing_global_meanwhile() -> None:
    inner = network()
    how = recipe(tiles={"size": None})
    subject = Piecewise(inner)
    seen: list[tuple[bool, bool]] = []

    def progress(_stage: str, _share: float) -> None:
        seen.append((torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()))

    found = run_to_end(model(subject, how), [volume()], progress, RunContext(deterministic=True))
    whole = run(model(inner, how), volume(), deterministic=True)
    assert np.array_equal(found.labels, whole.labels)
    assert subject.settings == [(False, True)] * 3
    assert seen == [(True, False)] * 6  # prepare twice, two rests, the tile, the end


def test_mirrors_and_folds_rest_between_each_other() -> None:
    how = recipe(tiles={"size": None, "mirror_axes": [0, 1]})
    steps = model(network(), how).steps([volume()], RunContext())
    assert sum(1 for step in steps if step.stage == "tiles") == 4


def test_a_run_that_is_ended_gives_its_memory_back() -> None:
    kept: list[weakref.ref[Tensor]] = []
    plain = network()

    def forward(tile: Tensor) -> Tensor:
        kept.append(weakref.ref(tile._base if tile._base is not None else tile))
        return plain(tile)

    steps = model(forward, recipe()).steps([volume()], RunContext())
    for _ in range(5):
        next(steps)
    steps.close()
    gc.collect()
    assert kept
    assert all(reference() is None for reference in kept)


def test_sums_beyond_float16_are_made_again_in_float32() -> None:
    how = recipe(precision="float16", grid={}, tiles={"size": (16, 16, 16)})
    subject = NetworkModel(
        card(2),
        how,
        Networks((lambda x: torch.cat([x.float() * 0, x.float() * 1e5], 1),), 1, "float16"),
        "cpu",
    )
    given = volume((20, 20, 20))
    found = run(subject, given)
    assert found.facts["sums"] == "float32"
    assert np.array_equal(found.labels == 1, given.voxels > 0)


def test_scores_that_are_no_numbers_are_an_error() -> None:
    with pytest.raises(ModelError, match="SCORES_NOT_FINITE"):
        run(model(lambda x: torch.cat([x, x * math.nan], 1), recipe(), 2), volume())


@pytest.mark.parametrize(
    "forward", [lambda x: x[:, :, 1:], lambda x: x.repeat(1, 3, 1, 1, 1), lambda x: x.mean((2, 3, 4))]
)
def test_other_answers_than_the_recipe_says_are_an_error(forward: Callable[[Tensor], Tensor]) -> None:
    how = recipe(output={"channels": (0, 1)})
    with pytest.raises(ModelError, match="NETWORK_OUTPUT_INVALID"):
        run(model(forward, how, 2), volume())


@pytest.mark.parametrize("label", [-1.0, 3.0, 256.0, math.nan])
def test_labels_without_a_number_are_an_error(label: float) -> None:
    """As bytes they would be those of something else."""
    how = recipe(grid={}, output={"kind": "labels", "channels": (0, 2, 1)})
    found = run(model(lambda tile: torch.full_like(tile, 1.0), how, 3), volume((8, 16, 16)))
    assert set(np.unique(found.labels)) == {2}
    with pytest.raises(ModelError, match="NETWORK_OUTPUT_INVALID"):
        run(model(lambda tile: torch.full_like(tile, label), how, 3), volume((8, 16, 16)))


def test_deterministic_runs_have_the_same_bits_and_float32() -> None:
    given, forward = volume(), network()
    how = recipe(precision="auto")
    first, second = (run(model(forward, how), given, deterministic=True) for _ in range(2))
    assert np.array_equal(first.labels, second.labels)
    assert first.confidence == second.confidence
    assert first.facts["precision"] == first.facts["sums"] == "float32"
    assert first.facts["deterministic"] is True
    assert not torch.are_deterministic_algorithms_enabled()


def test_last_changes_keep_what_was_asked_for() -> None:
    voxels = np.zeros((12, 30, 30), np.int16)
    voxels[2:10, 2:14, 2:14] = 100
    voxels[5:7, 5:8, 5:8] = 0  # a hole
    voxels[4:6, 20:23, 20:23] = 100
    given = Volume(voxels, geometry(voxels.shape, (2.0, 1.0, 1.0)))

    def labels(*after: dict[str, object]) -> np.ndarray:
        how = recipe(grid={}, tiles={"size": (12, 30, 30)}, after=after)
        return run(model(lambda x: torch.cat([0.05 - x, x - 0.05], 1), how, 2), given).labels

    assert np.array_equal(labels() == 1, voxels == 100)
    assert labels({"op": "largest"})[4, 21, 21] == 0
    assert labels({"op": "fill_holes"})[5, 6, 6] == 1
    assert labels({"op": "drop_below_ml", "volume_ml": 0.035})[4, 21, 21] == 1
    assert labels({"op": "drop_below_ml", "volume_ml": 0.037})[4, 21, 21] == 0
