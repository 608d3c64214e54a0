"""Every object on every real image series: by a model where one takes it, else by thresholds of brightness.

A series that is no volume gives the report that says so. See ``docs/conformance-results.md``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from ai.errors import SeriesRefused
from ai.folder import survey_folder
from ai.loaders import InProcess, load_model
from ai.model import Predictor, find_card, load_card
from ai.volume import survey
from tests import result_checks as checks
from tests import result_sets
from tests.result_sets import OVERVIEW, RTSTRUCT, SR_OF_FAILURE, ResultSet, Told

SHARED = Path(__file__).parents[3] / "shared" / "data"
FIXTURES = SHARED / "fixture"
CARDS = Path(__file__).parents[1] / "models"
MODELS = {  # by folder; a model of tests/models with the folder of its weights
    "ct_body_siemens_j2k_totalseg/dicom": ("ct-tissue", ""),
    "ct_chest_lidc0314/dicom_j2k": ("ct-tissue", ""),
    "ct_chest_lidc0314/dicom_native_sub": ("ct-tissue", ""),
    "ct3_liver_seg_dcmqi/ct": ("ct-tissue", ""),
    "ct_head_ge_vartilt": ("ct-tissue", ""),
    "mr_hippocrop_dicom": ("hippocampus", ""),
    "mr_t1_siemens_xa30_enhanced": ("brain-tissue", "brainchop_meshnet/model5_gw_ae"),
}
EVERY = {"ct_chest_lidc0314/dicom_j2k": 5}  # of its 275 slices: an end-to-end test has them all
NO_SERIES = ("cxr_png", "mr_t1_brainchop", "ct_body_siemens_j2k_totalseg/nifti", "ct_chest_lidc0314/labels")

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.skipif(not FIXTURES.is_dir(), reason="the real images (../shared/data) are not here"),
]


def folders() -> list[str]:
    """Every folder that holds DICOM files itself."""
    found = {p.parent for p in FIXTURES.rglob("*") if p.is_file()} if FIXTURES.is_dir() else set()
    names = sorted(folder.relative_to(FIXTURES).as_posix() for folder in found)
    return [name for name in names if not name.startswith(NO_SERIES)]


@dataclass(frozen=True)
class Case:
    """A part of a series, or a series that is refused as a whole."""

    name: str
    files: tuple[Path, ...]
    part: str = ""
    refusal: SeriesRefused | None = None


def cases(folder: str) -> Iterator[Case]:
    series = survey_folder(FIXTURES / folder).series
    for files in series.values():
        name = folder if len(series) == 1 else f"{folder}/{files[0].name}"
        try:
            found = survey(files)
        except SeriesRefused as refusal:
            yield Case(name, tuple(files), refusal=refusal)
            continue
        for part in found.parts:
            wanted = {frame.sop_instance_uid for frame in part.frames[:: EVERY.get(folder, 1)]}
            own = tuple(i.path for i in found.instances if i.sop_instance_uid in wanted)
            yield Case(f"{name} {part.key}".strip(), own or tuple(files), part.key)


@cache
def model(name: str, weights: str, folder: Path) -> Predictor:
    """A model as it is registered: the card, and its files in a folder of its name."""
    if not weights:
        return InProcess(load_model(find_card(name), "cpu"))
    card = load_card(Path(shutil.copy(CARDS / f"{name}.yaml", folder)))
    (folder / name).mkdir()
    for file in card.files:
        shutil.copyfile(SHARED / "weights" / weights / file, folder / name / file)
    return InProcess(load_model(card, "cpu"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", params=folders())
def results(
    request: pytest.FixtureRequest, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[ResultSet]]:
    """Results of every series in a folder, each run once."""
    home = tmp_path_factory.mktemp("real")
    predictor = model(*MODELS[request.param], models) if request.param in MODELS else None
    yield [written(case, predictor, home / str(n)) for n, case in enumerate(cases(request.param))]
    shutil.rmtree(home)  # hundreds of megabytes of a chest


def written(case: Case, predictor: Predictor | None, folder: Path) -> ResultSet:
    layers = result_sets.card()
    if case.refusal is not None:
        return result_sets.refused(case.files, layers, case.refusal, folder, case.name)
    for spec in (layers, result_sets.card(projections=True)):
        try:
            return result_sets.results_of(case.files, predictor or Told(spec), folder, case.name, case.part)
        except SeriesRefused as refusal:
            if refusal.code != "MODALITY_NOT_ACCEPTED":
                return result_sets.refused(case.files, spec, refusal, folder, case.name, case.part)
    raise AssertionError(f"neither a volume nor a radiograph: {case.name}")


def test_every_kind_of_object_is_written_or_the_failure_reported(results: list[ResultSet]) -> None:
    assert results
    for result in results:
        if result.context is None:
            assert set(result.objects) == {SR_OF_FAILURE}
            continue
        flat = result.run.series.volume.geometry.is_projection
        wanted = {*result_sets.PROFILES, result_sets.SR, result_sets.SR_OF_LABEL_MAP, OVERVIEW, SR_OF_FAILURE}
        assert set(result.objects) == (wanted if flat else {*wanted, RTSTRUCT})
        assert any(m.found for m in result.run.measurements), result.name


def test_dciodvfy_finds_no_error(results: list[ResultSet]) -> None:
    for result in results:
        checks.check_dciodvfy(result)


def test_dicom_validator_finds_no_error(results: list[ResultSet]) -> None:
    for result in results:
        checks.check_dicom_validator(result)


def test_dcentvfy_finds_patient_study_and_frame_of_reference_equal_to_the_source(
    results: list[ResultSet],
) -> None:
    for result in results:
        checks.check_dcentvfy(result)


def test_dcmqi_gives_back_every_voxel_or_the_documentation_says_why_not(
    results: list[ResultSet], tmp_path: Path
) -> None:
    left_out = {row[0] for row in checks.table("Left out")}
    for number, result in enumerate(results):
        if result.context is None:
            continue
        assert (result.name in left_out) is checks.dcmqi_cannot(result), result.name
        if result.name not in left_out:
            checks.check_dcmqi(result, tmp_path / str(number))


def test_highdicom_gives_back_every_voxel_by_source_image_or_frame(results: list[ResultSet]) -> None:
    for result in results:
        if result.context is not None:
            checks.check_highdicom(result)


def test_tid1500reader_reads_every_measurement(results: list[ResultSet], tmp_path: Path) -> None:
    for result in results:
        if result.context is not None:
            checks.check_tid1500reader(result, tmp_path)


def test_dsr2html_shows_summary_findings_and_numbers(results: list[ResultSet]) -> None:
    for result in results:
        checks.check_dsr2html(result)
