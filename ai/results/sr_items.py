"""Content items of a structured report (PS3.3 C.17.3), as data sets.

They are those that highdicom makes, attribute by attribute, which a test holds against it; highdicom copies
and checks each item again for every container that it comes into, which is most of the time of a report
with a hundred measurement groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import BaseTag, Tag

from ai.terminology import Code

Relation = Literal["CONTAINS", "HAS CONCEPT MOD", "HAS OBS CONTEXT", "HAS ACQ CONTEXT"]
CONTAINS: Relation = "CONTAINS"
CONCEPT_MOD: Relation = "HAS CONCEPT MOD"
OBS_CONTEXT: Relation = "HAS OBS CONTEXT"
ACQ_CONTEXT: Relation = "HAS ACQ CONTEXT"

_VALUE_TYPE, _RELATION = Tag("ValueType"), Tag("RelationshipType")
_NAME, _CODES, _UNITS = (
    Tag("ConceptNameCodeSequence"),
    Tag("ConceptCodeSequence"),
    Tag("MeasurementUnitsCodeSequence"),
)
_CONTENT, _MEASURED, _CITED = (
    Tag("ContentSequence"),
    Tag("MeasuredValueSequence"),
    Tag("ReferencedSOPSequence"),
)
_CODE = (Tag("CodeValue"), Tag("CodingSchemeDesignator"), Tag("CodeMeaning"))


def code(name: Code, value: Code, relation: Relation, content: Sequence[Dataset] = ()) -> Dataset:
    """A CODE item."""
    item = _item("CODE", name, relation, content)
    item.add(_coded(_CODES, value))
    return item


def text(name: Code, value: str, relation: Relation = CONTAINS) -> Dataset:
    """A TEXT item; ``value`` is not empty."""
    item = _item("TEXT", name, relation)
    item.add(DataElement(Tag("TextValue"), "UT", value))
    return item


def uid_reference(name: Code, value: str, relation: Relation) -> Dataset:
    """A UIDREF item."""
    item = _item("UIDREF", name, relation)
    item.add(DataElement(Tag("UID"), "UI", value))
    return item


def number(name: Code, value: float, unit: Code, content: Sequence[Dataset] = ()) -> Dataset:
    """A NUM item: the exact number, and a plain decimal of at most 16 characters without exponent."""
    measured = Dataset()
    measured.add(_coded(_UNITS, unit))
    measured.add(DataElement(Tag("FloatingPointValue"), "FD", float(value)))
    measured.add(DataElement(Tag("NumericValue"), "DS", decimal_string(value)))
    item = _item("NUM", name, CONTAINS, content)
    item.add(_sequence(_MEASURED, [measured]))
    return item


def image(name: Code, cited: Dataset) -> Dataset:
    """An IMAGE item that cites an instance, its frames or segments (PS3.3 10.3)."""
    item = _item("IMAGE", name, CONTAINS)
    item.add(_sequence(_CITED, [cited]))
    return item


def container(
    name: Code, content: Iterable[Dataset], template: str = "", relation: Relation | None = CONTAINS
) -> Dataset:
    """A CONTAINER item; ``template`` is the number of its template in PS3.16. The root has no relation."""
    item = _item("CONTAINER", name, relation, list(content))
    item.ContinuityOfContent = "SEPARATE"
    if template:
        resource = Dataset()
        resource.MappingResource = "DCMR"
        resource.TemplateIdentifier = template
        item.ContentTemplateSequence = DicomSequence([resource])
    return item


def decimal_string(value: float) -> str:
    """A plain DS (PS3.5 6.2): at most 16 characters, six places, no exponent.

    >>> decimal_string(0.000064), decimal_string(-850.25), decimal_string(0.0)
    ('0.000064', '-850.25', '0')
    """
    digits = f"{value:.6f}"[:16].rstrip("0").rstrip(".")
    return "0" if digits in ("-0", "") else digits


def _item(value_type: str, name: Code, relation: Relation | None, content: Sequence[Dataset] = ()) -> Dataset:
    item = Dataset()
    item.add(DataElement(_VALUE_TYPE, "CS", value_type))
    item.add(_coded(_NAME, name))
    if relation is not None:
        item.add(DataElement(_RELATION, "CS", relation))
    if content:
        item.add(_sequence(_CONTENT, content))
    return item


def _coded(tag: BaseTag, concept: Code) -> DataElement:
    """A code sequence (PS3.3 8.8)."""
    item = Dataset()
    for part, vr, value in zip(
        _CODE, ("SH", "SH", "LO"), (concept.value, concept.scheme, concept.meaning), strict=True
    ):
        item.add(DataElement(part, vr, value))
    return _sequence(tag, [item])


def _sequence(tag: BaseTag, items: Sequence[Dataset]) -> DataElement:
    return DataElement(tag, "SQ", DicomSequence(items))
