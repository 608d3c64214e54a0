"""Coded concepts of the report (PS3.16): names, values, units, each with where it comes from."""

from __future__ import annotations

from ai.terminology import Code
from ai.terminology.naming import PRIVATE_SCHEME


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


def _own(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


# TID 1500, 1204, 1002, 1004, 1600, 1602
TITLE = _dcm("126000", "Imaging Measurement Report")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = _dcm("121005", "Observer Type")
DEVICE = _dcm("121007", "Device")
OBSERVER_UID = _dcm("121012", "Device Observer UID")
OBSERVER_NAME = _dcm("121013", "Device Observer Name")
OBSERVER_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
OBSERVER_MODEL = _dcm("121015", "Device Observer Model Name")
OBSERVER_SERIAL_NUMBER = _dcm("121016", "Device Observer Serial Number")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
SUMMARY = _dcm("121111", "Summary")
COMMENT = _dcm("121106", "Comment")
LIBRARY = _dcm("111028", "Image Library")
LIBRARY_GROUP = _dcm("126200", "Image Library Group")
MODALITY = _dcm("121139", "Modality")
FRAME_OF_REFERENCE = _dcm("112227", "Frame of Reference UID")
SOURCE = _sct("260753009", "Source")
MEASUREMENTS = _dcm("126010", "Imaging Measurements")

# CID 100 "Quantitative Diagnostic Imaging Procedure": the imaging that was analysed, by Modality
PROCEDURES = {
    "CT": Code("25045-6", "LN", "CT unspecified body region"),
    "MR": Code("25056-3", "LN", "MRI unspecified body region"),
    "PT": Code("44136-0", "LN", "PET unspecified body region"),
    **dict.fromkeys(("CR", "DX", "RG"), _sct("168537006", "Plain radiography")),
}
ANY_PROCEDURE = _sct("363679005", "Imaging procedure")
# CID 29 "Acquisition Modality"
MODALITIES = {
    "CT": _dcm("CT", "Computed Tomography"),
    "MR": _dcm("MR", "Magnetic Resonance"),
    "PT": _dcm("PT", "Positron emission tomography"),
    "CR": _dcm("CR", "Computed Radiography"),
    "DX": _dcm("DX", "Digital Radiography"),
    "MG": _dcm("MG", "Mammography"),
    "RG": _dcm("RG", "Radiographic imaging"),
}

# TID 1410, 1411, 1501, 4019
GROUP = _dcm("125007", "Measurement Group")
TRACKING_IDENTIFIER = _dcm("112039", "Tracking Identifier")
TRACKING_UID = _dcm("112040", "Tracking Unique Identifier")
FINDING_CATEGORY = _sct("276214006", "Finding category")
FINDING = _dcm("121071", "Finding")
FINDING_SITE = _sct("363698007", "Finding Site")
LATERALITY = _sct("272741003", "Laterality")
TOPOGRAPHICAL_MODIFIER = _sct("106233006", "Topographical modifier")
BILATERAL = _sct("51440002", "Bilateral")
SIDES = ("7771000", "24028007", BILATERAL.value, "66459002")  # CID 244 "Laterality"
SEGMENT = _dcm("121191", "Referenced Segment")
SEGMENTATION_FRAME = _dcm("121214", "Referenced Segmentation Frame")
SOURCE_IMAGE = _dcm("121233", "Source Image for Segmentation")
SOURCE_SERIES = _dcm("121232", "Source Series for Segmentation")
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_FAMILY = _dcm("111000", "Algorithm Family")

# TID 1419: CID 7470, 7471, 7472 (what), 7464 (derivation), 7474 (how)
DERIVATION = _dcm("121401", "Derivation")
METHOD = _sct("370129005", "Measurement Method")
VOLUME = _sct("118565006", "Volume")
VOXEL_SUM = _dcm("126030", "Sum of segmented voxel method for volume")
AREA = _sct("42798000", "Area")
ATTENUATION = _dcm("112031", "Attenuation Coefficient")
DIAMETER = _sct("81827009", "Diameter")
WIDTH = _sct("103355008", "Width")
DEPTH = _sct("131197000", "Depth")
HEIGHT = _dcm("121207", "Height")
RATIO = _sct("118586006", "Ratio")
MEAN = _sct("373098007", "Mean")
STANDARD_DEVIATION = _sct("386136009", "Standard Deviation")
MINIMUM = _sct("255605001", "Minimum")
MAXIMUM = _sct("56851009", "Maximum")
# No standard code says along which axis, or in which plane. (121207, DCM) is no more than "Height".
AXIAL_PLANE = _own("AXIAL_OUTLINE", "Outline in one axial plane")
RIGHT_LEFT = _own("EXTENT_RL", "Bounding box, patient axis right to left")
ANTERIOR_POSTERIOR = _own("EXTENT_AP", "Bounding box, patient axis anterior to posterior")
SUPERIOR_INFERIOR = _own("EXTENT_SI", "Bounding box, patient axis superior to inferior")
# "Volume Ratio" (113288, DCM) is another thing: a property of a diffusion tensor.
VOLUME_DIFFERENCE = _own("VOLUME_L_MINUS_R", "Volume, left minus right")
AREA_DIFFERENCE = _own("AREA_L_MINUS_R", "Area, left minus right")
LEFT_BY_RIGHT = _own("LEFT_BY_RIGHT", "Left divided by right")

MILLILITRE = Code("mL", "UCUM", "milliliter")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")
RATIO_UNIT = Code("{ratio}", "UCUM", "ratio")

# Qualitative evaluations: CID 240 "Present-Absent", CID 3703 for what was not evaluated
PRESENCE = _dcm("121052", "Presence of property")
PRESENT = _sct("52101004", "Present")
ABSENT = _sct("272519000", "Absent")
NOT_EVALUATED = _sct("373121007", "Not Evaluated")
QUALITY_FINDING = _dcm("111052", "Quality Finding")
INCOMPLETE = _dcm("130576", "Anatomy coverage incomplete")
QUALITY = _dcm("111050", "Quality Assessment")
VERDICTS = {
    "PASS": _own("QUALITY_PASS", "PASS"),
    "PARTIAL": _own("QUALITY_PARTIAL", "PARTIAL"),
    "SUSPECT": _own("QUALITY_SUSPECT", "SUSPECT"),
    "FAIL": _own("QUALITY_FAIL", "FAIL"),
}
