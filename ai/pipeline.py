"""One series from files to finished results: the code path of the worker and of ``aigw segment`` alike."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from pydicom.dataset import Dataset

from ai.geometry import VolumeGeometry
from ai.measure import Measurement, measure
from ai.model import ModelSpec, Prediction, Predictor, Progress, check_input, check_output
from ai.model.check import extent_lps_mm
from ai.nifti import write_nifti
from ai.profile import DEFAULT_PROFILE, Profile
from ai.quality import Finding, check_quality, shape_needs
from ai.quiet import quiet
from ai.record import describe_run
from ai.resample import as_models_see
from ai.results.context import Predecessor, ResultContext, derive_identity
from ai.results.status import NotRun, read_headers, write_status
from ai.results.write import ResultFile, verify_results, write_results
from ai.shape import describe_shapes
from ai.volume import ImageSeries, LabelArray, Volume, read_series


@dataclass(frozen=True)
class RunOptions:
    """What a run needs besides its input and model.

    Attributes
    ----------
    created_at
        Time of the run, timezone-aware.
    part_key
        Which part of the series, see :class:`ai.geometry.Part`; empty: the only one that is a volume.
    profiles
        How the results are written: each one gives a set of objects of its own.
    predecessors
        The report that each profile's replaces, by its key.
    """

    created_at: datetime
    software_version: str
    series_number_base: int = 9000
    revision: int = 1
    part_key: str = ""
    profiles: tuple[Profile, ...] = (DEFAULT_PROFILE,)
    predecessors: Mapping[str, Predecessor] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """A finished run.

    Attributes
    ----------
    run
        What ``run.json`` says, made of JSON types only.
    mask
        The label map as the model gave it, on the grid ``mask_geometry``: that of the source, or the upright
        one when the source is tilted or uneven, for NIfTI cannot say such places.
    """

    context: ResultContext
    results: tuple[ResultFile, ...]
    overview_png: bytes
    run: Mapping[str, object]
    mask: LabelArray
    mask_geometry: VolumeGeometry


def run_series(files: Sequence[Path], model: Predictor, options: RunOptions, progress: Progress) -> Outcome:
    """Read, segment, measure, write and verify one series.

    Parameters
    ----------
    files
        The DICOM files of one series, in any order.
    progress
        Called with (stage, fraction done); what it raises ends the run.

    Raises
    ------
    AiError
        By name: the series is refused, the model cannot run, or the SEG read back differs.
    """
    clock = Stages(progress)
    with clock.stage("read"), quiet():
        accept = partial(check_input, model.spec)
        series = read_series(files, accept, options.part_key or None, model.spec.accepts.scale)
    with clock.stage("segment"):
        seen = as_models_see(series.volume)
        prediction = model.predict([seen.volume], clock.within)
        found = prediction.labels
        check_output(model.spec, seen.volume, found)
        labels = seen.to_source(found)
    with clock.stage("measure"):
        judged = judge(model.spec, series.volume, labels, prediction.confidence)
    skipped = not_evaluated(model.spec, prediction)
    context = replace(_context(series, model, labels, judged, options), not_evaluated=skipped)
    with clock.stage("write"), quiet():
        written = write_results(context, options.profiles)
    with clock.stage("verify"), quiet():
        verify_results(written.segmentations)
    rows = [_result_row(result) for result in written.results]
    run = describe_run(context, rows, model.device, prediction, clock.times_s)
    return Outcome(context, written.results, written.overview_png, run, found, seen.volume.geometry)


def report_not_run(
    files: Sequence[Path], spec: ModelSpec, name: str, reason: str, options: RunOptions
) -> tuple[ResultFile, ...]:
    """Report that a job came to no end: an SR for each profile that wants reports.

    The series need not be a volume; files that cannot be read are left out.

    Parameters
    ----------
    name, reason
        Of the failure: an upper-case name, and a sentence for people.

    Raises
    ------
    SeriesRefused
        ``NO_READABLE_FILE`` when no header can be read.
    """
    with quiet():
        series = read_headers(files, options.part_key)
        first = series.datasets[0]
        job = NotRun(
            series=series,
            spec=spec,
            identity=derive_identity(
                str(first.SeriesInstanceUID),
                series.input_digest,
                spec,
                options.software_version,
                options.part_key,
            ),
            created_at=options.created_at,
            series_number_base=_free_base(first, options.series_number_base),
            software_version=options.software_version,
            name=name,
            reason=reason,
            revision=options.revision,
            predecessors=options.predecessors,
        )
        return write_status(job, options.profiles)


def not_evaluated(spec: ModelSpec, prediction: Prediction) -> frozenset[int]:
    """Numbers of the structures that only stages of a pipeline look for which did not run."""
    stages = prediction.facts.get("stages")
    if not isinstance(stages, list | tuple):
        return frozenset()
    skipped = {fact["name"] for fact in stages if "skipped" in fact}
    ran = {name for stage in spec.stages if stage.name not in skipped for name in stage.keep.values()}
    sought = {name for stage in spec.stages for name in stage.keep.values()}
    numbers = spec.numbers()
    return frozenset(numbers[name] for name in sought - ran)


def judge(
    spec: ModelSpec, volume: Volume, labels: LabelArray, confidence: Mapping[int, float]
) -> tuple[tuple[Measurement, ...], tuple[Finding, ...]]:
    """Measure a label map, and hold what is usual and the quality rules of the card against it."""
    measurements = measure(volume, labels, spec.structures)
    geometry = volume.geometry
    shapes = describe_shapes(labels, geometry, spec.structures, *shape_needs(spec))
    extent_mm = None if geometry.is_projection else extent_lps_mm(geometry)
    return measurements, check_quality(spec, measurements, shapes, confidence, volume.unit, extent_mm)


def write_outcome(outcome: Outcome, folder: Path) -> None:
    """Write ``seg.dcm``, ``sr.dcm``, ``overview.dcm``, ``overview.png``, ``mask.nii.gz``, ``run.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    for result in outcome.results:
        name = result.kind if result.number == 1 else f"{result.kind}-{result.number}"
        (folder / f"{name}.dcm").write_bytes(result.content)
    (folder / "overview.png").write_bytes(outcome.overview_png)
    write_nifti(folder / "mask.nii.gz", outcome.mask, outcome.mask_geometry)
    text = json.dumps(outcome.run, indent=2, allow_nan=False)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


class Stages:
    """Times the stages and tells progress; a stage ends at 1.0."""

    def __init__(self, progress: Progress) -> None:
        self.times_s: dict[str, float] = {}
        self._progress = progress
        self._name = ""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What happens within is one stage."""
        self._name = name
        self._progress(name, 0.0)
        start_s = time.perf_counter()
        yield
        self.times_s[name] = round(time.perf_counter() - start_s, 4)
        self._progress(name, 1.0)

    def within(self, _step: str, fraction: float) -> None:
        """Progress of the model, whose own steps are part of one stage; the stage says its end itself."""
        if fraction < 1.0:
            self._progress(self._name, max(fraction, 0.0))


def _context(
    series: ImageSeries,
    model: Predictor,
    labels: LabelArray,
    judged: tuple[tuple[Measurement, ...], tuple[Finding, ...]],
    options: RunOptions,
) -> ResultContext:
    series_uid = str(series.datasets[0].SeriesInstanceUID)
    return ResultContext(
        series=series,
        spec=model.spec,
        labels=labels,
        measurements=judged[0],
        quality=judged[1],
        identity=derive_identity(
            series_uid, series.input_digest, model.spec, options.software_version, series.part.key
        ),
        created_at=options.created_at,
        series_number_base=_free_base(series.datasets[0], options.series_number_base),
        software_version=options.software_version,
        revision=options.revision,
        predecessors=options.predecessors,
    )


def _free_base(source: Dataset, base: int) -> int:
    """The series number base, or ten more where the source series has one of our four numbers."""
    try:
        taken = int(source.get("SeriesNumber") or 0)
    except (TypeError, ValueError):
        return base
    return base + 10 if base < taken <= base + 4 else base


def _result_row(result: ResultFile) -> dict[str, object]:
    """A result in ``run.json``."""
    row = {field.name: getattr(result, field.name) for field in fields(result)}
    for name in ("content", "transfer_syntax_uid", "profiles"):
        del row[name]
    row["notes"] = list(result.notes)
    return {**row, "sha256": hashlib.sha256(result.content).hexdigest()}
