"""What every result object of one run shares: source, model, labels, identity, time, profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from pydicom.dataset import Dataset

from ai.geometry import Part
from ai.measure import Measurement
from ai.model import ModelSpec
from ai.profile import DEFAULT_PROFILE, Profile
from ai.quality import Finding
from ai.uids import derived_uid
from ai.volume import ImageSeries, LabelArray

ResultKind = Literal["seg", "sr", "overview", "rtstruct"]

_SHARED: tuple[ResultKind, ...] = ("overview",)
"""Kinds that are the same for every destination, whatever its profile."""


@dataclass(frozen=True)
class ResultIdentity:
    """Derived UIDs of one run (house rule 3): same source, input, model and version, same UIDs.

    Attributes
    ----------
    root
        What the UIDs of all objects of the run are derived from.
    tracking_uids
        By structure number.
    """

    root: tuple[str, ...]
    device_uid: str
    tracking_uids: Mapping[int, str]

    def uid(self, kind: str) -> str:
        """The UID of a kind of thing."""
        return derived_uid(*self.root, kind)


def derive_identity(
    series_instance_uid: str, input_digest: str, spec: ModelSpec, software_version: str, part_key: str = ""
) -> ResultIdentity:
    """Derive every UID of a run from its source series, part, input set, model id, version and card.

    Two parts of one series may come from the same file, so that the input set alone does not tell them apart.
    """
    model = (spec.id, spec.version, spec.digest, software_version)
    part = ("part", part_key) if part_key else ()
    root = (series_instance_uid, *part, input_digest, *model)
    return ResultIdentity(
        root=root,
        device_uid=derived_uid("device", *model),
        tracking_uids={s.number: derived_uid(*root, f"tracking-{s.number}") for s in spec.structures},
    )


@dataclass(frozen=True)
class Predecessor:
    """The report that this one replaces (PS3.3 C.17.2.3, Predecessor Documents Sequence)."""

    study_instance_uid: str
    series_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str


class Source(Protocol):
    """The source as every result cites it: whole headers, and which part of the series it is."""

    @property
    def datasets(self) -> tuple[Dataset, ...]:
        """Headers, at least one."""
        ...

    @property
    def part(self) -> Part:
        """Which part of the series."""
        ...


class Origin(Protocol):
    """Where a result comes from: a finished run (:class:`ResultContext`), or one that came to no end."""

    @property
    def series(self) -> Source:
        """The source."""
        ...

    @property
    def spec(self) -> ModelSpec:
        """The card of the model."""
        ...

    @property
    def identity(self) -> ResultIdentity:
        """Derived UIDs."""
        ...

    @property
    def created_at(self) -> datetime:
        """Time of the run, timezone-aware."""
        ...

    @property
    def series_number_base(self) -> int:
        """Numbers of the result series follow it."""
        ...

    @property
    def software_version(self) -> str:
        """Of the gateway."""
        ...

    @property
    def revision(self) -> int:
        """1, or more where it replaces another."""
        ...

    @property
    def profile(self) -> Profile:
        """How results are written."""
        ...

    @property
    def predecessors(self) -> Mapping[str, Predecessor] | None:
        """Reports that are replaced, by the key of their profile."""
        ...


@dataclass(frozen=True)
class ResultContext:
    """One finished run, from which each result object is built.

    Attributes
    ----------
    labels
        uint8 ``(slices, rows, columns)`` on the grid of ``series.volume``, numbers of the card.
    created_at
        Time of the run, timezone-aware; from the job's row, so that a re-run writes the same.
    series_number_base
        SEG is base + 1, SR base + 2, overview base + 3, RTSTRUCT base + 4.
    software_version
        Version of the gateway.
    revision
        1, or more when instances came after a result: then every result says that it replaces one.
    quality
        What the quality rules found.
    profile
        How the objects are written.
    predecessors
        The report of the revision before, by the key of its profile.
    not_evaluated
        Numbers of the structures that nobody looked for, such as those of a stage which did not run.
    """

    series: ImageSeries
    spec: ModelSpec
    labels: LabelArray
    measurements: tuple[Measurement, ...]
    identity: ResultIdentity
    created_at: datetime
    series_number_base: int
    software_version: str
    revision: int = 1
    quality: tuple[Finding, ...] = ()
    profile: Profile = DEFAULT_PROFILE
    predecessors: Mapping[str, Predecessor] | None = None
    not_evaluated: frozenset[int] = frozenset()

    def series_uid(self, kind: ResultKind) -> str:
        """Series Instance UID of a kind of result, in this profile."""
        return self.identity.uid(f"{kind}-series{self._suffix(kind)}")

    def instance_uid(self, kind: ResultKind, number: int = 1) -> str:
        """SOP Instance UID of the object with an instance number, in this profile."""
        return self.identity.uid(f"{kind}{self._suffix(kind)}{f' {number}' if number > 1 else ''}")

    def _suffix(self, kind: ResultKind) -> str:
        return "" if kind in _SHARED or not self.profile.key else f" {self.profile.key}"
