"""Radiographs: how they hang, what is measured in them, what a SEG of them must not claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from torch.nn import functional

from ai.errors import NotAVolumeError, ResultMismatch, SeriesRefused
from ai.geometry import Needs
from ai.inference import grid as grids
from ai.measure import measure
from ai.model import Accepts, check_input
from ai.model.recipe import Grid
from ai.resample import as_models_see
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.overview import draw
from ai.results.sr import build_sr
from ai.results.summary import summary
from ai.source import read_file
from ai.volume import ImageSeries, read_series, survey
from gateway.completion import CompletionRules
from gateway.journal.records import Member, ReceivingSeries
from gateway.routing import Route, parse_condition
from gateway.sweep import SweepRules
from gateway.sweep.decide import consider
from tests import builders, small_models
from tests.radiographs import LUNGS, dx
from tests.runs import build_seg, run_of, verify_seg

SHAPE = (40, 56)
CARD = small_models.card(
    "chest-lungs",
    *LUNGS,
    accepts={"modalities": ["CR", "DX"], "projections": True, "scale": "screen", "minimum_slices": 1},
)


def read(folder: Path, **attributes: object) -> ImageSeries:
    rng = np.random.default_rng(2)
    image = dx(rng.integers(0, 255, SHAPE).astype(np.uint8), **attributes)  # type: ignore[arg-type]
    return read_series(builders.write_series([image], folder), scale="screen")


def run(folder: Path, **attributes: object) -> ResultContext:
    """A run that found both lungs, of 200 and 96 pixels."""
    series = read(folder, **attributes)
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 5:25, 35:45] = 1
    labels[0, 8:24, 10:16] = 2
    context = run_of(series, labels)
    return replace(context, spec=CARD, measurements=measure(series.volume, labels, CARD.structures))


# -- how it hangs ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "mirrored"), [(["L", "F"], ()), (["R", "F"], (2,)), (["L", "H"], (1,)), (["R", "H"], (1, 2))]
)
def test_a_model_sees_a_radiograph_as_it_hangs_and_its_labels_go_back(
    said: list[str], mirrored: tuple[int, ...], tmp_path: Path
) -> None:
    series = read(tmp_path, PatientOrientation=said)
    seen = as_models_see(series.volume)
    np.testing.assert_array_equal(seen.volume.voxels, np.flip(series.volume.voxels, mirrored))
    steps = seen.volume.geometry.index_to_lps
    assert steps[0, 2] > 0  # columns to the patient's left
    assert steps[1, 1] > 0  # rows down
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 3, 7] = 1
    back = seen.to_source(labels)
    here, there = np.argwhere(back)[0], np.argwhere(labels)[0]
    places = (series.volume.geometry.index_to_lps @ [*here, 1], steps @ [*there, 1])
    np.testing.assert_allclose(*places, atol=1e-9)


@pytest.mark.parametrize("said", [None, ["A", "F"], ["P", "F"], ["L"]])
def test_what_the_header_does_not_say_is_left_as_it_is_stored(said: list[str] | None, tmp_path: Path) -> None:
    volume = read(tmp_path, PatientOrientation=said).volume
    assert as_models_see(volume).volume is volume


def test_the_letters_of_the_overview_are_those_of_the_header_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ai.results import overview

    letters = []

    def remember(*arguments: object) -> None:
        edges = arguments[1].views[0].edges  # type: ignore[attr-defined]
        letters.append((edges.left, edges.right, edges.top, edges.bottom))

    monkeypatch.setattr(overview, "draw_montage", remember)
    for said in (["R", "F"], None):
        draw(run(tmp_path, PatientOrientation=said))
    assert letters == [("L", "R", "H", "F"), ("", "", "", "")]


# -- what is measured ------------------------------------------------------------------------------


def test_areas_are_measured_on_the_detector_and_no_volume_is_made_up(tmp_path: Path) -> None:
    context = run(tmp_path, EstimatedRadiographicMagnificationFactor="1.08")
    pixel_mm2 = (400.0 / 56) ** 2
    left, right = context.measurements
    assert (left.area_mm2, left.volume_ml) == (pytest.approx(200 * pixel_mm2), 0.0)
    assert (right.area_mm2, right.volume_ml) == (pytest.approx(96 * pixel_mm2), 0.0)
    assert all(summary(context))  # an empty comment would make the report invalid
    text = " ".join(summary(context))
    assert f"Left lung {200 * pixel_mm2:.0f} mm²," in text
    assert "(areas on the detector)" in text
    assert " mL" not in text
    assert "magnified 1.08 times" in text


@pytest.mark.parametrize("factor", [None, "1.0", "0", "1e9"])
def test_a_magnification_that_says_nothing_is_not_told(factor: str | None, tmp_path: Path) -> None:
    context = run(tmp_path, EstimatedRadiographicMagnificationFactor=factor)
    assert "magnified" not in " ".join(summary(context))


def test_the_report_has_a_planar_group_for_each_lung_with_its_frame(tmp_path: Path) -> None:
    context = run(tmp_path)
    seg = build_seg(context)
    report = dcmread(DicomBytesIO(encode(build_sr(context, [seg]), "1.2.3")))
    groups = report.ContentSequence[-1].ContentSequence
    *lungs, pair = groups
    assert [
        i.ConceptNameCodeSequence[0].CodeMeaning for i in pair.ContentSequence if i.ValueType == "NUM"
    ] == [
        "Area, left minus right",
        "Ratio",
    ]
    for number, (group, measured) in enumerate(zip(lungs, context.measurements, strict=True), start=1):
        items = {i.ConceptNameCodeSequence[0].CodeMeaning: i for i in group.ContentSequence}
        cited = items["Referenced Segmentation Frame"].ReferencedSOPSequence[0]
        assert (cited.ReferencedSOPInstanceUID, cited.ReferencedFrameNumber) == (seg.SOPInstanceUID, number)
        assert "ReferencedSegmentNumber" not in cited
        area = items["Area"].MeasuredValueSequence[0]
        assert float(area.NumericValue) == pytest.approx(measured.area_mm2, abs=1e-5)
        assert area.MeasurementUnitsCodeSequence[0].CodeValue == "mm2"
        assert "Volume" not in items


# -- what a SEG must not claim ---------------------------------------------------------------------


@pytest.mark.parametrize("labels", ["found", "nothing"])
def test_a_seg_of_a_radiograph_has_no_place_in_the_patient(labels: str, tmp_path: Path) -> None:
    context = run(tmp_path, FrameOfReferenceUID="1.2.3.4")
    if labels == "nothing":
        context = replace(context, labels=np.zeros_like(context.labels))
    encoded = encode(build_seg(context), "1.2.3")
    seg = dcmread(BytesIO(encoded))
    assert "FrameOfReferenceUID" not in seg
    assert list(seg.PatientOrientation) == ["L", "F"]
    groups = [*seg.SharedFunctionalGroupsSequence, *seg.PerFrameFunctionalGroupsSequence]
    places = {"PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"}
    assert not any(places & set(group.dir()) for group in groups)
    assert seg.NumberOfFrames == 2
    verify_seg(encoded, context)


def flip_a_bit(seg: Dataset) -> None:
    pixels = bytearray(seg.PixelData)
    pixels[100] ^= 4
    seg.PixelData = bytes(pixels)


def cite_another(seg: Dataset) -> None:
    cited = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    cited.ReferencedSOPInstanceUID = "1.2.3.4"
    for sequence in (seg.SourceImageSequence, seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence):
        sequence[0].ReferencedSOPInstanceUID = "1.2.3.4"


def give_it_a_place(seg: Dataset) -> None:
    position = Dataset()
    position.ImagePositionPatient = [0, 0, 0]
    seg.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence = [position]


def give_it_a_frame_of_reference(seg: Dataset) -> None:
    seg.FrameOfReferenceUID = "1.2.3.4"


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (flip_a_bit, "1 voxels of segment 1 differ"),
        (cite_another, "none of the 1"),
        (give_it_a_place, "frame 2 has a PlanePositionSequence"),
        (give_it_a_frame_of_reference, "FrameOfReferenceUID"),
    ],
)
def test_a_seg_that_says_something_else_is_stopped(
    harm: Callable[[Dataset], None], told: str, tmp_path: Path
) -> None:
    context = run(tmp_path)
    seg = dcmread(BytesIO(encode(build_seg(context), "1.2.3")))
    harm(seg)
    buffer = BytesIO()
    seg.save_as(buffer)
    with pytest.raises(ResultMismatch, match=told):
        verify_seg(buffer.getvalue(), context)


# -- who takes it ----------------------------------------------------------------------------------


def test_a_model_of_radiographs_takes_them_and_one_of_volumes_does_not(tmp_path: Path) -> None:
    series = read(tmp_path)
    facts, geometry = series.instances[0].facts, series.volume.geometry
    check_input(CARD, facts, geometry)
    volumes = small_models.card("volumes", "body", accepts={"modalities": ["DX"]})
    with pytest.raises(NotAVolumeError, match="PROJECTION_IMAGE"):
        check_input(volumes, facts, geometry)


def test_a_card_of_radiographs_must_say_which_values_it_takes() -> None:
    with pytest.raises(ValueError, match="scale: screen"):
        Accepts.model_validate({"modalities": ["DX"], "projections": True})


def test_several_views_of_one_series_are_parts_of_their_own(tmp_path: Path) -> None:
    plain = np.full(SHAPE, 9, np.uint8)
    front = dx(plain, ViewPosition="PA")
    same = {name: front[name].value for name in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID")}
    views = [front, dx(plain, seed=2, ViewPosition="LL", **same)]
    found = survey(builders.write_series(views, tmp_path))
    assert [part.geometry.shape for part in found.parts] == [(1, *SHAPE)] * 2  # type: ignore[union-attr]
    assert len({part.key for part in found.parts}) == 2
    with pytest.raises(SeriesRefused, match="SEVERAL_VOLUMES"):
        found.part(None)


@pytest.mark.parametrize("takes", [True, False])
def test_the_sweep_makes_a_job_of_a_radiograph_for_a_model_that_takes_them(
    takes: bool, tmp_path: Path
) -> None:
    (path,) = builders.write_series([dx(np.full(SHAPE, 9, np.uint8))], tmp_path)
    facts = read_file(path).header.facts
    uid, sop_class = facts["SOPInstanceUID"][0], facts["SOPClassUID"][0]
    image = Member(uid, "0" * 64, sop_class, "1.2.840.10008.1.2.1", str(path), 1, facts)
    series = ReceivingSeries(1, "1.2.1", "1.2.2", 1, "DX1", 1, 0.0, 0.0)
    route = Route("radiographs", parse_condition("Modality", "DX"), model="lungs")
    needs = {"lungs": CARD.accepts.needs if takes else Needs()}
    rules = SweepRules(CompletionRules(30.0, 900.0), (route,), {"lungs": CARD.id}, needs, live=True)
    decision = consider(series, [image], {}, rules, is_ours=False)
    assert [job.card for job in decision.jobs] == (["chest-lungs"] if takes else [])
    if not takes:
        assert decision.name == "PROJECTION_IMAGE"


# -- the grid of a network of pictures -------------------------------------------------------------


@pytest.mark.parametrize("size", [(12, 16), (30, 56), (64, 90)])
def test_a_radiograph_is_stretched_to_the_size_of_the_network_as_torch_does(size: tuple[int, int]) -> None:
    image = torch.rand(1, *SHAPE)
    grid = Grid(resize=(None, *size), interpolation="area")
    axes = grids.lines(grid, (1, *SHAPE), (1.0, 0.14, 0.2))
    found = grids.resample(image, grid, axes)
    assert found.shape == (1, *size)
    if SHAPE[0] % size[0] == 0 and SHAPE[1] % size[1] == 0:
        expected = functional.interpolate(image[None], size, mode="area")[0]
        torch.testing.assert_close(found, expected)
    whole = functional.interpolate(image[None], size, mode="bilinear", align_corners=False)[0]
    if size[0] > SHAPE[0]:
        torch.testing.assert_close(found, whole)
    assert float(found.mean()) == pytest.approx(float(image.mean()), abs=0.02)


def test_stretching_needs_an_alignment_that_covers_the_image() -> None:
    from ai.model import Recipe

    with pytest.raises(ValueError, match="stretches the whole image"):
        Recipe.model_validate(
            {"grid": {"resize": (None, 8, 8), "alignment": "first_voxel"}, "tiles": {"size": None}}
        )
