"""TotalSegmentator's table as cards, and tasks of several parts and of a localiser run end to end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from ai.errors import ModelError
from ai.loaders import load_model
from ai.loaders.nnunet_bodies import finish_bodies, labels_touch
from ai.loaders.nnunet_zoom import zoom_to
from ai.loaders.totalsegmentator.cards import card_fields, draft_task, results_folder
from ai.loaders.totalsegmentator.tasks import table
from ai.model import ModelSpec, Prediction, RunContext, pin, run_to_end
from ai.model.nnunet import VertebralBodies
from tests.nnunet_folders import (
    as_nnunet_reads,
    axial_volume,
    configuration,
    dataset,
    oracle,
    plans,
    smooth_image,
    write_results,
)

pytest.importorskip("nnunetv2", reason="the oracle nnunetv2 is not installed")
SPACING = (2.5, 0.8, 0.8)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("task", table().tasks)
def test_every_task_makes_a_card(task: str, tmp_path: Path) -> None:
    weights = empty_weights(task, tmp_path)
    found = card_fields(task, weights)
    spec = ModelSpec.model_validate({**found.fields, "id": "x", "files": pin(weights, tuple(found.files))})
    entry = table().task(task)
    assert [s.number for s in spec.structures] == list(range(1, len(entry.classes) + 1))
    for structure in spec.structures:
        assert structure.coded.category.value
    assert spec.accepts.modalities == (entry.modality,)
    assert (
        spec.licence.commercial
        == {"open": "yes", "contract": "contract", "non-commercial": "no"}[entry.licence]
    )
    assert spec.nnunet is not None
    painted = {number for part in spec.nnunet.parts for number in part.labels.values()}
    assert painted == set(range(1, len(entry.classes) + 1))
    assert (spec.nnunet.crop is None) == (entry.crop is None)
    assert "Apache License 2.0" in spec.licence.attribution


def test_table_is_that_of_the_version() -> None:
    assert table().source == "TotalSegmentator 2.18.0"
    assert len(table().tasks) == 61
    total = table().task("total")
    assert [network.id for network in total.networks] == [291, 292, 293, 294, 295]
    assert (total.step, total.resample_mm, len(total.classes)) == (0.8, 1.5, 117)
    vessels = table().task("lung_vessels").crop
    assert vessels is not None
    assert (vessels.task, vessels.margin_mm) == ("total_fast", 20.0)
    teeth = table().task("teeth").crop
    assert teeth is not None
    assert (teeth.task, teeth.margin_mm) == ("craniofacial_structures", 10.0)
    assert table().task("heartchambers_highres").licence == "contract"
    with pytest.raises(ModelError, match="Did you mean liver_vessels"):
        table().task("liver_vesels")


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="Dataset291_TotalSegmentator_part1_organs_1559subj"):
        draft_task("total", tmp_path)


def test_five_parts_are_merged_as_totalsegmentator_does(tmp_path: Path) -> None:
    spec = registered("total", tmp_path, spacing=1.5)
    image = np.round(smooth_image((20, 44, 42))).astype(np.int16)
    prediction = run(spec, image)
    expected = reference("total", tmp_path, image, resample=1.5)
    assert (prediction.labels != expected).mean() < 0.002
    assert len(np.unique(expected)) > 20
    assert len(prediction.facts["parts"]) == 5  # type: ignore[arg-type]


def test_a_task_looks_only_around_what_the_localiser_found(tmp_path: Path) -> None:
    spec = registered("liver_vessels", tmp_path, spacing=1.5, localiser=6.0)
    assert spec.nnunet is not None
    assert spec.nnunet.crop is not None
    image = np.round(smooth_image((26, 80, 78), sigma=6.0)).astype(np.int16)
    rough = reference("total_fastest", tmp_path, image, resample=6.0)
    wanted = sorted(set(np.unique(rough)) - {0}, key=lambda n: (rough == n).sum())[0]
    liver = spec.nnunet.crop.model_copy(update={"labels": (int(wanted),), "margin_mm": 5.0})
    spec = with_section(spec, spec.nnunet.model_copy(update={"crop": liver}))
    context = RunContext()
    prediction = run(spec, image, context)
    box = [
        slice(max(0, side.start - int(5.0 / mm)), min(n, side.stop + int(5.0 / mm)))
        for side, mm, n in zip(
            ndimage.find_objects((rough == wanted).astype(np.uint8))[0], SPACING, image.shape, strict=True
        )
    ]
    assert prediction.facts["region"] == [[side.start, side.stop] for side in box]
    inside = reference("liver_vessels", tmp_path, image[tuple(box)], resample=None)
    expected = np.zeros_like(rough)
    expected[tuple(box)] = inside
    assert expected.any()
    assert (prediction.labels != expected).mean() < 0.002
    assert [key[0] for key in context.shared] == ["nnunet"]
    again = run(spec, image, context)
    assert np.array_equal(again.labels, prediction.labels)
    absent = next(n for n in table().task("total_fastest").numbers.values() if n not in rough)
    nothing = liver.model_copy(update={"labels": (absent,)})
    empty = run(with_section(spec, spec.nnunet.model_copy(update={"crop": nothing})), image)
    assert not empty.labels.any()


def test_zoom_is_that_of_scipy() -> None:
    image = np.round(smooth_image((9, 31, 28))).astype(np.int16)
    volume = axial_volume(image, SPACING)
    zoom = zoom_to(volume, (1.1, 1.3, 1.5), whole_numbers=True)  # right-left, front-back, up-down
    seen = zoom.apply(volume, "cpu")
    factors = np.array(SPACING) / (1.5, 1.3, 1.1)
    theirs = ndimage.zoom(image.astype(np.float64), factors, order=1, mode="nearest").astype(np.int32)
    assert seen.voxels.shape == theirs.shape
    assert np.abs(seen.voxels - theirs).max() <= 1  # whole numbers that rounding took to either side
    assert (seen.voxels != theirs).mean() < 0.05
    assert np.allclose(seen.geometry.spacing_mm, (1.5, 1.3, 1.1))
    labels = (theirs > 60).astype(np.uint8)
    back = np.array(image.shape) / np.array(theirs.shape)
    assert np.array_equal(zoom.back(labels), ndimage.zoom(labels, back, order=0, mode="nearest"))


def test_vertebral_bodies_that_touch_are_counted_anew() -> None:
    labels = np.zeros((40, 20, 20), np.uint8)
    for number, low in zip((24, 23, 22), (2, 14, 26), strict=True):  # L5, L4, L3 from below
        labels[low : low + 8, 5:15, 5:15] = number
    volume = axial_volume(np.zeros(labels.shape, np.int16), (1.0, 1.0, 1.0))
    rule = VertebralBodies(lowest_lumbar=24, grow_mm=1.0)
    leaked = labels.copy()
    leaked[30:34, 5:15, 5:15] = 21
    assert labels_touch(leaked)
    assert not labels_touch(labels)
    kept = labels.copy()
    for found in (finish_bodies(kept, volume, rule), finish_bodies(leaked, volume, rule)):
        assert np.array_equal(found[labels > 0], labels[labels > 0])
        assert (found > 0).sum() > (labels > 0).sum()
        assert found[1, 10, 10] == 24


def empty_weights(task: str, folder: Path) -> Path:
    """Folders with files of the right names, for cards; nothing in them is read."""
    for name, folds in needed(task):
        for fold in folds or (0, 1, 2, 3, 4):
            (folder / name / f"fold_{fold}").mkdir(parents=True, exist_ok=True)
            (folder / name / f"fold_{fold}" / "checkpoint_final.pth").write_bytes(b"weights")
        for file in ("plans.json", "dataset.json"):
            (folder / name / file).write_bytes(b"{}")
    return folder


def needed(task: str) -> Iterator[tuple[str, tuple[int, ...] | None]]:
    entry = table().task(task)
    for network in entry.networks:
        yield results_folder(entry, network), entry.folds
    if entry.crop is not None:
        yield from needed(entry.crop.task)
    if entry.vertebral_bodies is not None and entry.vertebral_bodies.clip:
        yield from needed(entry.vertebral_bodies.clip)


def write_weights(task: str, folder: Path, spacing: float) -> None:
    """Tiny networks with random weights and the real classes of a task, where its weights would be."""
    entry = table().task(task)
    for seed, network in enumerate(entry.networks, start=1):
        names = network.labels or entry.classes
        labels = {"background": 0, **{name: n for n, name in enumerate(names, start=1)}}
        plan = plans({entry.configuration: configuration((16, 20, 20), (spacing,) * 3)})
        write_results(
            folder / results_folder(entry, network),
            plan,
            dataset(labels),
            entry.configuration,
            seed=seed * 10,
        )


def registered(task: str, folder: Path, spacing: float, localiser: float | None = None) -> ModelSpec:
    """The card of a task whose weights are random, in the precision of the reference."""
    write_weights(task, folder, spacing)
    crop = table().task(task).crop
    if crop is not None and localiser is not None:
        write_weights(crop.task, folder, localiser)
    found = card_fields(task, folder)
    spec = ModelSpec.model_validate({**found.fields, "id": "ts", "files": pin(folder, tuple(found.files))})
    assert spec.nnunet is not None
    section = spec.nnunet.model_copy(update={"precision": "float32"})
    if section.crop is not None:
        inner = section.crop.localiser.model_copy(update={"precision": "float32"})
        section = section.model_copy(update={"crop": section.crop.model_copy(update={"localiser": inner})})
    spec._folder = folder
    return with_section(spec, section)


def with_section(spec: ModelSpec, section: Any) -> ModelSpec:
    changed = spec.model_copy(update={"nnunet": section})
    changed._folder = spec.folder
    return changed


def reference(task: str, folder: Path, image: Any, resample: float | None) -> Any:
    """What TotalSegmentator does around nnUNetPredictor: python_api.py, nnunet.py, resampling.py."""
    entry = table().task(task)
    seen, spacing = as_nnunet_reads(image).astype(np.float64), SPACING
    if resample is not None:
        seen = ndimage.zoom(seen, np.array(SPACING) / resample, order=1, mode="nearest").astype(np.int32)
        spacing = (resample, resample, resample)
    merged = np.zeros(seen.shape, np.uint8)
    numbers = {name: number for number, name in enumerate(entry.classes, start=1)}
    for network in entry.networks:
        answer = as_nnunet_reads(
            oracle(
                folder / results_folder(entry, network),
                [as_nnunet_reads(seen)],
                spacing,
                step=entry.step,
                exact=True,
            )
        )
        lookup = np.zeros(256, np.uint8)
        for label, name in enumerate(network.labels or entry.classes, start=1):
            lookup[label] = numbers[name]
        mapped = lookup[answer]
        np.copyto(merged, mapped, where=mapped != 0)
    if resample is not None:
        back = np.array(image.shape) / np.array(merged.shape)
        merged = ndimage.zoom(merged, back, order=0, mode="nearest")
    return np.ascontiguousarray(as_nnunet_reads(merged))


def run(spec: ModelSpec, image: Any, context: RunContext | None = None) -> Prediction:
    model = load_model(spec)
    fractions: list[float] = []
    try:
        prediction = run_to_end(
            model, [axial_volume(image, SPACING)], lambda _, f: fractions.append(f), context or RunContext()
        )
        assert model.weight_bytes > 0
        assert model.needed_bytes(image.shape, SPACING) > 0
    finally:
        model.close()
    assert fractions == sorted(fractions)
    assert prediction.labels.shape == image.shape
    return prediction
