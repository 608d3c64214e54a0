"""A network of images sees the slices that its recipe names, turned as it says, however they were stored."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ai.inference.engine import NetworkModel, Networks
from ai.model import Recipe
from ai.volume import Volume
from tests import small_models

# Rows and columns as on a screen: axial with the front above, coronal and sagittal with the head above, and
# the patient's right, or front, on the left.
STACKS = {"axial": "SPL", "coronal": "PIL", "sagittal": "LIP"}
SHAPE = (5, 7, 9)  # towards S, P and L
SPACING_MM = (3.0, 0.8, 0.7)
# Where the axes of a stack lie in (S, P, L), and whether they run backwards there.
IN_PATIENT = {"axial": ((0, 1, 2), ()), "coronal": ((1, 0, 2), (1,)), "sagittal": ((2, 0, 1), (1,))}

stored = st.sampled_from(list(product(permutations(range(3)), product((False, True), repeat=3))))


def patient() -> npt.NDArray[np.int16]:
    """Values that no flip, turn or shift maps onto themselves, ``(S, P, L)``."""
    return np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)


def stack_of(name: str, array: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The slices of an array ``(S, P, L)`` as the network must see them."""
    axes, reversed_axes = IN_PATIENT[name]
    return np.flip(array.transpose(axes), reversed_axes)


def scanned(way: tuple[tuple[int, ...], tuple[bool, ...]]) -> Volume:
    """The patient stored with its axes in another order and direction."""
    order, backwards = way
    matrix = np.zeros((4, 4))
    matrix[[2, 1, 0], [0, 1, 2]] = SPACING_MM  # columns: steps towards S, P, L in LPS
    matrix[3, 3] = 1.0
    matrix = matrix[:, [*order, 3]]
    voxels = patient().transpose(order)
    for axis, is_reversed in enumerate(backwards):
        if is_reversed:
            voxels = np.flip(voxels, axis)
            matrix[:3, 3] += (voxels.shape[axis] - 1) * matrix[:3, axis]
            matrix[:3, axis] *= -1.0
    return Volume(np.ascontiguousarray(voxels), small_models.grid(matrix, voxels.shape))


def in_patient(way: tuple[tuple[int, ...], tuple[bool, ...]], labels: npt.NDArray[np.uint8]) -> npt.NDArray:  # type: ignore[type-arg]
    """Labels of a stored volume as ``(S, P, L)``."""
    order, backwards = way
    turned = np.flip(labels, [axis for axis, is_reversed in enumerate(backwards) if is_reversed])
    return turned.transpose(np.argsort(order))


class Corner:
    """A network that marks the upper left quarter of each image, and remembers what it was shown."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.extend(images[:, 0])
        rows, columns = images.shape[2:]
        scores = torch.zeros((len(images), 2, rows, columns))
        scores[:, 1] = -1.0
        scores[:, 1, : (rows + 1) // 2, : columns // 3] = 1.0
        return scores


@pytest.mark.parametrize("name", STACKS)
@settings(max_examples=48)
@given(way=stored, batch=st.integers(1, 12))
def test_every_stored_orientation_gives_the_network_the_same_slices_and_the_patient_the_same_labels(
    name: str, way: tuple[tuple[int, ...], tuple[bool, ...]], batch: int
) -> None:
    network = Corner()
    recipe = Recipe.model_validate(
        {
            "dimensions": 2,
            "grid": {"axes": STACKS[name]},
            "tiles": {"size": None, "batch": batch, "weighting": "constant"},
            "precision": "float32",
        }
    )
    model = NetworkModel(
        small_models.card("corner", "body"), recipe, Networks((network,), 0, "float32"), "cpu"
    )
    labels = small_models.predict(model, scanned(way)).labels
    expected = stack_of(name, patient())
    np.testing.assert_array_equal(torch.stack(network.seen).numpy(), expected)
    marked = np.zeros(expected.shape, np.uint8)
    marked[:, : (expected.shape[1] + 1) // 2, : expected.shape[2] // 3] = 1
    np.testing.assert_array_equal(stack_of(name, in_patient(way, labels)), marked)
