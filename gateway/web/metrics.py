"""Metrics for Prometheus. Labels are names of the configuration, states, reasons: no UID, no patient."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gateway.journal.records import Failure, Receipt
from gateway.states import COMMITMENT, DELIVERY, JOB, SERIES, Machine

K = TypeVar("K", bound=tuple[str, ...])
Counts = Mapping[str, Mapping[str, int]]
_MACHINES: tuple[Machine, ...] = (SERIES, JOB, DELIVERY, COMMITMENT)  # type: ignore[type-arg]


@dataclass(frozen=True)
class Sources:
    """Where the numbers come from; each is asked at every scrape.

    Attributes
    ----------
    open_requests
        Requests of STOW-RS.
    certificates
        (kind, name, days left) of each certificate in use.
    refusals
        Name → associations and web requests refused or broken off since the start.
    source_names
        Of all that can come in: their counters begin at 0, else ``increase()`` would miss the first event.
    instances, received_bytes, rejections
        (source, receipt) → instances, source → bytes, (source, name) → instances rejected since the start.
    store_seconds
        (upper bound, instances up to it), growing, and the sum of seconds.
    flush_and_commit_s
        Until a slice and a commit are durable, measured at the start; None: not measured.
    """

    counts: Callable[[], Counts]
    damaged: Callable[[], int]
    holds: Callable[[], Mapping[str, Failure]]
    worker_ready: Callable[[], bool]
    open_associations: Callable[[], int]
    open_requests: Callable[[], int]
    certificates: Callable[[], Sequence[tuple[str, str, float]]]
    refusals: Callable[[], Mapping[str, int]]
    source_names: Collection[str]
    instances: Callable[[], Mapping[tuple[str, str], int]]
    received_bytes: Callable[[], Mapping[str, int]]
    rejections: Callable[[], Mapping[tuple[str, str], int]]
    store_seconds: Callable[[], tuple[Sequence[tuple[str, float]], float]]
    flush_and_commit_s: Callable[[], tuple[float, float] | None]


class Metrics(Collector):
    """Asks its sources when it is asked; keeps nothing."""

    def __init__(self, sources: Sources, data_dir: Path, version: str) -> None:
        self._sources = sources
        self._data_dir = data_dir
        self._version = version
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition that Prometheus scrapes."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric with its value now."""
        yield from self._rows()
        yield from self._received()
        yield from self._certificates()
        sources = self._sources
        held = GaugeMetricFamily(
            "aigw_model_held", "1 for a model that does not run: its jobs wait.", labels=["card", "reason"]
        )
        for card, failure in sources.holds().items():
            held.add_metric([card, failure.name], 1)
        yield held
        disk = shutil.disk_usage(self._data_dir)
        yield _gauge("aigw_disk_free_bytes", "Free space on the disk of data_dir.", disk.free)
        yield _gauge("aigw_disk_total_bytes", "Size of the disk of data_dir.", disk.total)
        if (took := sources.flush_and_commit_s()) is not None:
            text = "Until 512 KiB are durable on the disk of data_dir, measured at the start."
            yield _gauge("aigw_disk_flush_seconds", text, took[0])
            text = "Until a small write there is durable, measured at the start."
            yield _gauge("aigw_disk_commit_seconds", text, took[1])
        yield _gauge("aigw_worker_ready", "1 when the worker takes jobs.", int(sources.worker_ready()))
        yield _gauge("aigw_open_associations", "Associations open now.", sources.open_associations())
        yield _gauge("aigw_open_store_requests", "STOW-RS requests open now.", sources.open_requests())
        yield InfoMetricFamily("aigw_build", "The version that runs.", {"version": self._version})

    def _rows(self) -> Iterator[Metric]:
        """Rows of the journal by state."""
        counts = self._sources.counts()
        instances = counts.get("instance", {}).get("stored", 0)
        yield _gauge("aigw_instances_stored", "Instances in the journal.", instances)
        text = "Stored instances whose file was found damaged or gone."
        yield _gauge("aigw_instances_damaged", text, self._sources.damaged())
        for machine in _MACHINES:
            family = GaugeMetricFamily(
                f"aigw_{machine.name}", f"Rows of {machine.name} by state.", labels=["state"]
            )
            states = {*(s for s, _ in machine.edges), *machine.edges.values()}
            for state in sorted(str(s) for s in states):
                family.add_metric([state], counts.get(machine.name, {}).get(state, 0))
            yield family

    def _received(self) -> Iterator[Metric]:
        """What came in, and what did not, since the start."""
        sources = self._sources
        names = sorted(sources.source_names)
        none = {(source, str(receipt)): 0 for source in names for receipt in Receipt}
        instances = {**none, **sources.instances()}
        yield _counter("aigw_instances_received", "Instances taken in.", ("source", "receipt"), instances)
        received = sources.received_bytes()
        by_source = {(source,): received.get(source, 0) for source in names}
        yield _counter("aigw_received_bytes", "Bytes of their data sets.", ("source",), by_source)
        text = "Instances rejected."
        yield _counter("aigw_instances_rejected", text, ("source", "reason"), sources.rejections())
        text = "Associations and web requests refused or broken off, by the name of the reason."
        by_name = {(name,): count for name, count in sources.refusals().items()}
        yield _counter("aigw_associations_refused", text, ("reason",), by_name)
        buckets, total_s = sources.store_seconds()
        family = HistogramMetricFamily(
            "aigw_store_seconds", "From the first byte of an instance until it was durable."
        )
        family.add_metric([], list(buckets), total_s)
        yield family

    def _certificates(self) -> Iterator[Metric]:
        """Days that certificates have left: of several with one name, the one that ends first."""
        left: dict[tuple[str, str], float] = {}
        for kind, name, days in self._sources.certificates():
            left[kind, name] = min(days, left.get((kind, name), days))
        family = GaugeMetricFamily(
            "aigw_certificate_days_left",
            "Days until a certificate ends; negative afterwards.",
            labels=["kind", "peer"],
        )
        for (kind, name), days in left.items():
            family.add_metric([kind, name], days)
        yield family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, labels: tuple[str, ...], counts: Mapping[K, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(values, count)
    return family
