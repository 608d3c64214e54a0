"""What a viewport must show of a label map, and how far what it shows is from that. Arrays only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import map_coordinates

FloatArray = npt.NDArray[np.float64]
LabelArray = npt.NDArray[np.uint8]
Rgb = tuple[int, int, int]

_COLOUR = 10  # of 255 in each channel: the browser's arithmetic, far below the distance of two segments


@dataclass(frozen=True)
class Camera:
    """Where the pixels of a viewport lie in the patient (LPS, millimetres).

    Attributes
    ----------
    first_mm
        Centre of the pixel at the top left.
    down_mm, right_mm
        Step from a pixel to the one below, and to the one to the right.
    shape
        Pixels (rows, columns).
    """

    first_mm: FloatArray
    down_mm: FloatArray
    right_mm: FloatArray
    shape: tuple[int, int]

    def voxels(self, index_to_lps: FloatArray) -> FloatArray:
        """The index (slice, row, column) under each pixel: ``(3, rows, columns)``, with fractions."""
        rows, columns = np.indices(self.shape)
        world = self.first_mm[:, None, None] + (
            self.down_mm[:, None, None] * rows + self.right_mm[:, None, None] * columns
        )
        inverse = np.linalg.inv(index_to_lps)
        return np.asarray(np.tensordot(inverse[:3, :3], world, axes=1) + inverse[:3, 3, None, None])


def expected_labels(labels: LabelArray, voxels: FloatArray) -> LabelArray:
    """The number of the voxel under each pixel; 0 outside the volume."""
    inside = _inside(labels.shape, voxels)
    found = labels[tuple(np.where(inside, np.floor(voxels + 0.5), 0).astype(np.intp))]
    return np.where(inside, found, np.uint8(0))


def expected_grey(values: FloatArray, voxels: FloatArray, window: tuple[float, float]) -> FloatArray:
    """The picture without segments, 0 to 255: linear between voxels, black outside the volume.

    ``window`` is (centre, width) of PS3.3 C.11.2.1.2.
    """
    shown = map_coordinates(values, voxels, order=1, mode="nearest")
    centre, width = window
    grey = np.clip(((shown - (centre - 0.5)) / (width - 1) + 0.5) * 255, 0, 255)
    return np.where(_inside(values.shape, voxels), grey, 0.0)


def clear_of_borders(voxels: FloatArray) -> npt.NDArray[np.bool_]:
    """Pixels that lie within one voxel as a whole; which voxel the others show is the viewer's choice."""
    largest = max(float(np.abs(np.diff(voxels, axis=axis)).max()) for axis in (1, 2))
    return np.all(np.abs(voxels - np.rint(voxels)) < 0.5 - largest, axis=0)


def _inside(shape: tuple[int, ...], voxels: FloatArray) -> npt.NDArray[np.bool_]:
    """Where a pixel lies on a voxel, which reaches half a step to each side of its centre."""
    return np.all((voxels >= -0.5) & (voxels < np.reshape(shape, (3, 1, 1)) - 0.5), axis=0)


def drawn_labels(pixels: npt.NDArray[np.uint8], colours: Mapping[int, Rgb]) -> LabelArray:
    """The number of the segment in whose colour each pixel is; 0 for any other colour."""
    drawn = np.zeros(pixels.shape[:2], np.uint8)
    for number, colour in colours.items():
        distance = np.abs(pixels.astype(np.int16) - np.asarray(colour, np.int16)).max(axis=-1)
        drawn[distance <= _COLOUR] = number
    return drawn


def dice_of_each(pairs: Iterable[tuple[LabelArray, LabelArray]], numbers: Iterable[int]) -> dict[int, float]:
    """Overlap of what is expected and what is drawn, of each number over all (expected, drawn) pixels.

    Numbers that are in neither are left out.
    """
    pictures = list(pairs)
    result: dict[int, float] = {}
    for number in numbers:
        both = sum(int(np.sum((a == number) & (b == number))) for a, b in pictures)
        size = sum(int(np.sum(a == number)) + int(np.sum(b == number)) for a, b in pictures)
        if size:
            result[number] = 2 * both / size
    return result


def likeness(a: FloatArray, b: FloatArray) -> float:
    """Correlation of two pictures."""
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def fitted(picture: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """An RGB picture as large as fits a viewport of this shape (rows, columns), in its middle, on black."""
    scale = min(shape[0] / picture.shape[0], shape[1] / picture.shape[1])
    size = (round(picture.shape[1] * scale), round(picture.shape[0] * scale))
    page = Image.new("RGB", (shape[1], shape[0]))
    small = Image.fromarray(picture).resize(size, Image.Resampling.BILINEAR)
    page.paste(small, ((shape[1] - size[0]) // 2, (shape[0] - size[1]) // 2))
    return np.asarray(page)
