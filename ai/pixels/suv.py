"""Standardized uptake value by body weight: the vendor-neutral rule of the QIBA FDG-PET/CT profile.

SUVbw = activity (Bq/ml) × body weight (g) / dose decayed to the time that the images are corrected to.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from math import exp, expm1, log

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from ai.errors import SeriesRefused
from ai.pixels.rescale import LARGEST_FACTOR
from ai.pixels.whole_header import private_number, whole_header
from ai.source import SourceFile

_PHILIPS = "Philips PET Private Group"
_PHILIPS_GROUP, _PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x7053, 0x00, 0x09
_LEAST_DOSE_BQ = 1e4  # below it is MBq or mCi where becquerels belong
_LONGEST_DECAY = timedelta(days=1)
_GRAMS_PER_KG = 1000.0


class _NotPossible(Exception):
    """Why there is no factor; half a sentence."""


def suv_bw_factor(file: SourceFile) -> float:
    """What rescaled values are to be multiplied with to give SUVbw (g/ml).

    Raises SeriesRefused (SUV_NOT_POSSIBLE), saying what the header lacks.
    """
    try:
        factor = _factor(whole_header(file))
    except _NotPossible as error:
        raise SeriesRefused(
            "SUV_NOT_POSSIBLE",
            f"{file.path.name} {error}: its values cannot be told as standardized uptake.",
        ) from error
    if not 0.0 < factor <= LARGEST_FACTOR:
        raise SeriesRefused("SUV_NOT_POSSIBLE", f"{file.path.name} gives the SUV factor {factor:.3g}.")
    return factor


def _factor(header: Dataset) -> float:
    if header.get("Modality") != "PT":
        raise _NotPossible("is no PET image")
    units = str(header.get("Units") or "")
    if units == "GML":
        suv_type = str(header.get("SUVType") or "BW")
        if suv_type != "BW":
            raise _NotPossible(f"is standardized by {suv_type[:16]} (SUV Type), not by body weight")
        return 1.0
    if units == "CNTS":
        factor = private_number(header, _PHILIPS_GROUP, _PHILIPS, _PHILIPS_SUV)
        if factor:
            return factor
        activity = private_number(header, _PHILIPS_GROUP, _PHILIPS, _PHILIPS_ACTIVITY)
        if activity:
            return activity * _from_activity(header)
        raise _NotPossible("is in counts and has no private Philips factor (7053,1000) or (7053,1009)")
    if units != "BQML":
        raise _NotPossible(f"is in {units[:16] or 'no known'} Units; BQML, GML or CNTS are needed")
    return _from_activity(header)


def _from_activity(header: Dataset) -> float:
    """SUVbw of one Bq/ml."""
    corrected = {str(value) for value in _values(header, "CorrectedImage")}
    if not {"ATTN", "DECY"} <= corrected:
        raise _NotPossible("is not corrected for attenuation and decay (Corrected Image)")
    isotopes = header.get("RadiopharmaceuticalInformationSequence") or []
    if len(isotopes) != 1:
        raise _NotPossible(f"names {len(isotopes)} radiopharmaceuticals; one is needed")
    weight_kg = _positive(header, "PatientWeight")
    dose_bq = _positive(isotopes[0], "RadionuclideTotalDose")
    if dose_bq < _LEAST_DOSE_BQ:
        raise _NotPossible(f"has a Radionuclide Total Dose of {dose_bq:g}, which is no dose in becquerel")
    half_life_s = _positive(isotopes[0], "RadionuclideHalfLife")
    correction = str(header.get("DecayCorrection") or "")
    if correction == "ADMIN":
        return weight_kg * _GRAMS_PER_KG / dose_bq
    if correction != "START":
        raise _NotPossible(
            f"has the Decay Correction {correction[:16] or '(none)'}; START or ADMIN are needed"
        )
    decay_s = _decay_time(header, isotopes[0], half_life_s).total_seconds()
    return weight_kg * _GRAMS_PER_KG / (dose_bq * exp(-log(2.0) * decay_s / half_life_s))


def _decay_time(header: Dataset, isotope: Dataset, half_life_s: float) -> timedelta:
    """From the injection to the time that the images are corrected to."""
    scan = _scan_start(header, half_life_s)
    explicit = isotope.get("RadiopharmaceuticalStartDateTime")
    if explicit:
        injection = _moment(explicit, header)
    else:  # a time without a date: the last such time before the scan, perhaps of the day before
        injection = datetime.combine(scan.date(), _time(isotope, "RadiopharmaceuticalStartTime"))
        if injection > scan:
            injection -= timedelta(days=1)
    decay = scan - injection
    if not timedelta(0) <= decay <= _LONGEST_DECAY:
        hours = decay.total_seconds() / 3600
        raise _NotPossible(f"has {hours:.1f} hours between injection and scan; 0 to 24 are taken")
    return decay


def _scan_start(header: Dataset, half_life_s: float) -> datetime:
    """The start of the scan: Series Time, unless the series was made after its images were acquired.

    Then it is told by the image: activity decays during a frame, and Frame Reference Time, counted from the
    start of the scan, is when it had its mean over the frame.
    """
    series = _date_time(header, "Series")
    acquisition = _date_time(header, "Acquisition")
    if series <= acquisition:
        return series
    reference_s = _positive(header, "FrameReferenceTime") / 1000.0
    decay = log(2.0) / half_life_s * _positive(header, "ActualFrameDuration") / 1000.0
    mean_s = half_life_s / log(2.0) * log(decay / -expm1(-decay))
    return acquisition - timedelta(seconds=reference_s - mean_s)


def _date_time(header: Dataset, what: str) -> datetime:
    text = str(header.get(f"{what}Date") or "")
    try:
        day = DA(text)
    except ValueError:
        day = None
    if day is None:
        raise _NotPossible(f"has no {what} Date")
    return datetime.combine(day, _time(header, f"{what}Time"))


def _time(dataset: Dataset, keyword: str) -> TM:
    try:
        time = TM(str(dataset.get(keyword) or ""))
    except ValueError:
        time = None
    if time is None:
        raise _NotPossible(f"has no usable {keyword}")
    return time


def _moment(value: object, header: Dataset) -> datetime:
    """A date and time in the clock of the header; an offset from UTC counts where the header has one."""
    try:
        moment = DT(str(value))
        offset = str(header.get("TimezoneOffsetFromUTC") or "")
        if moment is None:
            raise ValueError
        if moment.tzinfo and offset:
            here = datetime.strptime(offset, "%z").tzinfo
            return moment.astimezone(here).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise _NotPossible("has a malformed Radiopharmaceutical Start DateTime") from None
    return moment.replace(tzinfo=None)


def _positive(dataset: Dataset, keyword: str) -> float:
    try:
        number = float(dataset.get(keyword) or 0.0)
    except (TypeError, ValueError):
        number = 0.0
    if not 0.0 < number < float("inf"):
        raise _NotPossible(f"has no usable {keyword}")
    return number


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset.get(keyword)
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
