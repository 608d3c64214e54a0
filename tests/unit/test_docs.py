"""Documents made from code are current, and container files pass their checkers."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).parent.parent.parent


def generator() -> ModuleType:
    """The script that writes the documents."""
    spec = importlib.util.spec_from_file_location("generate_docs", ROOT / "scripts" / "generate_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_state_diagrams_are_current() -> None:
    text = (ROOT / "docs" / "states.md").read_text(encoding="utf-8")
    assert text == generator().states_markdown(), "run `make docs`"


def test_the_fields_of_a_card_are_described_and_current() -> None:
    text = (ROOT / "docs" / "model-card.md").read_text(encoding="utf-8")
    assert text == generator().model_card_markdown(), "run `make docs`"
    for said in (
        "| `maximum_pixel_spacing_mm` | number > 0 |",
        "## NnUnetCrop",
        "## Recipe",
        "Whether Contrast/Bolus Agent must",
    ):
        assert said in text
    silent = [line for line in text.splitlines() if line.endswith("|  |")]
    assert not silent, "say in the docstring of their class what these fields mean"


def test_importing_the_library_or_the_node_does_not_load_torch() -> None:
    code = "import sys, ai, ai.geometry, ai.volume, gateway.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_the_container_configuration_is_accepted() -> None:
    command = [sys.executable, "-m", "gateway", "check", "--config", "docker/gateway.yaml"]
    run = subprocess.run(
        command, cwd=ROOT, env={"AIGW_DATA": "data"}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
