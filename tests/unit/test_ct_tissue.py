"""The model ct-tissue on a drawn torso, in every orientation, and on cases that mislead."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai.errors import ModelError
from ai.geometry import VerdictCode
from ai.inference.coarse import Grid
from ai.inference.enclosure import enclosure
from ai.loaders import load_model
from ai.measure import dice
from ai.model import Model, RunContext, find_card, run_to_end
from ai.resample import upright
from ai.volume import Volume
from tests.builders import ORIENTATIONS, affine, torso_voxels
from tests.runs import even_geometry

SIDE_MM = (300.0, 300.0, 384.0)  # z, y, x of the scanned box
BODY, LEFT, RIGHT, BONE, METAL = 1, 2, 3, 4, 5


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(find_card("ct-tissue"), "cpu")


def scan(orientation: str, spacing_mm: float = 3.0) -> tuple[Volume, np.ndarray]:
    """The torso with noise on a grid of any orientation, and its true labels."""
    axes = np.abs(affine((2, 2, 2), (1.0, 1.0, 1.0), orientation)[:3, :3])
    world = [2 - int(np.argmax(axes[:, i])) for i in range(3)]
    lengths = [SIDE_MM[axis] / spacing_mm for axis in world]
    shape = (round(lengths[0]), round(lengths[1]), round(lengths[2]))
    index_to_lps = affine(shape, (spacing_mm, spacing_mm, spacing_mm), orientation)
    hu, labels = torso_voxels(shape, index_to_lps)
    noisy = hu + np.random.default_rng(3).normal(0, 15, shape)
    geometry = even_geometry(index_to_lps, shape)
    return Volume(np.clip(np.rint(noisy), -1024, 3071).astype(np.int16), geometry), labels


def segment(model: Model, volume: Volume) -> np.ndarray:
    return run_to_end(model, [volume], lambda _stage, _done: None, RunContext()).labels


def part(volume: Volume, labels: np.ndarray, slices: slice) -> tuple[Volume, np.ndarray]:
    """Only some slices of an axial scan."""
    start = slices.indices(labels.shape[0])[0]
    index_to_lps = volume.geometry.index_to_lps.copy()
    index_to_lps[:3, 3] += index_to_lps[:3, 0] * start
    voxels = volume.voxels[slices]
    geometry = even_geometry(index_to_lps, (voxels.shape[0], voxels.shape[1], voxels.shape[2]))
    return Volume(voxels, geometry), labels[slices]


@pytest.fixture(scope="module")
def chest(model: Model) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A head-first scan, its truth, and what the model finds."""
    volume, truth = scan("HFS")
    return volume, truth, segment(model, volume)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation_gives_each_structure_on_its_true_side(orientation: str, model: Model) -> None:
    volume, truth = scan(orientation, 4.0)
    found = segment(model, volume)
    assert found.shape == truth.shape
    assert found.dtype == np.uint8
    least = {BODY: 0.95, LEFT: 0.97, RIGHT: 0.97, BONE: 0.70, METAL: 0.80}  # ribs are thin on 4 mm voxels
    measured = {number: round(dice(found == number, truth == number), 3) for number in least}
    assert all(measured[number] >= least[number] for number in least), measured


@pytest.mark.parametrize("degrees", [20.0, -15.0])
def test_a_tilted_scan_put_upright_gives_each_structure_on_its_own_slices(
    degrees: float, model: Model
) -> None:
    shape = (75, 75, 96)
    sheared = affine(shape, (4.0, 4.0, 4.0), "HFS")
    sheared[1, 0] = 4.0 * np.tan(np.radians(degrees))
    sheared[:3, 3] = -sheared[:3, :3] @ ((np.array(shape) - 1) / 2.0)
    hu, truth = torso_voxels(shape, sheared)
    geometry = replace(even_geometry(sheared, shape), needs=(VerdictCode.GANTRY_TILT,))
    seen = upright(Volume(hu, geometry))
    found = seen.to_source(segment(model, seen.volume))
    least = {BODY: 0.95, LEFT: 0.96, RIGHT: 0.96, BONE: 0.65}
    measured = {number: round(dice(found == number, truth == number), 3) for number in least}
    assert all(measured[number] >= least[number] for number in least), measured


def test_trachea_and_bowel_gas_are_no_lung(chest: tuple[Volume, np.ndarray, np.ndarray]) -> None:
    volume, truth, found = chest
    gas = (volume.voxels < -950) & (truth == BODY)
    assert gas.sum() > 500
    assert np.isin(found[gas], (LEFT, RIGHT)).mean() < 0.02


def test_the_table_is_no_body(chest: tuple[Volume, np.ndarray, np.ndarray]) -> None:
    _, truth, found = chest
    assert ((found > 0) & (truth == 0)).sum() < 0.005 * (truth > 0).sum()


def test_a_scan_of_the_abdomen_has_no_lung(model: Model) -> None:
    volume, truth = scan("HFS")
    lowest = int(np.nonzero(np.isin(truth, (LEFT, RIGHT)).any((1, 2)))[0][0])
    assert lowest >= 5
    abdomen, _ = part(volume, truth, slice(0, lowest - 1))
    found = segment(model, abdomen)
    assert ((abdomen.voxels < -900) & (found == BODY)).sum() > 100  # the gas is there
    assert not np.isin(found, (LEFT, RIGHT)).any()


def test_part_of_the_lungs_is_found_on_both_sides(model: Model) -> None:
    volume, truth = scan("HFS")
    middle, expected = part(volume, truth, slice(40, 60))
    found = segment(model, middle)
    assert dice(found == LEFT, expected == LEFT) > 0.95
    assert dice(found == RIGHT, expected == RIGHT) > 0.95


def test_a_field_of_view_inside_the_chest_still_shows_both_lungs(model: Model) -> None:
    volume, truth = scan("HFS")
    heart = (slice(40, 70), slice(28, 76), slice(28, 100))
    index_to_lps = volume.geometry.index_to_lps.copy()
    index_to_lps[:3, 3] = (index_to_lps @ [40, 28, 28, 1])[:3]
    geometry = even_geometry(index_to_lps, (30, 48, 72))
    found = segment(model, Volume(volume.voxels[heart], geometry))
    assert dice(found == LEFT, truth[heart] == LEFT) > 0.95
    assert dice(found == RIGHT, truth[heart] == RIGHT) > 0.95


def test_a_scan_of_two_slices_and_one_of_air_run_through(model: Model) -> None:
    volume, truth = scan("HFS")
    thin, _ = part(volume, truth, slice(50, 52))
    assert segment(model, thin).shape == thin.voxels.shape
    air = Volume(np.full((4, 32, 32), -1000, np.int16), even_geometry(np.eye(4), (4, 32, 32)))
    assert not segment(model, air).any()


def test_touching_lungs_are_parted_at_their_junction(model: Model) -> None:
    volume, truth = scan("HFS")
    joined = volume.voxels.copy()
    z, y, x = np.nonzero(np.isin(truth, (LEFT, RIGHT)))
    front = y.min() + 6
    plane = np.unique(z[(y < front)])[:6]
    low, high = x.min() + 20, x.max() - 20
    joined[plane[:, None], front : front + 4, low:high] = -850  # a bridge of lung in front of the heart
    found = segment(model, Volume(joined, volume.geometry))
    assert dice(found == LEFT, truth == LEFT) > 0.95
    assert dice(found == RIGHT, truth == RIGHT) > 0.95


def test_the_same_input_gives_the_same_labels(model: Model) -> None:
    volume, _ = scan("oblique", 6.0)
    np.testing.assert_array_equal(segment(model, volume), segment(model, volume))


def test_progress_only_moves_forward_and_may_stop_the_run(model: Model) -> None:
    volume, _ = scan("HFS", 6.0)
    seen: list[tuple[str, float]] = []
    run_to_end(model, [volume], lambda stage, done: seen.append((stage, done)), RunContext())
    fractions = [done for _, done in seen]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)

    def cancel(stage: str, done: float) -> None:
        if stage == "bone":
            raise TimeoutError(stage)

    with pytest.raises(TimeoutError):
        run_to_end(model, [volume], cancel, RunContext())


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(ModelError) as refused:
        load_model(find_card("ct-tissue"), "cuda:99")
    assert refused.value.code == "DEVICE_UNAVAILABLE"


def test_a_card_without_a_threshold_is_refused_when_loaded() -> None:
    spec = find_card("ct-tissue")
    parameters = {name: value for name, value in spec.parameters.items() if name != "bone_seed_hu"}
    with pytest.raises(ModelError, match="missing parameters: bone_seed_hu"):
        load_model(spec.model_copy(update={"parameters": parameters}))


def test_a_contrast_filled_aorta_is_no_bone(model: Model) -> None:
    volume, truth = scan("HFS")
    bright = volume.voxels.copy()
    rows, columns = np.indices(truth.shape[1:])
    vertebra = np.argwhere((truth == BONE).any(0) & (np.abs(columns - columns.mean()) < 5)).mean(0)
    vessel = np.hypot(rows - vertebra[0] + 8, columns - vertebra[1] - 8) < 4  # 24 mm wide, at the spine
    inside = vessel[None] & (truth == BODY) & (volume.voxels > -200)
    bright[inside] = (260 + np.random.default_rng(5).normal(0, 15, int(inside.sum()))).astype(np.int16)
    found = segment(model, Volume(bright, volume.geometry))
    assert inside.sum() > 1000
    assert (found[inside] == BONE).mean() < 0.35


def test_a_shell_encloses_its_inside_and_a_canal_stays_open_along_its_axis() -> None:
    grid = Grid((1, 1, 1), (2.0, 2.0, 2.0), "cpu")
    z, y, x = (axis - 20 for axis in np.indices((41, 41, 41)))
    centre, outside = (20, 20, 20), (20, 20, 38)
    radius = np.sqrt(x**2 + y**2 + z**2)
    shell = enclosure((radius >= 10) & (radius < 11), 60.0, grid)
    assert shell[centre] == 1.0
    assert shell[outside] < 0.5
    canal = enclosure((np.hypot(x, y) >= 10) & (np.hypot(x, y) < 11), 60.0, grid)
    assert canal[centre] < 1.0
    assert (enclosure(radius >= 18, 60.0, grid)[centre]) == 0.0  # 72 mm wide: no bone is


def test_marrow_of_a_vertebra_is_bone_and_its_canal_is_not(model: Model) -> None:
    shape = (50, 64, 64)  # 2 mm
    z, y, x = np.indices(shape)
    hu = np.where(np.hypot(y - 32, x - 32) < 30, 40.0, -1000.0)
    column = np.hypot(y - 26, x - 32)
    canal = np.hypot(y - 42, x - 32) < 5
    marrow = (column < 10) & (np.abs(z - 25) < 12)
    hu[(column < 11) & (np.abs(z - 25) < 13)] = 500  # a thin cortex
    hu[marrow] = 100  # osteoporotic: far below what counts as bone
    hu[(np.hypot(y - 42, x - 32) < 7) & ~canal & (np.abs(z - 25) < 7)] = 500
    voxels = np.rint(hu + np.random.default_rng(4).normal(0, 12, shape)).astype(np.int16)
    found = segment(model, Volume(voxels, even_geometry(affine(shape, (2.0, 2.0, 2.0), "HFS"), shape)))
    assert (found[marrow] == BONE).mean() > 0.95
    assert (found[canal] == BONE).mean() < 0.05


DATA = Path(__file__).parents[3] / "shared" / "data" / "fixture" / "ct_body_siemens_j2k_totalseg" / "nifti"


@pytest.mark.skipif(not DATA.is_dir(), reason="the real images of ../shared/data are not on this machine")
def test_lung_bases_of_a_real_scan_agree_with_its_reference(model: Model) -> None:
    from ai.nifti import read_nifti

    image, truth = read_nifti(DATA / "example_ct_sm.nii.gz"), read_nifti(DATA / "example_seg.nii.gz")
    shape = (image.voxels.shape[0], image.voxels.shape[1], image.voxels.shape[2])
    volume = Volume(image.voxels.astype(np.int16), even_geometry(image.index_to_lps, shape))
    found = segment(model, volume)
    assert dice(found == LEFT, np.isin(truth.voxels, (10, 11))) > 0.95
    assert dice(found == RIGHT, np.isin(truth.voxels, (12, 13, 14))) > 0.95
