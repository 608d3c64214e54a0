"""What a person tries runs in the model process: what a model may not do there fails by name, and no more."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from monai.networks.nets import UNet

from gateway.cli.app import run
from gateway.cli.model_process import _tell_what_is_open
from gateway.modelhost import landlock, sandbox
from gateway.modelhost.protocol import Hello
from tests.bundles import write_bundle
from tests.model_files import COMMON

pytestmark = pytest.mark.skipif(landlock.version() < 3, reason="this kernel has no Landlock of version 3")

REPOSITORY = Path(__file__).parent.parent.parent
FAKES = str(REPOSITORY / "tests" / "fake_models")
Call = Callable[..., tuple[int, str, str]]
NETWORK = {"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
WHAT_CASES_DO = {"a_writes": 1001, "b_connects": 1002, "c_reads": 1003, "d_ends": 1004, "e_is_good": 1005}
SCRIPT = """
import os
import socket

def change(image):
    match int(image.max()):
        case 1001:
            open({outside!r}, "w").write("x")
        case 1002:
            socket.create_connection(("127.0.0.1", {port}), timeout=5)
        case 1003:
            open({secret!r}, "rb").read()
        case 1004:
            os._exit(3)
    open("note", "w").write("the scratch folder is its own")
    return image / 1000
"""


@pytest.fixture
def aigw(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run ``aigw``: exit code, stdout, stderr."""
    monkeypatch.delenv("AIGW_CONFIG", raising=False)

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            run([*map(str, arguments)])
        said = capfd.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        yield server


def save(path: Path, highest: int) -> Path:
    """An image of 20 × 20 × 20 voxels of 2 mm, RAS."""
    values = np.arange(8000, dtype=np.int16).reshape(20, 20, 20) % 900
    values[0, 0, 0] = highest
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), path)
    return path


def write_card(folder: Path, name: str) -> None:
    """The card of an algorithm without files."""
    folder.mkdir(exist_ok=True)
    fields = {**COMMON, "id": name, "loader": "classical"}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(fields), encoding="utf-8")


def hostile_bundle(folder: Path, script: str) -> Path:
    """A bundle of which a preprocessing step is Python of its own; its card."""
    load = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
    change = {"_target_": "Lambdad", "keys": "image", "func": "$change"}
    config = {
        "imports": ["$from scripts.change import change"],
        "network_def": {"_target_": "UNet", **NETWORK},
        "preprocessing": {"_target_": "Compose", "transforms": [*load, change]},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16]},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
        },
    }
    torch.manual_seed(1)
    write_bundle(folder, config, UNet(**NETWORK).state_dict(), extra={"scripts/change.py": script})
    return folder / "trial.yaml"


def test_what_a_model_may_not_do_fails_by_name_and_the_next_case_goes_on(
    aigw: Call, tmp_path: Path, listener: socket.socket
) -> None:
    outside, cases = tmp_path / "outside", tmp_path / "cases"
    for name, highest in WHAT_CASES_DO.items():
        save(cases / f"{name}.nii", highest)
    secret, port = str(cases / "e_is_good.nii"), listener.getsockname()[1]
    card = hostile_bundle(tmp_path, SCRIPT.format(outside=str(outside), port=port, secret=secret))
    code, said, err = aigw("model", "try", card, cases, "--out", tmp_path / "out", "--json")
    told = {case["name"]: case for case in json.loads(said)["cases"]}
    errors = {name: case["error"] and case["error"]["code"] for name, case in told.items()}
    assert errors == {
        **dict.fromkeys(("a_writes", "b_connects", "c_reads"), "MODEL_RUN_FAILED"),
        "d_ends": "MODEL_CRASHED",
        "e_is_good": None,
    }, err
    for name in ("a_writes", "b_connects", "c_reads"):
        assert re.search("Permission denied|not permitted", told[name]["error"]["reason"]), told[name]
    assert "ended with exit code 3" in told["d_ends"]["error"]["reason"]
    assert code == 3
    assert "Traceback" not in err
    assert not outside.exists()
    with pytest.raises(TimeoutError):
        listener.accept()
    assert (tmp_path / "out" / "e_is_good" / "mask.nii.gz").exists()


def test_a_model_that_ends_its_process_while_it_is_loaded_is_named(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", FAKES)
    monkeypatch.setenv("AIGW_TEST_FOLDER", str(tmp_path))
    for name in ("fake-dies-loading", "fake-good"):
        write_card(tmp_path / "models", name)
    given = ("--model-dir", tmp_path / "models")
    code, said, err = aigw("model", "try", "fake-dies-loading", save(tmp_path / "a.nii", 1005), *given)
    assert (code, said) == (1, "")
    assert "MODEL_CRASHED: The model process ended with exit code 5" in err
    code, said, _ = aigw("model", "verify", "fake-dies-loading", "fake-good", *given)
    assert code == 1
    assert "fake-dies-loading 1.0.0: does not run\n  MODEL_CRASHED: " in said
    assert "fake-good 1.0.0: ok\n" in said


def test_what_a_model_raises_is_told_in_its_words_to_who_has_the_image(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", FAKES)
    monkeypatch.setenv("AIGW_TEST_FOLDER", str(tmp_path))
    write_card(tmp_path, "fake-raises")
    code, said, _ = aigw("model", "try", tmp_path / "fake-raises.yaml", save(tmp_path / "a.nii", 1), "--json")
    error = {"code": "MODEL_FAILED", "reason": "RuntimeError: a text that may name a patient."}
    assert (code, json.loads(said)["cases"][0]["error"]) == (1, error)


def test_a_model_that_crashes_ends_segment_with_its_name(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.builders import ct_series, write_series

    monkeypatch.setenv("PYTHONPATH", FAKES)
    monkeypatch.setenv("AIGW_TEST_FOLDER", str(tmp_path))
    write_card(tmp_path / "models", "fake-exit")
    write_series(ct_series((4, 16, 16)), tmp_path / "in")
    given = ("--out", tmp_path / "out", "--model", "fake-exit", "--model-dir", tmp_path / "models")
    code, _, err = aigw("segment", tmp_path / "in", *given)
    assert code == 1
    assert err.startswith("MODEL_CRASHED: The model process ended with exit code 3")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_device_that_is_not_there_is_named_at_once(aigw: Call, tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii", 1005)
    code, _, err = aigw("model", "try", "ct-tissue", image, "--device", "cuda:0")
    assert code == 1
    assert "DEVICE_UNAVAILABLE: The device 'cuda:0' cannot be used" in err


def test_ctrl_c_ends_the_model_process_and_leaves_nothing(tmp_path: Path) -> None:
    write_card(tmp_path / "models", "fake-waits")
    (tmp_path / "tmp").mkdir()
    environment = {**os.environ, "PYTHONPATH": FAKES, "AIGW_TEST_FOLDER": str(tmp_path)}
    image, models = save(tmp_path / "a.nii", 1005), tmp_path / "models"
    command = ["model", "try", "fake-waits", str(image), "--model-dir", str(models)]
    process = subprocess.Popen(
        # a shell lets its background jobs, such as this test run, ignore Ctrl-C
        ["env", "--default-signal=INT", sys.executable, "-m", "gateway", *command],
        env={**environment, "TMPDIR": str(tmp_path / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        host = wait_for_host(process.pid)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (1, 130), said
    assert "Traceback" not in said
    assert not Path(f"/proc/{host}").exists()
    assert list((tmp_path / "tmp").iterdir()) == []


def wait_for_host(parent: int) -> int:
    """The model process of a command, once it has shut itself in and loads libraries."""
    deadline_s = time.monotonic() + 120
    while time.monotonic() < deadline_s:
        for children in Path(f"/proc/{parent}/task").glob("*/children"):
            for child in children.read_text().split():
                if "libtorch" in Path(f"/proc/{child}/maps").read_text():
                    return int(child)
        time.sleep(0.1)
    raise AssertionError("there is no model process")


def test_files_where_a_person_happens_to_be_do_not_stand_in_for_libraries(
    aigw: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text(f"open({str(tmp_path / 'was-here')!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    assert aigw("model", "verify", "ct-tissue")[:2] == (0, "ct-tissue 1.0.0: ok\n")
    assert not (tmp_path / "was-here").exists()


def test_a_card_of_another_ending_is_told_how_to_be_named(aigw: Call, tmp_path: Path) -> None:
    write_card(tmp_path, "mine")
    (tmp_path / "mine.yaml").rename(tmp_path / "mine.yml")
    code, said, _ = aigw("model", "verify", tmp_path / "mine.yml")
    assert code == 1
    assert "MODEL_CARD_INVALID: The card of mine must be named mine.yaml" in said


def test_models_in_the_folder_of_the_images_are_found(aigw: Call, tmp_path: Path) -> None:
    """The input is hidden from the model; a model that lies in it is not."""
    fields = yaml.safe_load((REPOSITORY / "config/models/ct-tissue.yaml").read_text(encoding="utf-8"))
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "mine.yaml").write_text(yaml.safe_dump({**fields, "id": "mine"}), encoding="utf-8")
    save(tmp_path / "a.nii", 1005)
    code, _, err = aigw("model", "try", "mine", tmp_path, "--model-dir", tmp_path / "models", "--json")
    assert (code, err) == (0, "")


def test_where_the_platform_closes_nothing_off_a_note_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    closed = (sandbox.CLOSED, sandbox.SCRATCH_ONLY, "open: nothing was named")
    _tell_what_is_open(Hello(1, "cpu", (), 0, *closed), hides_files=False)
    assert capsys.readouterr().err == ""
    open_ = ("open: no seccomp", "open: this kernel has no Landlock", "open: this kernel has no Landlock")
    _tell_what_is_open(Hello(1, "cpu", (), 0, *open_), hides_files=True)
    told = capsys.readouterr().err
    assert told.startswith("note: the model is not closed off on this machine: network open: no seccomp;")
    assert told.count("no Landlock") == 2
