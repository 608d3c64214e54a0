"""The comparison itself: which labels belong together, and one row for each structure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from ai.compare.reading import names_beside, parts_beside, read_pair
from ai.compare.segmentation import Placed, Segmentation, outside_ml, overlaps, place, union
from ai.compare.surface import Agreement, agreement
from ai.errors import AiError

TOLERANCE_MM = 1.0
Merge = Mapping[str, Sequence[int]]
"""For labels of the mask, by name or by number as text, the numbers of the truth that make the structure."""


@dataclass(frozen=True)
class Row:
    """One structure; :mod:`ai.compare` defines the metrics. Volumes are each on its own grid.

    ``difference_percent`` is relative to the truth, None where the truth is empty.
    """

    number: int
    label: str
    truth: str
    dice: float | None
    jaccard: float | None
    hausdorff95_mm: float | None
    surface_dice: float | None
    volume_ml: float
    truth_volume_ml: float
    difference_ml: float
    difference_percent: float | None


@dataclass(frozen=True)
class Comparison:
    """The rows, how the grids were matched, and what was left without a partner.

    Attributes
    ----------
    tolerance_mm
        Of the surface Dice.
    warnings
        Sentences: what one side did not look at, labels that are not there, contours left out.
    """

    rows: tuple[Row, ...]
    same_grid: bool
    only_in_mask: tuple[str, ...]
    only_in_truth: tuple[str, ...]
    tolerance_mm: float = TOLERANCE_MM
    warnings: tuple[str, ...] = ()

    @property
    def mean_dice(self) -> float | None:
        """Mean over the structures that one of the sides has; None where there is none."""
        known = [row.dice for row in self.rows if row.dice is not None]
        return fmean(known) if known else None

    @property
    def worst_dice(self) -> float | None:
        """Lowest of any structure."""
        return min((row.dice for row in self.rows if row.dice is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        rows = [asdict(row) for row in self.rows]
        return {**values, "rows": rows, "mean_dice": self.mean_dice, "worst_dice": self.worst_dice}


def compare_files(
    mask: Path,
    truth: Path,
    mapping: Merge | None = None,
    names: Mapping[int, str] | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> Comparison:
    """Compare two files.

    Parameters
    ----------
    mapping
        Without it labels match by name where both sides have names, else by number.
    names
        Names for the numbers of a NIfTI mask; by default those of a ``run.json`` beside it.

    Raises
    ------
    AiError
        ``LABEL_UNKNOWN``, ``GRIDS_APART``, ``GRID_TOO_LARGE``, or what :func:`ai.compare.read_segmentation`
        raises.
    """
    ours, theirs = read_pair(mask, truth, names or names_beside(mask), parts_beside(mask))
    return compare(ours, theirs, mapping, tolerance_mm)


def compare(
    mask: Segmentation,
    truth: Segmentation,
    mapping: Merge | None = None,
    tolerance_mm: float = TOLERANCE_MM,
) -> Comparison:
    """Compare two segmentations; see :func:`compare_files`."""
    if mask.is_image_grid and truth.is_image_grid and not overlaps(mask, truth):
        raise AiError("GRIDS_APART", "The two segmentations do not overlap in patient space.")
    pairs = _pairs(mask.names, truth.names, mapping)
    placed = place(truth, mask.index_to_lps)
    rows = tuple(
        _row(mask, truth, number, partners, placed, tolerance_mm) for number, partners in pairs.items()
    )
    used = {partner for partners in pairs.values() for partner in partners}
    return Comparison(
        rows=rows,
        same_grid=placed.exact,
        only_in_mask=tuple(mask.name(number) for number in mask.names if number not in pairs),
        only_in_truth=tuple(truth.name(number) for number in truth.names if number not in used),
        tolerance_mm=tolerance_mm,
        warnings=(*mask.warnings, *truth.warnings, *_warnings(mask, truth, mapping)),
    )


def _row(
    mask: Segmentation,
    truth: Segmentation,
    number: int,
    partners: Sequence[int],
    placed: Placed,
    tolerance_mm: float,
) -> Row:
    volume = mask.voxel_count((number,)) * mask.voxel_ml
    reference = truth.voxel_count(partners) * truth.voxel_ml
    difference = volume - reference
    found = _agreement(mask, number, truth.whole(partners), placed, tolerance_mm)
    return Row(
        number=number,
        label=mask.name(number),
        truth=" + ".join(truth.name(partner) for partner in partners),
        volume_ml=volume,
        truth_volume_ml=reference,
        difference_ml=difference,
        difference_percent=100.0 * difference / reference if reference else None,
        **asdict(found),
    )


def _agreement(
    mask: Segmentation, number: int, partners: Sequence[int], placed: Placed, tolerance_mm: float
) -> Agreement:
    """In the box around both masks, the only part of the volume that is looked at."""
    ours = mask.whole((number,))
    box, theirs = mask.own.box(ours), placed.box(partners)
    if theirs is not None:
        box = union(box, theirs)
    if box is None:
        return Agreement(None, None, None, None)
    steps_mm = np.asarray(mask.index_to_lps[:3, :3], np.float64)
    flat = [n == 1 and m == 1 for n, m in zip(mask.shape, placed.layers[0].shape, strict=True)]
    low = tuple(a if thin else a - 1 for a, thin in zip(box[0], flat, strict=True))
    high = tuple(b if thin else b + 1 for b, thin in zip(box[1], flat, strict=True))
    wide = ((low[0], low[1], low[2]), (high[0], high[1], high[2]))
    return agreement(mask.own.cut(ours, wide), placed.cut(partners, wide), steps_mm, tolerance_mm)


def _warnings(mask: Segmentation, truth: Segmentation, mapping: Merge | None) -> list[str]:
    """What a reader of the numbers must know."""
    found = []
    one, other = mask.frame_of_reference_uid, truth.frame_of_reference_uid
    if one and other and one != other:
        found.append("The two sides have different Frame of Reference UIDs; their coordinates may not agree.")
    for inner, outer, words in (
        (mask, truth, "the mask lie where the truth has no image: they count as wrong"),
        (truth, mask, "the truth lie where the mask has no image: they count as missed"),
    ):
        beyond_ml = outside_ml(inner, outer) if outer.is_image_grid else 0.0
        if beyond_ml:
            found.append(f"{beyond_ml:.3g} mL of {words}.")
    present = truth.own.boxes.keys() | truth.names.keys()
    for label, partners in (mapping or {}).items():
        missing = [str(number) for number in partners if number not in present]
        if missing:
            found.append(f"The truth has no label {', '.join(missing)}, to be merged into {label}.")
    return found


def _pairs(
    ours: Mapping[int, str | None], theirs: Mapping[int, str | None], mapping: Merge | None
) -> dict[int, tuple[int, ...]]:
    """For each of our numbers the numbers of the truth that make the same structure."""
    if mapping is not None:
        return {_number(label, ours): tuple(partners) for label, partners in mapping.items()}
    by_name = {_plain(name): number for number, name in theirs.items() if name}
    if by_name and any(ours.values()):
        named = {number: by_name.get(_plain(name)) for number, name in ours.items() if name}
        return {number: (partner,) for number, partner in named.items() if partner is not None}
    numbers = set(ours) if any(ours.values()) else set(ours) | set(theirs)  # names: all that it looked for
    return {number: (number,) for number in sorted(numbers)}


def _number(label: str, names: Mapping[int, str | None]) -> int:
    for number, name in names.items():
        if name is not None and _plain(name) == _plain(label):
            return number
    if label.strip().isdigit():
        return int(label)
    known = ", ".join(names[number] or str(number) for number in names)
    raise AiError("LABEL_UNKNOWN", f"The mask has no label {label!r}; it has {known or 'none'}.")


def _plain(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").split())
