"""Reports with quality findings, read by the validators of others."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from ai.model import ModelSpec, Prediction, Progress, Rule, find_card
from ai.pipeline import RunOptions, run_series, write_outcome
from ai.volume import LabelArray, Volume
from tests import builders
from tests.runs import CREATED_AT


@dataclass(frozen=True)
class KnowingModel:
    """A model that answers with given labels."""

    labels: LabelArray
    spec: ModelSpec
    device: str = "cpu"

    def predict(self, channels: Sequence[Volume], progress: Progress) -> Prediction:  # noqa: ARG002
        return Prediction(self.labels)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    series, labels = builders.torso_series("HFS", (16, 48, 48), (14.0, 8.0, 8.0))
    rules = (
        Rule(kind="volume_ml", structures=("left_lung",), minimum=1e5, verdict="FAIL"),
        Rule(kind="complete", structures=("body",)),
        Rule(kind="left_right", structures=("left_lung", "right_lung")),
    )
    card = find_card("ct-tissue")
    accepts = card.accepts.model_copy(update={"maximum_slice_spacing_mm": 20.0})
    spec = card.model_copy(update={"quality": rules, "accepts": accepts})
    folder = tmp_path_factory.mktemp("results")
    files = builders.write_series(series, folder / "in")
    outcome = run_series(files, KnowingModel(labels, spec), RunOptions(CREATED_AT, "1"), lambda *_: None)
    write_outcome(outcome, folder / "out")
    return folder / "out"


@pytest.mark.parametrize(("kind", "iod"), [("sr", "Comprehensive3DSR"), ("seg", "Segmentation")])
def test_dciodvfy_finds_no_error(results: Path, kind: str, iod: str) -> None:
    lines = tool("dciodvfy", results / f"{kind}.dcm").splitlines()
    assert iod in lines
    assert [line for line in lines if line.startswith("Error")] == []


def test_people_read_the_findings_before_the_images(results: Path) -> None:
    page = tool("dsr2html", results / "sr.dcm")
    told = [
        "Quality FAIL. Left lung: ",
        "Quality PARTIAL. Body: touches the ",
        "Quality checks passed: ",
    ]
    places = [page.index(text) for text in told]
    assert places == sorted(places)
    assert page.index("Found: Body") < places[0]
    assert places[-1] < page.index("Image Library")


def tool(program: str, path: Path) -> str:
    """What a tool says. dicom3tools end with 1 on a warning, so output decides."""
    found = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if found is None:
        pytest.fail(f"{program} is missing: run `make setup test-tools`")
    done = subprocess.run([found, str(path)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.stdout + done.stderr
