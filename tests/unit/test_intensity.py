"""Values are changed as MONAI's transforms and nnU-Net's normalisations change them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai import transforms
from nnunetv2.preprocessing.normalization.default_normalization_schemes import (
    CTNormalization,
    ZScoreNormalization,
)

from ai.inference.intensity import change
from ai.model.recipe import Clip, MinimumMaximum, Percentiles, Rescale, Standardise


@pytest.fixture
def image() -> np.ndarray:
    rng = np.random.default_rng(3)
    values = (rng.normal(size=(12, 13, 14)) * 300 + 40).astype(np.float32)
    values[rng.random(values.shape) < 0.3] = 0.0
    return values


def changed(image: np.ndarray, *operations: object) -> np.ndarray:
    return change(torch.from_numpy(image.copy()), operations).numpy()  # type: ignore[arg-type]


CASES = {
    "rescale": (
        Rescale(source=(-57, 164)),
        transforms.ScaleIntensityRange(-57, 164, 0.0, 1.0),
    ),
    "rescale and clip": (
        Rescale(source=(-964, 1054), target=(-1, 1), clip=True),
        transforms.ScaleIntensityRange(-964, 1054, -1.0, 1.0, clip=True),
    ),
    "standardise": (Standardise(), transforms.NormalizeIntensity()),
    "standardise what is not 0": (Standardise(nonzero=True), transforms.NormalizeIntensity(nonzero=True)),
    "standardise by numbers": (
        Standardise(mean=80.0, sd=120.0),
        transforms.NormalizeIntensity(subtrahend=80.0, divisor=120.0),
    ),
    "minimum and maximum": (MinimumMaximum(target=(-1, 1)), transforms.ScaleIntensity(-1.0, 1.0)),
    "percentiles": (
        Percentiles(low=1, high=99.5, clip=True),
        transforms.ScaleIntensityRangePercentiles(1, 99.5, 0.0, 1.0, clip=True),
    ),
    "percentiles without clipping": (
        Percentiles(low=5, high=95, target=(0, 2), clip=False),
        transforms.ScaleIntensityRangePercentiles(5, 95, 0.0, 2.0),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_as_monai(image: np.ndarray, name: str) -> None:
    operation, theirs = CASES[name]
    expected = theirs(torch.from_numpy(image.copy())[None])[0].numpy()
    np.testing.assert_allclose(changed(image, operation), expected, rtol=1e-4, atol=2e-5)


def test_ct_normalisation_of_nnunet(image: np.ndarray) -> None:
    numbers = {"mean": 65.0, "std": 130.0, "percentile_00_5": -200.0, "percentile_99_5": 500.0}
    expected = CTNormalization(False, numbers).run(image.copy())
    ours = changed(image, Clip(low=-200, high=500), Standardise(mean=65, sd=130))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_z_score_of_nnunet(image: np.ndarray) -> None:
    expected = ZScoreNormalization(False, {}).run(image.copy())
    np.testing.assert_allclose(changed(image, Standardise()), expected, atol=1e-4)


@pytest.mark.parametrize("operation", [Standardise(), MinimumMaximum(), Percentiles(low=1, high=99)])
def test_a_flat_image_stays_finite(operation: object) -> None:
    assert np.isfinite(changed(np.full((4, 4, 4), 7.0, np.float32), operation)).all()
