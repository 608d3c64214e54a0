"""Files of a model are read only when they are what the card pins."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import yaml

from ai.errors import ModelError
from ai.model import ModelSpec, PinnedFiles, load_card, pin
from tests.unit.test_model import changed_card

CONTENT = {"weights/model.safetensors": b"weights", "plans.json": b"{}"}


def model_with_files(folder: Path) -> ModelSpec:
    for name, content in CONTENT.items():
        path = folder / "ct-tissue" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return load_card(changed_card(folder, files=pin(folder / "ct-tissue", tuple(CONTENT))))


def refusal(files: PinnedFiles, name: str) -> ModelError:
    with pytest.raises(ModelError) as refused:
        files.read(name)
    return refused.value


def test_a_pinned_file_is_read_and_its_path_is_given(tmp_path: Path) -> None:
    spec = model_with_files(tmp_path)
    files = PinnedFiles(spec)
    assert files.names == ("plans.json", "weights/model.safetensors")
    assert files.read("plans.json") == b"{}"
    assert files.path("plans.json") == tmp_path / "ct-tissue" / "plans.json"
    assert spec.files["plans.json"] == hashlib.sha256(b"{}").hexdigest()
    assert files.verify() == ()


def test_a_changed_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    files = PinnedFiles(model_with_files(tmp_path))
    (tmp_path / "ct-tissue" / "plans.json").write_bytes(b"[]")
    error = refusal(files, "plans.json")
    assert error.code == "MODEL_FILE_CHANGED"
    assert hashlib.sha256(b"[]").hexdigest()[:12] in error.reason
    assert hashlib.sha256(b"{}").hexdigest()[:12] in error.reason
    with pytest.raises(ModelError, match="MODEL_FILE_CHANGED"):
        files.path("plans.json")


def test_a_missing_file_is_refused_and_all_problems_are_listed(tmp_path: Path) -> None:
    files = PinnedFiles(model_with_files(tmp_path))
    (tmp_path / "ct-tissue" / "plans.json").unlink()
    (tmp_path / "ct-tissue" / "weights" / "model.safetensors").write_bytes(b"other")
    assert refusal(files, "plans.json").code == "MODEL_FILE_MISSING"
    assert [error.code for error in files.verify()] == ["MODEL_FILE_MISSING", "MODEL_FILE_CHANGED"]


def test_a_file_that_the_card_does_not_name_is_never_read(tmp_path: Path) -> None:
    files = PinnedFiles(model_with_files(tmp_path))
    (tmp_path / "ct-tissue" / "extra.json").write_bytes(b"{}")
    for name in ("extra.json", "../ct-tissue.yaml", "/etc/passwd", "weights/../plans.json"):
        assert refusal(files, name).code == "MODEL_FILE_NOT_PINNED"


def test_a_folder_in_the_place_of_a_file_is_a_missing_file(tmp_path: Path) -> None:
    files = PinnedFiles(model_with_files(tmp_path))
    (tmp_path / "ct-tissue" / "plans.json").unlink()
    (tmp_path / "ct-tissue" / "plans.json").mkdir()
    assert refusal(files, "plans.json").code == "MODEL_FILE_MISSING"


def test_a_card_that_was_never_a_file_has_no_folder(tmp_path: Path) -> None:
    fields = yaml.safe_load(changed_card(tmp_path, files={"a.bin": "0" * 64}).read_text(encoding="utf-8"))
    assert refusal(PinnedFiles(ModelSpec.model_validate(fields)), "a.bin").code == "MODEL_FILE_MISSING"


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "a//b", "./a", "a/.", "C:/x", "a\\b", "a/", "", "..", "a\0b"]
)
def test_a_path_that_leads_out_of_the_folder_is_refused_when_the_card_is_read(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ModelError, match="MODEL_CARD_INVALID") as refused:
        load_card(changed_card(tmp_path, files={name: "0" * 64}))
    expected = r"'\x00' is not allowed" if "\0" in name else "is no file below the model's folder"
    assert expected in refused.value.reason
    with pytest.raises(ModelError, match="MODEL_CARD_INVALID"):
        pin(tmp_path, (name,))


def test_a_digest_is_sixty_four_hexadecimal_digits(tmp_path: Path) -> None:
    path = changed_card(tmp_path, files={"a.bin": "123"})
    line = path.read_text(encoding="utf-8").splitlines().index("  a.bin: '123'") + 1
    with pytest.raises(ModelError, match=f"ct-tissue.yaml:{line}: files.a.bin"):
        load_card(path)
