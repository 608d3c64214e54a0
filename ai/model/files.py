"""The files of a model, pinned by the card: read only when their bytes have the digest that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from ai.errors import ModelError
from ai.model.card import ModelSpec
from ai.model.paths import below_folder, open_regular


class PinnedFiles:
    """The folder of one card. Model files are code: nothing in it is read that the card does not pin."""

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec

    @property
    def names(self) -> tuple[str, ...]:
        """Paths of the pinned files below the model's folder, with ``/``, sorted."""
        return tuple(sorted(self._spec.files))

    def read(self, name: str) -> bytes:
        """The bytes of a file, whose digest was checked on these very bytes.

        Raises
        ------
        ModelError
            ``MODEL_FILE_NOT_PINNED``, ``MODEL_FILE_MISSING`` or ``MODEL_FILE_CHANGED``.
        """
        with self._opened(name) as file:
            content = file.read()
        self._compare(name, hashlib.sha256(content).hexdigest())
        return content

    def path(self, name: str) -> Path:
        """A file for libraries that want a path; checked as by :meth:`read`."""
        self.read(name)
        return self.folder / name

    def verify(self) -> tuple[ModelError, ...]:
        """Every file that is missing or changed."""
        problems = []
        for name in self.names:
            try:
                with self._opened(name) as file:
                    self._compare(name, hashlib.file_digest(file, "sha256").hexdigest())
            except ModelError as error:
                problems.append(error)
        return tuple(problems)

    @contextmanager
    def _opened(self, name: str) -> Iterator[BufferedReader]:
        """A pinned file; a pipe or a device, at which reading could wait for ever, counts as missing."""
        if name not in self._spec.files:
            raise self._error("MODEL_FILE_NOT_PINNED", f"the card does not name {name} under files")
        path = self.folder / name
        try:
            with open_regular(path) as file:
                yield file
        except OSError as error:
            raise self._error("MODEL_FILE_MISSING", f"{path} cannot be read ({error.strerror})") from error

    def _compare(self, name: str, found: str) -> None:
        pinned = self._spec.files[name]
        if found != pinned:
            raise self._error(
                "MODEL_FILE_CHANGED",
                f"{self.folder / name} has the SHA-256 {found[:12]}…, the card pins {pinned[:12]}…: "
                "put the file back that was added, or add the model again",
            )

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        if self._spec.folder is None:
            raise self._error("MODEL_FILE_MISSING", "the card was not read from a file, so it has no folder")
        return self._spec.folder

    def _error(self, code: str, what: str) -> ModelError:
        return ModelError(code, f"Model {self._spec.id} {self._spec.version}: {what}.")


def pin(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of files below a folder, by name: what a card writes under ``files``."""
    pinned = {}
    for name in sorted(names):
        try:
            below_folder(name)
        except ValueError as error:
            raise ModelError("MODEL_CARD_INVALID", f"{error}.") from error
        with (folder / name).open("rb") as stream:
            pinned[name] = hashlib.file_digest(stream, "sha256").hexdigest()
    return pinned
