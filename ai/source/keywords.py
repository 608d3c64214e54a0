"""Which attributes are read of a header, by purpose. All are DICOM keywords."""

from __future__ import annotations

from ai.geometry import SPLIT_KEYWORDS

__all__ = [
    "ALL",
    "CARD_KEYWORDS",
    "GEOMETRY_KEYWORDS",
    "IDENTITY_KEYWORDS",
    "PIXEL_KEYWORDS",
    "SPLIT_KEYWORDS",
]

GEOMETRY_KEYWORDS: frozenset[str] = frozenset(
    {
        "Columns",
        "DimensionIndexPointer",
        "DimensionIndexValues",
        "FrameOfReferenceUID",
        "FrameType",
        "ImageOrientationPatient",
        "ImagePositionPatient",
        "ImageType",
        "ImagerPixelSpacing",
        "InStackPositionNumber",
        "Modality",
        "NominalScannedPixelSpacing",
        "NumberOfFrames",
        "PatientOrientation",
        "PixelSpacing",
        "Rows",
        "SOPClassUID",
        "SOPInstanceUID",
        "SliceThickness",
        "StackID",
    }
)
"""What :func:`ai.source.slices.slice_headers` needs, beside the split keywords.

``DimensionIndexPointer`` stands for the pointers of the Dimension Index Sequence (PS3.3 C.7.6.17), one
value for each dimension: eight hexadecimal digits of the tag.
"""

PIXEL_KEYWORDS: frozenset[str] = frozenset(
    {
        "BitsAllocated",
        "BitsStored",
        "Columns",
        "DecayCorrection",
        "HighBit",
        "LossyImageCompression",
        "Modality",
        "ModalityLUTSequence",
        "NumberOfFrames",
        "PhotometricInterpretation",
        "PixelPaddingRangeLimit",
        "PixelPaddingValue",
        "PixelRepresentation",
        "PlanarConfiguration",
        "RescaleIntercept",
        "RescaleSlope",
        "RescaleType",
        "Rows",
        "SamplesPerPixel",
        "Units",
    }
)
"""What tells how the pixels are stored and what they mean."""

IDENTITY_KEYWORDS: frozenset[str] = frozenset(
    {
        "Modality",
        "PatientID",
        "SOPClassUID",
        "SOPInstanceUID",
        "SeriesDescription",
        "SeriesInstanceUID",
        "SeriesNumber",
        "StudyInstanceUID",
    }
)
"""What tells instances, series, studies and patients apart."""

CARD_KEYWORDS: frozenset[str] = frozenset(
    {
        "BodyPartExamined",
        "ContrastBolusAgent",
        "ContrastBolusAgentAdministered",
        "ContrastBolusAgentSequence",
        "Modality",
    }
)
"""What the card of a model may ask for beside geometry (:func:`ai.model.check_input`)."""

ALL: frozenset[str] = SPLIT_KEYWORDS | GEOMETRY_KEYWORDS | PIXEL_KEYWORDS | IDENTITY_KEYWORDS | CARD_KEYWORDS
