"""Our volumes against SimpleITK and dcm2niix, on all real series: every disagreement is a row in the docs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.folder import survey_folder
from ai.geometry import VolumeGeometry
from ai.volume import ImageSeries, Survey, read_part, survey
from tests import builders, odd_series
from tests.independent import Comparison, Grid, compare, read_with_dcm2niix, read_with_simpleitk

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
TABLES = Path(__file__).parents[2] / "docs" / "volumes.md"
READERS = ("SimpleITK", "dcm2niix")
Row = tuple[str, ...]

needs_fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real images are not on this machine")


@dataclass(frozen=True)
class Case:
    """One part of a real series: what we make of it (or the code of our refusal), and its files."""

    name: str
    part: str
    files: tuple[Path, ...]
    ours: ImageSeries | str


def folders() -> list[str]:
    """Every folder that holds files itself, but those of pictures and NIfTI."""
    found = {p.parent for p in FIXTURES.rglob("*") if p.is_file()} if FIXTURES.is_dir() else set()
    names = sorted(folder.relative_to(FIXTURES).as_posix() for folder in found)
    return [name for name in names if not name.startswith(("cxr_png", "mr_t1_brainchop"))]


def table(heading: str) -> list[list[str]]:
    """Cells of the rows of the table below a heading of the documentation."""
    text = TABLES.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def marked(cell: str) -> list[str]:
    """Names in a cell that are marked as code."""
    return re.findall(r"`([^`]+)`", cell)


def documented_disagreements() -> set[Row]:
    """Series, part, reader, what differs, why; a row for each series, part and reader of a cell."""
    return {
        (name, part, reader, differs, why)
        for names, keys, readers, differs, why in table("Two independent readers")
        for name in marked(names)
        for part in marked(keys) or [""]
        for reader in readers.split(", ")
    }


def documented_refusals() -> set[Row]:
    """Series, verdict, volumes that SimpleITK makes of it, volumes of dcm2niix, why."""
    return {(name, *row[1:]) for row in table("What is refused") for name in marked(row[0])}  # type: ignore[misc]


def cases(name: str) -> Iterator[Case]:
    """The parts of every series in a folder; a series is named by its folder, or by its first file in it."""
    series = survey_folder(FIXTURES / name).series
    for files in series.values():
        title = name if len(series) == 1 else f"{name}/{files[0].name}"
        try:
            yield from parts(title, survey(files))
        except SeriesRefused as refusal:
            yield Case(title, "", tuple(files), refusal.code)


def parts(title: str, found: Survey) -> Iterator[Case]:
    for part in found.parts:
        wanted = {frame.sop_instance_uid for frame in part.frames}
        files = tuple(i.path for i in found.instances if i.sop_instance_uid in wanted)
        try:
            yield Case(title, part.key, files, read_part(found, part))
        except SeriesRefused as refusal:
            yield Case(title, part.key, files, refusal.code)


def read_by(reader: str, files: Sequence[Path], folder: Path) -> list[Grid]:
    """What another reader makes of files: any number of volumes."""
    folder.mkdir()
    if reader == "dcm2niix":
        return read_with_dcm2niix(files, folder)
    try:
        return [read_with_simpleitk(files, folder)]
    except RuntimeError:
        return []


def padding_of(file: Path) -> float | None:
    """The value that fills up the corners of an image, in the units of its voxels."""
    header = dcmread(file, stop_before_pixels=True)
    if "PixelPaddingValue" not in header:
        return None
    stored = int(header.PixelPaddingValue)
    return stored * float(header.get("RescaleSlope", 1)) + float(header.get("RescaleIntercept", 0))


def difference(series: ImageSeries, others: Sequence[Grid], padding: float | None) -> str:
    """What differs in the best of the volumes that another reader made: words of ``Comparison.kinds``."""
    ours = Grid(series.volume.voxels, series.volume.geometry.index_to_lps)
    compared = [compare(ours, other, padding) for other in others]
    best = min(
        compared,
        key=lambda c: ("shape" in c.kinds, len(c.kinds), c.distance_mm),
        default=Comparison(frozenset({"unread"})),
    )
    return ", ".join(sorted(best.kinds))


def sizes(grids: Sequence[Grid]) -> str:
    """Columns × rows × slices of volumes: ``2 of 128 × 128 × 4``; ``nothing`` if there are none."""
    counts = Counter(" × ".join(map(str, grid.voxels.shape[:3])) for grid in grids)
    return ", ".join(size if n == 1 else f"{n} of {size}" for size, n in counts.items()) or "nothing"


@needs_fixtures
@pytest.mark.parametrize("name", folders())
def test_other_readers_agree_or_the_documentation_says_why_not(name: str, tmp_path: Path) -> None:
    disagreements: set[Row] = set()
    refusals: set[Row] = set()
    for number, case in enumerate(cases(name)):
        made = {r: read_by(r, case.files, tmp_path / f"{r}{number}") for r in READERS}
        if isinstance(case.ours, str):
            assert not case.part, "a refused part of several is shown in no table"
            refusals.add((case.name, str(case.ours), *(sizes(made[reader]) for reader in READERS)))
            continue
        padding = padding_of(case.files[0])
        for reader in READERS:
            if differs := difference(case.ours, made[reader], padding):
                disagreements.add((case.name, case.part, reader, differs))
    assert disagreements == {row[:4] for row in documented_disagreements() if lies_in(row, name)}
    assert refusals == {row[:4] for row in documented_refusals() if lies_in(row, name)}


def lies_in(row: Row, folder: str) -> bool:
    return row[0] == folder or row[0].rpartition("/")[0] == folder


@needs_fixtures
def test_the_documentation_tells_of_series_that_are_there_and_gives_a_reason_for_each() -> None:
    known = folders()
    for row in [*documented_disagreements(), *documented_refusals()]:
        assert any(lies_in(row, name) for name in known), row[0]
        assert len(row[-1]) > 20, f"{row[0]} has no reason"


ENHANCED = (
    "awkward_dicom2nifti/hyperfine_anatomical_001",
    "awkward_dicom2nifti/philips_enhanced_anatomical_001",
    "awkward_dicom2nifti/siemens_multiframe_anatomical_001",
    "compressed_htj2k_and_enhanced_ct/eCT_Supplemental.dcm",
    "mr_enhanced_nema_multiframe/BRMULTI",
    "mr_enhanced_nema_multiframe/BRTUM003",
    "mr_enhanced_nema_multiframe/BRTUM005",
    "mr_t1_siemens_xa30_enhanced",
)


@needs_fixtures
@pytest.mark.parametrize("name", ENHANCED)
def test_every_slice_of_a_multi_frame_image_is_the_frame_that_it_names(name: str) -> None:
    """Against pydicom, frame by frame: other readers cannot tell the stacks of one file apart."""
    (files,) = survey_folder(FIXTURES / name).series.values()
    image = dcmread(files[0])
    stored = image.pixel_array.astype(np.float64)
    shared, used = next(iter(image.get("SharedFunctionalGroupsSequence", [])), Dataset()), []
    for case in parts(name, survey(files)):
        assert isinstance(case.ours, ImageSeries), case.ours
        volume = case.ours.volume
        assert isinstance(volume.geometry, VolumeGeometry)
        for k, frame in enumerate(volume.geometry.frames):
            groups = image.PerFrameFunctionalGroupsSequence[frame.frame_number - 1]
            (plane,) = groups.PlanePositionSequence
            place = volume.geometry.index_to_lps @ (k, 0, 0, 1)
            np.testing.assert_allclose(place[:3], np.array(plane.ImagePositionPatient, float), atol=1e-3)
            values = stored[frame.frame_number - 1]
            name_of_group = "PixelValueTransformationSequence"
            if name_of_group in groups or name_of_group in shared:
                (scale,) = groups.get(name_of_group) or shared.get(name_of_group)
                values = values * float(scale.RescaleSlope) + float(scale.RescaleIntercept)
            np.testing.assert_allclose(volume.voxels[k], values, rtol=1e-6)
            used.append(frame.frame_number)
    assert sorted(used) == list(range(1, len(stored) + 1)), "every frame is in one part"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("orientation", builders.ORIENTATIONS)
def test_other_readers_agree_on_a_made_series_in_every_orientation(
    orientation: str, reader: str, tmp_path: Path
) -> None:
    series = builders.ct_series((6, 10, 14), (2.5, 0.9, 0.6), orientation)
    assert_agreed(builders.write_series(series, tmp_path / "made"), reader, tmp_path / reader)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", ["CT", "MR"])
def test_other_readers_agree_on_a_made_multi_frame_image(
    kind: odd_series.Kind, reader: str, tmp_path: Path
) -> None:
    image = odd_series.enhanced(builders.ct_series((6, 10, 14), (2.5, 0.9, 0.6), "oblique"), kind)
    assert_agreed(builders.write_series([image], tmp_path / "made"), reader, tmp_path / reader)


def assert_agreed(files: list[Path], reader: str, folder: Path) -> None:
    found = survey(files)
    assert difference(read_part(found, found.part()), read_by(reader, files, folder), None) == ""


def test_the_comparison_sees_every_kind_of_disagreement() -> None:
    voxels = builders.counting_voxels((4, 5, 6))
    affine = builders.affine((4, 5, 6), (3.0, 0.8, 0.7), "oblique")
    ours = Grid(voxels, affine)
    shifted, squeezed = affine.copy(), affine.copy()
    shifted[:3, 3] += 0.002
    squeezed[:3, 1:3] = affine[:3, 1:3] / [0.8, 0.7] * [0.7, 0.8]
    one_off = voxels.copy()
    one_off[1, 2, 3] += 9
    for other, kinds in (
        (Grid(voxels.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]), set()),
        (Grid(voxels[:, :, ::-1], affine), {"values"}),
        (Grid(voxels, shifted), {"place"}),
        (Grid(voxels, squeezed), {"place"}),
        (Grid(one_off, affine), {"values"}),
        (Grid(voxels + 1, affine), {"rounding"}),
        (Grid(4095 - voxels, affine), {"inverted"}),
        (Grid(voxels[1:], affine), {"shape"}),
    ):
        assert compare(ours, other).kinds == kinds
    assert compare(ours, Grid(one_off, affine), padding=float(one_off[1, 2, 3])).kinds == {"padding"}
