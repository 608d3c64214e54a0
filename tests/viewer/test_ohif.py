"""OHIF shows our results as they are: labels, colours, and every segment in its place in the patient.

The viewer is the one that hospitals install, in a browser, on an archive with DICOMweb. What it draws is
compared with the label map of the run through the camera's own affine (canvas to patient), pixel by pixel.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SegmentationStorage

from ai.profile import DEFAULT_PROFILE, Profile
from ai.results.context import ResultContext, derive_identity
from ai.results.seg import build_segs
from ai.results.write import write_results
from ai.volume import LabelArray
from tests import builders
from tests.orthanc import Orthanc
from tests.runs import run_of, series_of
from tests.viewer.ohif import Ohif
from tests.viewer.picture import (
    Rgb,
    clear_of_borders,
    dice_of_each,
    drawn_labels,
    expected_grey,
    expected_labels,
    fitted,
    likeness,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

SHAPE = (24, 64, 80)
SPACING_MM = (10.0, 5.0, 4.5)
SLICES = {"HFS": (9, 15), "coronal": (9, 17)}  # each with all segments but one at most, and not alike
OVERLAP = 0.99  # Dice of each segment at least, where it is drawn right
WRONG_OVERLAP = 0.9  # Dice of one segment at most, where the mask is a voxel off or more
RGB_TOLERANCE = 3  # the file's colours are CIELab in 16 bits

STORAGE = {"binary": SegmentationStorage, "label_map": "1.2.840.10008.5.1.4.1.1.66.7"}
CASES = (
    (11, Profile(), "HFS"),
    (12, Profile(segmentation="label_map", compression="rle"), "HFS"),
    (13, Profile(segmentation="label_map"), "coronal"),
)
SIDES = {"HFS": {"top": "A", "left": "R"}, "coronal": {"top": "H", "left": "R"}}

Mutation = Callable[[LabelArray], LabelArray]
MUTATIONS: Mapping[str, Mutation] = {
    "left and right exchanged": lambda labels: labels[:, :, ::-1],
    "upside down": lambda labels: labels[:, ::-1],
    "slices in reverse": lambda labels: labels[::-1],
    "one voxel aside": lambda labels: np.roll(labels, 1, axis=2),
    "one voxel down": lambda labels: np.roll(labels, 1, axis=1),
    "one slice away": lambda labels: np.roll(labels, 1, axis=0),
}


@dataclass(frozen=True)
class Study:
    """A study in the archive: one CT series and our results of it."""

    run: ResultContext
    images: tuple[str, ...]
    seg: Dataset
    overview: Dataset
    slices: tuple[int, int]

    @property
    def study_instance_uid(self) -> str:
        return str(self.seg.StudyInstanceUID)


def stored_study(
    archive: Orthanc, seed: int, profile: Profile = DEFAULT_PROFILE, orientation: str = "HFS"
) -> Study:
    """Store a synthetic torso, and the results of a run that found the truth."""
    datasets, labels = builders.torso_series(orientation, SHAPE, SPACING_MM, seed=seed)
    run = run_of(series_of(datasets, builders.affine(SHAPE, SPACING_MM, orientation)), labels)
    for dataset in datasets:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        archive.store(buffer.getvalue())
    written = write_results(run, [profile])
    files = {file.kind: file.content for file in written.results}
    for content in files.values():
        archive.store(content)
    images = tuple(str(dataset.SOPInstanceUID) for dataset in datasets)
    seg, overview = (dcmread(io.BytesIO(files[kind])) for kind in ("seg", "overview"))
    return Study(run, images, seg, overview, SLICES[orientation])


def stored_background_first(archive: Orthanc, study: Study) -> Dataset:
    """Store the label map of a study with the background's item in front, where the standard allows it."""
    (seg,) = build_segs(replace(study.run, profile=Profile(segmentation="label_map")))
    dataset = dcmread(io.BytesIO(seg.content))
    dataset.SegmentSequence = sorted(dataset.SegmentSequence, key=lambda item: int(item.SegmentNumber))
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    archive.store(buffer.getvalue())
    return dataset


def stored_mutation(archive: Orthanc, study: Study, name: str) -> Dataset:
    """Store a segmentation of a study whose mask is misplaced; nothing of ours verifies it."""
    run = study.run
    source = run.series.datasets[0].SeriesInstanceUID
    identity = derive_identity(str(source), name, run.spec, run.software_version)
    labels = np.ascontiguousarray(MUTATIONS[name](run.labels))
    (seg,) = build_segs(replace(run, labels=labels, identity=identity))
    archive.store(seg.content)
    return dcmread(io.BytesIO(seg.content))


def segments_of(seg: Dataset) -> list[tuple[str, Rgb]]:
    """Label and colour of each segment of a file, as it lists them; the background is none."""
    return [
        (
            str(item.SegmentLabel),
            hd.color.CIELabColor.from_dicom_value(item.RecommendedDisplayCIELabValue).to_rgb(),
        )
        for item in seg.SegmentSequence
        if item.SegmentNumber
    ]


def rows_of(ohif: Ohif) -> list[tuple[str, Rgb]]:
    """Label and colour of the panel's rows; OHIF lists the background of a label map too."""
    return [row for row in ohif.panel() if row[0] != "Background"]


def wrong_colours(shown: list[tuple[str, Rgb]], expected: list[tuple[str, Rgb]]) -> list[str]:
    """Labels whose colour in the panel is not that of the file."""
    wanted = dict(expected)
    return [label for label, rgb in shown if rgb != pytest.approx(wanted[label], abs=RGB_TOLERANCE)]


def drawn_overlap(ohif: Ohif, study: Study, slices: tuple[int, ...]) -> dict[str, float]:
    """Dice of each segment, by label, over some slices: what the viewport shows, against the run."""
    segments = segments_of(study.seg)
    colours = {number: rgb for number, (_, rgb) in enumerate(segments, start=1)}
    affine = study.run.series.volume.geometry.index_to_lps
    pairs = []
    ohif.fill_only(1.0)
    for index in slices:
        ohif.show_slice(study.images[index])
        pixels, camera = ohif.view()
        voxels = camera.voxels(affine)
        clear = clear_of_borders(voxels)
        assert np.abs(voxels[0] - index).max() < 0.01, "the viewport shows another slice, or none of ours"
        drawn = drawn_labels(pixels, colours)
        pairs.append((expected_labels(study.run.labels, voxels)[clear], drawn[clear]))
    overlaps = dice_of_each(pairs, colours)
    return {segments[number - 1][0]: overlap for number, overlap in overlaps.items()}


def check_place_of_images(ohif: Ohif, study: Study) -> None:
    """Else segments would be held against the wrong place of the picture."""
    volume, first = study.run.series.volume, study.run.series.datasets[0]
    window = (float(first.WindowCenter), float(first.WindowWidth))
    for index in study.slices:
        ohif.show_slice(study.images[index])
        pixels, camera = ohif.view()
        voxels = camera.voxels(volume.geometry.index_to_lps)
        expected = expected_grey(volume.voxels.astype(np.float64), voxels, window)
        drawn = pixels.astype(np.float64).mean(axis=-1)
        assert likeness(expected, drawn) > 0.999
        for turned in (expected[::-1], expected[:, ::-1], np.roll(expected, 10, axis=1)):
            assert likeness(turned, drawn) < 0.98


@pytest.mark.parametrize(("seed", "profile", "orientation"), CASES)
def test_ohif_shows_each_segment_with_its_label_colour_and_place(
    ohif: Ohif, archive: Orthanc, seed: int, profile: Profile, orientation: str, tmp_path: Path
) -> None:
    study = stored_study(archive, seed, profile, orientation)
    assert study.seg.SOPClassUID == STORAGE[profile.segmentation]
    ohif.open(study.study_instance_uid)
    check_place_of_images(ohif, study)
    ohif.load_segmentation(str(study.seg.SeriesInstanceUID))

    shown, expected = rows_of(ohif), segments_of(study.seg)
    assert [label for label, _ in shown] == [label for label, _ in expected]
    assert wrong_colours(shown, expected) == []

    overlap = drawn_overlap(ohif, study, study.slices)
    assert overlap.keys() == {label for label, _ in expected}, "a segment is on none of the slices compared"
    assert min(overlap.values()) > OVERLAP, overlap
    assert SIDES[orientation].items() <= ohif.letters().items()


@pytest.fixture(scope="module")
def control(archive: Orthanc) -> tuple[Study, dict[str, Dataset]]:
    """A study with its segmentation and, by name, others that are wrong."""
    study = stored_study(archive, 21)
    wrong = {name: stored_mutation(archive, study, name) for name in MUTATIONS}
    return study, wrong | {"background first": stored_background_first(archive, study)}


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mask_in_the_wrong_place_is_seen(
    ohif: Ohif, control: tuple[Study, dict[str, Dataset]], name: str, tmp_path: Path
) -> None:
    """The comparison can fail: each of these passes every check of labels and colours."""
    study, wrong = control
    ohif.open(study.study_instance_uid)
    ohif.load_segmentation(str(wrong[name].SeriesInstanceUID))
    overlap = drawn_overlap(ohif, study, study.slices[:1])
    assert min(overlap.values()) < WRONG_OVERLAP, overlap


def test_the_right_mask_among_them_is_not_held_for_wrong(
    ohif: Ohif, control: tuple[Study, dict[str, Dataset]], tmp_path: Path
) -> None:
    study, _ = control
    ohif.open(study.study_instance_uid)
    ohif.load_segmentation(str(study.seg.SeriesInstanceUID))
    assert min(drawn_overlap(ohif, study, study.slices[:1]).values()) > OVERLAP


def test_a_wrong_colour_is_seen(
    ohif: Ohif, control: tuple[Study, dict[str, Dataset]], tmp_path: Path
) -> None:
    """This OHIF takes colours by the position of an item, not by its number: the background must be last."""
    study, wrong = control
    seg = wrong["background first"]
    ohif.open(study.study_instance_uid)
    ohif.load_segmentation(str(seg.SeriesInstanceUID))
    assert wrong_colours(rows_of(ohif), segments_of(seg)) != []


def test_the_overview_picture_is_shown_as_it_was_drawn(
    ohif: Ohif, control: tuple[Study, dict[str, Dataset]], tmp_path: Path
) -> None:
    """Whole, upright and in its colours: what a reader has whose viewer shows neither SEG nor report."""
    study, _ = control
    ohif.open(study.study_instance_uid)
    ohif.load_alone(str(study.overview.SeriesInstanceUID))
    pixels, _ = ohif.view()
    expected = fitted(study.overview.pixel_array, pixels.shape[:2])
    assert likeness(expected.astype(np.float64), pixels.astype(np.float64)) > 0.97
    assert likeness(expected[:, ::-1].astype(np.float64), pixels.astype(np.float64)) < 0.9
