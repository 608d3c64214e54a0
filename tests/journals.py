"""A journal that tests fill through its real methods: series, jobs, results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ai.profile import DEFAULT_PROFILE, Profile
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.profiles import Profiles
from gateway.journal.records import ClaimedJob, Failure, NewInstance, NewJob, NewResult, SeriesDecision

STUDY, SERIES = "1.2", "1.2.3"
LABEL_MAP = Profile(segmentation="label_map", compression="rle")
CONTOURS = Profile(rtstruct=True, report=False)


class Site:
    """A journal, and the profiles of the destinations as the configuration has them."""

    def __init__(self, path: Path, profiles: Mapping[str, Profile] | None = None) -> None:
        self.path = path
        self.journal = Journal(path)
        self.profiles = Profiles(profiles or {})
        self.at = 10.0
        self._instances = 0

    def tick(self) -> float:
        """A moment later."""
        self.at += 1.0
        return self.at

    def receive(self, series: str = SERIES, **facts: str) -> None:
        """One more instance of a series."""
        self._instances += 1
        name = f"{series}.{self._instances}"
        known = {"Modality": ("CT",), **{keyword: (value,) for keyword, value in facts.items()}}
        header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2", name, STUDY, series, known)
        new = NewInstance(header, "1.2.840.10008.1.2.1", f"digest {name}", f"{name}.dcm", 100, "scanner")
        self.journal.record_instance(new, self.tick())

    def decide(
        self, *destinations: str, parts: Sequence[tuple[str, str]] = (), card: str = "ct-tissue"
    ) -> tuple[int, ...]:
        """Decide the receiving series: a job for each part, given as its key and input digest."""
        (series,) = self.journal.receiving_series()
        jobs = tuple(
            NewJob("tissue", card, destinations, "it matched", key, digest)
            for key, digest in parts or (("", f"digest {series.series_instance_uid} {series.revision}"),)
        )
        decision = SeriesDecision({"reason": "quiet"}, {}, {}, "ROUTED", "it matched", jobs, refused=False)
        return self.journal.decide_series(series, decision, self.tick(), self.profiles)

    def job(self, *destinations: str, series: str = SERIES, **facts: str) -> ClaimedJob:
        """A claimed job on a new revision of a series."""
        self.receive(series, **facts)
        self.decide(*destinations)
        return self.claim()

    def claim(self, first: int = 9000) -> ClaimedJob:
        """The next job."""
        job = self.claim_if_any(first)
        assert job is not None
        return job

    def claim_if_any(self, first: int = 9000) -> ClaimedJob | None:
        """The next job, or None."""
        at = self.tick()
        return self.journal.claim_job(f"lease {at}", at + 60, at, series_number_base=first)

    def finish(
        self,
        job: ClaimedJob,
        results: Sequence[NewResult] = (),
        run: Mapping[str, Any] | None = None,
        hold: Failure | None = None,
    ) -> None:
        """End a job with results."""
        self.journal.finish_job(job, results, run or {}, self.tick(), hold, self.profiles)

    def deliver_all(self, destination: str) -> list[str]:
        """Send everything that waits for a destination; the kinds of the results, in order."""
        kinds = []
        while (delivery := self.journal.claim_delivery(destination, self.tick())) is not None:
            kinds.append(delivery.kind)
            self.journal.delivery_sent(delivery, "0000", self.tick())
        return kinds

    def stories(self) -> list[dict[str, Any]]:
        """Every series revision with its jobs, results and deliveries."""
        reader = JournalReader(self.path)
        try:
            return [reader.series_details(record) for record in reader.series()]
        finally:
            reader.close()

    def record(self, job_id: int) -> dict[str, Any]:
        """One job of the stories."""
        jobs = [job for story in self.stories() for job in story["jobs"]]
        return next(job for job in jobs if job["id"] == job_id)


def result(kind: str, *profiles: Profile, number: int = 1, run: str = "1") -> NewResult:
    """A result row; those of one ``run`` and kind have the same UID, whatever their profiles are."""
    keys = tuple(profile.key for profile in profiles or (DEFAULT_PROFILE,))
    own = "" if kind == "overview" else "".join(keys)
    uid = f"2.25.{int.from_bytes(f'{run}{kind}{own}{number}'.encode()) % 10**30}"
    path = f"{kind}-{own}-{number}.dcm"
    return NewResult(kind, "1.2.3", uid, f"{uid}.9", "1.2.840.10008.1.2.1", path, "d", 1, number, keys)
