"""The overview picture: what is drawn, on which side, and what never is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread

from ai.geometry import Note, NoteCode
from ai.measure import measure
from ai.model import Structure
from ai.model.structure import CodeEntry, Coding
from ai.quality import Finding, Verdict
from ai.results import overview
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.montage import Page, draw_montage
from ai.results.montage_layout import Group, View
from ai.results.montage_legend import Legend
from ai.results.montage_palette import Style
from ai.results.overview import build_overview, choose_slices, draw, grey_range
from ai.results.overview_views import cross_planes, slice_areas, slice_planes
from ai.sides import Edges, side_letters
from ai.terminology import structures
from ai.torso import LEFT_LUNG, RIGHT_LUNG
from tests.builders import ORIENTATIONS, affine
from tests.runs import torso_run

Drawn = list[tuple[str, tuple[float, float, float, float]]]
"""Every string that is drawn, with its box (left, top, right, bottom)."""

EDGES = {
    "Axial": Edges("R", "L", "A", "P"),
    "Coronal": Edges("R", "L", "H", "F"),
    "Sagittal": Edges("A", "P", "H", "F"),
}
PAGE = Page("Title", ("Source",), "RESEARCH USE ONLY", "Not for diagnosis", Legend(()), "Footer")

PLANTED: dict[str, Any] = {
    "PatientName": "PLANTEDNAME^X",
    "PatientID": "PLANTEDID",
    "PatientBirthDate": "19111111",
    "AccessionNumber": "PLANTEDACC",
    "StudyDescription": "PLANTEDSTUDY",
    "SeriesDescription": "PLANTEDSERIES",
    "ReferringPhysicianName": "PLANTEDDOCTOR",
}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Every string that Pillow draws, with its box."""
    strings: Drawn = []
    original = ImageDraw.ImageDraw.text

    def record(self: Any, xy: Any, text: str, *args: Any, **options: Any) -> None:
        box = self.textbbox(xy, text, font=options.get("font"), anchor=options.get("anchor"))
        strings.append((text, box))
        original(self, xy, text, *args, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", record)
    return strings


@pytest.mark.parametrize(
    ("orientation", "left", "right", "top", "bottom"),
    [
        ("HFS", "R", "L", "A", "P"),
        ("FFS", "L", "R", "A", "P"),
        ("FFS_REFORMATTED", "R", "L", "A", "P"),
        ("prone", "L", "R", "P", "A"),
        ("decubitus_left", "P", "A", "R", "L"),
        ("decubitus_right", "A", "P", "L", "R"),
        ("coronal", "R", "L", "H", "F"),
        ("sagittal", "A", "P", "H", "F"),
        ("oblique", "RA", "LP", "AFL", "PHR"),
    ],
)
def test_side_letters_follow_the_orientation(
    orientation: str, left: str, right: str, top: str, bottom: str
) -> None:
    assert side_letters(affine((4, 8, 8), (3.0, 1.0, 1.0), orientation)) == Edges(left, right, top, bottom)


@pytest.mark.parametrize("orientation", [name for name in ORIENTATIONS if name != "oblique"])
def test_all_three_views_hang_and_are_named_as_in_the_patient(
    orientation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[Group] = []

    def remember(page: Page, slices: Group, crossing: Sequence[Group], *rest: object) -> None:
        groups.extend((slices, *crossing))

    monkeypatch.setattr(overview, "draw_montage", remember)
    draw(torso_run(orientation, (40, 40, 40), (8.0, 8.0, 8.0)))
    views = {group.heading.split(":")[0]: group.views for group in groups}
    assert views.keys() == {"Axial", "Coronal", "Sagittal"}
    for name, edges in EDGES.items():
        assert {view.edges for view in views[name]} == {edges}
    for view in views["Axial"] + views["Coronal"]:
        right, left = (np.argwhere(view.labels == number) for number in (RIGHT_LUNG, LEFT_LUNG))
        if len(right) and len(left):
            assert right[:, 1].mean() < left[:, 1].mean()
    widths = [np.ptp(np.flatnonzero((view.labels > 0).any(axis=0))) for view in views["Axial"]]
    assert orientation in ("coronal", "sagittal") or widths[0] < widths[-1]  # the neck comes first


def test_letters_stand_at_the_edges_that_they_name(drawn: Drawn) -> None:
    view = View(
        np.zeros((50, 80), np.uint8), np.zeros((50, 80), np.uint8), (50.0, 80.0), Edges("RA", "L", "H", "F")
    )
    picture = draw_montage(PAGE, Group("Coronal", (view,)), (), ())
    rows, columns = np.nonzero((picture == 56).all(axis=2))
    place = {text: ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) for text, box in drawn}
    middle = ((columns.min() + columns.max()) / 2, (rows.min() + rows.max()) / 2)
    assert place["H"][1] < rows.min()
    assert place["F"][1] > rows.max()
    assert place["R"][0] == pytest.approx(place["A"][0], abs=1.0)
    assert place["R"][0] < columns.min()
    assert place["L"][0] > columns.max()
    assert place["H"][0] == pytest.approx(middle[0], abs=3.0)
    assert place["L"][1] == pytest.approx(middle[1], abs=3.0)
    assert place["R"][1] < middle[1] < place["A"][1]


def test_the_right_lung_is_orange_on_the_side_marked_r(drawn: Drawn) -> None:
    picture = draw(torso_run("FFS")).astype(int)
    letters = [(text, box) for text, box in drawn if text in ("R", "L")][8:10]  # of the fifth slice
    assert [text for text, _ in letters] == ["R", "L"]
    (_, right), (_, left) = letters
    tile = picture[int(right[1]) - 50 : int(right[3]) + 50, int(right[2]) : int(left[0])]
    orange, blue = (
        np.flatnonzero((np.abs(tile - rgb).sum(axis=2) < 60).any(axis=0))
        for rgb in ((230, 159, 0), (86, 180, 233))
    )
    assert np.median(orange) < tile.shape[1] / 2 < np.median(blue)


def test_letters_of_an_oblique_series_say_every_side_that_it_leans_to(drawn: Drawn) -> None:
    draw(torso_run("oblique"))
    texts = [text for text, _ in drawn]
    assert {"AFL", "PHR"} <= set(texts)
    assert any(text.startswith("Axial, 20° oblique: ") for text in texts)
    assert {"Coronal, 25° oblique", "Sagittal, 15° oblique"} <= set(texts)


def test_no_patient_attribute_and_no_free_text_of_the_header_is_drawn(
    drawn: Drawn,
) -> None:
    build_overview(torso_run(**PLANTED))
    everything = " ".join(text for text, _ in drawn)
    assert "AI overview - CT tissue 1.0.0" in everything
    assert [value for value in PLANTED.values() if value.split("^")[0] in everything] == []


def test_the_picture_says_what_was_found_and_what_was_not(
    drawn: Drawn,
) -> None:
    run = torso_run(without=(5,))
    draw(run)
    texts = [text for text, _ in drawn]
    place = texts.index("Left lung")
    assert texts[place - 1 : place + 2] == ["2", "Left lung", f"{run.measurements[1].volume_ml:,.0f} mL"]
    assert "Not found: Metal implant" in texts
    assert {"RESEARCH USE ONLY", "Not for diagnosis"} <= set(texts)
    assert "Source: CT, series 2, 24 images of 80 x 64, voxel 4.50 x 5.00 x 10.00 mm" in " ".join(texts)


@pytest.mark.parametrize(
    ("orientation", "shape", "spacing_mm"),
    [
        ("HFS", (30, 128, 128), (8.0, 3.0, 3.0)),
        ("HFS", (12, 32, 40), (20.0, 10.0, 7.0)),
        ("coronal", (60, 100, 90), (5.0, 3.0, 5.0)),
        ("sagittal", (40, 200, 50), (8.0, 4.0, 5.0)),
        ("oblique", (40, 64, 64), (6.0, 6.0, 6.0)),
        ("HFS", (3, 8, 64), (60.0, 30.0, 5.0)),
    ],
)
def test_no_text_leaves_the_picture_or_lies_on_other_text(
    orientation: str,
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    drawn: Drawn,
) -> None:
    picture = draw(torso_run(orientation, shape, spacing_mm))
    assert_no_text_overlaps(drawn, picture)


def assert_no_text_overlaps(drawn: Drawn, picture: np.ndarray) -> None:
    """No text leaves the picture, or lies on other text."""
    height, width = picture.shape[:2]
    boxes = np.array([box for _, box in drawn])
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= width).all()
    assert (boxes[:, 3] <= height).all()
    a, b = boxes[:, None], boxes[None]
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    overlap = np.triu((high > low).all(axis=2), 1)
    assert [(drawn[i][0], drawn[j][0]) for i, j in np.argwhere(overlap)] == []


def test_every_view_keeps_its_true_proportions() -> None:
    run = torso_run("HFS", (16, 40, 80), (20.0, 8.0, 2.0))  # 320 mm in every direction but one of 160
    placed: list[tuple[tuple[int, int], tuple[int, int]]] = []
    sizes_mm = {"Coronal": (320.0, 160.0), "Sagittal": (320.0, 320.0)}
    slices = slice_planes(run.series.volume, run.labels, (3,))
    assert slices[0].size_mm == (320.0, 160.0)
    areas = slice_areas(run.labels)
    crossing = cross_planes(run.series.volume, run.labels, areas, (), (3,))
    assert {plane.name.capitalize(): plane.size_mm for plane in crossing} == sizes_mm
    picture = draw(run)
    framed = (picture == 56).all(axis=2)
    for height_mm, width_mm in ((320.0, 160.0), (320.0, 320.0)):
        placed += frames_of(framed, height_mm / width_mm)
    assert len(placed) >= 3


def frames_of(framed: np.ndarray, proportion: float) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Rectangles of the frame's colour, with that height for their width: (corner, size)."""
    found = []
    starts = framed & ~np.roll(framed, 1, 0) & ~np.roll(framed, 1, 1)
    for top, left in np.argwhere(starts).tolist():
        wide = run_length(framed[top, left:])
        high = run_length(framed[top:, left])
        if min(wide, high) > 60 and abs((high - 2) / (wide - 2) / proportion - 1.0) < 0.03:
            found.append(((left, top), (wide, high)))
    return found


def run_length(line: np.ndarray) -> int:
    """How many are true from the start."""
    return len(line) if line.all() else int(line.argmin())


def test_twelve_slices_cover_the_extent_of_what_was_found() -> None:
    labels = np.zeros((100, 8, 8), np.uint8)
    labels[:, 2:6, 2:6] = 1  # body everywhere
    labels[30:70, 3, 3] = 2
    chosen = choose_slices(labels, outlined=(1,))
    assert len(chosen) == 12
    assert 30 <= chosen[0] <= 34
    assert 65 <= chosen[-1] <= 69
    assert list(chosen) == sorted(set(chosen))


def test_a_structure_on_one_slice_is_in_the_picture() -> None:
    labels = np.zeros((100, 8, 8), np.uint8)
    labels[10:90, 3, 3] = 2
    for only in range(10, 90):
        seen = labels.copy()
        seen[only, 5, 5] = 3
        chosen = choose_slices(seen)
        assert only in chosen
        assert len(chosen) == 12


def test_every_slice_is_shown_when_there_are_fewer_than_twelve() -> None:
    labels = np.zeros((5, 8, 8), np.uint8)
    assert choose_slices(labels) == (0, 1, 2, 3, 4)
    labels[:] = 2
    assert choose_slices(labels) == (0, 1, 2, 3, 4)


def test_the_window_shows_lungs_only_when_lungs_were_found() -> None:
    assert grey_range(torso_run()) == (-1250.0, 450.0)
    assert grey_range(torso_run(without=(2, 3))) == (-160.0, 240.0)


def test_the_secondary_capture_and_the_png_are_the_same_picture() -> None:
    run = torso_run()
    dataset, png = build_overview(run)
    read = dcmread(BytesIO(encode(dataset, "0.1.0")))
    assert np.array_equal(read.pixel_array, np.asarray(Image.open(BytesIO(png))))
    assert (read.Modality, read.BurnedInAnnotation, read.ConversionType) == ("OT", "YES", "SYN")
    assert list(read.ImageType) == ["DERIVED", "SECONDARY"]
    assert "FrameOfReferenceUID" not in read
    assert (read.SeriesNumber, read.SeriesDescription) == (9003, "AI CT tissue overview (RUO)")
    assert (read.SOPInstanceUID, read.SeriesInstanceUID) == (
        run.instance_uid("overview"),
        run.series_uid("overview"),
    )
    assert (read.Manufacturer, read.PatientName) == ("DICOM AI Gateway", "TEST^SERIES1")


def test_malformed_and_missing_numbers_of_the_header_leave_captions_out(
    drawn: Drawn,
) -> None:
    draw(torso_run(shape=(4, 32, 40), spacing_mm=(40, 10, 9), InstanceNumber=None, SeriesNumber=None))
    texts = [text for text, _ in drawn]
    assert [text for text in texts if text.startswith("Im ") or "series" in text] == []
    assert {"1/4", "4/4"} <= set(texts)


# -- the legend ------------------------------------------------------------------------------------


def test_verdicts_are_words_and_pass_is_quiet(drawn: Drawn) -> None:
    doubts = {"left_lung": Verdict.PARTIAL, "right_lung": Verdict.SUSPECT, "metal_implant": Verdict.FAIL}
    quality = tuple(Finding((key,), "complete", verdict, f"About {key}.") for key, verdict in doubts.items())
    picture = draw(replace(torso_run(without=(5,)), quality=quality))
    texts = [text for text, _ in drawn]
    for label, word in (("Left lung", "PARTIAL"), ("Right lung", "SUSPECT")):
        assert texts[texts.index(label) + 2] == word
    assert "PASS" not in texts
    told = [text for text in texts if "About" in text]
    assert [text.split(" ")[0] for text in told] == ["5", "3", "2"]  # the gravest first
    assert texts[texts.index(told[0]) - 1] == "FAIL"  # of a structure that was not found
    plain = draw(torso_run(without=(5,)))
    assert plain.shape[0] < picture.shape[0]


def test_many_structures_that_are_only_cut_are_one_line(drawn: Drawn) -> None:
    """So that they do not crowd out what is wrong; the legend marks each."""
    run = torso_run()
    cut = [Finding((s.key,), "complete", Verdict.PARTIAL, f"{s.label}: cut.") for s in run.spec.structures]
    wrong = Finding(("bone",), "mean_value", Verdict.SUSPECT, "Bone: too soft.")
    draw(replace(run, quality=(*cut, wrong)))
    texts = [text for text, _ in drawn]
    line = "4 structures touch the border of the field of view; their sizes are lower bounds."
    assert [text for text in texts if text.startswith("4 ")] == ["4 Bone: too soft. Bone: cut.", line]
    assert texts.count("PARTIAL") == 4 + 1


def test_without_quality_checks_no_verdict_is_claimed(drawn: Drawn) -> None:
    draw(torso_run())
    assert [text for text, _ in drawn if "uality" in text or text in set(Verdict)] == []


def test_checks_that_found_nothing_are_said_to_have(drawn: Drawn) -> None:
    fine = (Finding(("body",), "pieces", Verdict.PASS, "Body: pieces 1."),)
    draw(replace(torso_run(), quality=fine))
    assert "Quality checks: nothing implausible was found." in [text for text, _ in drawn]


def test_a_run_that_found_nothing_says_so(drawn: Drawn) -> None:
    picture = draw(torso_run(without=(1, 2, 3, 4, 5)))
    texts = [text for text, _ in drawn]
    wanted = "Nothing was found: none of Body, Left lung, Right lung, Bone, Metal implant in this series."
    assert wanted in texts
    assert {"RESEARCH USE ONLY", "Coronal", "Sagittal"} <= set(texts)
    assert not (np.ptp(picture[100:700].astype(int), axis=2) > 0).any()  # no colour on any plane


def test_what_was_not_looked_for_is_not_said_to_be_absent(drawn: Drawn) -> None:
    draw(replace(torso_run(without=(4, 5)), not_evaluated=frozenset({4})))
    texts = [text for text, _ in drawn]
    assert "Not found: Metal implant" in texts
    assert "Not evaluated: Bone" in texts


def test_repairs_of_the_geometry_are_told_and_other_notes_are_not(drawn: Drawn) -> None:
    notes = (
        Note(NoteCode.LOCALIZERS_DROPPED, "1 localizer was left out."),
        Note(NoteCode.SPLIT, "The series was split."),
    )
    draw(torso_run(notes=notes))
    texts = " ".join(text for text, _ in drawn)
    assert "Geometry: FIXED (LOCALIZERS_DROPPED). 1 localizer was left out." in texts
    assert "split" not in texts


def many_run(count: int, found: int) -> ResultContext:
    """A run of a model with so many structures of the code table, of which the first are found."""
    run = torso_run("HFS", (30, 120, 120), (8.0, 3.0, 3.0))
    keys = list(structures())[5 : 5 + count]
    named = tuple(
        Structure(number=n, key=key, label=structures()[key].label) for n, key in enumerate(keys, start=1)
    )
    labels = np.zeros_like(run.labels)
    for n in range(1, found + 1):
        i, j, k = n % 5, n // 5 % 5, n // 25
        labels[2 + 5 * i : 6 + 5 * i, 10 + 20 * j : 28 + 20 * j, 5 + 20 * k : 23 + 20 * k] = n
    spec = run.spec.model_copy(update={"structures": named})
    return replace(run, spec=spec, labels=labels, measurements=measure(run.series.volume, labels, named))


def test_104_structures_have_a_legend_in_columns_with_every_name_and_number(drawn: Drawn) -> None:
    run = many_run(104, 104)
    picture = draw(run)
    texts = [text for text, _ in drawn]
    for structure in run.spec.structures:
        assert structure.label in texts
        assert texts.count(str(structure.number)) >= 2  # in the legend, and on a plane
    labels = {s.label for s in run.spec.structures}
    assert len({round(box[0]) for text, box in drawn if text in labels}) >= 3  # columns
    assert_no_text_overlaps(drawn, picture)


def test_only_what_was_found_is_a_row_of_the_legend(drawn: Drawn) -> None:
    run = many_run(104, 20)
    draw(run)
    labels = [s.label for s in run.spec.structures]
    assert [text for text, _ in drawn if text in labels] == labels[:20]
    said = " ".join(text for text, _ in drawn)
    assert f"Not found: {', '.join(labels[20:])}" in said


def test_a_longest_name_and_a_letter_that_the_font_lacks_fit(drawn: Drawn) -> None:
    run = torso_run()
    named = tuple(
        s.model_copy(update={"label": ("Ödem – größtes Ödem " * 4)[:63] + str(s.number)})
        for s in run.spec.structures
    )
    spec = run.spec.model_copy(update={"structures": named, "title": "W" * 64})
    picture = draw(replace(run, spec=spec, measurements=measure(run.series.volume, run.labels, named)))
    assert_no_text_overlaps(drawn, picture)
    assert all(text.replace("°", "").isascii() for text, _ in drawn)


# -- planes ----------------------------------------------------------------------------------------


def test_the_planes_across_show_a_structure_of_a_single_voxel() -> None:
    run = torso_run("HFS", (30, 200, 300), (8.0, 2.0, 1.5))
    labels = np.zeros_like(run.labels)
    labels[17, 123, 211] = 3
    areas = slice_areas(labels, [(3,)])
    assert areas[17, 3] == 1
    planes = cross_planes(run.series.volume, labels, areas, (1,), (17,))
    assert [(plane.labels == 3).sum() for plane in planes] == [1, 1]


def test_each_view_has_the_voxels_and_labels_of_its_plane() -> None:
    run = torso_run("HFS", (20, 50, 60), (8.0, 6.0, 6.0))
    labels = np.zeros_like(run.labels)
    labels[10, 20, 30] = 2
    coronal, sagittal = cross_planes(run.series.volume, labels, slice_areas(labels), (), (5,))
    np.testing.assert_array_equal(coronal.values, run.series.volume.voxels[::-1, 20])
    np.testing.assert_array_equal(sagittal.values, run.series.volume.voxels[::-1, :, 30])
    np.testing.assert_array_equal(np.argwhere(coronal.labels), [[9, 30]])
    assert list(coronal.slices) == pytest.approx([1.0 - 5.5 / 20])


@pytest.mark.parametrize("options", [{"fill": 0.0}, {"fill": 1.0}, {"outline_px": 4.0}, {"numbers": False}])
def test_style_changes_the_picture_and_not_its_size(options: dict[str, Any]) -> None:
    run = torso_run()
    usual, other = draw(run), draw(run, Style(**options))
    assert usual.shape == other.shape
    assert (usual != other).any()


def test_the_outline_of_a_whole_runs_around_its_parts() -> None:
    run = torso_run("HFS", (20, 64, 64), (8.0, 5.0, 5.0))
    code = CodeEntry(value="91723000", scheme="SCT", meaning="Anatomical Structure")
    colours = {1: (0, 255, 0), 2: (255, 0, 255)}
    named = tuple(
        Structure(
            number=n,
            key=f"part_{n}",
            label=f"Part {n}",
            includes=(2,) if n == 1 else (),
            coding=Coding(category=code, type=code, rgb=rgb),
        )
        for n, rgb in colours.items()
    )
    labels = np.zeros_like(run.labels)
    labels[5:15, 20:40, 20:40] = 2  # the part is all that there is of the whole
    spec = run.spec.model_copy(update={"structures": named})
    picture = draw(
        replace(run, spec=spec, labels=labels, measurements=measure(run.series.volume, labels, named)),
        Style(numbers=False),
    )
    planes = picture[90:850].astype(int)
    green, pink = (np.abs(planes - rgb).sum(axis=2) < 40 for rgb in colours.values())
    assert green.sum() > 0.8 * pink.sum() > 500


def test_a_single_image_is_shown_alone(drawn: Drawn) -> None:
    run = torso_run("HFS", (1, 64, 80), (10.0, 5.0, 4.5))
    picture = draw(run)
    texts = [text for text, _ in drawn]
    assert "Axial" in texts
    assert "Coronal" not in texts
    assert_no_text_overlaps(drawn, picture)


def test_the_same_run_gives_the_same_bytes() -> None:
    run = torso_run()
    one, other = build_overview(run), build_overview(run)
    assert one[1] == other[1]
    assert encode(one[0], "1") == encode(other[0], "1")
