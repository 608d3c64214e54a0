"""Networks of images over a stack of slices: batches, tiles within a slice, resampling within it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from ai.errors import ModelError
from ai.inference.engine import NetworkModel, Networks
from ai.loaders import load_model
from ai.model import Recipe
from ai.volume import Volume
from tests import small_models
from tests.model_files import write_model

STACK = (60, 128, 128)
CLASSES = 4


class Whole(nn.Module):
    """A small U-Net of whole numbers: its sums are exact, so that order and batch change no bit."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.down = nn.Conv2d(4, 8, 3, stride=2, padding=1)
        self.last = nn.Conv2d(12, CLASSES, 3, padding=1)
        for parameter in self.parameters():
            parameter.data = torch.randint(-1, 2, parameter.shape).float()
            parameter.requires_grad_(requires_grad=False)

    def forward(self, images: Tensor) -> Tensor:
        fine = torch.relu(self.first(images))
        coarse = torch.relu(self.down(fine))
        return self.last(torch.cat([fine, nn.functional.interpolate(coarse, scale_factor=2.0)], 1))  # type: ignore[no-any-return]


def image(shape: tuple[int, int, int] = STACK) -> Volume:
    voxels = np.random.default_rng(7).integers(-8, 9, shape).astype(np.int16)
    return small_models.volume_of(voxels, (3.0, 1.0, 1.0))


def model_of(network: nn.Module, **changes: object) -> NetworkModel:
    tiles = {"size": None, "multiple_of": 2, "weighting": "constant", **changes.pop("tiles", {})}  # type: ignore[dict-item]
    recipe = Recipe.model_validate({"dimensions": 2, "tiles": tiles, "precision": "float32", **changes})
    return NetworkModel(
        small_models.card("slices", "body", "left_lung", "right_lung"),
        recipe,
        Networks((network,), 0, "float32"),
        "cpu",
    )


def slice_by_slice(network: nn.Module, volume: Volume) -> npt.NDArray[np.uint8]:
    """The plain way: one image after the other, the highest score."""
    with torch.no_grad():
        planes = [
            network(torch.from_numpy(plane).float()[None, None])[0].argmax(0) for plane in volume.voxels
        ]
    return torch.stack(planes).numpy().astype(np.uint8)


@pytest.fixture(scope="module")
def expected() -> npt.NDArray[np.uint8]:
    return slice_by_slice(Whole(), image())


@pytest.mark.parametrize("batch", [1, 16, 64])
def test_a_real_stack_is_the_same_in_any_batch_as_slice_by_slice(
    expected: npt.NDArray[np.uint8], batch: int
) -> None:
    found = small_models.predict(model_of(Whole(), tiles={"batch": batch}), image())
    np.testing.assert_array_equal(found.labels, expected)
    assert found.facts["tiles"] == STACK[0]
    assert set(np.unique(found.labels)) == set(range(CLASSES))


@pytest.mark.parametrize("rule", ["nnunet", "monai"])
def test_each_slice_is_seen_once_though_tiles_overlap_within_it(
    expected: npt.NDArray[np.uint8], rule: str
) -> None:
    tiles = {"size": (1, 128, 96), "step": 0.5, "rule": rule, "weighting": "gaussian", "batch": 8}
    found = small_models.predict(model_of(Whole(), tiles=tiles), image())
    assert found.facts["tiles"] == STACK[0] * 2
    np.testing.assert_array_equal(found.labels[:, :, :24], expected[:, :, :24])  # of one tile, off its edge


def test_pixels_are_resampled_within_slices_and_never_between_them() -> None:
    class Bright(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (32, 24)
            return torch.cat([torch.zeros_like(images), images - 50.0], 1)

    voxels = np.zeros((6, 64, 48), np.int16)
    voxels[3, 20:40, 10:30] = 100
    model = model_of(Bright(), grid={"axes": "SPL", "spacing_mm": (None, 2.0, 2.0)})
    found = small_models.predict(model, small_models.volume_of(voxels, (5.0, 1.0, 1.0))).labels
    np.testing.assert_array_equal(np.flatnonzero(found.any((1, 2))), [3])
    np.testing.assert_array_equal(found == 1, voxels == 100)


def test_an_exact_size_is_padded_and_taken_away_again() -> None:
    class Sees(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            assert images.shape[2:] == (80, 32)
            return torch.cat([torch.zeros_like(images), images - 50.0], 1)

    voxels = np.zeros((4, 64, 48), np.int16)
    voxels[1, 20:40, 12:30] = 100
    found = small_models.predict(
        model_of(Sees(), grid={"size": (None, 80, 32)}), small_models.volume_of(voxels)
    )
    np.testing.assert_array_equal(found.labels == 1, voxels == 100)


def test_an_exported_network_of_images_runs_from_its_card(
    tmp_path: Path, expected: npt.NDArray[np.uint8]
) -> None:
    content = small_models.exported(Whole(), torch.zeros(4, 1, 64, 48))
    spec = write_model(
        tmp_path,
        "exported-slices",
        {"network.pt2": content},
        loader="graph",
        structures=small_models.structures("body", "left_lung", "right_lung"),
        graph={"file": "network.pt2"},
        recipe={
            "dimensions": 2,
            "grid": {"axes": "SPL"},
            "tiles": {"size": None, "multiple_of": 2, "batch": 16},
            "precision": "float32",
        },
    )
    model = load_model(spec)
    np.testing.assert_array_equal(small_models.predict(model, image()).labels, expected)


def test_tiles_of_several_slices_are_refused_in_a_recipe_of_images() -> None:
    with pytest.raises(ValueError, match="starts with 1"):
        Recipe.model_validate({"dimensions": 2, "tiles": {"size": (3, 64, 64)}})


def test_an_answer_of_another_size_is_refused_by_name() -> None:
    class Half(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images[:, :, ::2]

    with pytest.raises(ModelError, match="NETWORK_OUTPUT_INVALID"):
        small_models.predict(model_of(Half()), image((3, 16, 16)))
