"""Quality rules: each kind, with what keeps it and what breaks it; and where they are told."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.filebase import DicomBytesIO

from ai.geometry import VolumeGeometry
from ai.measure import Measurement
from ai.model import ModelSpec, Prediction, Rule, Structure, find_card
from ai.pipeline import Outcome, RunOptions, judge, run_series
from ai.quality import Finding, Verdict, reasons, segment_verdicts, worst
from ai.record import segment_row
from ai.shape import describe_shapes
from ai.volume import LabelArray, Volume
from tests import builders
from tests.builders import ORIENTATIONS, affine
from tests.runs import CREATED_AT, even_geometry

GRID = (20, 24, 28)
KEYS = ("body", "left_lung", "right_lung", "bone", "metal_implant")
ML = 0.008  # of a voxel of 2 mm


def geometry(orientation: str = "HFS", shape: tuple[int, int, int] = GRID) -> VolumeGeometry:
    return even_geometry(affine(shape, (2.0, 2.0, 2.0), orientation), shape)


def card(*rules: Rule) -> ModelSpec:
    return find_card("ct-tissue").model_copy(update={"quality": rules})


def judged(
    labels: LabelArray,
    *rules: Rule,
    where: VolumeGeometry | None = None,
    value: float = 0.0,
    confidence: dict[int, float] | None = None,
) -> list[Finding]:
    """What the rules of a card find; what is usual is left out, where no rule is of its kind."""
    found = all_judged(labels, *rules, where=where, value=value, confidence=confidence)
    asked = {rule.kind for rule in rules}
    return [finding for finding in found if finding.rule in asked]


def all_judged(
    labels: LabelArray,
    *rules: Rule,
    where: VolumeGeometry | None = None,
    value: float = 0.0,
    confidence: dict[int, float] | None = None,
) -> list[Finding]:
    volume = Volume(np.full(labels.shape, value, np.int16), where or geometry(shape=labels.shape))
    return list(judge(card(*rules), volume, labels, confidence or {})[1])


def blocks(*boxes: tuple[int, tuple[slice, slice, slice]]) -> LabelArray:
    labels = np.zeros(GRID, np.uint8)
    for number, box in boxes:
        labels[box] = number
    return labels


def block(number: int, start: int = 5, size: int = 6) -> LabelArray:
    part = slice(start, start + size)
    return blocks((number, (part, part, part)))


def rule(kind: str, *structures: str, **fields: object) -> Rule:
    return Rule.model_validate({"kind": kind, "structures": structures or ("body",), **fields})


@pytest.mark.parametrize(
    ("bounds", "verdict"),
    [
        ({"minimum": 1.0, "maximum": 2.0}, "PASS"),
        ({"minimum": 1.728, "maximum": 1.728}, "PASS"),
        ({"minimum": 1.8}, "SUSPECT"),
        ({"maximum": 1.7}, "SUSPECT"),
        ({"maximum": 1.7, "verdict": "FAIL"}, "FAIL"),
    ],
)
def test_volume_is_held_between_its_bounds(bounds: dict[str, object], verdict: str) -> None:
    (found,) = judged(block(1), rule("volume_ml", **bounds))
    assert (found.verdict, found.structures) == (verdict, ("body",))
    assert found.value == pytest.approx(216 * ML)
    assert found.reason.startswith("Body: 1.73 mL; expected ")


def test_a_structure_that_was_not_found_has_no_volume_and_other_rules_say_nothing() -> None:
    others = [rule(kind, maximum=0.0) for kind in ("largest_share", "pieces", "mean_value", "confidence")]
    pair = rule("left_right", "left_lung", "right_lung", maximum=1.0)
    order = rule("order", "left_lung", "right_lung", "bone")
    (found,) = judged(
        np.zeros(GRID, np.uint8), rule("volume_ml", minimum=5.0), *others, rule("complete"), pair, order
    )
    assert (found.verdict, found.value) == (Verdict.SUSPECT, 0.0)
    assert found.reason == "Body: 0 mL; expected at least 5 mL."


def test_pieces_are_counted_across_faces_edges_and_corners() -> None:
    labels = block(1)
    labels[11, 11, 11] = 1  # touches a corner of the block
    labels[18, 20, 25] = 1
    pieces, share = judged(labels, rule("pieces", maximum=1.0), rule("largest_share", minimum=0.999))
    assert (pieces.verdict, pieces.value) == (Verdict.SUSPECT, 2.0)
    assert pieces.reason == "Body: pieces 2; expected at most 1."
    assert share.value == pytest.approx(217 / 218)
    assert share.verdict is Verdict.SUSPECT
    whole = judged(block(1), rule("pieces", maximum=1.0), rule("largest_share", minimum=0.999))
    assert [finding.verdict for finding in whole] == [Verdict.PASS, Verdict.PASS]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_what_touches_a_border_is_partial_and_the_side_is_the_patient_s(orientation: str) -> None:
    where = geometry(orientation)
    indices = np.stack(np.indices(GRID), axis=-1) @ where.index_to_lps[:3, :3].T + where.index_to_lps[:3, 3]
    for axis, (low, high) in enumerate(
        (("right", "left"), ("anterior", "posterior"), ("inferior", "superior"))
    ):
        for side, extreme in ((low, np.min), (high, np.max)):
            coordinate = indices[..., axis]
            labels = (np.abs(coordinate - extreme(coordinate)) < 4.0).astype(np.uint8)
            labels[[0, -1]] *= side_faces(where, axis, 0)
            labels[:, [0, -1]] *= side_faces(where, axis, 1)
            labels[:, :, [0, -1]] *= side_faces(where, axis, 2)
            (found,) = judged(labels, rule("complete"), where=where)
            assert found.verdict is Verdict.PARTIAL
            assert f"touches the {side} border of the field of view; " in found.reason
            assert found.reason.endswith("mL is a lower bound.")


def side_faces(where: VolumeGeometry, axis: int, array_axis: int) -> int:
    """1 for the faces across the array axis that runs along the patient's axis, 0 for the others."""
    return int(np.abs(where.index_to_lps[:3, array_axis]).argmax() == axis)


def test_complete_may_ask_for_two_ends_only_and_for_another_verdict() -> None:
    labels = blocks((1, (slice(0, 8), slice(5, 9), slice(5, 9))))  # the most inferior slice
    ends, sides = (
        rule("complete", axis="superior_inferior", verdict="FAIL"),
        rule("complete", axis="right_left"),
    )
    first, second = judged(labels, ends, sides)
    assert (first.verdict, second.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert "touches the inferior border" in first.reason
    assert judged(block(1), rule("complete"))[0].reason == "Body: within the field of view."


def test_a_single_image_is_not_cut_off_above_and_below() -> None:
    labels = np.zeros((1, 24, 28), np.uint8)
    labels[0, 5:9, 5:9] = 1
    assert judged(labels, rule("complete"))[0].verdict is Verdict.PASS


def lungs(left_columns: slice, right_columns: slice) -> LabelArray:
    """HFS: columns run to the patient's left."""
    part = slice(4, 14)
    return blocks((2, (part, part, left_columns)), (3, (part, part, right_columns)))


def test_left_and_right_are_compared_in_size_and_place() -> None:
    pair = rule("left_right", "left_lung", "right_lung", maximum=20.0, verdict="FAIL")
    good = judged(lungs(slice(16, 26), slice(2, 12)), pair)
    assert [finding.verdict for finding in good] == [Verdict.PASS, Verdict.PASS]
    assert good[0].reason == "Left lung lies 28 mm left of Right lung."
    smaller = judged(lungs(slice(16, 24), slice(2, 12)), pair)
    assert [finding.verdict for finding in smaller] == [Verdict.PASS, Verdict.FAIL]
    assert smaller[1].value == pytest.approx(100 * 2 / 9)
    assert smaller[1].reason.endswith(": 22.2 % apart; expected at most 20 %.")
    swapped = judged(lungs(slice(2, 12), slice(16, 26)), pair)
    assert [finding.verdict for finding in swapped] == [Verdict.FAIL, Verdict.PASS]
    assert swapped[0].reason == "Left lung lies 28 mm right of Right lung."


def test_which_one_is_left_its_code_says_whatever_the_order_of_the_rule() -> None:
    pair = rule("left_right", "right_lung", "left_lung")
    (found,) = judged(lungs(slice(16, 26), slice(2, 12)), pair)
    assert (found.verdict, found.structures) == (Verdict.PASS, ("left_lung", "right_lung"))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_sides_are_those_of_the_patient_in_every_orientation(orientation: str) -> None:
    where = geometry(orientation)
    index = np.stack(np.indices(GRID), axis=-1)
    x = index @ where.index_to_lps[0, :3] + where.index_to_lps[0, 3]
    labels = np.where(x > 6, 2, np.where(x < -6, 3, 0)).astype(np.uint8)
    pair = rule("left_right", "left_lung", "right_lung", maximum=10.0)
    assert [f.verdict for f in judged(labels, pair, where=where)] == [Verdict.PASS, Verdict.PASS]
    flipped = np.where(labels > 0, 5 - labels, 0).astype(np.uint8)
    assert judged(flipped, pair, where=where)[0].verdict is Verdict.SUSPECT


def test_where_only_one_of_a_pair_was_found_it_is_told() -> None:
    (found,) = judged(block(2), rule("left_right", "left_lung", "right_lung", maximum=20.0))
    assert (found.verdict, found.reason) == (Verdict.SUSPECT, "Right lung was not found, Left lung was.")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (
            {"kind": "left_right", "structures": ["left_lung", "right_lung", "bone"]},
            "names 3 structures; it takes pairs",
        ),
        ({"kind": "order", "structures": ["bone"]}, "names one structure; it takes two or more"),
        ({"kind": "pieces", "structures": ["bone", "bone"], "maximum": 1}, "names a structure twice"),
        ({"kind": "coverage", "structures": ["bone"], "given": ["bone"]}, "asks for 'bone' given itself"),
        ({"kind": "coverage", "structures": ["bone"], "given": ["liver"]}, "'liver', which is no structure"),
        ({"kind": "coverage", "structures": ["bone"], "maximum": 5}, "coverage takes no maximum"),
        (
            {"kind": "volume_ml", "structures": ["bone"], "minimum": 1, "axis": "right_left"},
            "no axis; complete",
        ),
        ({"kind": "complete", "structures": ["bone"], "given": ["body"]}, "no given; coverage do"),
        ({"kind": "order", "structures": ["bone", "body"], "verdict": "PASS"}, "cannot mean PASS"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_when_its_card_is_read(
    fields: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match="quality rule") as refused:
        ModelSpec.model_validate(find_card("ct-tissue").model_dump() | {"quality": [fields]})
    assert says in str(refused.value)


def column(*numbers: int) -> LabelArray:
    """Structures one below the other, the first at the top: slices run upwards."""
    labels = np.zeros(GRID, np.uint8)
    for place, number in enumerate(numbers):
        if number:
            top = GRID[0] - 1 - 4 * place
            labels[top - 2 : top, 8:12, 8:12] = number
    return labels


@pytest.mark.parametrize(
    ("numbers", "verdict", "words"),
    [
        ((2, 3, 4, 5), "PASS", "From superior to inferior: 4 structures follow each other."),
        ((0, 3, 4, 0), "PASS", "2 structures follow each other."),
        ((2, 4, 3, 5), "FAIL", "Bone lies 8 mm superior of Right lung"),
        ((2, 0, 4, 5), "FAIL", "not found between Left lung and Bone: Right lung"),
    ],
)
def test_structures_follow_each_other(numbers: tuple[int, ...], verdict: str, words: str) -> None:
    keys = ("left_lung", "right_lung", "bone", "metal_implant")
    (found,) = judged(column(*numbers), rule("order", *keys, axis="superior_inferior", verdict="FAIL"))
    assert found.verdict == verdict
    assert words in found.reason


def test_order_runs_from_right_to_left_and_from_front_to_back_too() -> None:
    labels = np.zeros(GRID, np.uint8)
    labels[8:10, 4:6, 4:6], labels[8:10, 12:14, 12:14] = 2, 3  # HFS: to the left and to the back
    keys = ("left_lung", "right_lung")
    for axis in ("right_left", "anterior_posterior"):
        assert judged(labels, rule("order", *keys, axis=axis))[0].verdict is Verdict.PASS
        assert judged(labels, rule("order", *keys[::-1], axis=axis))[0].verdict is Verdict.SUSPECT


def test_the_mean_value_has_its_unit() -> None:
    (found,) = judged(block(1), rule("mean_value", minimum=20.0, maximum=150.0), value=-40)
    assert (found.verdict, found.value) == (Verdict.SUSPECT, -40.0)
    assert found.reason == "Body: mean value -40 HU; expected 20 HU to 150 HU."


def test_confidence_counts_where_the_model_measured_it() -> None:
    asked = rule("confidence", minimum=0.6, verdict="FAIL")
    assert judged(block(1), asked) == []
    (found,) = judged(block(1), asked, confidence={1: 0.45})
    assert (found.verdict, found.reason) == (Verdict.FAIL, "Body: confidence 0.45; expected at least 0.6.")


def test_the_centre_of_uneven_slices_is_where_they_lie() -> None:
    even = geometry()
    heights = np.cumsum(np.linspace(1.0, 4.0, GRID[0]))
    origins = even.index_to_lps[:3, 3] + heights[:, None] * even.normal
    uneven = replace(even, origins_mm=origins)
    labels = blocks((1, (slice(4, 7), slice(5, 8), slice(5, 8))))
    body = find_card("ct-tissue").structures[0]
    (shape,) = describe_shapes(labels, uneven, [body], placed={1}).values()
    assert shape.centroid_mm is not None
    expected = origins[5:6] + 6 * even.index_to_lps[:3, 1] + 6 * even.index_to_lps[:3, 2]
    along = (heights[4] + heights[5] + heights[6]) / 3 - heights[5]
    np.testing.assert_allclose(shape.centroid_mm, expected[0] + along * even.normal)


def test_on_a_radiograph_sides_and_areas_count() -> None:
    matrix = np.array([[0, 0, 0.2, 0], [0, 0.2, 0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    shape = (1, 60, 80)
    detector = VolumeGeometry(matrix, shape, (), matrix[None, :3, 3], None, is_projection=True)
    labels = np.zeros(shape, np.uint8)
    labels[0, 20:60, 50:70], labels[0, 20:50, 10:30] = 2, 3  # the left lung on the right, cut off below
    found = judged(
        labels,
        rule("left_right", "left_lung", "right_lung", maximum=20.0),
        rule("complete", "left_lung", "right_lung"),
        rule("volume_ml", "left_lung", minimum=5.0),
        where=detector,
    )
    assert [finding.verdict for finding in found] == ["PASS", "SUSPECT", "PARTIAL", "PASS"]
    assert found[1].reason == "Left lung 32 mm², Right lung 24 mm²: 28.6 % apart; expected at most 20 %."
    assert found[2].reason.startswith("Left lung: touches the inferior border")


def test_every_side_is_told_once_also_at_45_degrees() -> None:
    turn = np.array([[1.0, 0, 0], [0, 1, -1.001], [0, 1, 1]]) / np.sqrt(2.0)
    matrix = np.eye(4)
    matrix[:3, :3] = turn[:, [2, 1, 0]]  # rows and slices both point head and back
    labels = np.ones((6, 6, 6), np.uint8)
    body = find_card("ct-tissue").structures[0]
    (shape,) = describe_shapes(labels, even_geometry(matrix, labels.shape), [body]).values()
    assert sorted(shape.sides) == ["anterior", "inferior", "left", "posterior", "right", "superior"]


def test_the_worst_verdict_of_a_run() -> None:
    rows = [{"verdict": verdict, "reason": verdict.lower()} for verdict in ("PASS", "SUSPECT", "PARTIAL")]
    assert worst({"quality": rows}) is Verdict.SUSPECT
    assert worst({"quality": [*rows, {"verdict": "FAIL", "reason": "bad"}]}) is Verdict.FAIL
    assert reasons({"quality": [*rows, {"verdict": "FAIL", "reason": "bad"}]}) == ("bad",)
    assert worst({}) is worst({"quality": []}) is Verdict.PASS


@dataclass(frozen=True)
class SureModel:
    """A model that answers with given labels, and says how sure it is."""

    labels: LabelArray
    spec: ModelSpec
    device: str = "cpu"

    def predict(self, channels: object, progress: object) -> Prediction:  # noqa: ARG002
        return Prediction(self.labels, confidence={1: 0.9, 2: 0.3})


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    series, labels = builders.torso_series("HFS", (16, 48, 48), (14.0, 8.0, 8.0))
    accepts = find_card("ct-tissue").accepts.model_copy(update={"maximum_slice_spacing_mm": 20.0})
    spec = card(
        rule("volume_ml", "left_lung", "right_lung", minimum=1e5, verdict="FAIL"),
        rule("left_right", "left_lung", "right_lung"),
        rule("confidence", "left_lung", minimum=0.5),
        rule("complete", "body", axis="superior_inferior"),
    ).model_copy(update={"accepts": accepts})
    files = builders.write_series(series, tmp_path_factory.mktemp("series"))
    return run_series(files, SureModel(labels, spec), RunOptions(CREATED_AT, "1.2.3"), lambda *_: None)


def test_findings_are_in_the_record_of_the_run(outcome: Outcome) -> None:
    run = json.loads(json.dumps(outcome.run, allow_nan=False))
    verdicts = [(row["rule"], row["structures"], row["verdict"]) for row in run["quality"]]
    assert verdicts == [
        ("volume_ml", ["left_lung"], "FAIL"),
        ("volume_ml", ["right_lung"], "FAIL"),
        ("left_right", ["left_lung", "right_lung"], "PASS"),
        ("confidence", ["left_lung"], "SUSPECT"),
        ("complete", ["body"], "PARTIAL"),
        ("complete", ["left_lung"], "PASS"),
        ("complete", ["right_lung"], "PARTIAL"),
        ("complete", ["bone"], "PARTIAL"),
        ("complete", ["metal_implant"], "PASS"),
    ]
    assert worst(run) is Verdict.FAIL
    assert len(reasons(run)) == 2
    segments = {row["key"]: row for row in run["segments"]}
    assert [row["verdict"] for row in segments.values()] == ["PARTIAL", "FAIL", "FAIL", "PARTIAL", "PASS"]
    assert segments["left_lung"]["reasons"][0].startswith("Left lung: ")
    assert segments["metal_implant"]["reasons"] == []


def test_what_was_not_found_has_no_verdict_in_the_record_but_where_it_should_be_there() -> None:
    (metal,) = (s for s in find_card("ct-tissue").structures if s.key == "metal_implant")
    nothing = Measurement(metal, 0, 0.0, None)
    assert segment_row(nothing, "HU", Verdict.PASS, ())["verdict"] is None
    assert segment_row(nothing, "HU", Verdict.SUSPECT, ("not found",))["verdict"] == "SUSPECT"
    assert segment_row(replace(nothing, voxel_count=1), "HU", Verdict.PASS, ())["verdict"] == "PASS"


def test_findings_are_in_the_report_for_people(outcome: Outcome) -> None:
    (sr,) = (r for r in outcome.results if r.kind == "sr")
    report = dcmread(DicomBytesIO(sr.content))
    comments = [
        str(item.TextValue)
        for item in report.ContentSequence
        if item.ConceptNameCodeSequence[0].CodeValue == "121106"
    ]
    told = [text for text in comments if text.startswith("Quality ")]
    assert [text.split(".")[0] for text in told] == [
        "Quality FAIL",
        "Quality FAIL",
        "Quality SUSPECT",
        *["Quality PARTIAL"] * 3,
        "Quality checks passed: 3 of 9",
    ]
    assert "Left lung: confidence 0.3; expected at least 0.5." in told[2]


def test_what_is_cut_off_by_the_image_is_partial_though_no_rule_asks() -> None:
    labels = blocks((2, (slice(12, 20), slice(4, 10), slice(16, 24))), (4, (slice(2, 6),) * 3))
    lung, bone = all_judged(labels)
    told = "Left lung: touches the superior border of the field of view; 3.07 mL is a lower bound."
    assert (lung.rule, lung.verdict, lung.reason) == ("complete", Verdict.PARTIAL, told)
    assert (bone.structures, bone.verdict) == (("bone",), Verdict.PASS)


def test_a_card_may_narrow_what_is_usual_or_turn_it_off_structure_by_structure() -> None:
    labels = blocks((1, (slice(12, 20),) * 3), (4, (slice(12, 20),) * 3))
    labels[12:20, 2:4, 2:4] = 2
    narrowed = rule("complete", "bone", axis="right_left")
    found = all_judged(labels, rule("complete", "body", verdict="PASS"), narrowed)
    assert [(f.structures, f.verdict) for f in found] == [(("bone",), "PASS"), (("left_lung",), "PARTIAL")]


def test_a_pair_by_its_codes_must_lie_on_its_sides_though_no_rule_asks() -> None:
    swapped = lungs(slice(2, 12), slice(16, 26))
    (found,) = (f for f in all_judged(swapped) if f.rule == "left_right")
    assert (found.verdict, found.structures) == (Verdict.SUSPECT, ("left_lung", "right_lung"))
    assert found.reason == "Left lung lies 28 mm right of Right lung."
    alone = all_judged(block(2))
    assert "left_right" not in {f.rule for f in alone}, "one kidney may well be the only one"
    asked = rule("left_right", "left_lung", "right_lung", verdict="FAIL")
    assert [f.verdict for f in all_judged(swapped, asked) if f.rule == "left_right"] == [Verdict.FAIL]


def vertebrae(*keys: str, rules: tuple[Rule, ...] = ()) -> ModelSpec:
    structures = tuple(Structure(number=n, key=key, label=key) for n, key in enumerate(keys, start=1))
    return card(*rules).model_copy(update={"structures": structures})


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ((2, 1, 3, 4), []),
        ((0, 1, 3, 0), []),
        ((1, 2, 3, 4), [("vertebra_t12", "vertebra_l1")]),
        ((2, 0, 3, 4), [("vertebra_t12", "vertebra_l1", "vertebra_l2")]),
    ],
)
def test_vertebrae_follow_each_other_though_no_rule_asks(
    numbers: tuple[int, ...], wrong: list[object]
) -> None:
    spec = vertebrae("vertebra_l1", "vertebra_t12", "vertebra_l2", "vertebra_l3")
    volume = Volume(np.zeros(GRID, np.int16), geometry())
    found = [f for f in judge(spec, volume, column(*numbers), {})[1] if f.rule == "order"]
    assert [f.structures for f in found if f.verdict is not Verdict.PASS] == wrong
    assert len(found) == max(len(wrong), 1)


def test_coverage_asks_for_what_lies_between_structures_that_were_found() -> None:
    asked = rule("coverage", "bone", given=["left_lung", "right_lung"], verdict="FAIL")
    both = lungs(slice(16, 26), slice(2, 12))
    (missing,) = judged(both, asked)
    assert (missing.verdict, missing.structures) == (Verdict.FAIL, ("bone",))
    assert missing.reason == "Bone: not found, and Left lung and Right lung were found."
    both[2, 2, 2] = 4
    assert judged(both, asked)[0].reason == "Bone: found, as expected."
    assert judged(block(2), asked) == [], "the right lung was not found, so nothing is asked"
    assert judged(block(2), rule("coverage", "bone"))[0].reason == "Bone: not found."


def test_coverage_may_ask_for_the_extent_of_the_image() -> None:
    shape = (30, 24, 28)  # 60 mm
    labels = np.zeros(shape, np.uint8)
    (missing,) = judged(labels, rule("coverage", "bone", minimum=59.0))
    assert missing.reason == "Bone: not found, and the image spans 60 mm superior-inferior."
    assert judged(labels, rule("coverage", "bone", minimum=61.0)) == []
    assert judged(labels, rule("coverage", "bone", minimum=57.0, axis="right_left")) == []


def test_what_a_structure_includes_belongs_to_it() -> None:
    whole, core = card().structures[1], card().structures[2]
    spec = card(rule("pieces", "left_lung", maximum=1.0)).model_copy(
        update={"structures": (card().structures[0], whole.model_copy(update={"includes": (3,)}), core)}
    )
    labels = blocks((2, (slice(8, 12),) * 3))
    labels[10, :, 8:12][8:12] = 3  # cuts the rim in two
    labels[10, 8:12, 12:] = 3
    found = judge(spec, Volume(np.zeros(GRID, np.int16), geometry()), labels, {})[1]
    by = {(f.rule, f.structures): f for f in found}
    assert by["pieces", ("left_lung",)].value == 1.0
    sides = "touches the left border of the field of view"
    assert sides in by["complete", ("left_lung",)].reason
    assert sides in by["complete", ("right_lung",)].reason
    shapes = describe_shapes(labels, geometry(), spec.structures, placed={2, 3}, counted={2})
    inside = np.argwhere(labels > 0).mean(axis=0)
    matrix = geometry().index_to_lps
    np.testing.assert_allclose(shapes[2].centroid_mm, matrix[:3, :3] @ inside + matrix[:3, 3])


def test_each_segment_has_one_verdict_with_the_gravest_reason_first() -> None:
    spec = card()
    findings = [
        Finding(("body",), "complete", Verdict.PASS, "whole"),
        Finding(("left_lung",), "complete", Verdict.PARTIAL, "cut"),
        Finding(("left_lung", "right_lung"), "left_right", Verdict.FAIL, "swapped"),
        Finding(("left_lung",), "volume_ml", Verdict.SUSPECT, "small"),
        Finding(("left_lung",), "volume_ml", Verdict.SUSPECT, "small"),
    ]
    found = segment_verdicts(spec, findings)
    assert list(found) == list(KEYS)
    assert found["body"] == (Verdict.PASS, ())
    assert found["left_lung"] == (Verdict.FAIL, ("swapped", "small", "cut"))
    assert found["right_lung"] == (Verdict.FAIL, ("swapped",))
    assert found["bone"] == (Verdict.PASS, ())


def test_a_card_without_rules_is_asked_what_is_usual() -> None:
    (found,) = all_judged(block(1))
    assert (found.rule, found.structures, found.verdict) == ("complete", ("body",), Verdict.PASS)
