"""What the dispatcher makes sure of before a job goes to the worker, and before its results are committed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gateway.jobs.messages import Failed
from gateway.journal.records import ClaimedJob, Member, NewResult

_MOST_INTERRUPTIONS = 20


def refusal(job: ClaimedJob, members: Sequence[Member], spool_root: Path) -> Failed | None:
    """Why a job is not even given to the worker."""
    if job.interruptions > _MOST_INTERRUPTIONS:
        sentence = f"The gateway ended {job.interruptions} times while this job was running."
        return Failed(job.lease_id, "INTERRUPTED_TOO_OFTEN", sentence, retryable=False)
    missing = [member for member in members if not (spool_root / member.path).is_file()]
    if not missing or (job.reports is not None and len(missing) < len(members)):
        return None
    sentence = (
        f"{len(missing)} of {len(members)} stored instances are not in the spool any more, the first is SOP "
        f"Instance {missing[0].sop_instance_uid}: check the disk of data_dir, then send the series again."
    )
    return Failed(job.lease_id, "INSTANCE_FILE_MISSING", sentence, retryable=False)


def stored(members: Sequence[Member], spool_root: Path) -> list[Member]:
    """Those whose file is there."""
    return [member for member in members if (spool_root / member.path).is_file()]


def result_damage(results_root: Path, result: NewResult) -> str:
    """What is wrong with a result file, or an empty text: inside the folder, its size, its SHA-256."""
    relative = PurePosixPath(result.path)
    if relative.is_absolute() or ".." in relative.parts:
        return f"The path of the {result.kind} leaves the results folder."
    path = results_root / relative
    if not path.is_file():
        return f"The file of the {result.kind} is missing."
    if path.stat().st_size != result.size_bytes or file_digest(path) != result.digest:
        return f"The file of the {result.kind} does not have the size and SHA-256 that the worker reported."
    return ""


def file_digest(path: Path) -> str:
    """SHA-256 of a file, as lower-case hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
