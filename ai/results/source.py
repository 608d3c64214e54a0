"""What a result takes over from its source: patient, study and clinical trial, unchanged."""

from __future__ import annotations

import copy
import re

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

CHARACTER_SET = "ISO_IR 192"
"""Every result is in UTF-8: it holds the text of any source, and labels in any language."""

_TAKEN = (
    # Patient (PS3.3 C.7.1.1)
    "PatientName", "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence", "PatientBirthDate", "PatientBirthTime", "PatientSex", "EthnicGroup",
    "PatientComments", "PatientSpeciesDescription", "PatientIdentityRemoved", "DeidentificationMethod",
    "DeidentificationMethodCodeSequence", "LongitudinalTemporalInformationModified",
    # General Study (C.7.2.1)
    "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber",
    "IssuerOfAccessionNumberSequence", "StudyDescription", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "ReferencedStudySequence", "ProcedureCodeSequence",
    # Patient Study (C.7.2.2)
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "Occupation",
    "AdditionalPatientHistory", "AdmissionID", "MedicalAlerts", "Allergies", "SmokingStatus",
    "PregnancyStatus", "LastMenstrualDate", "PatientBodyMassIndex", "PatientState",
    # Clinical Trial (C.7.1.3, C.7.2.3)
    "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID", "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
)  # fmt: skip
_TYPE_2 = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "ReferringPhysicianName", "StudyID", "AccessionNumber",
)  # fmt: skip
# Attributes that mean something only with a value (type 1C): an empty one would make the result invalid.
_NEVER_EMPTY = ("DeidentificationMethod", "DeidentificationMethodCodeSequence", "PatientSpeciesDescription")
_UNKNOWN_METHOD = "Not stated in the source"
_AGE = re.compile(r"\d{3}[DWMY]")  # PS3.5 6.2, VR AS


def copy_patient_and_study(target: Dataset, source: Dataset) -> None:
    """Make patient and study of a result those of its source; type 2 attributes are there, if empty.

    What would make the result invalid is mended: a malformed Patient's Age and empty attributes of type 1C
    are left out, and a De-identification Method that must be there (PS3.3 C.7.1.1) says that it is unknown.

    Text, that in sequences too, is decoded by the source's own character set, and encoded anew in UTF-8.
    """
    for keyword in _TAKEN:
        if keyword in source and not _is_unsound(source, keyword):
            target[keyword] = _decoded(source[keyword])
        elif keyword in target:
            del target[keyword]
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, None)
    methods = ("DeidentificationMethod", "DeidentificationMethodCodeSequence")
    if target.get("PatientIdentityRemoved") == "YES" and not any(keyword in target for keyword in methods):
        target.DeidentificationMethod = _UNKNOWN_METHOD
    target.SpecificCharacterSet = CHARACTER_SET


def _is_unsound(source: Dataset, keyword: str) -> bool:
    if keyword == "PatientAge":
        return bool(source.PatientAge) and _AGE.fullmatch(str(source.PatientAge)) is None
    return keyword in _NEVER_EMPTY and source[keyword].is_empty


def _decoded(element: DataElement) -> DataElement:
    """A deep copy without a value that is still bytes: those would be written as they are."""
    element = copy.deepcopy(element)
    if element.VR == "SQ":
        for item in element.value:
            _decode(item)
    return element


def _decode(item: Dataset) -> None:
    for element in item:  # looking at an element decodes it
        if element.VR == "SQ":
            for nested in element.value:
                _decode(nested)
    item.pop("SpecificCharacterSet", None)
