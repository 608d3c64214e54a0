"""Weights are read, code is not."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save

from ai.errors import ModelError
from ai.loaders.weights import USUAL_PREFIXES, USUAL_WRAPPINGS, read_checkpoint, read_state

STATE = {"conv.weight": torch.arange(12.0).reshape(3, 4), "conv.bias": torch.tensor([1.0, -2.0, 0.5])}


def saved(value: object, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def same(state: dict[str, torch.Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[key], STATE[key]) for key in STATE)


def outcome(content: bytes) -> str:
    """The code of the refusal; empty when it was read."""
    try:
        read_state(content, "weights")
    except ModelError as error:
        return error.code
    return ""


class Evil:
    """Unpickled, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [save(STATE), saved(STATE), saved(STATE, zipped=False)])
def test_weights_come_back_from_every_format(content: bytes) -> None:
    assert same(read_state(content, "weights"))


def test_a_trainers_checkpoint_is_unwrapped_only_when_asked() -> None:
    wrapped = {"module." + key: value for key, value in STATE.items()}
    content = saved(
        {
            "network_weights": wrapped,
            "_best_ema": np.float64(0.91),
            "logging": {"dice": [np.float32(0.5)], "epochs": np.arange(3)},
            "init_args": {"fold": 0, "device": torch.device("cpu")},
        }
    )
    with pytest.raises(ModelError, match=r"MODEL_FILE_UNREADABLE.*network_weights.*hold no tensors"):
        read_state(content, "checkpoint_final.pth")
    assert same(read_state(content, "checkpoint_final.pth", unwrap=USUAL_WRAPPINGS, strip=USUAL_PREFIXES))
    everything = read_checkpoint(content, "checkpoint_final.pth")
    assert everything["_best_ema"] == pytest.approx(0.91)
    assert everything["logging"]["epochs"].tolist() == [0, 1, 2]


def test_numbers_that_numpy_1_pickled_are_read() -> None:
    content = saved({"state_dict": STATE, "best": np.float64(0.25)}, zipped=False)
    old = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != content
    assert read_checkpoint(old, "old.ckpt")["best"] == pytest.approx(0.25)


def test_a_prefix_is_stripped_only_where_every_name_has_it() -> None:
    state = {"module.a": torch.zeros(1), "b": torch.zeros(1)}
    assert read_state(saved(state), "w", strip=USUAL_PREFIXES).keys() == state.keys()


@pytest.mark.parametrize("how", ["zip", "stream", "pickle", "pickle protocol 0"])
def test_code_in_a_file_never_runs(how: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    evil = {"state_dict": STATE if how in ("zip", "stream") else {}, "extra": Evil(made)}
    contents = {
        "zip": lambda: saved(evil),
        "stream": lambda: saved(evil, zipped=False),
        "pickle": lambda: pickle.dumps(evil),
        "pickle protocol 0": lambda: pickle.dumps(Evil(made), protocol=0),
    }
    with pytest.raises(ModelError) as refusal:
        read_state(contents[how](), "evil.pth", unwrap=USUAL_WRAPPINGS)
    assert refusal.value.code == "MODEL_FILE_UNSAFE"
    assert "safetensors" in refusal.value.reason
    assert not made.exists()
    if how in ("zip", "stream"):
        assert "mkdir" in refusal.value.reason


def test_a_pickled_network_is_refused_with_its_class() -> None:
    with pytest.raises(ModelError, match=r"MODEL_FILE_UNSAFE.*torch\.nn\.modules\.linear\.Linear"):
        read_state(saved(torch.nn.Linear(2, 2)), "network.pt")


@pytest.mark.parametrize("content", [save(STATE), saved(STATE), saved(STATE, zipped=False)])
def test_damage_anywhere_is_a_named_error(content: bytes) -> None:
    for length in range(0, len(content) - 1, max(1, len(content) // 97)):
        assert outcome(content[:length]) in ("MODEL_FILE_UNREADABLE", "MODEL_FILE_UNSAFE")
    generator = np.random.default_rng(4)
    for _ in range(200):
        bad = bytearray(content)
        bad[int(generator.integers(len(bad)))] ^= int(generator.integers(1, 256))
        assert outcome(bytes(bad)) in ("", "MODEL_FILE_UNREADABLE", "MODEL_FILE_UNSAFE")


def test_a_truncated_file_is_unreadable() -> None:
    for content in (save(STATE), saved(STATE)):
        with pytest.raises(ModelError) as refusal:
            read_state(content[: len(content) // 2], "cut.pth")
        assert refusal.value.code == "MODEL_FILE_UNREADABLE"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "neither safetensors"),
        (b"hello, weights" * 9, "neither safetensors"),
        (struct.pack("<Q", 1 << 60) + b"{}", "damaged safetensors"),
        (saved([1, 2]), "holds a list"),
        (saved({}), "empty"),
        (saved({"a": 3}), "a hold no tensors"),
    ],
)
def test_what_is_no_file_of_weights_is_named(content: bytes, says: str) -> None:
    with pytest.raises(ModelError, match=says) as refusal:
        read_state(content, "other.bin")
    assert refusal.value.code == "MODEL_FILE_UNREADABLE"


def test_torchscript_is_sent_to_its_loader() -> None:
    stream = io.BytesIO()
    torch.jit.save(torch.jit.script(torch.nn.ReLU()), stream)
    with pytest.raises(ModelError, match=r"MODEL_FILE_UNREADABLE.*TorchScript.*graph"):
        read_state(stream.getvalue(), "script.pt")
