"""Who made a result, when, and in which series: attributes that every result object carries.

The root of a result names the gateway as its equipment; the loop guard knows our own results by that
Manufacturer. Contributing Equipment describes the algorithm, as IHE AIR Vol. 3 §6.5.3.1 asks: its model
name and version are those of the Algorithm Identification in the SEG and of the device observer in the SR.
All dates are those of the run (``context.created_at``), so that a repeated run writes the same bytes. They
are told in the time zone of the source where it states one: Timezone Offset From UTC (0008,0201) rules the
copied study time too, so it is written only with the source's own value (PS3.3 C.12.1.1.8).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, tzinfo

from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from ai.model import ModelSpec
from ai.results.context import Origin, ResultKind
from ai.terminology import Code

MANUFACTURER = "DICOM AI Gateway"
"""Manufacturer (0008,0070) of every result; results that carry it are never taken as input."""

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")

_FAMILIES = {"classical": Code("123101", "DCM", "Neighborhood Analysis")}  # CID 7162, by kind of loader
_LEARNED = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162: every other kind

_LONG_STRING = 64  # PS3.5 6.2, VR LO
_SHORTEST_TITLE = 12  # of the model, in a description that must say much else
_DIGEST = 4  # characters: at most 64 parts of one series are told apart
_SERIES: dict[ResultKind, tuple[int, str]] = {
    "seg": (1, "SEG"),
    "sr": (2, "table"),
    "overview": (3, "overview"),
    "rtstruct": (4, "RTSTRUCT"),
}


@dataclass(frozen=True)
class SeriesAttributes:
    """How a result's series shows in a worklist; date DA and time TM are those of the run."""

    number: int
    description: str
    date: str
    time: str


def series_attributes(context: Origin, kind: ResultKind) -> SeriesAttributes:
    """Number (base + 1, 2, 3), description, date and time of a result's series.

    The description is ``AI <title> SEG (RUO)``; ``AI <title> SEG, <part> (RUO)`` where the source series has
    several parts. At most 64 characters: a long part is cut, see :func:`_fitted`.
    """
    offset, word = _SERIES[kind]
    moment = context.created_at.astimezone(_source_zone(context) or context.created_at.tzinfo)
    return SeriesAttributes(
        number=context.series_number_base + offset,
        description=_description(context, word),
        date=_dicom_date(moment),
        time=_dicom_time(moment),
    )


def _description(context: Origin, word: str) -> str:
    ending = f" {word}{revision_words(context)}"
    label = "".join(c if c.isprintable() and c != "\\" else "/" for c in context.series.part.label)
    if label:
        room = _LONG_STRING - len(f"AI {ending},  (RUO)") - _SHORTEST_TITLE
        ending += f", {_fitted(label, context.series.part.key, room)}"
    ending += " (RUO)"
    return f"AI {context.spec.title}"[: _LONG_STRING - len(ending)] + ending


def _fitted(label: str, key: str, room: int) -> str:
    """The label of a part; one that is cut ends with a digest of the key, so that siblings stay distinct."""
    if len(label) <= room:
        return label.strip()
    digest = hashlib.sha256(key.encode()).hexdigest()[:_DIGEST]
    return f"{label[: room - _DIGEST - 1].strip()}~{digest}"


def revision_words(context: Origin) -> str:
    """`` rev 2`` for a result that replaces an earlier one of the same series; empty for the first."""
    return f" rev {context.revision}" if context.revision > 1 else ""


def set_series(dataset: Dataset, context: Origin, kind: ResultKind) -> None:
    """Write the series attributes, and the same time as that of content and instance creation."""
    series = series_attributes(context, kind)
    dataset.SeriesNumber = series.number
    dataset.SeriesDescription = series.description
    for moment in ("Series", "Content", "InstanceCreation"):
        setattr(dataset, f"{moment}Date", series.date)
        setattr(dataset, f"{moment}Time", series.time)
    if _source_zone(context) is not None:
        dataset.TimezoneOffsetFromUTC = context.series.datasets[0].TimezoneOffsetFromUTC
    elif "TimezoneOffsetFromUTC" in dataset:
        del dataset.TimezoneOffsetFromUTC


def add_equipment(dataset: Dataset, context: Origin) -> None:
    """Name the gateway as the equipment of a result and the algorithm as contributing equipment."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = context.spec.title
    dataset.DeviceSerialNumber = device_serial_number(context)
    dataset.SoftwareVersions = context.software_version
    others = [item for item in dataset.get("ContributingEquipmentSequence", ()) if not _is_writer(item)]
    dataset.ContributingEquipmentSequence = DicomSequence([*others, _contributing(context)])


def algorithm_family(spec: ModelSpec) -> Code:
    """What kind of algorithm a model is (CID 7162): region growing and hysteresis look at neighbours."""
    return _FAMILIES.get(spec.loader, _LEARNED)


def device_serial_number(context: Origin) -> str:
    """The start of the card's digest: one configuration of one model is one device."""
    return context.spec.digest[:16] or context.spec.id


def _dicom_date(moment: datetime) -> str:
    """A date as DA (PS3.5 6.2)."""
    return moment.strftime("%Y%m%d")


def _dicom_time(moment: datetime) -> str:
    """A time of day as TM, to the microsecond (PS3.5 6.2)."""
    return moment.strftime("%H%M%S.%f")


def _is_writer(item: Dataset) -> bool:
    """Whether it is the item that highdicom adds about itself, stamped with the present time."""
    return "highdicom" in str(item.get("ManufacturerModelName", "")).lower()


def _source_zone(context: Origin) -> tzinfo | None:
    """The zone that the source states; None when it states none that can be read."""
    try:
        return datetime.strptime(context.series.datasets[0].get("TimezoneOffsetFromUTC", ""), "%z").tzinfo
    except (TypeError, ValueError):
        return None


def _contributing(context: Origin) -> Dataset:
    spec = context.spec
    item = Dataset()
    item.Manufacturer = spec.manufacturer
    item.ManufacturerModelName = spec.title
    item.DeviceSerialNumber = device_serial_number(context)
    item.SoftwareVersions = spec.version
    item.DeviceUID = context.identity.device_uid
    item.ContributionDateTime = context.created_at.strftime("%Y%m%d%H%M%S.%f%z")
    item.ContributionDescription = f"{spec.title} {spec.version}: {spec.intended_use}"[:1024]
    purpose = Dataset()
    purpose.CodeValue = PROCESSING_EQUIPMENT.value
    purpose.CodingSchemeDesignator = PROCESSING_EQUIPMENT.scheme
    purpose.CodeMeaning = PROCESSING_EQUIPMENT.meaning
    item.PurposeOfReferenceCodeSequence = DicomSequence([purpose])
    return item
