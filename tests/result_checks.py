"""What tools and readers of others must say of a set of results; see ``docs/conformance-results.md``.

Messages that the documentation does not list fail.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.nifti import read_nifti
from ai.volume import LabelArray
from tests import result_sets as kinds
from tests import sr_tree
from tests.result_sets import ResultSet
from tests.validators import dciodvfy_errors, dicom_validator_errors, inconsistencies, page_of, tool

DOCUMENT = Path(__file__).parents[1] / "docs" / "conformance-results.md"
_IDENTITY = [
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "StudyDescription",
    "AccessionNumber",
    "ReferringPhysicianName",
    "FrameOfReferenceUID",
]
_LARGE = 20_000_000  # voxels: readers in Python take minutes
_SAME_GRID = 0.05  # of a voxel


# -- the documentation -----------------------------------------------------------------------------


@functools.cache
def table(heading: str) -> tuple[tuple[str, ...], ...]:
    """Cells of the rows below a heading, without the marks of code and without the head."""
    text = DOCUMENT.read_text(encoding="utf-8").partition(f"## {heading}\n")[2].split("\n## ")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return tuple(tuple(cell.strip().strip("`") for cell in line.strip("|").split("|")) for line in lines)


def objects_and_results() -> dict[str, tuple[str, ...]]:
    """The rows of the table of objects, by object."""
    return {row[0]: row[1:] for row in table("Objects")}


def known(program: str, name: str) -> tuple[str, ...]:
    """The messages that a tool may give of a kind of object; ``N`` stands for any number."""
    rows = table("Known messages")
    return tuple(row[2] for row in rows if row[0] == program and name in re.split(r"; ", row[1]))


def unknown(messages: Iterable[str], program: str, name: str) -> set[str]:
    """Messages that the documentation does not list."""
    allowed = [re.escape(message).replace("N", r"(N|\d+)") for message in known(program, name)]
    return {m for m in messages if not any(re.fullmatch(pattern, m) for pattern in allowed)}


# -- valid, and about the same patient -------------------------------------------------------------


def check_dciodvfy(results: ResultSet) -> None:
    """No error in any object, but those of a tool that is too old."""
    wrong = {
        f"{results.name} {path.name} {name}: {message}"
        for name, paths in results.objects.items()
        for path in paths
        for message in unknown(dciodvfy_errors(path), "dciodvfy", name)
    }
    assert not wrong, wrong


def check_dicom_validator(results: ResultSet) -> None:
    """No error in any object."""
    wrong = {
        f"{results.name} {path.name} {name}: {message}"
        for name, paths in results.objects.items()
        for path in paths
        for message in unknown(dicom_validator_errors(path), "dicom-validator", name)
    }
    assert not wrong, wrong


def check_dcentvfy(results: ResultSet) -> None:
    """Patient, study and frame of reference are those of the source, as far as it agrees with itself."""
    sources = results.sources if len(results.sources) < 40 else results.sources[::20]
    found = inconsistencies((*sources, *results.paths)) - inconsistencies(sources)
    wrong = unknown({line.partition(" for file ")[0] for line in found}, "dcentvfy", "all")
    assert not wrong, (results.name, wrong)
    if results.context is not None:
        _check_label_maps_say_as_much(results)


def _check_label_maps_say_as_much(results: ResultSet) -> None:
    """dcentvfy leaves out label maps: what it found right in the binary Segmentation is the same in them."""
    first = dcmread(results.objects[kinds.BINARY][0], specific_tags=_IDENTITY)
    for name in (kinds.LABEL_MAP, kinds.LABEL_MAP_RLE, kinds.LABEL_MAP_JPEG_LS):
        for path in results.objects.get(name, ()):
            assert dcmread(path, specific_tags=_IDENTITY) == first, path


# -- segmentations ---------------------------------------------------------------------------------


def dcmqi_cannot(results: ResultSet) -> bool:
    """Whether an image of ITK, as dcmqi makes it, cannot lie where the slices lie."""
    geometry = results.run.series.volume.geometry
    return bool(geometry.needs) or geometry.is_projection


def check_dcmqi(results: ResultSet, folder: Path) -> None:
    """dcmqi gives back every voxel of each binary Segmentation and label map where it lies in the patient."""
    for name in (kinds.BINARY, kinds.LABEL_MAP, kinds.LABEL_MAP_RLE):
        for path in results.objects.get(name, ()):
            expected, structures = expected_segments(path, results)
            merge = [] if any(s.includes for s in structures) else ["--mergeSegments"]
            out = folder / path.stem
            out.mkdir(parents=True)
            tool("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", out, "-t", "nii", *merge)
            found = {number: np.zeros(results.run.labels.shape, np.bool_) for number in expected}
            for read in sorted(out.glob("*.nii.gz")):
                labels = placed(read, results)
                for number in set(np.unique(labels).tolist()) - {0}:
                    found[number] |= labels == number
            for number, mask in expected.items():
                np.testing.assert_array_equal(found[number], mask, f"{results.name} {path.name} {number}")


def expected_segments(path: Path, results: ResultSet) -> tuple[dict[int, npt.NDArray[np.bool_]], list[Any]]:
    """Mask by segment number of a Segmentation, and their structures, told by their labels."""
    by_label = {structure.label: structure for structure in results.run.spec.structures}
    items = dcmread(path, stop_before_pixels=True, specific_tags=["SegmentSequence"]).SegmentSequence
    segments = {int(item.SegmentNumber): by_label.get(item.SegmentLabel) for item in items}
    structures = {number: structure for number, structure in segments.items() if number}
    assert None not in structures.values()
    masks = {n: np.isin(results.run.labels, s.numbers) for n, s in structures.items() if s is not None}
    return masks, [*structures.values()]


def placed(path: Path, results: ResultSet) -> LabelArray:
    """A NIfTI label map on the grid of the source; its axes may run another way, and it may be smaller."""
    grid = read_nifti(path)
    to_ours = np.linalg.inv(results.run.series.volume.geometry.index_to_lps) @ grid.index_to_lps
    ends = np.array([[0, 0, 0, 1], [*(n - 1 for n in grid.voxels.shape), 1]], np.float64)
    corners = (ends @ to_ours.T)[:, :3]
    assert np.abs(corners - np.rint(corners)).max() < _SAME_GRID
    order = np.argmax(np.abs(to_ours[:3, :3]), axis=1)
    assert sorted(order) == [0, 1, 2]
    flips = tuple(slice(None, None, -1 if to_ours[i, axis] < 0 else None) for i, axis in enumerate(order))
    start = np.rint(corners).astype(int).min(axis=0)
    theirs = grid.voxels.transpose(order)[flips]
    labels = np.zeros(results.run.labels.shape, np.uint8)
    box = tuple(slice(s, s + n) for s, n in zip(start, theirs.shape, strict=True))
    assert labels[box].shape == theirs.shape
    labels[box] = theirs
    return labels


def check_highdicom(results: ResultSet) -> None:
    """highdicom gives back every voxel by the source image or frame that each frame names."""
    geometry, shape = results.run.series.volume.geometry, results.run.labels.shape
    names = [kinds.BINARY, kinds.LABEL_MAP_JPEG_LS, kinds.FRACTIONAL]
    for name in names if results.run.labels.size < _LARGE else names[1:2]:
        for path in results.objects[name]:
            masks, structures = expected_segments(path, results)
            if any(structure.includes for structure in structures):
                continue  # no combination of segments that overlap
            seg = hd.seg.segread(path)
            options: dict[str, Any] = {"combine_segments": True, "skip_overlap_checks": True}
            options |= {"assert_missing_frames_are_empty": True, "ignore_spatial_locations": True}
            if len(geometry.frames) > len(geometry.sop_instance_uids):  # all of one file: no other is named
                (uid,) = geometry.sop_instance_uids
                frames = [frame.frame_number for frame in geometry.frames]
                found = seg.get_pixels_by_source_frame(uid, frames, **options)
            else:
                uids = [frame.sop_instance_uid for frame in geometry.frames]
                found = seg.get_pixels_by_source_instance(uids, **options)
            expected = sum((number * mask for number, mask in masks.items()), np.zeros(shape, np.uint8))
            np.testing.assert_array_equal(found, expected, f"{results.name} {path.name} {name}")


# -- reports ---------------------------------------------------------------------------------------


def check_tid1500reader(results: ResultSet, folder: Path) -> None:
    """dcmqi reads every measurement of every group, and of which segment it is."""
    uids = results.run.identity.tracking_uids
    for name in (kinds.SR, kinds.SR_OF_LABEL_MAP):
        out = folder / f"{name}.json"
        tool("tid1500reader", "--inputDICOM", results.path(name), "--outputMetadata", out)
        groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
        read = {group["TrackingUniqueIdentifier"]: group for group in groups}
        written = sr_tree.groups(dcmread(results.path(name)))
        assert set(read) == {sr_tree.text(group, "112040") for group in written}
        for group in written:
            theirs = read[sr_tree.text(group, "112040")].get("measurementItems", [])
            ours = [value for value, _ in sr_tree.numbers(group).values()]
            assert [float(item["value"]) for item in theirs] == ours, (results.name, theirs, ours)
        for measured in results.run.measurements:
            group = read[uids[measured.structure.number]]
            sizes = [float(i["value"]) for i in group.get("measurementItems", ())][:1]
            assert sizes == ([] if not measured.found else [_close(measured.size)]), results.name


def _close(value: float) -> Any:
    return pytest.approx(value, rel=1e-5, abs=1e-6)


def check_dsr2html(results: ResultSet) -> None:
    """The page of a report has its summary first, and each comment, finding and number with its unit."""
    for name in (kinds.SR, kinds.SR_OF_LABEL_MAP, kinds.SR_OF_FAILURE):
        if name not in results.objects:
            continue
        lenient = ["-Ev"] if name == kinds.SR_OF_LABEL_MAP else []
        report, page = dcmread(results.path(name)), page_of(results.path(name), *lenient)
        told = [" ".join(text.split()) for text in sr_tree.comments(report)]
        told += [words for group in sr_tree.groups(report) for words in _words(group)]
        missing = [words for words in told if words not in page]
        assert not missing, (results.name, name, missing)
        assert page.index(told[0]) < page.find("Image Library") or results.context is None
    if results.context is not None:
        assert kinds.FAILURE_REASON in page
        labels = [m.structure.label for m in results.run.measurements if m.found]
        summary = sr_tree.comments(dcmread(results.path(kinds.SR)))[0]
        missing = [label for label in labels if label not in summary]
        assert not missing, (results.name, missing)


def _words(group: Dataset) -> list[str]:
    """What a reader must find of a measurement group: what it is of, its numbers, what was said of it."""
    words = [sr_tree.text(group, "112039")]
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            measured = item.MeasuredValueSequence[0]
            words.append(f"{measured.NumericValue} {measured.MeasurementUnitsCodeSequence[0].CodeValue}")
        elif item.ValueType == "CODE":
            words.append(str(item.ConceptCodeSequence[0].CodeMeaning))
    return words
