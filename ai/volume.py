"""Voxels of a series: decoded, in modality units, one volume for each of its parts."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import UID

from ai.decoding import Plane, Voxels, decode, of_image
from ai.errors import NotAVolumeError, SeriesRefused
from ai.geometry import FrameRef, NotAVolume, Note, Part, VolumeGeometry, assess
from ai.instances import Instance, input_digest, read_dataset, read_instances
from ai.pixels import FramePixels, Scale, frame_pixels, unit_of
from ai.source import Facts
from ai.source.slices import slice_headers
from ai.uids import derived_uid

LabelArray = npt.NDArray[np.uint8]
Accept = Callable[[Facts, VolumeGeometry], None]
"""Called with the first header's facts and the geometry before pixels are decoded; raises to refuse."""

_MOST_VOXELS = 1 << 30  # of one volume: 4096 slices of 512 × 512, 2 GiB as int16
_IMAGE_STORAGE = re.compile(r"ImageStorage(ForPresentation|ForProcessing)?$")


@dataclass(frozen=True)
class Volume:
    """A scalar image of parallel slices.

    Attributes
    ----------
    voxels
        int16 where that is exact, else float32; ``(slices, rows, columns)`` in ``unit``.
    geometry
        Where the slices lie; a model may ask for it upright and even: see ``geometry.needs``.
    unit
        ``HU`` for CT; as the header says, else empty.
    """

    voxels: Voxels
    geometry: VolumeGeometry
    unit: str = "HU"


@dataclass(frozen=True)
class Survey:
    """What the headers of one series say: its instances, and the parts that they make."""

    instances: tuple[Instance, ...]
    parts: tuple[Part, ...]
    notes: tuple[Note, ...] = ()

    def part(self, key: str | None = None) -> Part:
        """The part of that key; without one the only part that is a volume, or the first if none is.

        Raises SeriesRefused: PART_NOT_FOUND; SEVERAL_VOLUMES without a key, with the keys to choose from.
        """
        if key is not None:
            found = [part for part in self.parts if part.key == key]
            if not found:
                raise SeriesRefused(
                    "PART_NOT_FOUND", f"The series has no part {shlex.quote(key)}. {self._listing()}"
                )
            return found[0]
        volumes = [part for part in self.parts if isinstance(part.geometry, VolumeGeometry)]
        if len(volumes) > 1:
            reason = f"The series makes {len(volumes)} volumes; choose one. {self._listing()}"
            raise SeriesRefused("SEVERAL_VOLUMES", reason)
        return volumes[0] if volumes else self.parts[0]

    def _listing(self) -> str:
        return f"Its parts are: {', '.join(shlex.quote(part.key) for part in self.parts)}."


@dataclass(frozen=True)
class ImageSeries:
    """One part of a source series, ready for a model and for results that cite it.

    Attributes
    ----------
    part
        Which sub-volume this is; its key is empty when the series is one volume.
    notes
        What had to be derived, repaired or left out.
    instances
        The source instances of the part, in the order in which the slices meet them.
    """

    volume: Volume
    part: Part
    notes: tuple[Note, ...] = ()
    instances: tuple[Instance, ...] = ()

    @cached_property
    def datasets(self) -> tuple[Dataset, ...]:
        """Header without pixel data of each slice; frames of one instance share one.

        Read when first asked for, since only results need them. Identity attributes that results need
        (Frame of Reference UID, Patient ID …) are completed in these copies; a projection image, whose
        pixels have no place in one, has no Frame of Reference.
        """
        headers = {instance.sop_instance_uid: read_dataset(instance) for instance in self.instances}
        geometry = self.volume.geometry
        for header in headers.values():
            if geometry.frame_of_reference_uid is None:
                header.pop("FrameOfReferenceUID", None)
            else:
                header.FrameOfReferenceUID = geometry.frame_of_reference_uid
        return tuple(headers[frame.sop_instance_uid] for frame in geometry.frames)

    @cached_property
    def input_digest(self) -> str:
        """Identity of the instances of the part: see :func:`ai.instances.input_digest`."""
        return input_digest(self.instances)


def survey(files: Sequence[Path]) -> Survey:
    """Read the headers of one series and decide which volumes it makes; no pixel is read.

    Raises SeriesRefused: see :func:`ai.instances.read_instances`.
    """
    instances, notes = read_instances(files)
    slices = [header for instance in instances for header in slice_headers(instance.file.header)]
    return Survey(tuple(instances), assess(slices), notes)


def read_series(
    files: Sequence[Path],
    accept: Accept | None = None,
    part_key: str | None = None,
    scale: Scale = "modality",
) -> ImageSeries:
    """Read, check and decode one part of a series; without a key the only one that is a volume.

    Raises what :func:`survey`, :meth:`Survey.part` and :func:`read_part` raise.
    """
    found = survey(files)
    return read_part(found, found.part(part_key), accept, scale)


def read_part(
    found: Survey,
    part: Part,
    accept: Accept | None = None,
    scale: Scale = "modality",
    threads: int | None = None,
) -> ImageSeries:
    """Check and decode one part; one decoded slice for each thread is held beside the volume.

    Parameters
    ----------
    scale
        Which values: ``modality``, ``suv_bw`` or ``philips``; see :mod:`ai.pixels`.
    threads
        See :func:`ai.decoding.decode`.

    Raises
    ------
    NotAVolumeError
        The part is refused by its geometry.
    SeriesRefused
        UNSUPPORTED_SOP_CLASS, VOLUME_TOO_LARGE, and what :mod:`ai.pixels` raises; or what ``accept`` raises.
    """
    geometry = part.geometry
    if isinstance(geometry, NotAVolume):
        raise NotAVolumeError(geometry)
    by_uid = {instance.sop_instance_uid: instance for instance in found.instances}
    instances = tuple(by_uid[uid] for uid in geometry.sop_instance_uids)
    if accept is not None:
        accept(_facts(instances[0], geometry.frames[0].frame_number), geometry)
    _refuse_other_classes(instances)
    _refuse_too_large(geometry.shape)
    notes = (*geometry.notes, *found.notes)
    geometry = replace(geometry, frame_of_reference_uid=_frame_of_reference(geometry, instances), notes=notes)
    voxels = decode(_planes(instances, geometry, scale), geometry.shape, threads)
    volume = Volume(voxels, geometry, unit_of(instances[0].file, scale))
    return ImageSeries(volume, part, notes, instances)


def _facts(instance: Instance, frame_number: int) -> Facts:
    """What the header says of one image plane: the frame's own groups go before the data set."""
    frames = instance.file.header.frames
    own = frames[frame_number - 1] if frame_number <= len(frames) else {}
    return {**instance.facts, **own}


def _frame_of_reference(geometry: VolumeGeometry, instances: Sequence[Instance]) -> str | None:
    """That of the series, or one derived for it; none for a projection, which has no place in it."""
    if geometry.is_projection:
        return None
    series_uid = instances[0].fact("SeriesInstanceUID")
    return geometry.frame_of_reference_uid or derived_uid("frame-of-reference", series_uid)


def _refuse_other_classes(instances: Sequence[Instance]) -> None:
    """Results refer to their source by SOP class; a private or retired one is no known image to a reader."""
    for text in dict.fromkeys(instance.fact("SOPClassUID") for instance in instances):
        uid = UID(text)
        if not _IMAGE_STORAGE.search(uid.keyword):
            name = f"{uid} ({uid.name})" if uid.keyword else str(uid)[:64] or "missing"
            first = next(i.path.name for i in instances if i.fact("SOPClassUID") == text)
            reason = f"The SOP Class UID of {first} is {name}, no image storage class."
            raise SeriesRefused("UNSUPPORTED_SOP_CLASS", reason)


def _refuse_too_large(shape: tuple[int, int, int]) -> None:
    if math.prod(shape) > _MOST_VOXELS:
        size = " × ".join(str(n) for n in shape)
        reason = f"The series has {size} voxels; at most {_MOST_VOXELS} are processed."
        raise SeriesRefused("VOLUME_TOO_LARGE", reason)


def _planes(instances: Sequence[Instance], geometry: VolumeGeometry, scale: Scale) -> list[Plane]:
    """How to decode each slice, in slice order; every check that headers allow is made here."""
    described: dict[str, tuple[FramePixels, ...]] = {}
    for instance in instances:
        uid = instance.sop_instance_uid
        try:
            described[uid] = frame_pixels(instance.file, scale)
        except SeriesRefused as error:
            raise of_image(error, FrameRef(uid)) from error
    planes = [Plane(ref, described[ref.sop_instance_uid][ref.frame_number - 1]) for ref in geometry.frames]
    for ref, pixels in planes:
        if (pixels.rows, pixels.columns) != geometry.shape[1:]:
            reason = f"The functional groups claim {geometry.shape[1]} × {geometry.shape[2]} pixels, "
            reason += f"the image itself {pixels.rows} × {pixels.columns}."
            raise of_image(SeriesRefused("UNSUPPORTED_PIXELS", reason), ref)
    return planes
