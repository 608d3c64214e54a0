"""The content tree against the rows of its templates (PS3.16 TID 1500, 1204, 1004, 1600, 1410, 1411, 1419,
1501, 4019): which items, by which relationship, in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydicom.dataset import Dataset
from pydicom.sr._cid_dict import cid_concepts
from pydicom.sr._concepts_dict import concepts

from ai.quality import Finding, Verdict
from ai.results import sr_codes
from ai.results.context import ResultContext
from ai.results.seg import build_segs
from ai.results.sr import build_sr
from ai.terminology import Code
from ai.terminology.naming import PRIVATE_SCHEME
from tests.runs import torso_run
from tests.sr_tree import groups, items, name

Row = tuple[str, str, str]
OBS, MOD, ACQ, IN = "HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS ACQ CONTEXT", "CONTAINS"

ROOT: list[Row] = [
    (MOD, "CODE", "Language of Content Item and Descendants"),
    (OBS, "CODE", "Observer Type"),
    (OBS, "UIDREF", "Device Observer UID"),
    (OBS, "TEXT", "Device Observer Name"),
    (OBS, "TEXT", "Device Observer Manufacturer"),
    (OBS, "TEXT", "Device Observer Model Name"),
    (OBS, "TEXT", "Device Observer Serial Number"),
    (MOD, "CODE", "Procedure reported"),
    (IN, "TEXT", "Summary"),
    (IN, "TEXT", "Comment"),
    (IN, "CONTAINER", "Image Library"),
    (IN, "CONTAINER", "Imaging Measurements"),
]
TRACKING: list[Row] = [
    (OBS, "TEXT", "Tracking Identifier"),
    (OBS, "UIDREF", "Tracking Unique Identifier"),
    (IN, "CODE", "Finding category"),
    (IN, "CODE", "Finding"),
]
WHO: list[Row] = [
    (MOD, "CODE", "Finding Site"),
    (MOD, "TEXT", "Algorithm Name"),
    (MOD, "TEXT", "Algorithm Version"),
    (MOD, "CODE", "Algorithm Family"),
]
TOLD: list[Row] = [
    (IN, "CODE", "Presence of property"),
    (IN, "CODE", "Quality Finding"),
    (IN, "CODE", "Quality Assessment"),
    (IN, "TEXT", "Comment"),
]
VOLUMETRIC: list[Row] = [
    *TRACKING,
    (IN, "IMAGE", "Referenced Segment"),
    (IN, "UIDREF", "Source Series for Segmentation"),
    *WHO,
    (IN, "NUM", "Volume"),
    (IN, "NUM", "Attenuation Coefficient"),
    (IN, "NUM", "Diameter"),
    (IN, "NUM", "Width"),
    (IN, "NUM", "Depth"),
    (IN, "NUM", "Height"),
    *TOLD,
]
# Concepts whose words the dictionary has otherwise or not at all: as the templates and highdicom have them.
NOT_IN_THE_DICTIONARY = {
    *(sr_codes.ENGLISH, sr_codes.SOURCE, sr_codes.FINDING_CATEGORY),
    *(sr_codes.MILLILITRE, sr_codes.MILLIMETRE),
}
UNSEGMENTED: list[Row] = [*TRACKING, *WHO, *TOLD]
PAIR: list[Row] = [
    *TRACKING,
    *WHO,
    (IN, "NUM", "Volume, left minus right"),
    (IN, "NUM", "Ratio"),
    (IN, "CODE", "Quality Finding"),
    (IN, "TEXT", "Comment"),
]


@pytest.fixture(scope="module")
def report() -> Dataset:
    findings = (Finding(("left_lung",), "complete", Verdict.PARTIAL, "Left lung: touches the border."),)
    run = replace(torso_run(shape=(6, 32, 40), spacing_mm=(30, 10, 9), without=(4, 5)), quality=findings)
    return with_segs(run)


def with_segs(run: ResultContext) -> Dataset:
    return build_sr(run, [seg.header for seg in build_segs(run)])


def row(item: Dataset) -> Row:
    return str(item.RelationshipType), str(item.ValueType), str(name(item).CodeMeaning)


def follows(node: Dataset, rows: Sequence[Row]) -> None:
    """Each item is of a row, and none comes after one of a later row."""
    places = [rows.index(row(item)) for item in node.ContentSequence]
    assert places == sorted(places)


def template(node: Dataset) -> str:
    (resource,) = node.ContentTemplateSequence
    assert resource.MappingResource == "DCMR"
    return str(resource.TemplateIdentifier)


def test_the_root_follows_tid_1500(report: Dataset) -> None:
    assert template(report) == "1500"
    assert name(report).CodeMeaning == "Imaging Measurement Report"
    follows(report, ROOT)
    assert set(ROOT) == {row(item) for item in report.ContentSequence}
    assert report.ContentSequence[0].ConceptCodeSequence[0].CodeValue == "en-US"


def test_the_image_library_follows_tid_1600(report: Dataset) -> None:
    (library,) = [i for i in report.ContentSequence if name(i).CodeMeaning == "Image Library"]
    (group,) = library.ContentSequence
    assert row(group) == (IN, "CONTAINER", "Image Library Group")
    rows = [(ACQ, "CODE", "Modality"), (ACQ, "UIDREF", "Frame of Reference UID"), (IN, "IMAGE", "Source")]
    follows(group, rows)
    assert [row(i) for i in group.ContentSequence] == [*rows[:2], *[rows[2]] * 6]


@pytest.mark.parametrize(
    ("index", "number", "rows"),
    [(0, "1411", VOLUMETRIC), (1, "1411", VOLUMETRIC), (3, "1501", UNSEGMENTED), (5, "1501", PAIR)],
    ids=["segment", "segment at the edge", "absent", "pair"],
)
def test_a_group_follows_its_template(report: Dataset, index: int, number: str, rows: list[Row]) -> None:
    group = groups(report)[index]
    assert row(group) == (IN, "CONTAINER", "Measurement Group")
    assert template(group) == number
    follows(group, rows)
    assert set(TRACKING) | set(WHO[1:]) <= {row(i) for i in group.ContentSequence}


def test_modifiers_of_a_number_come_as_tid_1419_has_them(report: Dataset) -> None:
    rows = [(MOD, "CODE", "Measurement Method"), (MOD, "CODE", "Derivation")]
    numbers = [i for i in items(report) if i.ValueType == "NUM" and "ContentSequence" in i]
    assert len(numbers) == 3 * 9 + 1
    for number in numbers:
        follows(number, rows)


def test_every_item_has_a_name_and_a_relation_and_no_text_is_empty(report: Dataset) -> None:
    for item in items(report):
        assert name(item).CodeValue
        assert item.RelationshipType in (OBS, MOD, ACQ, IN)
        if item.ValueType == "TEXT":
            assert str(item.TextValue).strip()


def test_standard_codes_mean_what_their_dictionary_says() -> None:
    known: dict[tuple[str, str], set[str]] = {}
    for scheme, keywords in concepts.items():
        for terms in keywords.values():
            for value, (meaning, _) in terms.items():
                known.setdefault((scheme, value), set()).add(meaning.lower())
    own = [code for code in vars(sr_codes).values() if isinstance(code, Code)]
    for group in (sr_codes.PROCEDURES, sr_codes.MODALITIES, sr_codes.VERDICTS):
        own += list(group.values())
    standard = {code for code in own if code.scheme != PRIVATE_SCHEME}
    wrong = {
        code for code in standard if code.meaning.lower() not in known.get((code.scheme, code.value), ())
    }
    assert wrong == NOT_IN_THE_DICTIONARY
    assert all(len(code.value) <= 16 and len(code.meaning) <= 64 for code in own)


@pytest.mark.parametrize(
    ("cid", "codes"),
    [
        (7470, (sr_codes.DIAMETER, sr_codes.WIDTH, sr_codes.DEPTH, sr_codes.HEIGHT)),
        (7471, (sr_codes.AREA,)),
        (7472, (sr_codes.VOLUME,)),
        (7474, (sr_codes.VOXEL_SUM,)),
        (
            7464,
            (sr_codes.MEAN, sr_codes.STANDARD_DEVIATION, sr_codes.MINIMUM, sr_codes.MAXIMUM),
        ),
        (240, (sr_codes.PRESENT, sr_codes.ABSENT)),
        (3703, (sr_codes.NOT_EVALUATED,)),
        (6315, (sr_codes.INCOMPLETE,)),
        (
            7181,
            (sr_codes.MILLIMETRE, sr_codes.SQUARE_MILLIMETRE, sr_codes.HOUNSFIELD, sr_codes.RATIO_UNIT),
        ),
    ],
)
def test_codes_are_in_the_context_groups_of_their_rows(cid: int, codes: tuple[Code, ...]) -> None:
    values = {
        value
        for scheme, keywords in cid_concepts[cid].items()
        for keyword in keywords
        for value in concepts[scheme][keyword]
    }
    assert {code.value for code in codes} <= values
