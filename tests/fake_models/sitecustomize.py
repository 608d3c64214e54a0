"""Models that behave as badly as real ones may, for processes started with this folder on PYTHONPATH.

The loader ``classical`` of such a process gives a fake for cards whose id begins with ``fake-``; everything
else of the way (card, hashes, sandbox, shared memory, steps, results) is the real one.
"""

from __future__ import annotations

import faulthandler
import os
import socket
import sys
import time
from collections.abc import Sequence
from importlib import abc, machinery
from pathlib import Path
from types import ModuleType
from typing import Any

LOADER = "ai.loaders.classical"


class FakeModel:
    """See :class:`ai.model.Model`; what it does is in its id."""

    def __init__(self, spec: Any, device: str) -> None:
        self.spec, self.device = spec, device
        self.weight_bytes = 1000
        self.folder = Path(os.environ["AIGW_TEST_FOLDER"])

    def needed_bytes(self, shape: Sequence[int], _spacing_mm: object) -> int:
        if self.spec.id == "fake-dies-early":
            os._exit(6)
        return 1 << 50 if self.spec.id == "fake-huge" else int(shape[0])

    def close(self) -> None:
        pass

    def steps(self, channels: Sequence[Any], run: Any) -> Any:
        import numpy as np

        from ai.model import Prediction, Step

        name = self.spec.id.removeprefix("fake-")
        scalars: dict[str, float] = {}
        yield Step("first", 0.1)
        if name.startswith("waits"):
            yield from self.wait(Step)
        elif name == "attacks":
            scalars = {
                "tcp": attempt(connect),
                "write": attempt(self.write),
                "read": attempt((self.folder / "journal.db").read_bytes),
                "process": attempt(os.fork),
            }
        else:
            misbehave(name, run)
        yield Step("last", 1.0)
        voxels = channels[0].voxels
        labels = (voxels > voxels.min()).astype(np.uint8)
        yield Step("done", 1.0)
        facts = {"asked": object()} if name == "odd-facts" else {"asked": run.deterministic}
        return Prediction(labels, scalars, facts=facts)

    def wait(self, step: Any) -> Any:
        """Steps until the test lets it go on."""
        while not (self.folder / "released").exists():
            time.sleep(0.02)
            yield step("waiting", 0.5)

    def write(self) -> None:
        (self.folder / "written by a model").write_text("x")


def misbehave(name: str, run: Any) -> None:
    """What may happen between two steps of a model."""
    match name:
        case "segfault":
            faulthandler._sigsegv()  # type: ignore[attr-defined]
        case "exit":
            os._exit(3)
        case "sys-exit":
            sys.exit(4)
        case "hang":
            time.sleep(600)
        case "babbles":  # its end of the socket to the worker
            os.write(int(sys.argv[2]), b'{"type":"Refused","id":{},"kind":1,"code":[],"reason":null}\n')
        case "oom-once" if run.rung == 0:
            raise MemoryError
        case "oom":
            raise MemoryError
        case "raises":
            raise RuntimeError("a text that may name a patient")


def connect() -> None:
    socket.create_connection(("127.0.0.1", int(os.environ["AIGW_TEST_PORT"])), timeout=5)


def attempt(what: Any) -> float:
    """1.0 when it worked."""
    try:
        what()
    except OSError:
        return 0.0
    return 1.0


class Finder(abc.MetaPathFinder):
    """Lets the real loader be imported, and puts the fakes in front of it."""

    def find_spec(self, name: str, path: object, _target: object = None) -> machinery.ModuleSpec | None:
        if name != LOADER:
            return None
        spec = machinery.PathFinder.find_spec(name, path)  # type: ignore[arg-type]
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


class Loader(abc.Loader):
    """Runs the real module, then wraps its ``load``."""

    def __init__(self, real: Any) -> None:
        self._real = real

    def create_module(self, spec: machinery.ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._real.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        real_load = module.load

        def load(spec: Any, device: str, find: object) -> Any:
            if not spec.id.startswith("fake-"):
                return real_load(spec, device, find)
            if spec.id == "fake-dies-loading":
                os._exit(5)
            for name in spec.files:
                from ai.model import PinnedFiles

                PinnedFiles(spec).read(name)
            return FakeModel(spec, device)

        module.load = load  # type: ignore[attr-defined]


sys.meta_path.insert(0, Finder())
