"""What a result takes over from its source: patient, study and clinical trial, unchanged."""

from __future__ import annotations

import copy

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


def copy_patient_and_study(target: Dataset, source: Dataset) -> None:
    """Make patient and study of a result those of its source; type 2 attributes are there, if empty.

    Text, that in sequences too, is decoded by the source's own character set, and encoded anew in UTF-8.
    """
    for keyword in _TAKEN:
        if keyword in source:
            target[keyword] = _decoded(source[keyword])
        elif keyword in target:
            del target[keyword]
    for keyword in _TYPE_2:
        if keyword not in target:
            setattr(target, keyword, None)
    target.SpecificCharacterSet = CHARACTER_SET


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
