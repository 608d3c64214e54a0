"""Looking into the content tree of a report."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset


def items(node: Dataset) -> Iterator[Dataset]:
    """Every content item below a node, in the order of reading."""
    for item in node.get("ContentSequence", ()):
        yield item
        yield from items(item)


def name(item: Dataset) -> Dataset:
    """The concept name of an item."""
    concept = item.ConceptNameCodeSequence[0]
    assert isinstance(concept, Dataset)
    return concept


def named(node: Dataset, value: str) -> list[Dataset]:
    """The items whose concept name has this code value."""
    return [i for i in items(node) if "ConceptNameCodeSequence" in i and name(i).get("CodeValue") == value]


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups."""
    return named(report, "125007")


def text(node: Dataset, value: str) -> str:
    """The text or UID of the one item of that name."""
    (item,) = named(node, value)
    return str(item.get("TextValue") or item.get("UID"))


def comments(report: Dataset) -> list[str]:
    """The summary and the comments at the top of a report."""
    top = [i for i in report.ContentSequence if i.ValueType == "TEXT" and i.RelationshipType == "CONTAINS"]
    assert name(top[0]).CodeMeaning == "Summary"
    return [str(i.TextValue) for i in top]


def evaluations(group: Dataset) -> dict[str, str]:
    """Qualitative evaluations of a group: code meanings by those of their names."""
    return {
        str(name(i).CodeMeaning): str(i.ConceptCodeSequence[0].CodeMeaning)
        for i in group.ContentSequence
        if i.ValueType == "CODE" and name(i).CodeValue in ("121052", "111052", "111050")
    }


def numbers(group: Dataset) -> dict[tuple[str, ...], tuple[float, str]]:
    """Value and unit of each NUM item, by its name and its modifiers."""
    found = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            modifiers = [str(i.ConceptCodeSequence[0].CodeMeaning) for i in item.get("ContentSequence", ())]
            measured = item.MeasuredValueSequence[0]
            unit = str(measured.MeasurementUnitsCodeSequence[0].CodeValue)
            found[(str(name(item).CodeMeaning), *modifiers)] = (float(measured.NumericValue), unit)
    return found
