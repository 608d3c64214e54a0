"""What every result object of one run shares: source, model, labels, identity, time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from ai.measure import Measurement
from ai.model import ModelSpec
from ai.quality import Finding
from ai.uids import derived_uid
from ai.volume import ImageSeries, LabelArray


@dataclass(frozen=True)
class ResultIdentity:
    """Derived UIDs of one run (house rule 3): same source, input, model and version, same UIDs."""

    seg_series_uid: str
    seg_uid: str
    sr_series_uid: str
    sr_uid: str
    overview_series_uid: str
    overview_uid: str
    device_uid: str
    tracking_uids: Mapping[int, str]


def derive_identity(
    series_instance_uid: str, input_digest: str, spec: ModelSpec, software_version: str, part_key: str = ""
) -> ResultIdentity:
    """Derive every UID of a run from its source series, part, input set, model id, version and card.

    Two parts of one series may come from the same file, so that the input set alone does not tell them apart.
    """
    model = (spec.id, spec.version, spec.digest, software_version)
    part = ("part", part_key) if part_key else ()

    def uid(kind: str) -> str:
        return derived_uid(series_instance_uid, *part, input_digest, *model, kind)

    return ResultIdentity(
        seg_series_uid=uid("seg-series"),
        seg_uid=uid("seg"),
        sr_series_uid=uid("sr-series"),
        sr_uid=uid("sr"),
        overview_series_uid=uid("overview-series"),
        overview_uid=uid("overview"),
        device_uid=derived_uid("device", *model),
        tracking_uids={s.number: uid(f"tracking-{s.number}") for s in spec.structures},
    )


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
        SEG is base + 1, SR base + 2, overview base + 3.
    software_version
        Version of the gateway.
    revision
        1, or more when instances came after a result: then every result says that it replaces one.
    quality
        What the quality rules of the card found.
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
