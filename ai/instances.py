"""The files of one series as instances: their facts with a complete identity, each instance once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.errors import SeriesRefused
from ai.geometry import Note, NoteCode
from ai.quiet import quiet
from ai.source.facts import Facts
from ai.source.part10 import SourceFile, read_file
from ai.uids import derived_uid

# What result objects copy from their source and may not find empty (PS3.3 C.7.1, C.7.2: type 2).
_EMPTY_IF_ABSENT = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_SAID_IF_ABSENT = ("PatientID", "SeriesNumber")
_CHUNK_BYTES = 1 << 20
_HASHING_THREADS = 4


@dataclass(frozen=True)
class Instance:
    """One file of a series; the facts of its header have complete UIDs."""

    file: SourceFile

    @property
    def path(self) -> Path:
        """Where the file lies."""
        return self.file.path

    @property
    def facts(self) -> Facts:
        """Facts of the data set, SOP, series and study UIDs completed."""
        return self.file.header.facts

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID; from the file meta information or derived where the data set has none."""
        return self.fact("SOPInstanceUID")

    def fact(self, keyword: str) -> str:
        """First value of an attribute, empty if there is none."""
        return next(iter(self.facts.get(keyword, ())), "")


def read_instances(files: Sequence[Path]) -> tuple[list[Instance], tuple[Note, ...]]:
    """Read the headers of one series; copies of the same instance are read once.

    Raises
    ------
    SeriesRefused
        EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, DEFLATED_FILE, SEVERAL_SERIES, SEVERAL_STUDIES,
        SEVERAL_PATIENTS, SEVERAL_MODALITIES, DUPLICATE_SOP_INSTANCE, and what
        :func:`ai.source.part10.read_file` raises.
    """
    read = [Instance(read_file(path)) for path in files]
    _refuse_mixed(read)
    lacking = {keyword for keyword in (*_UIDS[1:], *_SAID_IF_ABSENT) for i in read if not i.fact(keyword)}
    instances = _without_copies([_with_sop_instance_uid(instance) for instance in read])
    instances = _with_series_uids(instances)
    if not lacking:
        return instances, ()
    text = f"The source lacks {', '.join(sorted(lacking))}; a derived or empty value stands in the results."
    return instances, (Note(NoteCode.IDENTITY_DERIVED, text),)


def _refuse_mixed(instances: Sequence[Instance]) -> None:
    """A series belongs to one study of one patient: results take over those of one image for all."""
    series = Counter(i.fact("SeriesInstanceUID") for i in instances)
    if len(series) > 1:
        listing = ", ".join(f"{uid or '(no UID)'} with {n} files" for uid, n in sorted(series.items()))
        raise SeriesRefused("SEVERAL_SERIES", f"The files belong to {len(series)} series: {listing}.")
    for keyword, code, name, what in (
        ("StudyInstanceUID", "SEVERAL_STUDIES", "Study Instance UID", "studies"),
        ("PatientID", "SEVERAL_PATIENTS", "Patient ID", "patients"),
        ("Modality", "SEVERAL_MODALITIES", "Modality", "modalities"),
    ):
        counts = Counter(i.fact(keyword) for i in instances)
        if len(counts) > 1:  # without the values: a Patient ID does not belong in a message
            numbers = ", ".join(str(n) for _, n in counts.most_common(5))
            reason = f"The {len(instances)} images of one series have {len(counts)} values of {name} "
            reason += f"({numbers} images each), as if {what} had been mixed: send each as its own series."
            raise SeriesRefused(code, reason)


def _with_sop_instance_uid(instance: Instance) -> Instance:
    if instance.sop_instance_uid:
        return instance
    return _with_facts(instance, SOPInstanceUID=derived_uid("instance", data_set_digest(instance.file)))


def _with_series_uids(instances: Sequence[Instance]) -> list[Instance]:
    """Study and series UIDs where there are none, derived from the instances: the same at every reading."""
    uids = sorted(i.sop_instance_uid for i in instances)
    completed = []
    for instance in instances:
        lacking = [k for k in ("StudyInstanceUID", "SeriesInstanceUID") if not instance.fact(k)]
        derived = {k: derived_uid(k.removesuffix("InstanceUID").lower(), *uids) for k in lacking}
        completed.append(_with_facts(instance, **derived) if derived else instance)
    return completed


def _with_facts(instance: Instance, **facts: str) -> Instance:
    added = {keyword: (value,) for keyword, value in facts.items()}
    header = replace(instance.file.header, facts={**instance.facts, **added})
    return Instance(replace(instance.file, header=header))


def _without_copies(instances: Sequence[Instance]) -> list[Instance]:
    """Each instance once; files are compared only where a UID comes again."""
    by_uid: dict[str, Instance] = {}
    for instance in instances:
        first = by_uid.setdefault(instance.sop_instance_uid, instance)
        if first is not instance and data_set_digest(first.file) != data_set_digest(instance.file):
            raise SeriesRefused(
                "DUPLICATE_SOP_INSTANCE",
                f"{first.path.name} and {instance.path.name} have the same SOP Instance UID but other bytes: "
                "keep the right one.",
            )
    return list(by_uid.values())


def data_set_digest(file: SourceFile) -> str:
    """SHA-256 hex of everything after the file meta information.

    The sender's file and the gateway's stored copy, which have other file meta information, agree in it.
    """
    digest = hashlib.sha256()
    with file.path.open("rb", buffering=0) as stored:
        stored.seek(file.data_set_offset)
        while chunk := stored.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def input_digest(instances: Sequence[Instance]) -> str:
    """SHA-256 hex over the sorted lines ``SOP Instance UID`` + space + digest of the data set.

    It is the identity of an input set. Files are hashed in threads, which run beside each other.
    """
    with ThreadPoolExecutor(_HASHING_THREADS, "hash") as pool:
        digests = list(pool.map(data_set_digest, [instance.file for instance in instances]))
    pairs = zip(instances, digests, strict=True)
    lines = sorted(f"{instance.sop_instance_uid} {digest}\n" for instance, digest in pairs)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def read_dataset(instance: Instance) -> Dataset:
    """The whole header of an instance without pixel data, for results: identity attributes completed.

    Raises SeriesRefused (TRUNCATED_FILE) if a value that the bounded reader passed over is damaged.
    """
    path = instance.path
    try:
        with quiet():  # a malformed value is judged where it is used
            header = dcmread(path, stop_before_pixels=True)
    except Exception as error:
        reason = f"The header of {path.name} is damaged ({type(error).__name__})."
        raise SeriesRefused("TRUNCATED_FILE", reason) from error
    for keyword in _UIDS:
        if not header.get(keyword):
            setattr(header, keyword, instance.fact(keyword))
    for keyword in _EMPTY_IF_ABSENT:
        if keyword not in header:
            setattr(header, keyword, "")
    return header
