"""Metrics for Prometheus: numbers of rows by state, disk, worker; labels are state names only."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.journal.records import Failure
from gateway.states import DELIVERY, JOB, SERIES, Machine

Counts = Mapping[str, Mapping[str, int]]
_MACHINES: tuple[Machine, ...] = (SERIES, JOB, DELIVERY)  # type: ignore[type-arg]


class Metrics(Collector):
    """Reads the journal when it is asked; keeps nothing."""

    def __init__(
        self,
        counts: Callable[[], Counts],
        holds: Callable[[], Mapping[str, Failure]],
        worker_ready: Callable[[], bool],
        open_associations: Callable[[], int],
        data_dir: Path,
        version: str,
    ) -> None:
        self._counts = counts
        self._holds = holds
        self._worker_ready = worker_ready
        self._open_associations = open_associations
        self._data_dir = data_dir
        self._version = version
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """The answer to a scrape."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Every metric with its value now."""
        counts = self._counts()
        instances = counts.get("instance", {}).get("stored", 0)
        yield _gauge("aigw_instances_stored", "Instances in the journal.", instances)
        for machine in _MACHINES:
            family = GaugeMetricFamily(
                f"aigw_{machine.name}", f"Rows of {machine.name} by state.", labels=["state"]
            )
            states = {*(s for s, _ in machine.edges), *machine.edges.values()}
            for state in sorted(str(s) for s in states):
                family.add_metric([state], counts.get(machine.name, {}).get(state, 0))
            yield family
        held = GaugeMetricFamily(
            "aigw_model_held", "1 for a model that does not run: its jobs wait.", labels=["card", "reason"]
        )
        for card, failure in self._holds().items():
            held.add_metric([card, failure.name], 1)
        yield held
        disk = shutil.disk_usage(self._data_dir)
        yield _gauge("aigw_disk_free_bytes", "Free space on the disk of data_dir.", disk.free)
        yield _gauge("aigw_disk_total_bytes", "Size of the disk of data_dir.", disk.total)
        yield _gauge("aigw_worker_ready", "1 when the worker takes jobs.", int(self._worker_ready()))
        yield _gauge("aigw_open_associations", "Associations open now.", self._open_associations())
        yield InfoMetricFamily("aigw_build", "The version that runs.", {"version": self._version})


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)
