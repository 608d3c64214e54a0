"""What the dispatcher makes sure of before a job goes to the worker, and before its results are committed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from gateway.jobs.messages import Failed
from gateway.journal.records import SUPERSEDED, ClaimedJob, Member, NewResult, Purpose
from gateway.journal.restore import INSTANCE_DAMAGED, INSTANCE_FILE_MISSING

_MOST_INTERRUPTIONS = 20


def refusal(job: ClaimedJob, members: Sequence[Member], spool_root: Path) -> Failed | None:
    """Why a job is not even given to the worker."""
    if job.interruptions > _MOST_INTERRUPTIONS:
        sentence = f"The gateway ended {job.interruptions} times while this job was running."
        return Failed(job.lease_id, "INTERRUPTED_TOO_OFTEN", sentence, retryable=False)
    if job.purpose is Purpose.FAILURE_REPORT and job.reports is None:
        sentence = "The run that had failed was done after all: there is no failure to report."
        return Failed(job.lease_id, SUPERSEDED, sentence, retryable=False)
    lacking = [member for member in members if not _is_there(member, spool_root)]
    if not lacking or (job.reports is not None and len(lacking) < len(members)):
        return None
    is_damaged = any(member.is_damaged for member in lacking)
    what = "are damaged on the disk or gone" if is_damaged else "are not in the spool any more"
    sentence = (
        f"{len(lacking)} of {len(members)} stored instances {what}, the first is SOP "
        f"Instance {lacking[0].sop_instance_uid}: check the disk of data_dir, then send the series again. "
        "The job runs by itself then."
    )
    name = INSTANCE_DAMAGED if is_damaged else INSTANCE_FILE_MISSING
    gone = tuple(str(spool_root / member.path) for member in lacking if not member.is_damaged)
    return Failed(job.lease_id, name, sentence, retryable=False, damaged=gone)


def stored(members: Sequence[Member], spool_root: Path) -> list[Member]:
    """Those whose file is there, and was not found damaged."""
    return [member for member in members if _is_there(member, spool_root)]


def _is_there(member: Member, spool_root: Path) -> bool:
    return not member.is_damaged and (spool_root / member.path).is_file()


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
