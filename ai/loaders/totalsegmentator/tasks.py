"""The table of tasks: which networks, at which spacing, cropped to what, merged how.

``tasks.json`` is written by ``scripts/generate_totalsegmentator_tasks.py`` from the published wheel.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from ai.errors import ModelError

_TABLE = Path(__file__).with_name("tasks.json")


class _Row(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Network(_Row):
    """A trained network by its data set number; ``labels`` are its classes from label 1 on.

    None: those of the task.
    """

    id: int
    labels: tuple[str, ...] | None = None


class Crop(_Row):
    """The task that localises, the classes that make the region, and what is kept around them."""

    task: str
    classes: tuple[str, ...]
    margin_mm: float
    within: tuple[str, ...] = ()
    within_mm: float = 0.0


class After(_Row):
    """What is done to the labels of some classes at the end."""

    op: Literal["largest", "drop_below_ml"]
    classes: tuple[str, ...]
    volume_ml: float = 0.0


class Bodies(_Row):
    """The task finds vertebral bodies; ``clip`` is a task whose first class bounds them."""

    clip: str | None = None


class Task(_Row):
    """One task; ``folds`` None: all that are there. Spacing along right-left, front-back, up-down."""

    modality: Literal["CT", "MR"]
    licence: Literal["open", "contract", "non-commercial"]
    trainer: str
    plans: str
    configuration: str
    folds: tuple[int, ...] | None
    step: float
    networks: tuple[Network, ...]
    classes: tuple[str, ...]
    resample_mm: float | tuple[float, float, float] | None = None
    crop: Crop | None = None
    after: tuple[After, ...] = ()
    vertebral_bodies: Bodies | None = None

    @property
    def numbers(self) -> dict[str, int]:
        """Structure number of each class."""
        return {name: number for number, name in enumerate(self.classes, start=1)}


class Table(_Row):
    """All tasks, and where they come from; ``folders`` by data set number."""

    source: str
    licence: str
    attribution: str
    left_out: Mapping[str, str]
    folders: Mapping[int, str]
    tasks: Mapping[str, Task]

    def task(self, name: str) -> Task:
        """A task by name; raises ModelError TASK_UNKNOWN with the closest name."""
        if name in self.tasks:
            return self.tasks[name]
        close = difflib.get_close_matches(name, self.tasks, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ModelError(
            "TASK_UNKNOWN", f"{self.source} has no task {name!r}.{hint} Tasks: {', '.join(self.tasks)}."
        )


@cache
def table() -> Table:
    """The table that ships."""
    return Table.model_validate(json.loads(_TABLE.read_text(encoding="utf-8")))
