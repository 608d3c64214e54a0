"""A picture of a volume: its three middle planes, side by side at one scale, so that proportions are true.

The planes are those of the voxel grid itself, nothing is interpolated but pixels for the screen. Each is
turned as a radiologist expects it: the patient's right on the left, the head up, in sagittal planes the
front on the left. Letters at the edges come from the affine: more than one where the plane is oblique.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from ai.sides import Edges, Hanging, hangings
from ai.volume import Volume

Rgb = tuple[int, int, int]
Grey = npt.NDArray[np.uint8]

WIDTH = 1600
_TALLEST = 1000  # of a plane, in pixels of the picture
_MARGIN = 18
_SIDE = 26  # left and right of a plane, for its letters
_ABOVE, _BELOW = 66, 28
_HEADER, _FOOTER = 82, 42
_SAMPLED = 1 << 20  # voxels that the grey range is taken from

_BLACK: Rgb = (0, 0, 0)
_WHITE: Rgb = (255, 255, 255)
_SOFT: Rgb = (190, 190, 190)
_FRAME: Rgb = (72, 72, 72)

_LUNG_WINDOW = (-1250.0, 450.0)  # lung and soft tissue both readable
_SOFT_TISSUE_WINDOW = (-160.0, 240.0)
_LUNG_HU = (-950, -700)
_TISSUE_HU = -200
_LUNG_SHARE = 0.3  # for each voxel of tissue so many of lung: a chest, not the foam under a head

_ORDER = ("axial", "coronal", "sagittal")
_INDEX_NAMES = ("slice", "row", "column")
_SIMPLER = str.maketrans({"×": "x", "−": "-", "–": "-", "—": "-", "ß": "ss", "µ": "u"})
_SCALE_BARS_MM = (200, 100, 50, 20, 10, 5, 2, 1)


@dataclass(frozen=True)
class Page:
    """What is written around the planes.

    Attributes
    ----------
    title, detail
        Two lines at the top left. What the font lacks is replaced.
    verdict
        At the top right, in the colour ``verdict_rgb``.
    inverted
        High values are shown dark (Photometric Interpretation MONOCHROME1).
    detector_edges
        Sides of a projection image, which its geometry does not know.
    """

    title: str
    detail: str
    verdict: str
    verdict_rgb: Rgb
    inverted: bool = False
    detector_edges: Edges | None = None


@dataclass(frozen=True)
class Plane:
    """One plane as it is shown.

    Attributes
    ----------
    values
        Voxels ``(down, across)`` of the picture, a view of the volume.
    spacing_mm
        Distance of voxels (down, across).
    place
        Which index of the array it is: ``slice 61 of 120``.
    """

    name: str
    place: str
    values: npt.NDArray[np.int16] | npt.NDArray[np.float32]
    spacing_mm: tuple[float, float]
    edges: Edges

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width."""
        height, width = self.values.shape
        return height * self.spacing_mm[0], width * self.spacing_mm[1]


def middle_planes(volume: Volume) -> tuple[Plane, ...]:
    """The axial, coronal and sagittal planes of the grid through its middle, turned for display.

    Planes that are only one voxel wide are left out: a single slice is shown as one plane, and so is a
    projection image. An oblique grid has planes that are named after what they are nearest to.

    Parameters
    ----------
    volume
        Upright: see :func:`ai.resample.upright`.
    """
    geometry = volume.geometry
    if geometry.is_projection:
        down, across = geometry.spacing_mm[1:]
        return (Plane("detector plane", "", volume.voxels[0], (down, across), Edges("", "", "", "")),)
    hung = hangings(geometry.index_to_lps).values()
    ordered = sorted(hung, key=lambda each: _ORDER.index(each.name.split(",")[0]))
    planes = [_plane(volume, each) for each in ordered]
    shown = tuple(plane for plane in planes if min(plane.values.shape) > 1)
    return shown or (planes[0],)


def _plane(volume: Volume, hanging: Hanging) -> Plane:
    shape, normal = volume.geometry.shape, hanging.normal
    steps_mm = np.linalg.norm(volume.geometry.index_to_lps[:3, :3], axis=0)
    middle = shape[normal] // 2
    return Plane(
        name=hanging.name,
        place=f"{_INDEX_NAMES[normal]} {middle + 1} of {shape[normal]}",
        values=hanging.hang(np.take(volume.voxels, middle, axis=normal)),
        spacing_mm=(float(steps_mm[hanging.down]), float(steps_mm[hanging.across])),
        edges=hanging.edges,
    )


def grey_range(volume: Volume) -> tuple[float, float]:
    """Values shown as black and as white: a CT window, or the 1st and 99.5th percentile of other images."""
    step = max(1, volume.voxels.size // _SAMPLED)
    sample = volume.voxels.reshape(-1)[::step]
    if volume.unit != "HU":
        low, high = np.percentile(sample, (1.0, 99.5))
        return float(low), max(float(high), float(low) + 1e-6)
    lung = np.count_nonzero((sample > _LUNG_HU[0]) & (sample < _LUNG_HU[1]))
    tissue = np.count_nonzero(sample > _TISSUE_HU)
    return _LUNG_WINDOW if lung > _LUNG_SHARE * tissue else _SOFT_TISSUE_WINDOW


def draw_volume(volume: Volume, page: Page) -> npt.NDArray[np.uint8]:
    """Draw the three planes: RGB uint8 ``(height, width, 3)``, 1600 wide, as high as it needs.

    All planes have one scale, so that lengths can be compared between them; a bar says what it is.
    ``volume`` is upright: see :func:`ai.resample.upright`.
    """
    planes = middle_planes(volume)
    pixels_per_mm = _scale(planes)
    sizes = [_size(plane, pixels_per_mm) for plane in planes]
    height = _HEADER + _ABOVE + max(size[1] for size in sizes) + _BELOW + _FOOTER
    canvas = Image.new("RGB", (WIDTH, height), _BLACK)
    draw = ImageDraw.Draw(canvas)
    window = grey_range(volume)
    _draw_header(draw, page)
    gap = (WIDTH - sum(size[0] + 2 * _SIDE for size in sizes)) / (len(sizes) + 1)
    left = gap
    for plane, size in zip(planes, sizes, strict=True):
        corner = (round(left) + _SIDE, _HEADER + _ABOVE)
        shown = page.detector_edges if volume.geometry.is_projection and page.detector_edges else plane.edges
        frame = (corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1])
        draw.rectangle(frame, outline=_FRAME)
        canvas.paste(_render(plane, window, page.inverted, size), corner)
        _draw_letters(draw, shown, corner, size)
        _draw_captions(draw, plane, corner, size[0] + _SIDE + gap)
        left += size[0] + 2 * _SIDE + gap
    _draw_footer(draw, height, window, volume.unit, page.inverted, pixels_per_mm)
    return np.asarray(canvas)


def write_png(path: Path, picture: npt.NDArray[np.uint8]) -> None:
    """Write a picture; the same picture gives the same bytes."""
    Image.fromarray(picture).save(path, format="PNG")


def _scale(planes: Sequence[Plane]) -> float:
    """Pixels of the picture for a millimetre: as large as fits."""
    across = sum(plane.size_mm[1] for plane in planes)
    room = WIDTH - 2 * _MARGIN - len(planes) * (2 * _SIDE + 8)
    return float(min(room / across, _TALLEST / max(plane.size_mm[0] for plane in planes)))


def _size(plane: Plane, pixels_per_mm: float) -> tuple[int, int]:
    """Width and height on the picture, at least 1."""
    height, width = plane.size_mm
    return max(1, round(width * pixels_per_mm)), max(1, round(height * pixels_per_mm))


def _render(plane: Plane, window: tuple[float, float], inverted: bool, size: tuple[int, int]) -> Image.Image:
    low, high = window
    scaled = (plane.values.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    grey = np.clip(np.nan_to_num(scaled), 0, 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    reduced = size[0] <= grey.shape[1] and size[1] <= grey.shape[0]
    method = (
        Image.Resampling.BICUBIC if reduced else Image.Resampling.BILINEAR
    )  # bicubic rings when enlarging
    return Image.fromarray(np.ascontiguousarray(grey)).resize(size, method)


def _draw_header(draw: ImageDraw.ImageDraw, page: Page) -> None:
    room = WIDTH - 3 * _MARGIN - draw.textlength(page.verdict, font=font(24))
    draw.text((WIDTH - _MARGIN, 16), page.verdict, font=font(24), fill=page.verdict_rgb, anchor="ra")
    for text, y, size, fill in ((page.title, 14, 26, _WHITE), (page.detail, 50, 18, _SOFT)):
        width = room if y == 14 else WIDTH - 2 * _MARGIN
        draw.text((_MARGIN, y), _fitted(text, size, width), font=font(size), fill=fill)


def _draw_letters(
    draw: ImageDraw.ImageDraw, shown: Edges, corner: tuple[int, int], size: tuple[int, int]
) -> None:
    """Letters at the middle of each edge, outside the plane."""
    x, y = corner
    middle, centre = x + size[0] / 2, y + size[1] / 2
    draw.text((middle, y - 5), shown.top, font=font(20), fill=_WHITE, anchor="ms")
    draw.text((middle, y + size[1] + 21), shown.bottom, font=font(20), fill=_WHITE, anchor="ms")
    for letters, place in ((shown.left, x - _SIDE / 2), (shown.right, x + size[0] + _SIDE / 2)):
        for i, letter in enumerate(letters):  # stacked: the margin is one letter wide
            offset = (i - (len(letters) - 1) / 2) * 21
            draw.text((place, centre + offset), letter, font=font(20), fill=_WHITE, anchor="mm")


def _draw_captions(draw: ImageDraw.ImageDraw, plane: Plane, corner: tuple[int, int], room: float) -> None:
    """What the plane is, in two lines over it."""
    for text, height, size, fill in ((plane.name, 47, 18, _WHITE), (plane.place, 27, 16, _SOFT)):
        place = (corner[0], corner[1] - height)
        draw.text(place, _fitted(text, size, room), font=font(size), fill=fill, anchor="ls")


def _draw_footer(
    draw: ImageDraw.ImageDraw,
    height: int,
    window: tuple[float, float],
    unit: str,
    inverted: bool,
    pixels_per_mm: float,
) -> None:
    bar_mm = next((mm for mm in _SCALE_BARS_MM if mm * pixels_per_mm <= WIDTH / 5), _SCALE_BARS_MM[-1])
    y = height - 18
    right = _MARGIN + bar_mm * pixels_per_mm
    draw.line((_MARGIN, y, right, y), fill=_WHITE, width=2)
    for end in (_MARGIN, right):
        draw.line((end, y - 5, end, y + 5), fill=_WHITE, width=2)
    draw.text((right + 10, y), f"{bar_mm} mm", font=font(17), fill=_WHITE, anchor="lm")
    what = f"grey: {window[0]:.6g} to {window[1]:.6g}{' ' + unit if unit else ''}"
    what += ", high values dark" if inverted else ""
    text = f"{what}   |   RESEARCH USE ONLY, not for diagnosis"
    draw.text((WIDTH - _MARGIN, y), text, font=font(17), fill=_SOFT, anchor="rm")


def _fitted(text: str, size: int, room: float) -> str:
    """The text as the font can write it, shortened where it is too long for the room."""
    text = plain(text)
    if font(size).getlength(text) <= room:
        return text
    while text and font(size).getlength(text + "...") > room:
        text = text[:-1]
    return text + "..."


def plain(text: str) -> str:
    """The text in ASCII and °, which the font has: accents are left out, what is no letter then is a ?."""
    if text.isascii() and text.isprintable():
        return text
    parts = unicodedata.normalize("NFKD", text.translate(_SIMPLER).replace("°", "\0"))
    kept = (c if c.isascii() else "?" for c in parts if not unicodedata.combining(c))
    return "".join("°" if c == "\0" else c if c.isprintable() else " " for c in kept)


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The face that Pillow brings along, so that every machine draws the same."""
    found = ImageFont.load_default(size=size)
    if not isinstance(found, ImageFont.FreeTypeFont):  # Pillow without FreeType has one bitmap size
        raise RuntimeError("Pillow was built without FreeType; install the wheel from the package index.")
    return found
