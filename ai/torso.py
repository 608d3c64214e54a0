"""A drawn torso: CT numbers and true labels at any points of patient space.

Simple shapes (LPS millimetres, zero in the middle of the chest) with what makes segmentation hard:
a larger right lung, lungs that nearly touch in front of the heart, an open trachea, bowel gas, bone
of two densities, saturated metal, a table. CT numbers follow usual textbook values (ICRU 44 tissues
near 120 kV). numpy only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

BODY, LEFT_LUNG, RIGHT_LUNG, BONE, METAL = 1, 2, 3, 4, 5
AIR_HU, METAL_HU = -1000.0, 3071.0  # 3071 = 4095 - 1024: where a 12-bit scanner saturates

Array = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Point = tuple[float, float, float]


def draw_torso(
    x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """CT numbers and true labels at points of patient space (LPS millimetres, arrays that broadcast).

    Without noise or blur. Every shape is a function of the point, so any grid may ask.
    """
    canvas = _Canvas(x, y, z)
    _draw_wall(canvas)
    _draw_organs(canvas)
    _draw_lungs(canvas)
    _draw_airways_and_gas(canvas)
    _draw_bones(canvas)
    _draw_metal(canvas)
    return canvas.hu, canvas.labels


class _Canvas:
    """Points, their CT numbers and labels; the shapes that the torso is made of."""

    def __init__(self, x: npt.ArrayLike, y: npt.ArrayLike, z: npt.ArrayLike) -> None:
        self.x, self.y, self.z = (np.asarray(v, dtype=np.float32) for v in (x, y, z))
        shape = np.broadcast_shapes(self.x.shape, self.y.shape, self.z.shape)
        self.hu = np.full(shape, AIR_HU, dtype=np.float32)
        self.labels = np.zeros(shape, dtype=np.uint8)
        # The torso narrows a little towards the neck.
        self.narrowing = 1.0 - 0.12 * np.clip((self.z - 60.0) / 65.0, 0.0, 1.0) ** 2
        across = np.abs(self.x / (165.0 * self.narrowing)) ** 2.4
        through = np.abs(self.y / (118.0 * self.narrowing)) ** 2.4
        self.radius = np.broadcast_to((across + through) ** (1.0 / 2.4), shape)  # 1 on the skin

    def paint(self, mask: Mask, hu: float | Array, label: int) -> None:
        np.copyto(self.hu, hu, where=mask, casting="unsafe")
        self.labels[mask] = label

    def level(self, centre: Point, semi_axes: Point, power: float = 2.0) -> Array:
        """Below 1 inside an ellipsoid (power 2) or a rounder box (higher)."""
        terms = (
            np.abs((v - c) / s) ** power
            for v, c, s in zip((self.x, self.y, self.z), centre, semi_axes, strict=True)
        )
        return np.asarray(sum(terms), dtype=np.float32)

    def inside(self, centre: Point, semi_axes: Point, power: float = 2.0) -> Mask:
        if self.z.ndim == 0 and abs(float(self.z) - centre[2]) > semi_axes[2]:
            return np.zeros(self.hu.shape, dtype=np.bool_)
        return np.asarray(np.broadcast_to(self.level(centre, semi_axes, power) < 1.0, self.hu.shape))

    def tube(self, start: Point, end: Point, radius_mm: float) -> Mask:
        """Points within a distance of the straight line from start to end."""
        low, high = sorted((start[2], end[2]))
        if self.z.ndim == 0 and not low - radius_mm < float(self.z) < high + radius_mm:
            return np.zeros(self.hu.shape, dtype=np.bool_)
        along = np.subtract(end, start)
        offsets = (self.x - start[0], self.y - start[1], self.z - start[2])
        t = np.clip(sum(o * a for o, a in zip(offsets, along, strict=True)) / (along @ along), 0.0, 1.0)
        square = sum((o - t * a) ** 2 for o, a in zip(offsets, along, strict=True))
        return np.asarray(np.broadcast_to(square < radius_mm**2, self.hu.shape))


def _draw_wall(canvas: _Canvas) -> None:
    """Table, skin, fat, muscle, and what fills the inside."""
    below_top = canvas.y - (130.0 - 0.0006 * canvas.x**2)  # a shallow cradle with air over it
    on_table = (np.abs(canvas.x) < 185.0) & (below_top > 0.0) & (below_top < 30.0)
    shell = on_table & ((below_top < 3.0) | (below_top > 27.0))
    canvas.paint(np.broadcast_to(on_table, canvas.hu.shape), -930.0, 0)
    canvas.paint(np.broadcast_to(shell, canvas.hu.shape), -150.0, 0)
    for outer, hu in ((1.0, 40.0), (0.98, -105.0), (0.85, 55.0), (0.74, 30.0)):  # skin, fat, muscle, inside
        canvas.paint(canvas.radius < outer, hu, BODY)
    canvas.paint(canvas.inside((0, -38, 60), (13, 36, 75)), -90.0, BODY)  # mediastinal fat


def _draw_organs(canvas: _Canvas) -> None:
    canvas.paint(canvas.inside(*_LIVER), 60.0, BODY)
    canvas.paint(canvas.inside(*_LEFT_DOME), 45.0, BODY)
    canvas.paint(canvas.inside(*_HEART), 48.0, BODY)
    canvas.paint(canvas.tube((24, 36, 40), (20, 34, -130), 12.0), 45.0, BODY)  # aorta


_LIVER = ((-62.0, -5.0, -128.0), (74.0, 84.0, 78.0))
_LEFT_DOME = ((66.0, 0.0, -132.0), (62.0, 82.0, 64.0))
_HEART = ((26.0, -28.0, -38.0), (50.0, 42.0, 46.0))


def _lung(canvas: _Canvas, side: int) -> Mask:
    """One lung: ``side`` -1 is the patient's right. A tapering column, hollowed by dome and heart."""
    centre, half_width, half_depth, apex = (
        (-67.0, 50.0, 78.0, 110.0) if side < 0 else (69.0, 46.0, 74.0, 104.0)
    )
    taper = np.sqrt(np.clip(1.0 - (np.clip(canvas.z + 20.0, 0.0, None) / (apex + 20.0)) ** 2, 1e-6, 1.0))
    column = (
        np.abs((canvas.x - centre) / (half_width * taper)) ** 2.5
        + np.abs((canvas.y + 2.0) / (half_depth * taper)) ** 2.5
    )
    lung = (column < 1.0) & (canvas.z > -105.0) & (canvas.z < apex)
    # In front both lungs reach the midline; 1.6 mm of pleura stays between them.
    lung = lung | canvas.inside((side * 28.8, -60.0, 38.0), (28.0, 14.0, 26.0))
    lung = lung & (canvas.radius < 0.72)
    for centre_mm, semi_axes_mm in (_HEART, _LIVER if side < 0 else _LEFT_DOME):
        wider = (semi_axes_mm[0] + 2.0, semi_axes_mm[1] + 2.0, semi_axes_mm[2] + 2.0)
        lung = lung & ~canvas.inside(centre_mm, wider)
    return np.asarray(np.broadcast_to(lung, canvas.hu.shape))


def _draw_lungs(canvas: _Canvas) -> None:
    """Aerated tissue, denser at the back where blood pools, with vessels that belong to the lung."""
    tissue = np.broadcast_to(-865.0 + 0.45 * canvas.y, canvas.hu.shape)
    for side, label in ((-1, RIGHT_LUNG), (1, LEFT_LUNG)):
        lung = _lung(canvas, side)
        canvas.paint(lung, tissue, label)
        if not lung.any():
            continue
        hilum = (side * 38.0, 16.0, -2.0)
        for angle in np.linspace(0.0, 2.0 * np.pi, 9, endpoint=False):
            tip = (side * (75.0 + 12.0 * np.cos(3 * angle)), 50.0 * np.cos(angle), 70.0 * np.sin(angle))
            canvas.paint(canvas.tube(hilum, tip, 2.2) & lung, 35.0, label)


def _draw_airways_and_gas(canvas: _Canvas) -> None:
    carina = (-2.0, 14.0, 28.0)
    branches = (
        (carina, (-2.0, 12.0, 400.0), 9.0),  # trachea, open at the top of the scan
        (carina, (-44.0, 18.0, -4.0), 7.0),  # right main bronchus: wider, steeper
        (carina, (50.0, 20.0, 0.0), 6.0),
    )
    for start, end, radius_mm in branches:
        canvas.paint(canvas.tube(start, end, radius_mm + 2.0), 30.0, BODY)
    for start, end, radius_mm in branches:
        canvas.paint(canvas.tube(start, end, radius_mm), -990.0, BODY)
    gas: tuple[tuple[Point, Point], ...] = (
        ((58.0, -38.0, -102.0), (26.0, 20.0, 16.0)),  # stomach bubble
        ((-22.0, -66.0, -118.0), (34.0, 9.0, 11.0)),  # transverse colon
        ((18.0, -68.0, -124.0), (16.0, 8.0, 10.0)),
        ((96.0, 10.0, -120.0), (11.0, 13.0, 14.0)),  # splenic flexure
    )
    for centre, semi_axes in gas:
        canvas.paint(canvas.inside(centre, semi_axes), -970.0, BODY)


def _draw_bones(canvas: _Canvas) -> None:
    _draw_ribs(canvas)
    sternum = canvas.level((0, -90, 30), (19, 6, 72), 2.4)
    _bone(canvas, sternum, 0.55)
    period_mm = 27.0
    phase = (canvas.z + 30.0 + period_mm / 2) % period_mm - period_mm / 2  # a body is centred on z = -30
    body = np.maximum(np.hypot(canvas.x / 20.0, (canvas.y - 50.0) / 16.0) ** 2, (phase / 11.5) ** 2)
    disc = np.hypot(canvas.x / 19.0, (canvas.y - 50.0) / 15.0) < 1.0
    canvas.paint(np.broadcast_to(disc, canvas.hu.shape), 85.0, BODY)
    _bone(canvas, body, 0.78)
    ring = np.hypot(canvas.x / 14.0, (canvas.y - 76.0) / 13.0)
    arch = (ring < 1.0) & (ring > 0.66) & (np.abs(phase) < 10.0)
    spinous = (np.abs(canvas.x) < 4.0) & (canvas.y > 86.0) & (canvas.y < 99.0) & (np.abs(phase + 3.0) < 8.0)
    canvas.paint(np.broadcast_to(arch | spinous, canvas.hu.shape), 620.0, BONE)
    canal = np.broadcast_to(ring <= 0.66, canvas.hu.shape)
    canvas.paint(canal & (canvas.labels != BONE), 25.0, BODY)


def _draw_ribs(canvas: _Canvas) -> None:
    """Oblique hoops in the muscle layer, higher at the back; cartilage joins them to the sternum."""
    period_mm = 25.0
    phase = (canvas.z - 0.32 * canvas.y + period_mm / 2) % period_mm - period_mm / 2
    depth_mm = (canvas.radius - 0.785) * 118.0
    hoop = np.broadcast_to((phase / 6.0) ** 2 + (depth_mm / 4.2) ** 2, canvas.hu.shape)
    in_front = (canvas.y < -55.0) & (np.abs(canvas.x) < 62.0)
    cartilage = (hoop < 1.0) & in_front & (np.abs(canvas.x) > 18.0)
    canvas.paint(cartilage, 110.0, BODY)
    _bone(canvas, np.where(in_front, 2.0, hoop), 0.5)


def _bone(canvas: _Canvas, level: Array, core: float) -> None:
    """Cortical shell around a cancellous core; ``level`` is below 1 in the bone."""
    level = np.broadcast_to(level, canvas.hu.shape)
    canvas.paint(level < 1.0, 780.0, BONE)
    canvas.paint(level < core, 210.0, BONE)


def _draw_metal(canvas: _Canvas) -> None:
    """Two pedicle screws with rods, and a pacemaker under the skin of the left chest."""
    for side in (-1.0, 1.0):
        canvas.paint(canvas.tube((side * 17, 84, -30), (side * 9, 44, -30), 2.8), METAL_HU, METAL)
        canvas.paint(canvas.tube((side * 17, 85, -60), (side * 17, 85, 0), 3.2), METAL_HU, METAL)
    canvas.paint(canvas.inside((78, -88, 62), (17, 5, 20), 2.6), METAL_HU, METAL)
