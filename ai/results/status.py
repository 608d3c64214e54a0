"""The report of a job that came to no end: that the algorithm gave no result, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from ai.errors import SeriesRefused
from ai.geometry import NotAVolume, Part, VerdictCode
from ai.instances import Instance, input_digest, read_dataset, read_instances
from ai.model import ModelSpec
from ai.profile import DEFAULT_PROFILE, Profile
from ai.results.context import Predecessor, ResultIdentity
from ai.results.encode import encode
from ai.results.sr_document import citation, report
from ai.results.sr_measurements import not_evaluated_group
from ai.results.summary import terms
from ai.results.write import ResultFile


@dataclass(frozen=True)
class Headers:
    """What could be read of a source series; its voxels are not needed.

    Attributes
    ----------
    datasets
        Whole headers without pixels, each instance once, at least one.
    part
        Which part of the series was to be segmented.
    unreadable
        How many files are none of these.
    input_digest
        Identity of the instances.
    """

    datasets: tuple[Dataset, ...]
    part: Part
    unreadable: int
    input_digest: str


@dataclass(frozen=True)
class NotRun:
    """A job without a result. The attributes are those of :class:`ai.results.context.ResultContext`.

    Attributes
    ----------
    name
        Of the failure, such as ``MISSING_SLICE``.
    reason
        A sentence for people, with the numbers and what to do.
    """

    series: Headers
    spec: ModelSpec
    identity: ResultIdentity
    created_at: datetime
    series_number_base: int
    software_version: str
    name: str
    reason: str
    revision: int = 1
    profile: Profile = DEFAULT_PROFILE
    predecessors: Mapping[str, Predecessor] | None = None

    def uid(self, kind: str) -> str:
        """A UID that another failure of the same input, or its result, does not have."""
        profile = f" {self.profile.key}" if self.profile.key else ""
        return self.identity.uid(f"{kind} {self.name}{profile}")


def read_headers(files: Sequence[Path], part_key: str = "") -> Headers:
    """Read what can be read of a series: whatever is wrong with it, one header is enough.

    Files that are damaged, or belong to another series than most, are counted and left out.

    Raises
    ------
    SeriesRefused
        ``NO_READABLE_FILE`` when there is none.
    """
    instances = _of_one_series(_readable(sorted(files)))
    headers = {}
    for instance in instances:
        try:
            headers[instance.sop_instance_uid] = read_dataset(instance)
        except SeriesRefused:
            continue
    if not headers:
        reason = f"None of the {len(files)} files of the series could be read, so no report can cite it."
        raise SeriesRefused("NO_READABLE_FILE", reason)
    kept = [instance for instance in instances if instance.sop_instance_uid in headers]
    nowhere = NotAVolume(VerdictCode.NO_POSITION, "The series was not read as a volume.")
    part = Part(part_key, part_key, (), nowhere)
    return Headers(tuple(headers.values()), part, len(files) - len(kept), input_digest(kept))


def write_status(job: NotRun, profiles: Sequence[Profile]) -> tuple[ResultFile, ...]:
    """Encode a report for each profile that wants reports."""
    return tuple(_file(replace(job, profile=profile)) for profile in profiles if profile.report)


def build_status(job: NotRun) -> Dataset:
    """Build the report in the profile of the job: Comprehensive 3D SR by TID 1500.

    The name and the reason of the failure come first. Every structure of the card is said not to have been
    evaluated. The image library has every instance whose header could be read. The same job gives the same
    data set.
    """
    spec = job.spec
    groups = [
        not_evaluated_group(spec, structure, job.identity.tracking_uids[structure.number])
        for structure in spec.structures
    ]
    sources = job.series.datasets
    library = [citation(source) for source in sources if "ImageStorage" in UID(source.SOPClassUID).keyword]
    dataset = report(job, _comments(job), library, groups, sources)
    dataset.SeriesInstanceUID = job.uid("sr-failed-series")
    dataset.SOPInstanceUID = job.uid("sr-failed")
    return dataset


def _readable(files: Sequence[Path]) -> list[Instance]:
    """The instances of a series; one by one where they cannot be read together."""
    try:
        return read_instances(files)[0]
    except (SeriesRefused, OSError):
        found: dict[str, Instance] = {}
        for path in files:
            try:
                (instance,) = read_instances([path])[0]
            except (SeriesRefused, OSError):
                continue
            found.setdefault(instance.sop_instance_uid, instance)
        return list(found.values())


def _of_one_series(instances: Sequence[Instance]) -> list[Instance]:
    """Those of the series that most belong to, in an order that does not depend on the files'."""
    named = [i for i in instances if i.fact("SOPClassUID")]
    series = Counter((i.fact("StudyInstanceUID"), i.fact("SeriesInstanceUID")) for i in named)
    most = max(sorted(series), key=lambda key: series[key], default=None)
    own = [i for i in named if (i.fact("StudyInstanceUID"), i.fact("SeriesInstanceUID")) == most]
    return sorted(own, key=lambda instance: instance.sop_instance_uid)


def _comments(job: NotRun) -> tuple[str, ...]:
    title = f"{job.spec.title} {job.spec.version}"
    summary = [
        f"{title}: not completed, no result. {job.name}: {job.reason.strip()}",
        "No structure was evaluated; this says nothing about whether one is there.",
    ]
    if job.revision > 1:
        summary.append(f"Revision {job.revision} of this series: it replaces every earlier result.")
    count = job.series.unreadable
    files = f"{count} file{'' if count == 1 else 's'} of the series could not be read and are not cited."
    return (" ".join(summary), *([files] if count else []), *terms(job.spec))


def _file(job: NotRun) -> ResultFile:
    dataset = build_status(job)
    return ResultFile(
        kind="sr",
        number=1,
        profiles=(job.profile.key,),
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        content=encode(dataset, job.software_version),
    )
