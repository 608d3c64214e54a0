"""What benchmarks/results.py segments: organs of a torso that touch, enclose and cross each other.

No noise and no boxes: large soft organs, a spine, ribs that bend around the chest, long vessels, and small
organs within the large ones. Boxes around them overlap as those of real ones do, and 104 structures on 400
slices have about as many frames as those of a whole-body model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from ai.geometry import FrameRef, Part
from ai.model import Structure, find_card
from ai.model.structure import CodeEntry, Coding
from ai.profile import Profile
from ai.results.context import ResultContext, derive_identity
from ai.volume import ImageSeries, LabelArray, Volume
from tests import builders
from tests.runs import CREATED_AT, even_geometry

SHAPE = (400, 512, 512)
MOST = 104
_SPACING_MM = (1.5, 0.8, 0.8)
_ORGAN = CodeEntry(value="91723000", scheme="SCT", meaning="Anatomical Structure")
_KIND = CodeEntry(value="39607008", scheme="SCT", meaning="Lung")
_LARGE, _PAIRS, _TUBES, _SMALL = 12, 24, 8, 36  # of organs, vertebrae and ribs, vessels, the rest

_Mask = npt.NDArray[np.bool_]
_Box = tuple[slice, slice, slice]


def draw(count: int, shape: tuple[int, int, int] = SHAPE) -> LabelArray:
    """The first ``count`` organs, evenly chosen among all 104, uint8 ``(slices, rows, columns)``."""
    labels = np.zeros(shape, np.uint8)
    organs = list(_organs(shape))
    chosen = [organs[k * MOST // count] for k in range(count)]
    for number, (box, mask) in enumerate(chosen, start=1):
        labels[box][mask] = number
    return labels


def run_on(labels: LabelArray, count: int, profile: Profile) -> ResultContext:
    """The run of a model with that many structures on a CT of that grid, whose voxels nobody asks for."""
    slices, rows, columns = labels.shape
    datasets = builders.ct_series((slices, 2, 2), _SPACING_MM)
    for dataset in datasets:
        dataset.Rows, dataset.Columns = rows, columns
    geometry = replace(
        even_geometry(builders.affine((slices, 2, 2), _SPACING_MM), (slices, rows, columns)),
        frames=tuple(FrameRef(str(d.SOPInstanceUID)) for d in datasets),
        frame_of_reference_uid=str(datasets[0].FrameOfReferenceUID),
        slice_thickness_mm=_SPACING_MM[0],
    )
    volume = Volume(np.broadcast_to(np.int16(0), labels.shape), geometry)
    series = ImageSeries(volume, Part("", "", geometry.frames, geometry))
    series.__dict__["datasets"] = tuple(builders.without(datasets, "PixelData"))
    series.__dict__["input_digest"] = "0" * 64
    structures = tuple(_structure(number) for number in range(1, count + 1))
    card = find_card("ct-tissue").model_copy(update={"structures": structures})
    identity = derive_identity(str(datasets[0].SeriesInstanceUID), series.input_digest, card, "1.2.3")
    return ResultContext(series, card, labels, (), identity, CREATED_AT, 9000, "1.2.3", profile=profile)


def _structure(number: int) -> Structure:
    coding = Coding(category=_ORGAN, type=_KIND, rgb=(number, 255 - number, 128))
    return Structure(number=number, key=f"organ_{number}", label=f"Organ {number}", coding=coding)


def _organs(shape: tuple[int, int, int]) -> Iterator[tuple[_Box, _Mask]]:
    rng = np.random.default_rng(5)
    size = np.array(shape, float)
    for _ in range(_LARGE):
        centre = size * rng.uniform((0.25, 0.35, 0.3), (0.75, 0.6, 0.7))
        yield _ellipsoid(shape, centre, size * rng.uniform((0.1, 0.07, 0.07), (0.22, 0.15, 0.15)))
    for k in range(_PAIRS):
        centre = size * ((k + 0.5) / _PAIRS, 0.68, 0.5)
        yield _ellipsoid(shape, centre, size * (0.55 / _PAIRS, 0.04, 0.045))
    for k in range(_PAIRS):
        yield _rib(shape, 0.3 + 0.55 * (k // 2) / (_PAIRS / 2), is_left=k % 2 == 0)
    for _ in range(_TUBES):
        yield _tube(shape, rng)
    for _ in range(_SMALL):
        centre = size * rng.uniform((0.1, 0.3, 0.25), (0.9, 0.65, 0.75))
        yield _ellipsoid(shape, centre, size * rng.uniform(0.015, 0.05, 3))


def _box(shape: tuple[int, int, int], low: npt.ArrayLike, high: npt.ArrayLike) -> _Box:
    starts = np.maximum(np.floor(low), 0).astype(int)
    stops = np.minimum(np.ceil(high) + 1, shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(starts, stops, strict=True))
    return z, y, x


def _ellipsoid(
    shape: tuple[int, int, int], centre: npt.NDArray[np.float64], radii: npt.NDArray[np.float64]
) -> tuple[_Box, _Mask]:
    box = _box(shape, centre - radii, centre + radii)
    offsets = zip(np.ogrid[box], centre, radii, strict=True)
    return box, sum(((axis - c) / r) ** 2 for axis, c, r in offsets) < 1.0


def _rib(shape: tuple[int, int, int], height: float, *, is_left: bool) -> tuple[_Box, _Mask]:
    """Half a hoop around the chest, which falls from back to front."""
    slices, rows, columns = shape
    middle = columns // 2
    low = (slices * (height - 0.12), rows * 0.2, middle if is_left else 0)
    box = _box(shape, low, (slices * (height + 0.02), rows * 0.8, columns if is_left else middle - 1))
    z, y, x = np.ogrid[box]
    radius = np.hypot((y - rows / 2) / (0.28 * rows), (x - middle) / (0.4 * columns))
    fall = height - 0.1 * (rows * 0.78 - y) / (0.56 * rows)
    return box, (np.abs(radius - 1) < 0.025) & (np.abs(z / slices - fall) < 0.012)


def _tube(shape: tuple[int, int, int], rng: np.random.Generator) -> tuple[_Box, _Mask]:
    """A vessel or the gut, which winds along most of the body."""
    slices, rows, columns = shape
    bottom, top = rng.uniform(0.0, 0.3), rng.uniform(0.5, 1.0)
    row, column, phase = rows * rng.uniform(0.4, 0.6), columns * rng.uniform(0.4, 0.6), rng.uniform(0, 6)
    swing, radius = rng.uniform(0.01, 0.05) * columns, rng.uniform(0.012, 0.025) * columns
    reach = swing + radius
    low = (slices * bottom, row - reach, column - reach)
    box = _box(shape, low, (slices * top - 1, row + reach, column + reach))
    z, y, x = np.ogrid[box]
    centre = phase + z * (6.0 / slices)
    across = (y - row - swing * np.sin(centre)) ** 2 + (x - column - swing * np.cos(centre)) ** 2
    return box, across < radius**2
