"""Our report against the same one made by highdicom's own classes: every attribute of every item."""

from __future__ import annotations

from io import BytesIO

import highdicom as hd
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.seg import build_segs
from ai.results.sr import build_sr
from benchmarks.results_sr_case import many_structures_run
from benchmarks.results_sr_plain import plain_report

STRUCTURES, ABSENT = 16, 2
# What highdicom cannot write: it knows neither the model nor the time of the run nor private codes.
OURS_ALONE = {
    "SpecificCharacterSet", "SeriesDescription", "SeriesDate", "SeriesTime", "ManufacturerModelName",
    "DeviceSerialNumber", "SoftwareVersions", "CodingSchemeIdentificationSequence", "StudyDescription",
    "TimezoneOffsetFromUTC",
}  # fmt: skip
OTHERWISE = {
    "ContributingEquipmentSequence", "InstanceCreationDate", "InstanceCreationTime", "ContentDate",
    "ContentTime", "NumericValue", "ContinuityOfContent",
}  # fmt: skip
"""Time of the run and the model's equipment instead of the present time and highdicom itself; numbers that
highdicom rounds to 16 characters, be it with an exponent: the exact one stands beside them; and containers
whose items are SEPARATE, where highdicom says that they flow into one another as a narrative."""
REFERENCES = {"121191", "121232"}
"""Segment and source series, which highdicom appends to a group: the template has them before the site."""


@pytest.fixture(scope="module")
def run() -> ResultContext:
    return many_structures_run(STRUCTURES, 12, ABSENT)


@pytest.fixture(scope="module")
def both(run: ResultContext) -> tuple[Dataset, Dataset]:
    """Our report and highdicom's, as read from their files."""
    segs = [seg.header for seg in build_segs(run)]
    plain = BytesIO()
    plain_report(run, segs).save_as(plain, enforce_file_format=True)
    ours = encode(build_sr(run, segs), run.software_version)
    return dcmread(BytesIO(ours)), dcmread(BytesIO(plain.getvalue()))


def described(dataset: Dataset) -> dict[str, object]:
    """Keyword to VR and value, sequences item by item; groups with their references after their finding."""
    found: dict[str, object] = {}
    for element in dataset:
        if element.keyword in OTHERWISE:  # there, and of the same VR
            found[element.keyword] = element.VR
        elif element.VR == "SQ":
            items = list(element.value)
            if element.keyword == "ContentSequence":
                items = in_template_order(items)
            found[element.keyword] = [described(item) for item in items]
        else:
            found[element.keyword] = (element.VR, element.value)
    return found


def in_template_order(items: list[Dataset]) -> list[Dataset]:
    cited = [i for i in items if i.ConceptNameCodeSequence[0].CodeValue in REFERENCES]
    if not cited:
        return items
    others = [i for i in items if i not in cited]
    place = next(n for n, i in enumerate(others) if i.ConceptNameCodeSequence[0].CodeValue == "121071") + 1
    return [*others[:place], *cited, *others[place:]]


def test_every_attribute_of_the_content_is_what_highdicom_writes(both: tuple[Dataset, Dataset]) -> None:
    ours, plain = (described(report)["ContentSequence"] for report in both)
    assert ours == plain


def test_every_other_attribute_is_too_but_for_what_only_we_know(both: tuple[Dataset, Dataset]) -> None:
    ours, plain = (described(report) for report in both)
    assert {key: value for key, value in ours.items() if key not in OURS_ALONE} == {
        key: value for key, value in plain.items() if key not in OURS_ALONE
    }


def test_numbers_agree_to_six_places(both: tuple[Dataset, Dataset]) -> None:
    def numbers(node: Dataset) -> list[float]:
        found = []
        for item in node.get("ContentSequence", ()):
            if item.ValueType == "NUM":
                found.append(float(item.MeasuredValueSequence[0].NumericValue))
            found += numbers(item)
        return found

    ours, plain = (numbers(report) for report in both)
    assert ours == pytest.approx(plain, abs=1e-6)
    assert len(ours) > 9 * (STRUCTURES - ABSENT)


def test_highdicom_reads_it_as_a_measurement_report(
    both: tuple[Dataset, Dataset], run: ResultContext
) -> None:
    buffer = BytesIO()
    both[0].save_as(buffer, enforce_file_format=True)
    buffer.seek(0)
    report = hd.sr.srread(buffer)
    assert isinstance(report, hd.sr.Comprehensive3DSR)
    content = report.content
    assert isinstance(content, hd.sr.MeasurementReport)
    groups = content.get_volumetric_roi_measurement_groups()
    assert len(groups) == STRUCTURES - ABSENT
    by_uid = {run.identity.tracking_uids[m.structure.number]: m for m in run.measurements}
    for group in groups:
        measurement = by_uid[str(group.tracking_uid)]
        (volume,) = group.get_measurements(hd.sr.CodedConcept("118565006", "SCT", "Volume"))
        assert volume.value == measurement.volume_ml
        assert group.referenced_segment is not None
    (observer,) = content.get_observer_contexts()
    assert str(observer.observer_identifying_attributes.uid) == run.identity.device_uid
