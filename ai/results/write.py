"""All result objects of a run, for every profile that a destination has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from ai.profile import Profile
from ai.results.context import ResultContext, ResultKind
from ai.results.encode import encode
from ai.results.overview import build_overview
from ai.results.rtstruct import build_rtstruct
from ai.results.seg import SegObject, build_segs
from ai.results.sr import build_sr
from ai.results.verify import verify_segmentations


@dataclass(frozen=True)
class ResultFile:
    """One encoded result: ``content`` is the DICOM file, to be stored and sent as it is.

    Attributes
    ----------
    number
        Its Instance Number; only segmentations can be several.
    profiles
        Keys of the profiles that it belongs to.
    notes
        What is not as these profiles want it, each an upper-case name and a sentence.
    """

    kind: ResultKind
    number: int
    profiles: tuple[str, ...]
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    content: bytes
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Written:
    """The objects of a run; the segmentations of each profile with the context that they were built from."""

    results: tuple[ResultFile, ...]
    segmentations: tuple[tuple[ResultContext, tuple[SegObject, ...]], ...]
    overview_png: bytes


def write_results(context: ResultContext, profiles: Sequence[Profile]) -> Written:
    """Build and encode the objects of each profile, in the order in which they are sent.

    What does not depend on the profile is written once, for all that want it.
    """
    results: list[ResultFile] = []
    segmentations: list[tuple[ResultContext, tuple[SegObject, ...]]] = []
    version = context.software_version
    for profile in profiles:
        own = replace(context, profile=profile)
        keys: tuple[str, ...] = (profile.key,)
        segs = build_segs(own)
        segmentations.append((own, segs))
        results += [_seg_file(seg, keys) for seg in segs]
        if profile.report:
            sr = build_sr(own, [seg.header for seg in segs])
            results.append(_file("sr", sr, version, keys))
        structures = build_rtstruct(own) if profile.rtstruct else None
        if structures is not None:
            results.append(_file("rtstruct", structures, version, keys))
    overview, png = build_overview(context)
    keys = tuple(profile.key for profile in profiles if profile.overview)
    if keys:
        results.append(_file("overview", overview, version, keys))
    return Written(tuple(results), tuple(segmentations), png)


def verify_results(segmentations: Iterable[tuple[ResultContext, Sequence[SegObject]]]) -> None:
    """Read every segmentation back; raises ResultMismatch where they are not what the run found."""
    for context, segs in segmentations:
        verify_segmentations([(seg.plan, seg.content) for seg in segs], context)


def _seg_file(seg: SegObject, profiles: tuple[str, ...]) -> ResultFile:
    return ResultFile(
        kind="seg",
        number=seg.plan.number,
        profiles=profiles,
        sop_class_uid=str(seg.header.SOPClassUID),
        sop_instance_uid=str(seg.header.SOPInstanceUID),
        series_instance_uid=str(seg.header.SeriesInstanceUID),
        transfer_syntax_uid=seg.transfer_syntax_uid,
        content=seg.content,
        notes=seg.plan.notes,
    )


def _file(kind: ResultKind, dataset: Dataset, software_version: str, profiles: tuple[str, ...]) -> ResultFile:
    return ResultFile(
        kind=kind,
        number=1,
        profiles=profiles,
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        series_instance_uid=str(dataset.SeriesInstanceUID),
        transfer_syntax_uid=str(ExplicitVRLittleEndian),
        content=encode(dataset, software_version),
    )
