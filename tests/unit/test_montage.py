"""Drawing labelled planes: colours, outlines, patterns for who sees colours otherwise, small things, PNG."""

from __future__ import annotations

from io import BytesIO
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from ai.results.montage_colours import ALIKE, apparent_lab, choose_patterns, distances
from ai.results.montage_marks import MARK_RGB, Mark, draw_mark, fitted, width, wrapped
from ai.results.montage_numbers import centres
from ai.results.montage_palette import DEFAULT_STYLE, SCALE, Overlay, Palette, Style
from ai.results.montage_plane import counts, neighbours, present, render, sampled
from ai.results.png import encode_png
from ai.terminology import structures

RED, GREEN, BLUE = (213, 94, 0), (0, 158, 115), (0, 114, 178)


def palette(*overlays: Overlay, style: Style = DEFAULT_STYLE, **patterns: int) -> Palette:
    return Palette(overlays, {int(key[1:]): value for key, value in patterns.items()}, style)


def drawn(labels: npt.NDArray[np.uint8], colours: Palette, grey: int = 100) -> npt.NDArray[np.int64]:
    back = np.full(labels.shape, grey, np.uint8)
    size = (labels.shape[1], labels.shape[0])
    return render(back, sampled(labels, size), colours).astype(np.int64)


def square(number: int = 1) -> npt.NDArray[np.uint8]:
    labels = np.zeros((40, 40), np.uint8)
    labels[10:30, 10:30] = number
    return labels


# -- colours ---------------------------------------------------------------------------------------


def test_lab_of_the_primaries_is_that_of_the_textbooks() -> None:
    lab = apparent_lab([(255, 255, 255), (255, 0, 0), (0, 0, 255), (0, 0, 0)])[0]
    expected = [(100.0, 0.0, 0.0), (53.24, 80.09, 67.20), (32.30, 79.19, -107.86), (0.0, 0.0, 0.0)]
    np.testing.assert_allclose(lab, expected, atol=0.05)


def test_dichromats_confuse_what_they_are_known_to() -> None:
    red_and_green = [(166, 80, 40), (100, 110, 30)]
    lab = apparent_lab(red_and_green)
    normal, protan, deutan, _ = np.sqrt(((lab[:, 0] - lab[:, 1]) ** 2).sum(axis=-1))
    assert normal > 40
    assert deutan < 0.5 * normal
    assert distances(red_and_green)[0, 1] == pytest.approx(min(protan, deutan), rel=0.2)


def test_greys_look_the_same_to_everybody() -> None:
    lab = apparent_lab([(g, g, g) for g in (0, 60, 128, 255)])
    np.testing.assert_allclose(lab, np.broadcast_to(lab[0], lab.shape), atol=0.2)


def test_the_colours_of_our_own_models_need_no_patterns() -> None:
    for keys in (
        ("body", "left_lung", "right_lung", "bone", "metal_implant"),
        ("anterior_hippocampus", "posterior_hippocampus"),
    ):
        rgbs = {n: structures()[key].rgb for n, key in enumerate(keys)}
        assert distances(list(rgbs.values()))[np.triu_indices(len(keys), 1)].min() >= ALIKE
        assert set(choose_patterns(rgbs, list(combinations(rgbs, 2))).values()) == {0}


def test_neighbours_of_the_whole_table_that_look_alike_differ_in_pattern() -> None:
    rows = list(structures().values())
    rgbs = {n: row.rgb for n, row in enumerate(rows, start=1)}
    touching = [(n, n + 1) for n in range(1, len(rows))] + [(n, n + 2) for n in range(1, len(rows) - 1)]
    patterns = choose_patterns(rgbs, touching)
    apart = distances([row.rgb for row in rows])
    alike = [(a, b) for a, b in touching if apart[a - 1, b - 1] < ALIKE]
    assert len(alike) > 20
    assert [(a, b) for a, b in alike if patterns[a] == patterns[b]] == []


def test_those_that_do_not_touch_share_the_simplest_pattern() -> None:
    same = {1: RED, 2: RED, 3: RED}
    assert choose_patterns(same, ()) == {1: 0, 2: 0, 3: 0}
    assert choose_patterns(same, [(2, 1), (2, 3), (9, 1)]) == {1: 0, 2: 1, 3: 0}
    four = dict.fromkeys(range(1, 5), RED)
    assert sorted(choose_patterns(four, list(combinations(four, 2))).values()) == [0, 0, 1, 2]


# -- planes ----------------------------------------------------------------------------------------


def test_fill_and_outline_have_the_colour_and_the_rest_is_untouched() -> None:
    picture = drawn(square(), palette(Overlay(1, RED), style=Style(fill=0.5, outline_px=2.0)))
    assert picture[5, 5].tolist() == [100, 100, 100]
    np.testing.assert_allclose(picture[20, 20], (100 + np.array(RED)) / 2, atol=2)
    np.testing.assert_allclose(picture[10, 20], RED, atol=2)
    assert picture[9, 20].sum() < 300  # the dark line outside


def test_without_fill_the_image_inside_is_as_it_was() -> None:
    picture = drawn(square(), palette(Overlay(1, RED), style=Style(fill=0.0)))
    assert picture[20, 20].tolist() == [100, 100, 100]


def test_two_neighbours_of_one_colour_have_a_dark_line_between_them() -> None:
    labels = square(1)
    labels[10:30, 20:30] = 2
    picture = drawn(labels, palette(Overlay(1, RED), Overlay(2, RED)), grey=200)
    luma = picture[20] @ (0.299, 0.587, 0.114)
    between, beside = luma[19:21].min(), np.array([luma[17], luma[22]])
    assert between < 0.75 * beside.min()


def test_a_dashed_outline_has_two_brightnesses_and_a_solid_one_does_not() -> None:
    colours = (Overlay(1, GREEN),)
    rows = {
        pattern: drawn(square(), palette(*colours, n1=pattern))[10, 12:28].sum(axis=1) for pattern in range(3)
    }
    assert np.ptp(rows[0]) <= 3
    assert np.ptp(rows[1]) > 100
    assert np.ptp(rows[2]) > 100
    changes = [int((np.abs(np.diff(rows[pattern])) > 60).sum()) for pattern in range(3)]
    assert changes[0] == 0 < changes[1] < changes[2]


def test_an_envelope_is_drawn_around_everything_and_not_filled() -> None:
    labels = square(1)
    labels[15:25, 10:25] = 2  # touches its border
    picture = drawn(labels, palette(Overlay(1, GREEN, filled=False), Overlay(2, BLUE)))
    assert picture[26, 20].tolist() == picture[13, 20].tolist() == [100, 100, 100]
    np.testing.assert_allclose(picture[29, 20], GREEN, atol=60)


@pytest.mark.parametrize("depth", [1, 2])
def test_outlines_of_wholes_lie_outside_of_those_of_their_parts(depth: int) -> None:
    labels = square(depth + 1)
    wholes = {
        1: (Overlay(1, RED, includes=(2,)),),
        2: (Overlay(1, RED, includes=(2, 3)), Overlay(2, GREEN, includes=(3,))),
    }
    overlays = (*wholes[depth], Overlay(depth + 1, BLUE))
    picture = drawn(labels, palette(*overlays, style=Style(outline_px=2.0)))
    places = []
    for overlay in overlays:
        near = np.abs(picture[20, :14] - overlay.rgb).sum(axis=1) < 30
        assert near.any()
        places.append(int(near.argmax()))
    assert places == sorted(set(places))  # from outside: the whole, its part, the part of that


@settings(max_examples=40)
@given(st.integers(4, 300), st.integers(4, 300), st.integers(2, 60), st.integers(2, 60), st.data())
def test_a_single_voxel_is_never_lost(
    rows: int, columns: int, wide: int, high: int, data: st.DataObject
) -> None:
    labels = np.zeros((rows, columns), np.uint8)
    labels[data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))] = 7
    shown = sampled(labels, (wide, high))
    assert shown.shape == (high * SCALE, wide * SCALE)
    assert present(shown) == {7}
    assert set(centres(shown)) <= {7}
    picture = render(np.zeros((rows, columns), np.uint8), shown, palette(Overlay(7, (255, 255, 255))))
    assert picture.shape == (high, wide, 3)
    assert picture.max() > 60


def test_counts_are_those_of_numpy() -> None:
    labels = np.random.default_rng(1).integers(0, 256, (37, 53)).astype(np.uint8)
    np.testing.assert_array_equal(counts(labels), np.bincount(labels.reshape(-1), minlength=256))
    np.testing.assert_array_equal(
        counts(labels[::-1, ::3]), np.bincount(labels[:, ::3].reshape(-1), minlength=256)
    )


def test_neighbours_touch_or_nearly_do() -> None:
    labels = np.zeros((40, 40), np.uint8)
    labels[5:15, 5:15], labels[5:15, 15:25], labels[17:20, 5:15], labels[30:, 30:] = 1, 2, 3, 4
    assert neighbours(sampled(labels, (40, 40))) == {(1, 2), (1, 3)}


def test_the_centre_of_a_ring_lies_in_the_ring() -> None:
    labels = square(1)
    labels[14:26, 13:26] = 2
    shown = sampled(labels, (40, 40))
    for number, (area, x, y) in centres(shown).items():
        assert labels[y, x] == number
        assert area == (labels == number).sum()


# -- words and signs -------------------------------------------------------------------------------


def test_the_signs_of_the_verdicts_differ_in_shape_without_colour() -> None:
    signs = {}
    for mark in MARK_RGB:
        image = Image.new("RGB", (40, 40))
        draw_mark(ImageDraw.Draw(image), mark, 10, 10, 16)
        signs[mark] = np.asarray(image).max(axis=2) > 60
        outside = signs[mark].copy()
        outside[8:29, 8:29] = False
        assert not outside.any()
    pairs: list[tuple[Mark, Mark]] = list(combinations(signs, 2))
    for one, other in pairs:
        assert (signs[one] != signs[other]).sum() > 40, (one, other)


def test_text_that_is_too_long_becomes_smaller_and_then_shorter() -> None:
    assert fitted("Liver", 17, 200) == ("Liver", 17)
    text, size = fitted("Left gluteus maximus", 17, 150)
    assert text == "Left gluteus maximus"
    assert size < 17
    text, size = fitted("Left gluteus maximus", 17, 60)
    assert text.endswith("...")
    assert width(text, size) <= 60
    assert fitted("Liver", 17, 1) == ("", 12)


def test_wrapped_text_has_every_word_and_no_line_is_too_long() -> None:
    words = [f"structure{n}" for n in range(40)]
    lines = wrapped(", ".join(words), 15, 400, 20)
    assert " ".join(lines) == ", ".join(words)
    assert max(width(line, 15) for line in lines) <= 400
    assert len(wrapped(", ".join(words), 15, 400, 3)) == 3
    assert wrapped("", 15, 400, 3) == []


# -- PNG -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (64, 33, 3)])
def test_a_png_has_the_pixels_of_the_picture(shape: tuple[int, int, int]) -> None:
    picture = np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)
    png = encode_png(picture)
    with Image.open(BytesIO(png)) as read:
        assert read.mode == "RGB"
        np.testing.assert_array_equal(np.asarray(read), picture)
    assert encode_png(picture) == png
