"""Networks with the weights that their authors published, on real heads: is what they find anatomy?

Every network runs once, on the smallest image that is still what it was trained for. Their weights are not
part of the project; without them these tests are skipped.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

from ai.loaders import InProcess, load_model
from ai.model import ModelSpec, load_card
from ai.nifti_image import read_nifti_image
from ai.resample import Upright, upright
from ai.volume import LabelArray, Volume, read_series
from tests.runs import even_geometry

SHARED = Path(__file__).parents[3] / "shared" / "data"
CARDS = Path(__file__).parents[1] / "models"
T1 = SHARED / "fixture" / "mr_t1_brainchop_sample" / "t1_crop.nii.gz"
HEAD_CT = SHARED / "fixture" / "ct_head_ge_vartilt"
MESHNETS = SHARED / "weights" / "brainchop_meshnet"
WEIGHTS = {
    "brain-structures": MESHNETS / "model18cls",
    "brain-tissue": MESHNETS / "model5_gw_ae",
    "skull-strip": MESHNETS / "mindgrab",
    "skull-strip-ct": MESHNETS / "mindgrab",
    "head-lesions": SHARED / "weights" / "blast_ct",
}

pytestmark = [
    pytest.mark.timeout(900),  # networks of whole heads on a processor that others use, too
    pytest.mark.skipif(
        not (T1.is_file() and HEAD_CT.is_dir() and MESHNETS.is_dir()),
        reason="the real images and weights of ../shared/data are not on this machine",
    ),
]


@dataclass(frozen=True)
class Found:
    """What a model found, in patient space."""

    volume: Volume
    labels: LabelArray
    spec: ModelSpec

    def mask(self, key: str) -> npt.NDArray[np.bool_]:
        return np.asarray(self.labels == self.spec.numbers()[key])

    def ml(self, key: str) -> float:
        voxel_ml = float(np.prod(self.volume.geometry.spacing_mm)) / 1000.0
        return float(self.mask(key).sum()) * voxel_ml

    def lps_mm(self, key: str) -> npt.NDArray[np.float64]:
        """Places of its voxels, ``(voxels, 3)``, millimetres to the left, to the back, up."""
        matrix = self.volume.geometry.index_to_lps
        return np.argwhere(self.mask(key)) @ matrix[:3, :3].T + matrix[:3, 3]

    def centre_mm(self, key: str) -> npt.NDArray[np.float64]:
        return self.lps_mm(key).mean(axis=0)


def weights_of(name: str) -> Path:
    """Where the files of a card are; skips the test where they are not."""
    if name in WEIGHTS:
        return WEIGHTS[name]
    try:
        files = distribution("deepbet").files or ()
    except PackageNotFoundError:
        pytest.skip("the package deepbet, which carries its weights, is not installed")
    found = next(Path(str(file.locate())) for file in files if file.name == "bbox_model.pt")
    return found.parent


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def run(name: str, volume: Volume, models: Path) -> Found:
    """A card as it is registered: the card, and its files in a folder of its name."""
    shutil.copy(CARDS / f"{name}.yaml", models)
    spec = load_card(models / f"{name}.yaml")
    (models / name).mkdir(exist_ok=True)
    for file in spec.files:
        shutil.copyfile(weights_of(name) / file, models / name / file)
    model = load_model(spec)
    try:
        return Found(volume, InProcess(model).predict([volume], lambda *_: None).labels, spec)
    finally:
        model.close()


@cache
def t1() -> Volume:
    return read_nifti_image([T1]).channels[0]


@cache
def head_ct() -> Upright:
    return upright(read_series(sorted(HEAD_CT.glob("*.dcm"))).volume)


def part_of(volume: Volume, part: tuple[slice, slice, slice]) -> Volume:
    """A box of a volume, where it lies in the patient."""
    voxels = np.ascontiguousarray(volume.voxels[part])
    matrix = volume.geometry.index_to_lps.copy()
    matrix[:3, 3] += matrix[:3, :3] @ [piece.start for piece in part]
    return Volume(voxels, even_geometry(matrix, voxels.shape), volume.unit)


def dice(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    return float(2.0 * (first & second).sum() / (first.sum() + second.sum()))


@pytest.fixture(scope="module")
def brain(models: Path) -> Found:
    return run("skull-strip", t1(), models)


@pytest.fixture(scope="module")
def structures(models: Path) -> Found:
    return run("brain-structures", t1(), models)


@pytest.fixture(scope="module")
def tissue(models: Path) -> Found:
    return run("brain-tissue", t1(), models)


@pytest.fixture(scope="module")
def extracted(models: Path) -> Found:
    return run("brain-extraction", t1(), models)


VOLUMES_ML = {  # of adults, both sides; wide enough for anybody's head
    "cerebral_white_matter": (350, 650),
    "cerebral_cortex": (380, 700),
    "lateral_ventricle": (5, 100),
    "cerebellar_white_matter": (15, 45),
    "cerebellar_cortex": (75, 150),
    "thalamus": (10, 22),
    "caudate_nucleus": (5, 12),
    "putamen": (6, 15),
    "globus_pallidus": (2, 5.5),
    "third_ventricle": (0.4, 5),
    "fourth_ventricle": (0.7, 5),
    "brain_stem": (15, 30),
    "hippocampus": (5, 11),
    "amygdala": (2, 5),
    "nucleus_accumbens": (0.6, 2),
}


def test_brain_structures_have_the_volumes_of_an_adult(structures: Found) -> None:
    for key, (low, high) in VOLUMES_ML.items():
        assert low < structures.ml(key) < high, key


def test_brain_structures_lie_where_they_belong_in_the_patient(structures: Found) -> None:
    """In patient space: x to the left, y to the back, z up. A flip or a swap of axes breaks one of these."""
    centre = {key: structures.centre_mm(key) for key in structures.spec.numbers()}
    x, y, z = 0, 1, 2
    assert all(abs(place[x] - centre["thalamus"][x]) < 6 for place in centre.values())
    assert centre["caudate_nucleus"][y] < centre["thalamus"][y] - 15
    assert centre["thalamus"][y] < centre["cerebellar_cortex"][y] - 20
    assert centre["amygdala"][y] < centre["hippocampus"][y] - 5
    assert centre["cerebellar_cortex"][z] < centre["hippocampus"][z] - 10 < centre["caudate_nucleus"][z]
    assert centre["brain_stem"][z] < centre["thalamus"][z] - 20
    assert centre["third_ventricle"][z] > centre["fourth_ventricle"][z] + 20
    middle = float(centre["thalamus"][x])
    for key in ("thalamus", "caudate_nucleus", "putamen", "globus_pallidus", "hippocampus", "amygdala"):
        left = structures.lps_mm(key)[:, x] > middle
        assert 0.44 < left.mean() < 0.56, key
    gap_mm = structures.lps_mm("putamen")[:, x] - middle
    assert np.abs(gap_mm).min() > 8  # one on each side, none in the middle


def test_networks_of_other_makers_agree_on_the_brain(
    brain: Found, structures: Found, tissue: Found, extracted: Found
) -> None:
    assert 1000 < brain.ml("brain") < 1700
    assert 1000 < extracted.ml("brain") < 1700
    assert dice(brain.mask("brain"), extracted.mask("brain")) >= 0.95
    for found in (structures, tissue):
        inside = brain.mask("brain")[found.labels > 0].mean()
        assert inside > 0.99, found.spec.id
    assert brain.mask("brain")[structures.mask("thalamus")].all()
    assert 1000 < tissue.ml("white_matter") + tissue.ml("gray_matter") < 1500
    white = structures.mask("cerebral_white_matter") | structures.mask("cerebellar_white_matter")
    assert dice(white, tissue.mask("white_matter")) > 0.8  # the smallest of these networks is the crudest


def test_deepbet_by_our_engine_is_deepbet(extracted: Found) -> None:
    """Its authors' program refines the edge in a second stage; it is the oracle of our run of the first."""
    deepbet = pytest.importorskip("deepbet", reason="the package deepbet is not installed")
    import nibabel as nib

    _, mask, brain_ml = deepbet.BrainExtraction(no_gpu=True).run(nib.load(T1))
    assert extracted.ml("brain") == pytest.approx(float(brain_ml), rel=0.02)
    stored = np.asarray(mask.dataobj).transpose(2, 1, 0).astype(bool)
    as_read = stored if as_is(t1()) else stored[::-1]
    assert dice(extracted.mask("brain"), as_read) > 0.97


def as_is(volume: Volume) -> bool:
    """Whether the slices run as they are stored: see :mod:`ai.nifti_image`."""
    import nibabel as nib

    stored = np.asanyarray(nib.load(T1).dataobj).transpose(2, 1, 0)
    return bool((volume.voxels == stored).all())


def test_how_an_image_is_stored_changes_nothing_in_the_patient(models: Path) -> None:
    volume = part_of(t1(), (slice(84, 180), slice(76, 172), slice(84, 180)))
    tissue = run("brain-tissue", volume, models)
    matrix = volume.geometry.index_to_lps
    order = (1, 2, 0)  # other slices, and two axes the other way round: still a right-handed stack
    turned = matrix[:, [*order, 3]].copy()
    for axis in (0, 2):
        turned[:3, 3] += (volume.voxels.shape[order[axis]] - 1) * turned[:3, axis]
        turned[:3, axis] *= -1
    voxels = np.ascontiguousarray(np.flip(volume.voxels.transpose(order), (0, 2)))
    again = run("brain-tissue", Volume(voxels, even_geometry(turned, voxels.shape), volume.unit), models)
    back = np.flip(again.labels, (0, 2)).transpose(np.argsort(order))
    assert len(np.unique(back)) == 3
    assert (back == tissue.labels).mean() > 0.9999


def test_the_brain_is_found_on_a_tilted_uneven_head_ct(models: Path) -> None:
    seen = head_ct()
    part = (slice(0, None), slice(110, 520), slice(70, 440))  # without the head rest
    found = run("skull-strip-ct", part_of(seen.volume, part), models)
    assert 1000 < found.ml("brain") < 1700
    assert ndimage.label(found.mask("brain"))[1] == 1
    whole = np.zeros(seen.volume.voxels.shape, np.uint8)
    whole[part] = found.labels
    labels = seen.to_source(whole)
    source = read_series(sorted(HEAD_CT.glob("*.dcm"))).volume
    assert labels.shape == source.voxels.shape == (28, 512, 512)
    hu = source.voxels[labels == 1]
    assert 20 < np.median(hu) < 45  # grey matter 37, white 29, fluid 5
    assert (hu > 300).mean() < 0.02  # bone
    assert (hu < -30).mean() < 0.001  # fat and air
    assert not labels[0].any()  # below the foramen magnum
    assert not labels[-1].any()  # above the vertex


def test_blast_ct_finds_a_bleed_that_was_put_in_and_the_old_stroke_that_is_there(models: Path) -> None:
    """A part of the head with an infarct on the patient's left; on the right a ball of clotted blood."""
    volume = head_ct().volume
    part = (slice(30, 76), slice(240, 450), slice(110, 410))
    cut = part_of(volume, part)
    voxels, geometry, matrix = cut.voxels.copy(), cut.geometry, cut.geometry.index_to_lps
    place = np.array([22, 90, 70])  # in the right temporal lobe
    far_mm = (np.indices(voxels.shape).transpose(1, 2, 3, 0) - place) * geometry.spacing_mm
    ball = np.linalg.norm(far_mm, axis=-1) < 11
    assert 20 < np.median(voxels[ball]) < 45  # brain
    noise = np.random.default_rng(0).normal(0, 4, int(ball.sum()))
    voxels[ball] = np.rint(68 + noise).astype(voxels.dtype)
    found = run("head-lesions", Volume(voxels, geometry), models)
    bleed = found.mask("intracerebral_hemorrhage") | found.mask("extraaxial_hemorrhage")
    assert dice(bleed, ball) > 0.7
    beside = found.mask("brain_edema") & ~ndimage.binary_dilation(ball, iterations=20)
    left = np.argwhere(beside) @ matrix[0, :3] + matrix[0, 3]
    assert (left > 0).mean() > 0.9  # the patient's left
    assert 0.3 < beside.sum() * float(np.prod(geometry.spacing_mm)) / 1000.0 < 30
