"""Lungs on chest radiographs from DICOM to results: a small network, trained here, over CR and DX.

The network is trained on the three pictures with manual masks, and compared with these very masks: the
numbers say that the way from image to result is right, not that the network is good. On radiographs that it
never saw only what any network of lungs must find is asked for.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from pydicom import dcmread

from ai.errors import NotAVolumeError
from ai.loaders import InProcess, load_model
from ai.pipeline import Outcome, RunOptions, run_series, write_outcome
from ai.quality import Verdict, worst
from tests import builders, radiographs, small_models
from tests.model_files import write_model
from tests.radiographs import FIXTURES, LUNGS, Picture
from tests.validators import inconsistencies, tool

OPTIONS = RunOptions(created_at=datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), software_version="1.2.3")
KINDS = ("seg", "sr", "overview")
IODS = {"seg": "Segmentation", "sr": "Comprehensive3DSR", "overview": "SCImage"}
REAL = FIXTURES / "cxr_dicom"
Labels = npt.NDArray[np.uint8]


@pytest.fixture(scope="module")
def cases() -> dict[str, tuple[Picture, Picture]]:
    found = radiographs.chest_x_rays()
    if not found:
        pytest.skip("the real images (../shared/data) are not on this machine: cxr_png_with_lung_masks")
    return found


@pytest.fixture(scope="module")
def lungs(cases: dict[str, tuple[Picture, Picture]], tmp_path_factory: pytest.TempPathFactory) -> InProcess:
    """The trained network as a model: exported, pinned by its card, loaded as the gateway loads it."""
    network = radiographs.trained(cases.values())
    spec = write_model(
        tmp_path_factory.mktemp("models"),
        "chest-lungs",
        {"network.pt2": small_models.exported(network, torch.zeros(2, 1, 96, 96))},
        title="Chest lungs",
        loader="graph",
        graph={"file": "network.pt2"},
        recipe=radiographs.RECIPE,
        structures=small_models.structures(*LUNGS),
        accepts={
            "modalities": ["CR", "DX"],
            "projections": True,
            "scale": "screen",
            "minimum_slices": 1,
        },
        quality=[{"kind": "left_right", "structures": list(LUNGS), "maximum": 60.0}],
    )
    return InProcess(load_model(spec))


def outcome_of(files: list[Path], model: InProcess) -> Outcome:
    return run_series(files, model, OPTIONS, lambda _stage, _fraction: None)


def labels_of(outcome: Outcome) -> Labels:
    """The label map as a reader of the SEG has it, pixel by pixel of the radiograph."""
    seg = hd.seg.Segmentation.from_dataset(dcmread_bytes(outcome.results[0].content))
    source = outcome.context.series.instances[0].sop_instance_uid
    read = seg.get_pixels_by_source_instance([source], combine_segments=True, skip_overlap_checks=True)
    return np.asarray(read[0], np.uint8)


def dcmread_bytes(content: bytes) -> hd.seg.Segmentation:
    from io import BytesIO

    return dcmread(BytesIO(content))  # type: ignore[return-value]


def dice(found: Labels, truth: Labels, number: int) -> float:
    one, other = found == number, truth == number
    return 2.0 * float(np.count_nonzero(one & other)) / float(np.count_nonzero(one) + np.count_nonzero(other))


@pytest.fixture(scope="module")
def outcomes(
    cases: dict[str, tuple[Picture, Picture]], lungs: InProcess, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Outcome]:
    """A run for each picture, stored with bone bright."""
    folder = tmp_path_factory.mktemp("dx")
    return {
        name: outcome_of(builders.write_series([radiographs.dx(picture)], folder / name), lungs)
        for name, (picture, _) in cases.items()
    }


def test_the_seg_of_each_picture_is_its_mask_as_the_network_learned_it(
    cases: dict[str, tuple[Picture, Picture]], outcomes: dict[str, Outcome]
) -> None:
    for name, outcome in outcomes.items():
        found = labels_of(outcome)
        assert [dice(found, cases[name][1], number) >= 0.9 for number in (1, 2)] == [True, True], name
        assert {f.rule for f in outcome.context.quality if f.verdict is not Verdict.PASS} <= {"complete"}


def test_a_lung_is_partial_exactly_where_it_touches_the_border_of_the_radiograph(
    outcomes: dict[str, Outcome],
) -> None:
    """A cut apex is a finding of a radiograph too: the area is a lower bound. It is sent all the same."""
    for name, outcome in outcomes.items():
        labels = labels_of(outcome)
        borders = {  # the pictures are stored as they hang
            "right": labels[:, 0],
            "left": labels[:, -1],
            "inferior": labels[-1],
            "superior": labels[0],
        }
        told = {f.structures[0]: f for f in outcome.context.quality if f.rule == "complete"}
        for number, key in enumerate(LUNGS, start=1):
            touched = [side for side, pixels in borders.items() if (pixels == number).any()]
            said = told[key].reason.partition(" border of the field of view; ")
            assert (told[key].verdict is Verdict.PARTIAL) == bool(touched), (name, key)
            assert not touched or set(said[0].split("touches the ")[1].split(" and ")) == set(touched)
    found = [f.verdict for outcome in outcomes.values() for f in outcome.context.quality]
    assert Verdict.PARTIAL in found  # else nothing was shown: the three pictures end at the apices
    assert {worst(outcome.run) for outcome in outcomes.values()} <= {Verdict.PASS, Verdict.PARTIAL}


def test_bone_stored_dark_gives_the_same_lungs(
    cases: dict[str, tuple[Picture, Picture]],
    lungs: InProcess,
    outcomes: dict[str, Outcome],
    tmp_path: Path,
) -> None:
    name, (picture, _) = next(iter(cases.items()))
    files = builders.write_series([radiographs.dx(picture, "MONOCHROME1")], tmp_path)
    dark = outcome_of(files, lungs)
    differing = np.count_nonzero(labels_of(dark) != labels_of(outcomes[name]))
    assert differing <= 1e-4 * picture.size  # brightness is rounded the other way
    shown = [np.asarray(Image.open(bytes_of(o.overview_png))) for o in (dark, outcomes[name])]
    assert np.abs(shown[0].astype(int) - shown[1]).mean() < 0.1  # a reader sees the same picture


def bytes_of(content: bytes) -> object:
    from io import BytesIO

    return BytesIO(content)


def test_a_radiograph_that_is_stored_mirrored_keeps_left_and_right(
    cases: dict[str, tuple[Picture, Picture]],
    lungs: InProcess,
    outcomes: dict[str, Outcome],
    tmp_path: Path,
) -> None:
    name, (picture, _) = next(iter(cases.items()))
    mirrored = radiographs.dx(np.ascontiguousarray(picture[:, ::-1]), PatientOrientation=["R", "F"])
    found = labels_of(outcome_of(builders.write_series([mirrored], tmp_path), lungs))
    np.testing.assert_array_equal(found[:, ::-1], labels_of(outcomes[name]))


def test_the_record_has_areas_on_the_detector_and_no_volumes(
    cases: dict[str, tuple[Picture, Picture]], outcomes: dict[str, Outcome], tmp_path: Path
) -> None:
    name, outcome = next(iter(outcomes.items()))
    write_outcome(outcome, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    pixel_mm2 = (400.0 / cases[name][0].shape[1]) ** 2
    for row in record["segments"]:
        assert row["volume_ml"] is None
        assert row["area_mm2"] == pytest.approx(row["voxel_count"] * pixel_mm2)
        drawn = np.count_nonzero(cases[name][1] == row["number"])
        assert row["area_mm2"] == pytest.approx(drawn * pixel_mm2, rel=0.1)
    assert record["source"]["frame_of_reference_uid"] is None
    assert record["model"]["network_grid"] == [1, 96, 96]


# -- what others make of the results ---------------------------------------------------------------


@pytest.fixture(scope="module")
def written(outcomes: dict[str, Outcome], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("written")
    write_outcome(next(iter(outcomes.values())), folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_dciodvfy_finds_no_error(kind: str, written: Path) -> None:
    lines = tool("dciodvfy", written / f"{kind}.dcm").splitlines()
    assert IODS[kind] in lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_dcentvfy_finds_patient_and_study_equal_to_the_source(
    outcomes: dict[str, Outcome], written: Path
) -> None:
    source = next(iter(outcomes.values())).context.series.instances[0].path
    assert inconsistencies((source, *(written / f"{kind}.dcm" for kind in KINDS))) == set()


def test_tid1500reader_and_highdicom_read_the_areas(
    outcomes: dict[str, Outcome], written: Path, tmp_path: Path
) -> None:
    expected = [m.area_mm2 for m in next(iter(outcomes.values())).context.measurements]
    out = tmp_path / "sr.json"
    tool("tid1500reader", "--inputDICOM", written / "sr.dcm", "--outputMetadata", out)
    groups = json.loads(out.read_text(encoding="utf-8"))["Measurements"]
    lungs = [group for group in groups if "left minus right" not in str(group)]
    assert len(lungs) == len(groups) - 1
    items = [item for group in lungs for item in group["measurementItems"]]
    assert {(i["quantity"]["CodeValue"], i["units"]["CodeValue"]) for i in items} == {("42798000", "mm2")}
    assert [float(item["value"]) for item in items] == pytest.approx(expected, abs=1e-5)
    report = hd.sr.srread(written / "sr.dcm")
    planar = report.content.get_planar_roi_measurement_groups()  # type: ignore[attr-defined]
    assert [group.get_measurements()[0].value for group in planar] == pytest.approx(expected, abs=1e-5)


def test_dcmqi_reads_no_seg_without_a_place_in_the_patient(written: Path, tmp_path: Path) -> None:
    """A limit of dcmqi (its issue 319), which ends here where the standard asks for no place (A.51.5.1)."""
    seg = written / "seg.dcm"
    with pytest.raises(AssertionError, match="Failed to get image directions"):
        tool("segimage2itkimage", "--inputDICOM", seg, "--outputDirectory", tmp_path, "-t", "nii")
    assert not list(tmp_path.glob("*.nii*"))


# -- radiographs of others -------------------------------------------------------------------------


def real(name: str) -> Path:
    if not REAL.is_dir():
        pytest.skip("the real images (../shared/data) are not on this machine: cxr_dicom")
    return REAL / name


def looks_like_lungs(labels: Labels) -> None:
    """Both are there, the left one on the right of the picture, neither a speck nor the whole."""
    columns = [np.nonzero(labels == number)[1] for number in (1, 2)]
    for found in columns:
        assert 0.04 < found.size / labels.size < 0.45
    assert columns[0].mean() > columns[1].mean() + 0.2 * labels.shape[1]


def test_a_dx_of_a_hospital_has_two_lungs(lungs: InProcess) -> None:
    outcome = outcome_of([real("966_fixed.dcm")], lungs)
    looks_like_lungs(labels_of(outcome))
    assert outcome.run["geometry"]["spacing_mm"][1:] == [0.16, 0.16]  # type: ignore[index]


def test_a_cr_of_a_hospital_has_two_lungs_once_its_header_tells_the_truth(
    lungs: InProcess, tmp_path: Path
) -> None:
    """Its bone is stored bright, and somebody marked it MONOCHROME1 for a test: viewers show a negative."""
    image = dcmread(real("Fake_MONOHR1.dcm"))
    image.PhotometricInterpretation = "MONOCHROME2"
    path = tmp_path / "true.dcm"
    image.save_as(path)
    looks_like_lungs(labels_of(outcome_of([path], lungs)))


def test_a_radiograph_without_a_size_is_refused_by_name(lungs: InProcess) -> None:
    with pytest.raises(NotAVolumeError, match="NO_POSITION"):
        outcome_of([real("RG1_J2KI")], lungs)
