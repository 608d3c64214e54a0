"""The sweeper: each decision with its name, its reason and everything that was considered."""

from __future__ import annotations

import hashlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from ai.errors import SeriesRefused
from ai.geometry import Needs, VerdictCode, assess
from ai.source import read_file
from gateway.completion import CompletionRules
from gateway.header import FACT_KEYWORDS, Facts, InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.records import NewInstance, NewResult
from gateway.routing import Route, parse_condition
from gateway.sweep import Sweeper, SweepRules
from gateway.sweep.decide import source_header
from tests.builders import ct_series, with_attributes, write_series

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
ROUTES = (
    Route(
        "ct-volumes",
        (
            *parse_condition("Modality", "CT"),
            *parse_condition("ImageType", {"lacks": ["LOCALIZER"]}),
            *parse_condition("instances", {"at_least": 10}),
        ),
        model="tissue",
        send=("pacs",),
    ),
    Route("everything-else", action="ignore", reason="No model for this kind of series"),
)
NEEDS = Needs(minimum_slices=3, maximum_slice_spacing_mm=10.0)
RULES = SweepRules(
    CompletionRules(30.0, 900.0), ROUTES, {"tissue": "ct-tissue"}, {"tissue": NEEDS}, live=True
)


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.wall_s = 1000.0
        self.steady_s = 0.0

    def now_s(self) -> float:
        return self.wall_s

    def monotonic_s(self) -> float:
        return self.steady_s

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


def ct_facts(number: int, **changes: tuple[str, ...]) -> Facts:
    facts: dict[str, tuple[str, ...]] = {
        "Modality": ("CT",),
        "ImageType": ("ORIGINAL", "PRIMARY", "AXIAL"),
        "SeriesDescription": ("Thorax 2.5",),
        "Manufacturer": ("Synthetic",),
        "Rows": ("64",),
        "Columns": ("48",),
        "ImagePositionPatient": ("-20.0", "-30.0", str(number * 2.5)),
        "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
        "PixelSpacing": ("0.7", "0.9"),
        "FrameOfReferenceUID": ("1.2.9",),
        "SliceThickness": ("2.5",),
    }
    return {keyword: value for keyword, value in {**facts, **changes}.items() if value}


class Gateway:
    """A journal, a clock that a test moves, and a sweeper."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.journal = Journal(path)
        self.clock = HandClock()
        self.open = 0
        self.configure(RULES)

    def configure(self, rules: SweepRules) -> None:
        log = structlog.get_logger()
        self.sweeper = Sweeper(
            self.journal, self.path.parent, lambda _source: self.open, rules, self.clock, log
        )

    def receive(
        self, numbers: range, series: str = "1.2.3", change: Callable[[int], dict[str, Any]] = lambda _: {}
    ) -> None:
        for n in numbers:
            facts = ct_facts(n, **change(n))
            header = InstanceHeader(CT_STORAGE, f"{series}.{n}", "1.2", series, facts)
            name = f"{series}.{n}"
            instance = NewInstance(header, "1.2.840.10008.1.2.1", name, f"{name}.dcm", 100, "ct1")
            self.journal.record_instance(instance, self.clock.now_s())

    def settle(self) -> int:
        self.clock.pass_s(31.0)
        return self.sweeper.sweep_once()

    def records(self) -> list[dict[str, Any]]:
        reader = JournalReader(self.path)
        try:
            return [reader.series_details(record) for record in reader.series()]
        finally:
            reader.close()

    def record(self) -> dict[str, Any]:
        (record,) = self.records()
        return record


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    gateway = Gateway(tmp_path / "journal.db")
    yield gateway
    gateway.journal.close()


def test_a_complete_ct_volume_becomes_a_job_and_everything_considered_is_recorded(gateway: Gateway) -> None:
    gateway.receive(range(12))
    assert gateway.settle() == 1
    record = gateway.record()
    assert record["state"] == "routed"
    assert record["evidence"]["reason"] == "12 instances; quiet for 31.0 s, no open association from ct1."
    verdict = record["verdict"]
    assert (verdict["verdict"], verdict["code"]) == ("ACCEPTED", "ACCEPTED")
    assert verdict["shape"] == [12, 64, 48]
    assert verdict["spacing_mm"] == [2.5, 0.7, 0.9]
    assert verdict["reason"] == (
        "One regular volume: 12 slices of 64 × 48, 2.5 mm apart, pixels 0.7 × 0.9 mm."
    )
    decision = record["decision"]
    assert decision["name"] == "ROUTE_MATCHED"
    assert decision["chosen"] == "ct-volumes"
    assert (decision["model"], decision["card"]) == ("tissue", "ct-tissue")
    assert (decision["destinations"], decision["status"]) == (["pacs"], "live")
    assert decision["routes"] == [
        {
            "name": "ct-volumes",
            "matched": True,
            "conditions": [
                {"condition": "Modality", "wanted": "is CT", "seen": "CT", "matched": True},
                {
                    "condition": "ImageType",
                    "wanted": "lacks LOCALIZER",
                    "seen": "ORIGINAL\\PRIMARY\\AXIAL",
                    "matched": True,
                },
                {"condition": "instances", "wanted": "at least 10", "seen": "12", "matched": True},
            ],
        }
    ]
    (job,) = record["jobs"]
    assert (job["state"], job["model"], job["card"], job["destinations"]) == (
        "queued",
        "tissue",
        "ct-tissue",
        ["pacs"],
    )


def test_in_shadow_mode_the_job_has_no_destination_and_that_is_said(gateway: Gateway) -> None:
    gateway.configure(replace(RULES, live=False))
    gateway.receive(range(12))
    gateway.settle()
    record = gateway.record()
    assert record["jobs"][0]["destinations"] == []
    assert record["decision"]["status"] == "shadow"
    assert "shadow mode: results are kept, nothing is sent to pacs" in record["decision"]["reason"]


def test_a_series_with_a_missing_slice_is_refused_by_name_when_a_route_wants_it(gateway: Gateway) -> None:
    gateway.receive(range(5))
    gateway.receive(range(6, 15))
    gateway.receive(range(15, 18))
    gateway.settle()
    record = gateway.record()
    assert record["state"] == "refused"
    assert record["jobs"] == []
    assert record["verdict"]["verdict"] == "REFUSED"
    assert record["verdict"]["code"] == record["decision"]["name"] == "MISSING_SLICE"
    assert record["verdict"]["numbers"]
    assert record["decision"]["chosen"] == "ct-volumes"


def test_an_ignoring_route_leaves_the_series_unmatched_with_the_configured_reason(gateway: Gateway) -> None:
    gateway.receive(range(3))
    gateway.settle()
    record = gateway.record()
    assert record["state"] == "unmatched"
    assert record["decision"]["name"] == "ROUTE_IGNORES"
    assert record["decision"]["reason"] == (
        "Route everything-else ignores the series: No model for this kind of series. "
        "Nearest miss: route ct-volumes, 1 of 3 conditions failed: instances at least 10, seen 3."
    )


def test_without_a_matching_route_the_nearest_miss_is_said(gateway: Gateway) -> None:
    gateway.configure(replace(RULES, routes=ROUTES[:1]))
    gateway.receive(range(12), change=lambda _: {"Modality": ("MR",)})
    gateway.settle()
    decision = gateway.record()["decision"]
    assert decision["name"] == "NO_ROUTE_MATCHED"
    assert decision["reason"] == (
        "None of the configured routes matched (1). "
        "Nearest miss: route ct-volumes, 1 of 3 conditions failed: Modality is CT, seen MR."
    )


def test_a_localizer_among_the_slices_is_dropped_before_routes_are_held_against_the_rest(
    gateway: Gateway,
) -> None:
    def localizer(number: int) -> dict[str, Any]:
        sagittal = ("0", "1", "0", "0", "0", "-1")
        kind = ("ORIGINAL", "PRIMARY", "LOCALIZER")
        return {"ImageType": kind, "ImageOrientationPatient": sagittal} if number == 0 else {}

    gateway.receive(range(12), change=localizer)
    gateway.settle()
    record = gateway.record()
    assert record["state"] == "routed"
    assert record["decision"]["routes"][0]["conditions"][2]["seen"] == "11"
    assert [note["code"] for note in record["verdict"]["notes"]] == ["LOCALIZERS_DROPPED"]
    assert (record["verdict"]["verdict"], record["verdict"]["code"]) == ("FIXED", "LOCALIZERS_DROPPED")


def test_a_series_that_a_gateway_made_is_never_processed(gateway: Gateway) -> None:
    gateway.receive(range(12), change=lambda _: {"Manufacturer": ("DICOM AI Gateway",)})
    gateway.settle()
    record = gateway.record()
    assert record["state"] == "unmatched"
    assert record["decision"]["name"] == "OWN_RESULT"
    assert record["jobs"] == []


def test_a_result_that_comes_back_under_another_manufacturer_is_still_known_by_its_uid(
    gateway: Gateway,
) -> None:
    gateway.receive(range(12))
    gateway.settle()
    job = gateway.journal.claim_job("lease", gateway.clock.now_s() + 60, gateway.clock.now_s())
    assert job is not None
    result = NewResult(
        "seg", "1.2.840.10008.5.1.4.1.1.66.4", "9.1", "9.9", "1.2.840.10008.1.2.1", "p", "d", 1
    )
    gateway.journal.finish_job(job, [result], {}, gateway.clock.now_s())
    gateway.receive(range(1), series="9.9")
    gateway.settle()
    assert gateway.records()[1]["decision"]["name"] == "OWN_RESULT"


def test_nothing_is_decided_before_the_source_is_quiet_and_has_hung_up(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.clock.pass_s(10.0)
    assert gateway.sweeper.sweep_once() == 0
    assert gateway.sweeper.wait_s() == pytest.approx(20.0)
    gateway.open = 1
    gateway.clock.pass_s(20.0)
    assert gateway.sweeper.sweep_once() == 0
    assert gateway.sweeper.wait_s() == pytest.approx(1.0)
    gateway.open = 0
    assert gateway.sweeper.sweep_once() == 1


def test_with_nothing_to_decide_the_next_sweep_is_early_enough_for_any_new_series(gateway: Gateway) -> None:
    assert gateway.sweeper.sweep_once() == 0
    assert gateway.sweeper.wait_s() == 30.0


def test_a_wall_clock_that_is_set_back_does_not_hold_a_series(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.clock.wall_s -= 7200.0
    assert gateway.sweeper.sweep_once() == 0
    assert gateway.sweeper.wait_s() == pytest.approx(30.0)
    gateway.clock.pass_s(30.0)
    assert gateway.sweeper.sweep_once() == 1


def test_an_instance_that_arrives_during_the_decision_postpones_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.receive(range(12))
    arrivals = iter([range(12, 13)])

    def late(point: str) -> None:
        if point == "sweep.before_decision":
            for numbers in arrivals:
                gateway.receive(numbers)

    monkeypatch.setattr("gateway.failpoint.reach", late)
    assert gateway.settle() == 0
    assert gateway.record()["state"] == "receiving"
    assert gateway.settle() == 1
    assert gateway.record()["verdict"]["shape"][0] == 13


def test_a_late_instance_opens_a_revision_that_is_decided_over_all_instances(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.settle()
    gateway.receive(range(12, 14))
    gateway.settle()
    first, second = gateway.records()
    assert (first["revision"], first["verdict"]["shape"][0]) == (1, 12)
    assert (second["revision"], second["verdict"]["shape"][0]) == (2, 14)


def test_a_series_that_cannot_be_assessed_is_refused_and_the_others_go_on(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(slices: Any) -> Any:
        if slices[0].sop_instance_uid.startswith("1.2.3."):
            raise SeriesRefused("X", "x")
        return assess(slices)

    monkeypatch.setattr("gateway.sweep.decide.assess", faulty)
    gateway.receive(range(12), series="1.2.3")
    gateway.receive(range(12), series="1.2.4")
    assert gateway.settle() == 2
    strange, good = gateway.records()
    assert (strange["state"], strange["decision"]["name"]) == ("refused", "ASSESSMENT_FAILED")
    assert good["state"] == "routed"


def test_a_journal_that_cannot_be_used_now_is_tried_again(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.journal.close()
    assert gateway.settle() == 0
    assert gateway.sweeper.wait_s() == 5.0
    reopened = Journal(gateway.path)
    gateway.journal = reopened
    gateway.configure(RULES)
    assert gateway.settle() == 1


def test_the_sweeper_does_not_import_torch() -> None:
    code = "import sys, gateway.sweep; sys.exit(any(m in sys.modules for m in ('torch', 'scipy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_after_a_restart_a_half_received_series_gets_its_quiet_time_again(gateway: Gateway) -> None:
    gateway.receive(range(6))
    gateway.clock.pass_s(3600.0)  # the gateway is down; the scanner could not send the rest
    gateway.configure(RULES)
    assert gateway.sweeper.sweep_once() == 0
    gateway.clock.pass_s(20.0)
    gateway.receive(range(6, 12))
    assert gateway.settle() == 1
    assert (gateway.record()["revision"], gateway.record()["instance_count"]) == (1, 12)


def test_a_series_of_uids_that_belong_to_another_series_is_refused_by_name(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.settle()
    header = InstanceHeader(CT_STORAGE, "1.2.3.4", "1.2", "1.2.77", ct_facts(4))
    stolen = NewInstance(header, "1.2.840.10008.1.2.1", "other", "other.dcm", 100, "ct1")
    gateway.journal.record_instance(stolen, gateway.clock.now_s())
    gateway.settle()
    record = gateway.records()[1]
    assert (record["state"], record["decision"]["name"]) == ("refused", "NO_OWN_INSTANCES")
    (event,) = [e for e in record["events"] if e["name"] == "DUPLICATE_SOP_INSTANCE"]
    assert event["reason"].endswith("the first one is used in series 1.2.3.")


def phase(number: int) -> dict[str, Any]:
    """Twelve positions, each in two phases."""
    position = ("-20.0", "-30.0", str(number // 2 * 2.5))
    return {"ImagePositionPatient": position, "TemporalPositionIdentifier": (str(1 + number % 2),)}


def test_a_series_of_two_phases_gets_a_job_for_each(gateway: Gateway) -> None:
    gateway.receive(range(24), change=phase)
    assert gateway.settle() == 1
    record = gateway.record()
    verdict, decision = record["verdict"], record["decision"]
    assert (record["state"], verdict["verdict"], verdict["code"]) == ("routed", "ACCEPTED", "SPLIT")
    assert [(p["images"], p["verdict"], p["shape"]) for p in verdict["parts"]] == [
        (12, "ACCEPTED", [12, 64, 48]),
        (12, "ACCEPTED", [12, 64, 48]),
    ]
    assert [part["chosen"] for part in decision["parts"]] == ["ct-volumes", "ct-volumes"]
    assert [part["routes"][0]["conditions"][2]["seen"] for part in decision["parts"]] == ["12", "12"]
    assert (decision["name"], decision["model"], decision["routes"]) == ("ROUTE_MATCHED", None, [])
    assert decision["reason"].startswith("2 parts. ")
    jobs = record["jobs"]
    assert [job["part"] for job in jobs] == [part["key"] for part in verdict["parts"]]
    assert len({job["part"] for job in jobs}) == len({job["input_digest"] for job in jobs}) == 2


def test_a_part_that_is_refused_does_not_take_the_others_with_it(gateway: Gateway) -> None:
    gateway.receive(range(24), change=lambda n: phase(n) if n != 11 else {"ImagePositionPatient": ()})
    gateway.settle()
    record = gateway.record()
    assert record["state"] == "routed"
    assert record["verdict"]["verdict"] == "FIXED"
    by_name = {part["name"]: part for part in record["decision"]["parts"]}
    assert by_name["ROUTE_MATCHED"]["images"] == 12
    assert len(record["jobs"]) == 1
    assert {part["code"] for part in record["verdict"]["parts"]} >= {"ACCEPTED", "NO_POSITION"}


def test_a_late_instance_of_one_phase_leaves_the_job_of_the_other_alone(gateway: Gateway) -> None:
    gateway.receive(range(24), change=phase)
    gateway.settle()
    before = {job["part"]: job["id"] for job in gateway.record()["jobs"]}
    gateway.receive(range(25, 26), change=phase)  # of the second phase
    gateway.settle()
    older, newer = gateway.records()
    after = {job["part"]: job["id"] for job in newer["jobs"]}
    (first, second) = sorted(after)
    assert before.keys() == after.keys()
    assert after[first] == before[first]
    assert after[second] != before[second]
    assert [job["id"] for job in older["jobs"]] == [before[second]]


def sweep_of(number: int) -> dict[str, Any]:
    """Two sweeps over the same positions: even numbers first, then odd ones."""
    position = ("-20.0", "-30.0", str(number // 2 * 2.5))
    return {"ImagePositionPatient": position, "AcquisitionNumber": (str(1 + number % 2),)}


def test_results_of_a_volume_are_sent_although_a_second_one_arrives_slowly(gateway: Gateway) -> None:
    gateway.receive(range(0, 24, 2), change=sweep_of)
    gateway.settle()
    job = gateway.journal.claim_job("lease", 1e9, gateway.clock.now_s())
    assert job is not None
    kept = NewResult("seg", "1.2", "2.25.1", "2.25.2", "1.2.840.10008.1.2.1", "seg.dcm", "d", 1)
    gateway.journal.finish_job(job, [kept], {}, gateway.clock.now_s())
    gateway.receive(range(1, 2), change=sweep_of)  # one slice of the second: nothing tells it apart yet
    gateway.settle()
    assert gateway.journal.claim_delivery("pacs", gateway.clock.now_s()) is None
    gateway.receive(range(3, 24, 2), change=sweep_of)
    gateway.settle()
    delivery = gateway.journal.claim_delivery("pacs", gateway.clock.now_s())
    assert delivery is not None
    assert delivery.sop_instance_uid == "2.25.1"
    records = gateway.records()
    assert [(r["state"], r["decision"]["name"]) for r in records] == [
        ("routed", "ROUTE_MATCHED"),
        ("refused", "DUPLICATE_POSITION"),
        ("routed", "ROUTE_MATCHED"),
    ]
    assert [job["state"] for job in records[2]["jobs"]] == ["done", "queued"]


def test_the_digest_of_a_job_is_that_of_the_results(gateway: Gateway) -> None:
    gateway.receive(range(12))
    gateway.settle()
    lines = sorted(f"1.2.3.{n} 1.2.3.{n}\n" for n in range(12))  # the tests name digests as UIDs
    assert gateway.record()["jobs"][0]["input_digest"] == hashlib.sha256("".join(lines).encode()).hexdigest()


def tilted(number: int) -> dict[str, Any]:
    return {"ImagePositionPatient": ("0", str(number * 0.5), str(number * 2.5))}


def test_a_tilted_volume_is_refused_by_name_unless_the_model_takes_it(gateway: Gateway) -> None:
    gateway.receive(range(12), change=tilted)
    gateway.settle()
    record = gateway.record()
    assert (record["state"], record["decision"]["name"]) == ("refused", "GANTRY_TILT")
    assert (record["verdict"]["verdict"], record["verdict"]["code"]) == ("FIXED", "GANTRY_TILT")
    assert "model tissue does not take it" in record["decision"]["reason"]
    takes = replace(NEEDS, resampled=frozenset({VerdictCode.GANTRY_TILT}))
    gateway.configure(replace(RULES, needs={"tissue": takes}))
    gateway.receive(range(12), series="1.2.4", change=tilted)
    gateway.settle()
    assert gateway.records()[1]["state"] == "routed"


def test_slices_too_far_apart_for_the_model_are_refused_before_a_job_is_made(gateway: Gateway) -> None:
    gateway.receive(range(12), change=lambda n: {"ImagePositionPatient": ("0", "0", str(n * 20.0))})
    gateway.settle()
    record = gateway.record()
    assert (record["state"], record["decision"]["name"]) == ("refused", "SLICES_TOO_FAR_APART")
    assert record["verdict"]["verdict"] == "ACCEPTED", "it is a volume; the model does not take it"
    assert record["jobs"] == []


def test_without_a_readable_card_the_job_is_made_and_waits_for_the_worker(gateway: Gateway) -> None:
    gateway.configure(replace(RULES, needs={}))
    gateway.receive(range(12), change=tilted)
    gateway.settle()
    assert gateway.record()["state"] == "routed"


def receive_multi_frame(gateway: Gateway) -> None:
    """One enhanced image of twelve frames."""
    facts = ct_facts(0, ImagePositionPatient=(), SliceThickness=(), NumberOfFrames=("12",))
    frames = tuple(
        {"ImagePositionPatient": ("0", "0", str(n * 2.5)), "SliceThickness": ("2.5",)} for n in range(12)
    )
    header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2.1", "1.2.3.1", "1.2", "1.2.3", facts, frames)
    instance = NewInstance(header, "1.2.840.10008.1.2.1", "d", "d.dcm", 100, "ct1")
    gateway.journal.record_instance(instance, gateway.clock.now_s())


def test_frames_of_a_multi_frame_image_count_as_images(gateway: Gateway) -> None:
    receive_multi_frame(gateway)
    gateway.settle()
    record = gateway.record()
    assert record["verdict"]["shape"] == [12, 64, 48]
    assert record["decision"]["chosen"] == "ct-volumes"
    assert record["decision"]["routes"][0]["conditions"][2]["seen"] == "12"


def test_jobs_on_the_stacks_of_one_image_differ_in_their_digests(gateway: Gateway) -> None:
    facts = ct_facts(0, ImagePositionPatient=(), NumberOfFrames=("24",))
    frames = tuple(
        {"ImagePositionPatient": ("0", "0", str(n * 2.5)), "StackID": (stack,)}
        for stack in ("1", "2")
        for n in range(12)
    )
    header = InstanceHeader("1.2.840.10008.5.1.4.1.1.2.1", "1.2.3.1", "1.2", "1.2.3", facts, frames)
    instance = NewInstance(header, "1.2.840.10008.1.2.1", "d", "d.dcm", 100, "ct1")
    gateway.journal.record_instance(instance, gateway.clock.now_s())
    gateway.settle()
    jobs = gateway.record()["jobs"]
    assert len({job["part"] for job in jobs}) == len({job["input_digest"] for job in jobs}) == 2


def test_a_route_sees_the_facts_of_frames(gateway: Gateway) -> None:
    thin = Route("thin", parse_condition("SliceThickness", {"at_most": 3}), model="tissue")
    gateway.configure(replace(RULES, routes=(thin,)))
    receive_multi_frame(gateway)
    gateway.settle()
    record = gateway.record()
    assert (record["state"], record["decision"]["chosen"]) == ("routed", "thin")
    assert record["decision"]["routes"][0]["conditions"][0]["seen"] == "2.5"


def test_identity_that_old_records_lack_comes_from_the_instance_itself(gateway: Gateway) -> None:
    gateway.receive(range(1))
    (series,) = gateway.journal.receiving_series()
    (member,) = gateway.journal.members(series.id)
    facts = source_header(member).facts
    assert (facts["SOPClassUID"], facts["SOPInstanceUID"]) == ((CT_STORAGE,), ("1.2.3.0",))


def test_an_instance_that_schema_1_entered_is_read_again_and_stays_with_its_volume(gateway: Gateway) -> None:
    series = with_attributes(ct_series((14, 16, 16)), AcquisitionTime="101500")
    files = write_series(series, gateway.path.parent)
    for path in files:
        header = read_file(path, FACT_KEYWORDS | {"StudyInstanceUID", "SeriesInstanceUID"}).header
        sop_class, sop, study, series_uid = (
            header.facts[f"{name}UID"][0]
            for name in ("SOPClass", "SOPInstance", "StudyInstance", "SeriesInstance")
        )
        facts = {keyword: value for keyword, value in header.facts.items() if keyword in FACT_KEYWORDS}
        instance = NewInstance(
            InstanceHeader(sop_class, sop, study, series_uid, facts),
            "1.2.840.10008.1.2.1",
            sop,
            path.name,
            1,
            "ct1",
        )
        gateway.journal.record_instance(instance, gateway.clock.now_s())
    with sqlite3.connect(gateway.path) as old:
        old.execute(
            "UPDATE instance SET facts = json_remove(facts, '$.AcquisitionTime'), frames = NULL WHERE id % 2"
        )
    old.close()
    gateway.settle()
    record = gateway.record()
    assert record["verdict"]["shape"] == [14, 16, 16]
    assert [job["part"] for job in record["jobs"]] == [""]
