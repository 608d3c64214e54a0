"""The overview picture: what is drawn, on which side, and what never is."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread

from ai.results.encode import encode
from ai.results.overview import build_overview, choose_slices, draw, grey_range
from ai.sides import Edges, side_letters
from tests.builders import affine
from tests.runs import torso_run

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
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Every string that Pillow draws, with its box."""
    strings: list[tuple[str, tuple[float, float, float, float]]] = []
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


def test_the_right_lung_is_drawn_on_the_side_marked_r(
    drawn: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    for orientation in ("HFS", "FFS"):
        drawn.clear()
        picture = draw(torso_run(orientation)).astype(int)
        grid = picture[80:-120]  # without the swatches of the legend
        orange = np.flatnonzero((np.abs(grid - (230, 159, 0)).sum(axis=2) < 60).any(axis=0))
        tile = [column for column in orange if column < 256]
        letters = {text: box[0] for text, box in drawn if text in ("R", "L") and box[2] <= 256}
        assert tile
        assert abs(np.median(tile) - letters["R"]) < abs(np.median(tile) - letters["L"])


def test_no_patient_attribute_and_no_free_text_of_the_header_is_drawn(
    drawn: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    build_overview(torso_run(**PLANTED))
    everything = " ".join(text for text, _ in drawn)
    assert "AI overview - CT tissue 1.0.0" in everything
    assert [value for value in PLANTED.values() if value.split("^")[0] in everything] == []


def test_the_picture_says_what_was_found_and_what_was_not(
    drawn: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    run = torso_run(without=(5,))
    draw(run)
    texts = [text for text, _ in drawn]
    assert f"Left lung: {run.measurements[1].volume_ml:,.0f} mL" in texts
    assert "Metal implant: not found" in texts
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
    drawn: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    picture = draw(torso_run(orientation, shape, spacing_mm))
    height, width = picture.shape[:2]
    for text, (x0, y0, x1, y1) in drawn:
        assert min(x0, y0) >= 0, text
        assert x1 <= width, text
        assert y1 <= height, text
    for i, (text, a) in enumerate(drawn):
        for other, b in drawn[i + 1 :]:
            overlap = min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1])
            assert not overlap, f"{text!r} lies on {other!r}"


def test_slices_keep_their_true_proportions() -> None:
    run = torso_run("HFS", (3, 40, 80), (20.0, 8.0, 2.0))  # 320 mm high, 160 mm wide
    picture = draw(run)
    framed = (picture == 56).all(axis=2)
    columns = np.flatnonzero(framed.sum(axis=0) > 100)
    rows = np.flatnonzero(framed.sum(axis=1) > 100)
    assert (rows[-1] - rows[0]) / (columns[1] - columns[0]) == pytest.approx(2.0, rel=0.02)


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
    drawn: list[tuple[str, tuple[float, float, float, float]]],
) -> None:
    draw(torso_run(shape=(4, 32, 40), spacing_mm=(40, 10, 9), InstanceNumber=None, SeriesNumber=None))
    assert [text for text, _ in drawn if text.startswith("Im ") or "series" in text] == []
