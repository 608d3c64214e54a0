"""Codes beyond organ and side: parts of an organ, places of a finding, and names without any code."""

from __future__ import annotations

from dataclasses import replace

import pytest
from pydicom.dataset import Dataset

from ai.errors import ResultMismatch
from ai.measure import measure
from ai.model import Structure
from ai.results.context import ResultContext
from ai.results.encode import encode
from ai.results.sr import build_sr
from ai.terminology.naming import structure_entries
from tests.runs import build_seg, small_run, verify_seg

NAMES = {
    1: "anterior hippocampus",
    2: "intraventricular hemorrhage",
    3: "intracerebral hemorrhage",
    4: "left lung",
    5: "flux capacitor",
}


@pytest.fixture(scope="module")
def run() -> ResultContext:
    entries = structure_entries(NAMES).entries
    structures = tuple(Structure.model_validate(entry) for entry in entries)
    made = small_run()
    spec = made.spec.model_copy(update={"structures": structures})
    return replace(made, spec=spec, measurements=measure(made.series.volume, made.labels, structures))


@pytest.fixture(scope="module")
def seg(run: ResultContext) -> Dataset:
    return build_seg(run)


def sites(report: Dataset) -> list[tuple[str, str, str]]:
    """Location, laterality and topographical modifier of each group."""
    found = []
    groups = next(i for i in report.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "126010")
    for group in groups.ContentSequence:
        site = [i for i in group.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "363698007"]
        under = {
            i.ConceptNameCodeSequence[0].CodeValue: meaning(i)
            for s in site
            for i in s.get("ContentSequence", ())
        }
        found.append(
            (meaning(site[0]) if site else "", under.get("272741003", ""), under.get("106233006", ""))
        )
    return found


def meaning(item: Dataset) -> str:
    return str(item.ConceptCodeSequence[0].CodeMeaning)


def test_a_finding_of_many_places_says_where_it_lies(run: ResultContext, seg: Dataset) -> None:
    regions = [
        [str(code.CodeMeaning) for code in item.get("AnatomicRegionSequence", ())]
        for item in seg.SegmentSequence
    ]
    assert regions == [[], ["Brain ventricle"], ["Brain"], [], []]
    verify_seg(encode(seg, "1.2.3"), run)


def test_another_region_is_noticed(run: ResultContext) -> None:
    seg = build_seg(run)
    del seg.SegmentSequence[1].AnatomicRegionSequence
    with pytest.raises(ResultMismatch, match="region of segment 2"):
        verify_seg(encode(seg, "1.2.3"), run)


def test_only_a_side_is_a_laterality_in_the_report(run: ResultContext, seg: Dataset) -> None:
    assert sites(build_sr(run, [seg]))[:4] == [
        ("Hippocampus", "", "Anterior"),
        ("Brain ventricle", "", ""),
        ("Brain", "", ""),
        ("Lung", "Left", ""),
    ]


def test_a_private_code_says_whose_it_is(run: ResultContext, seg: Dataset) -> None:
    assert seg.SegmentSequence[4].SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99GATEWAY"
    for result in (seg, build_sr(run, [seg])):
        (scheme,) = result.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == "99GATEWAY"
    assert "CodingSchemeIdentificationSequence" not in build_seg(small_run())
