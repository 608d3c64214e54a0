"""Pipelines in the model process share what their localisers find on one image, and never on another."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from ai.loaders import load_model
from ai.model import Model, Prediction
from ai.volume import Volume
from gateway.modelhost.answers import Answers
from gateway.modelhost.protocol import Predict, Predicted
from gateway.modelhost.running import Run
from gateway.modelhost.share import describe, labels_in, lend, lend_volume
from tests import small_models
from tests.pipelines import Bright, Halves, write_network, write_pipeline

KEY = ("localiser", "0" * 64)


def image(value: int = 7, step_mm: float = 1.0) -> Volume:
    return small_models.volume_of(np.full((4, 6, 8), value, np.int16), (step_mm, 1.0, 1.0))


def answer(size: int = 192) -> Prediction:
    return Prediction(np.zeros(size, np.uint8))


def test_the_same_image_has_the_same_answers_and_any_other_has_its_own() -> None:
    answers = Answers(most_images=10)
    answers.of([image()])[KEY] = answer()
    assert KEY in answers.of([image()])
    for other in (image(8), image(step_mm=2.0), replace(image(), unit="")):
        assert KEY not in answers.of([other])
    assert KEY not in answers.of([image(), image()])
    assert KEY in answers.of([image()])


def test_the_oldest_images_are_forgotten() -> None:
    answers = Answers(most_images=2)
    for value in (1, 2, 1, 3):
        answers.of([image(value)]).setdefault(KEY, answer())
    assert KEY in answers.of([image(1)])
    assert KEY not in answers.of([image(2)])


def test_large_answers_push_out_others_but_not_their_own() -> None:
    answers = Answers(most_bytes=500)
    for value in (1, 2, 3):
        answers.of([image(value)])[KEY] = answer(300)
    assert KEY not in answers.of([image(1)])
    assert KEY in answers.of([image(3)])
    assert KEY in answers.of([image(3)])


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """Two pipelines that look for the same thing first."""
    folder = tmp_path_factory.mktemp("models")
    write_network(folder, "bright", Bright(), "bone")
    write_network(folder, "halves", Halves(), "left_eyeball", "right_eyeball")
    specs = []
    for key in ("left_eyeball", "right_eyeball"):
        half = {"name": "half", "model": "halves", "inside": "first", "keep": {key: key}}
        stages = [{"name": "first", "model": "bright"}, half]
        specs.append(write_pipeline(folder, f"to-{key.partition('_')[0]}", (key,), stages))
    return [load_model(spec, "cpu", small_models.finder(folder)) for spec in specs]


def predicted(model: Model, volume: Volume, answers: Answers) -> tuple[Predicted, npt.NDArray[np.uint8]]:
    """What the model process does with a request, step by step."""
    request = Predict(1, model.spec.id, (), model.spec.digest, "normal", (describe(volume),))
    handles = (lend_volume(volume), lend(volume.voxels.size))
    run = Run(request, handles, answers, deterministic=False)
    run.begin(model)
    while not isinstance(told := run.step(), Predicted):
        pass
    labels = labels_in(handles[-1], volume.voxels.shape).copy()
    run.close()
    return told, labels


def test_two_pipelines_on_one_series_run_their_localiser_once(pipelines: list[Model]) -> None:
    voxels = np.zeros((20, 24, 28), np.int16)
    voxels[5:12, 6:14, 8:20] = 200
    volume, answers = small_models.volume_of(voxels), Answers()
    shared, found = [], np.zeros(voxels.shape, np.uint8)
    for model in pipelines:
        told, labels = predicted(model, volume, answers)
        stages = told.facts["stages"]
        shared.append(stages[0]["shared"])  # type: ignore[index]
        found |= labels
    assert shared == [False, True]
    np.testing.assert_array_equal(found > 0, voxels > 0)  # one half by each
    other = small_models.volume_of(np.ascontiguousarray(voxels[::-1]))
    told, _ = predicted(pipelines[1], other, answers)
    assert told.facts["stages"][0]["shared"] is False  # type: ignore[index]
