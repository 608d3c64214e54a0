"""Coded concepts of the code table as highdicom wants them."""

from __future__ import annotations

from typing import Any

from highdicom.sr import CodedConcept
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence

from ai.model import ModelSpec
from ai.terminology import Code
from ai.terminology.naming import PRIVATE_SCHEME


def concept(code: Code) -> Any:
    """A coded concept (PS3.3 8.8)."""
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def identify_private_scheme(dataset: Dataset, spec: ModelSpec) -> None:
    """Say whose codes they are, where a structure has no code but our own (PS3.3 C.12.1.1.5)."""
    schemes = {code.scheme for s in spec.structures for code in (s.coded.category, s.coded.type)}
    if PRIVATE_SCHEME not in schemes:
        return
    dataset.CodingSchemeIdentificationSequence = private_scheme()


def private_scheme() -> DicomSequence:
    """Coding Scheme Identification (PS3.3 C.12.1.1.5) of our own codes."""
    item = Dataset()
    item.CodingSchemeDesignator = PRIVATE_SCHEME
    item.CodingSchemeName = "Concepts that no code table of the gateway has"
    item.CodingSchemeResponsibleOrganization = "DICOM AI Gateway"
    return DicomSequence([item])
