"""``aigw study``: the whole story of a series, told from the records that were made at the time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from ai.geometry import Needs
from ai.profile import Profile
from gateway.cli.app import run
from gateway.cli.study_view import print_list, story, summary
from gateway.completion import CompletionRules
from gateway.header import InstanceHeader
from gateway.journal import Journal, JournalReader
from gateway.journal.decide import Person
from gateway.journal.profiles import Profiles
from gateway.journal.records import Duplicates, Failure, NewInstance, NewResult, Receipt
from gateway.routing import Priority, Route, parse_condition
from gateway.states import JobEvent
from gateway.sweep import Sweeper, SweepRules

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
CT_SERIES = "1.2.826.0.1.111.4711"
SCOUT_SERIES = "1.2.826.0.1.111.4822"
STUDY = "1.2.826.0.1.100.9001"
CONFIG = """\
version: 1
data_dir: {folder}
peers: {{pacs: {{ae_title: PACS, host: 127.0.0.1, port: 4242, roles: [destination]}}}}
results: {{status: live}}
"""


class StandingClock:
    """A clock that a test sets."""

    at_s = 1_790_000_000.0

    def now_s(self) -> float:
        return self.at_s

    def monotonic_s(self) -> float:
        return self.at_s


class Site:
    """A gateway's data folder, with a journal that the tests fill through its real methods."""

    def __init__(self, folder: Path, priority: Priority = "normal") -> None:
        self.config = folder / "gw.yaml"
        self.config.write_text(CONFIG.format(folder=folder), encoding="utf-8")
        self.journal = Journal(folder / "journal.db")
        self.clock = StandingClock()
        conditions = (*parse_condition("Modality", "CT"), *parse_condition("instances", {"at_least": 10}))
        routes = (
            Route("ct-volumes", conditions, model="tissue", send=("pacs",), priority=priority),
            Route("everything-else", action="ignore", reason="No model for this kind of series"),
        )
        cards, needs = {"tissue": "ct-tissue"}, {"tissue": Needs()}
        rules = SweepRules(CompletionRules(30.0, 900.0), routes, cards, needs, live=True)
        log = structlog.get_logger()
        self.sweeper = Sweeper(self.journal, folder, lambda _source: 0, rules, self.clock, log)

    def receive(self, series: str, count: int, description: str = "Thorax 2.5") -> None:
        for n in range(count):
            self.receive_slice(series, n, SeriesDescription=(description,))

    def receive_phase(self, phase: int, slices: range) -> None:
        for n in slices:
            self.receive_slice(CT_SERIES, n, f"{phase}.", TemporalPositionIdentifier=(str(phase),))

    def receive_slice(self, series: str, n: int, branch: str = "", **more: tuple[str, ...]) -> None:
        facts = {
            "Modality": ("CT",),
            "Rows": ("64",),
            "Columns": ("48",),
            "ImagePositionPatient": ("0", "0", str(n * 2.5)),
            "ImageOrientationPatient": ("1", "0", "0", "0", "1", "0"),
            "PixelSpacing": ("0.7", "0.9"),
            "FrameOfReferenceUID": ("1.2.9",),
            **more,
        }
        name = f"{series}.{branch}{n}"
        header = InstanceHeader(CT_STORAGE, name, STUDY, series, facts)
        self.journal.record_instance(
            NewInstance(header, EXPLICIT, name, f"{name}.dcm", 100, "ct1"), self.clock.now_s()
        )

    def decide(self) -> None:
        self.clock.at_s += 31.0
        self.sweeper.sweep_once()

    def run_job(self) -> None:
        """One failed attempt, then a result, then one failed delivery."""
        now = self.clock.now_s()
        job = self.journal.claim_job("lease-1", now + 60, now)
        assert job is not None
        failure = Failure("WORKER_LOST", "The worker ended without an answer.")
        self.journal.requeue_job(job, JobEvent.RETRYABLE_ERROR, failure, now, now)
        job = self.journal.claim_job("lease-2", now + 60, now)
        assert job is not None
        seg = NewResult("seg", "1.2.840.10008.5.1.4.1.1.66.4", "2.25.77", "2.25.88", EXPLICIT, "p", "d", 9)
        self.journal.finish_job(job, [seg], {}, now)
        delivery = self.journal.claim_delivery("pacs", now)
        assert delivery is not None
        failure = Failure("PEER_UNREACHABLE", "pacs does not answer at 127.0.0.1:4242.")
        self.journal.delivery_postponed(delivery, failure, now + 10, now)


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Its route has the priority that a test asks for."""
    site = Site(tmp_path, getattr(request, "param", "normal"))
    yield site
    site.journal.close()


@pytest.fixture
def aigw(site: Site, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()  # the sweeper's log
        given: Sequence[str] = ["study", *arguments, "--config", str(site.config)]
        with pytest.raises(SystemExit) as caught:
            run(given)
        out, err = capsys.readouterr()
        return int(caught.value.code or 0), out, err

    return call


Aigw = Callable[..., tuple[int, str, str]]


def _filled(site: Site) -> None:
    site.receive(SCOUT_SERIES, 2, "Topogram 0.6")
    site.receive(CT_SERIES, 12)
    site.decide()
    site.run_job()


def _explained(aigw: Aigw, uid: str) -> list[dict[str, Any]]:
    code, out, _ = aigw("explain", uid, "--json")
    assert code == 0
    stories: list[dict[str, Any]] = json.loads(out)["series"]
    return stories


def test_the_list_has_one_row_for_each_series(site: Site, aigw: Aigw) -> None:
    _filled(site)
    code, out, _ = aigw("list")
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith("…")]
    assert len(rows) == 2
    assert all(word in rows[0] for word in ("…111.4822", "Topogram 0.6", "ct1", "unmatched", "ROUTE_IGNORES"))
    assert all(word in rows[1] for word in ("…111.4711", "12", "routed", "done", "seg", "1 pending"))


def test_the_list_is_one_object_for_programs(site: Site, aigw: Aigw) -> None:
    _filled(site)
    code, out, _ = aigw("list", "--json")
    rows = json.loads(out)["series"]
    assert code == 0
    assert [row["series_instance_uid"] for row in rows] == [SCOUT_SERIES, CT_SERIES]
    assert rows[1]["deliveries"] == {"pending": 1}
    assert rows[1]["results"] == ["seg"]
    assert rows[0]["results"] == []


def test_explain_tells_why_a_series_was_not_processed(site: Site, aigw: Aigw) -> None:
    _filled(site)
    code, out, _ = aigw("explain", "4822")
    assert code == 0
    assert "2 instances from ct1" in out
    assert "2 instances; quiet for 31.0 s, no open association from ct1." in out
    assert "ct-volumes: not matched" in out
    assert "ok      Modality is CT" in out
    assert "FAILED  instances at least 10" in out
    assert "seen: 2" in out
    assert "everything-else: matched (no conditions)" in out
    assert "No model for this kind of series" in out
    assert "Nearest miss: route ct-volumes, 1 of 2 conditions failed" in out


def test_explain_tells_attempts_results_and_deliveries_in_order(site: Site, aigw: Aigw) -> None:
    _filled(site)
    code, out, _ = aigw("explain", CT_SERIES)
    assert code == 0
    steps = [
        "arrived",
        "complete",
        "ACCEPTED: One regular volume: 12 slices",
        "ct-volumes: matched",
        "ROUTE_MATCHED: Route ct-volumes: run model tissue, send results to pacs.",
        "model tissue (card ct-tissue): done, 2 attempts",
        "WORKER_LOST: The worker ended without an answer.",
        "SOP Instance 2.25.77, series 2.25.88",
        "to pacs: pending, 1 attempt, next at",
        "PEER_UNREACHABLE: pacs does not answer at 127.0.0.1:4242.",
    ]
    places = [out.index(step) for step in steps]
    assert places == sorted(places)


@pytest.mark.parametrize("site", ["urgent"], indirect=True)
def test_explain_tells_that_a_job_is_urgent_and_which_model_it_waits_for(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    site.decide()
    reason = "The model ct-tissue failed on 3 different series."
    site.journal.hold_cards({"ct-tissue": Failure("MODEL_SWITCHED_OFF", reason)}, site.clock.now_s())
    _, out, _ = aigw("explain", CT_SERIES)
    assert f"queued, urgent, 0 attempts; waits: MODEL_SWITCHED_OFF: {reason}" in out
    (story,) = _explained(aigw, CT_SERIES)
    assert story["decision"]["parts"][0]["priority"] == "urgent"
    assert story["jobs"][0]["hold_name"] == "MODEL_SWITCHED_OFF"


def test_explain_gives_the_same_records_to_programs(site: Site, aigw: Aigw) -> None:
    _filled(site)
    (story,) = _explained(aigw, "4711")
    assert story["verdict"]["shape"] == [12, 64, 48]
    assert story["decision"]["routes"][0]["conditions"][1]["seen"] == "12"
    assert story["jobs"][0]["results"][0]["deliveries"][0]["failure_name"] == "PEER_UNREACHABLE"


def test_explain_of_a_study_tells_all_of_its_series(site: Site, aigw: Aigw) -> None:
    _filled(site)
    assert [s["series_instance_uid"] for s in _explained(aigw, STUDY)] == [SCOUT_SERIES, CT_SERIES]


def test_a_series_that_is_still_receiving_says_so(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 3)
    code, out, _ = aigw("explain", CT_SERIES)
    assert code == 0
    assert "not yet: instances may still arrive" in out
    assert "not decided yet" in aigw("show", CT_SERIES)[1]


def test_a_conflicting_duplicate_is_part_of_the_story(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    header = InstanceHeader(CT_STORAGE, f"{CT_SERIES}.3", STUDY, CT_SERIES, {})
    other = NewInstance(header, EXPLICIT, "other-bytes", "other.dcm", 100, "ct1")
    site.journal.record_instance(other, site.clock.now_s())
    site.decide()
    assert f"SOP Instance {CT_SERIES}.3 arrived again with other bytes" in aigw("explain", "4711")[1]
    (story,) = _explained(aigw, "4711")
    assert story["conflicts"][0]["digest"] == "other-bytes"


def _again(site: Site, number: int, digest: str, rule: Duplicates = Duplicates.KEEP_FIRST) -> Receipt:
    header = InstanceHeader(CT_STORAGE, f"{CT_SERIES}.{number}", STUDY, CT_SERIES, {"Modality": ("CT",)})
    other = NewInstance(header, EXPLICIT, digest, f"{digest}.dcm", 100, "ct1")
    return site.journal.record_instance(other, site.clock.now_s(), rule)


def test_a_series_that_is_sent_twice_is_told_to_be_counted(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    assert "copies" not in aigw("explain", "4711")[1]
    site.receive(CT_SERIES, 12)
    for verb in ("explain", "show"):
        told = " ".join(aigw(verb, "4711")[1].split())
        assert "the same bytes arrived again for 12 instances, 12 times in all: counted" in told
    (story,) = _explained(aigw, "4711")
    assert (story["instances"], story["copies"]) == (12, {"instances": 12, "times": 12})


def test_replaced_bytes_are_told_in_the_revision_that_has_the_new_ones(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    site.decide()
    assert _again(site, 3, "d" * 64, Duplicates.NEW_REVISION) is Receipt.REPLACED
    site.decide()
    first, second = _explained(aigw, "4711")
    assert (first["conflicts"], len(second["conflicts"])) == ([], 1)
    told = " ".join(aigw("explain", "4711")[1].split())
    assert "the new ones are used from revision 2 on (admission.duplicates: new-revision)." in told
    assert "used until others took their place" in told


def test_refused_bytes_are_told_with_the_series_that_they_are_not_in(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    assert _again(site, 3, "d" * 64, Duplicates.REFUSE) is Receipt.REFUSED
    assert "they were refused (admission.duplicates: refuse)." in " ".join(aigw("explain", "4711")[1].split())


def test_a_damaged_file_is_told_until_it_is_whole(site: Site, aigw: Aigw) -> None:
    _again(site, 1, "d" * 64)
    site.journal.quarantine(f"{'d' * 64}.dcm", "Its SHA-256 is another one.", site.clock.now_s())
    assert f"SOP Instance {CT_SERIES}.1: Its SHA-256 is another one." in aigw("show", "4711")[1]
    site.journal.heal(f"{'d' * 64}.dcm", "Restored.", site.clock.now_s())
    assert "another one" not in aigw("show", "4711")[1]


def test_a_refusal_tells_how_often_and_what_the_other_side_has_to_do(site: Site, aigw: Aigw) -> None:
    details = {"source": "OLDPACS", "address": "10.0.0.7", "count": 37, "advice": "Call AIGW\x1b, not AIGW1."}
    site.journal.record("association", "CALLED_AE_UNKNOWN", "It called AIGW1.", site.clock.now_s(), details)
    _, out, _ = aigw("explain", "--refusals")
    assert "CALLED_AE_UNKNOWN (37 times): It called AIGW1." in out
    assert "from: OLDPACS at 10.0.0.7" in out
    assert "tell its administrator: Call AIGW\N{REPLACEMENT CHARACTER}, not AIGW1." in out
    _, out, _ = aigw("explain", "--refusals", "--json")
    assert json.loads(out)["refusals"][0]["details"] == details


def test_events_of_the_gateway_itself_push_no_refusal_out_of_the_list(site: Site, aigw: Aigw) -> None:
    site.journal.record("association", "CALLED_AE_UNKNOWN", "It called AIGW1.", 1.0)
    for _ in range(5):
        site.journal.record("gateway", "MODEL_RUNS_AGAIN", "It does.", 2.0)
    assert "CALLED_AE_UNKNOWN" in aigw("explain", "--refusals", "--limit", "2")[1]


def test_show_gives_the_state_and_the_identity_of_the_results(site: Site, aigw: Aigw) -> None:
    _filled(site)
    code, out, _ = aigw("show", "4711")
    assert code == 0
    assert "SOP Instance 2.25.77" in out
    assert "series 2.25.88" in out
    assert "WORKER_LOST: " not in out


def test_refusals_are_explained_without_a_uid(site: Site, aigw: Aigw) -> None:
    reason = "'STRANGER' at 10.0.0.9 is not a configured peer."
    site.journal.record("association", "CALLING_AE_TITLE_NOT_RECOGNISED", reason, site.clock.now_s())
    site.journal.record("gateway", "started", "The gateway started.", site.clock.now_s())
    code, out, _ = aigw("explain")
    assert code == 0
    assert out.count("\n") == 1
    assert f"association  CALLING_AE_TITLE_NOT_RECOGNISED: {reason}" in out
    _, out, _ = aigw("explain", "--refusals", "--json")
    assert [r["name"] for r in json.loads(out)["refusals"]] == ["CALLING_AE_TITLE_NOT_RECOGNISED"]


@pytest.mark.parametrize(
    ("was", "now", "said"),
    [
        ("roles: [destination]", "roles: [query]", "no peer pacs with the role destination"),
        ("status: live", "status: shadow", "results.status is shadow"),
    ],
)
def test_a_delivery_that_the_configuration_holds_back_says_why(
    site: Site, aigw: Aigw, was: str, now: str, said: str
) -> None:
    _filled(site)
    site.config.write_text(site.config.read_text().replace(was, now))
    for verb in ("show", "explain"):
        code, out, _ = aigw(verb, CT_SERIES)
        assert code == 0
        assert f"held: {said}" in out.replace("the configuration has ", "")
    (job,) = _explained(aigw, CT_SERIES)[0]["jobs"]
    assert said in job["results"][0]["deliveries"][0]["held"]


def test_the_list_fits_into_a_narrow_terminal(site: Site) -> None:
    _filled(site)
    reader = JournalReader(site.config.parent / "journal.db")
    rows = [summary(story(reader, record)) for record in reader.series()]
    reader.close()
    out = io.StringIO()
    print_list(rows, Console(file=out, width=80))
    assert all(word in out.getvalue() for word in ("…111.4711", "CT", "ROUTE_IGNORES", "done", "1 pending"))
    assert "…\n" not in out.getvalue()


def test_an_unknown_uid_exits_5_and_an_ambiguous_one_lists_the_candidates(site: Site, aigw: Aigw) -> None:
    site.receive("1.2.3.17", 1)
    site.receive("1.2.4.17", 1)
    code, _, err = aigw("show", "999")
    assert code == 5
    assert "NOT_FOUND: No study or series has a UID that ends in '999'." in err
    code, _, err = aigw("show", "17")
    assert code == 2
    assert "AMBIGUOUS: 2 UIDs end in '17'" in err
    assert "series  1.2.3.17" in err
    assert "series  1.2.4.17" in err
    assert aigw("show", "3.17")[0] == 0


def test_without_a_journal_it_is_said_that_the_gateway_has_not_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "gw.yaml"
    config.write_text(CONFIG.format(folder=tmp_path / "nothing"), encoding="utf-8")
    with pytest.raises(SystemExit) as caught:
        run(["study", "list", "--config", str(config)])
    assert caught.value.code == 5
    assert "NO_JOURNAL: There is no journal at" in capsys.readouterr().err


def test_escape_sequences_of_a_header_do_not_reach_the_terminal(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12, "Thorax\x1b[2J[bold]x")
    site.decide()
    for verb in (("list",), ("show", "4711"), ("explain", "4711")):
        _, out, _ = aigw(*verb)
        assert "\x1b" not in out
        assert "Thorax�[2J[bold]x" in out


def test_a_long_outage_does_not_flood_the_explanation(site: Site, aigw: Aigw) -> None:
    _filled(site)
    for _ in range(30):
        site.clock.at_s += 60
        delivery = site.journal.claim_delivery("pacs", site.clock.at_s)
        assert delivery is not None
        down = Failure("PEER_UNREACHABLE", "nobody listens")
        site.journal.delivery_postponed(delivery, down, site.clock.at_s, site.clock.at_s)
    _, out, _ = aigw("explain", CT_SERIES)
    assert out.count("nobody listens") == 3  # the state, and two of the last events
    assert "… 55 more events, all of them with --json …" in out
    assert out.count("claimed: Attempt 31 to pacs.") == 1


def test_what_a_person_decided_is_never_left_out(site: Site, aigw: Aigw) -> None:
    _filled(site)
    for reason in ("first", "second", "third"):
        for _ in range(5):
            site.clock.at_s += 60
            delivery = site.journal.claim_delivery("pacs", site.clock.at_s)
            assert delivery is not None
            down = Failure("PEER_UNREACHABLE", "nobody listens")
            site.journal.delivery_postponed(delivery, down, site.clock.at_s, site.clock.at_s)
        site.clock.at_s += 60
        delivery = site.journal.claim_delivery("pacs", site.clock.at_s)
        assert delivery is not None
        site.journal.delivery_dead(delivery, Failure("REFUSED", "0xA900"), site.clock.at_s)
        site.journal.resend_results(1, Person("a.huber", reason), site.clock.at_s)
    _, out, _ = aigw("explain", CT_SERIES)
    assert "more events, all of them with --json" in out
    assert [out.count(f"by a.huber: {reason}") >= 2 for reason in ("first", "second", "third")] == [True] * 3


def test_an_old_revision_points_to_the_new_one(site: Site, aigw: Aigw) -> None:
    site.receive(CT_SERIES, 12)
    site.decide()
    site.receive(CT_SERIES, 13)
    site.decide()
    _, out, _ = aigw("show", CT_SERIES)
    headings = [line for line in out.splitlines() if line.startswith("Series")]
    assert headings[0].endswith("revision 1 (later instances made revision 2, see below)")
    assert headings[1].endswith("revision 2")
    assert [s["newest_revision"] for s in _explained(aigw, CT_SERIES)] == [2, 2]


def test_the_story_of_a_series_of_two_phases_is_told_part_by_part(site: Site, aigw: Aigw) -> None:
    site.receive_phase(1, range(12))
    site.receive_phase(2, range(12))
    site.decide()
    site.run_job()
    _, out, _ = aigw("explain", CT_SERIES)
    (story,) = _explained(aigw, CT_SERIES)
    labels = [part["label"] for part in story["verdict"]["parts"]]
    steps = [
        "ACCEPTED SPLIT: 2 parts",
        f"part 1     {labels[0]} (12 images)",
        "ROUTE_MATCHED: Route ct-volumes",
        f"part 2     {labels[1]} (12 images)",
        f"{labels[0]}: model tissue (card ct-tissue): done",
        f"{labels[1]}: model tissue (card ct-tissue): queued",
    ]
    places = [out.index(step) for step in steps]
    assert places == sorted(places)
    assert [job["part"] for job in story["jobs"]] == [part["key"] for part in story["decision"]["parts"]]
    _, out, _ = aigw("list")
    assert "ROUTE_MATCHED (2 parts)" in out
    assert "1 done, 1 queued" in out
    _, out, _ = aigw("show", CT_SERIES)
    assert f"{labels[0]}: model tissue (card ct-tissue): done" in out


def test_a_job_that_a_later_revision_took_over_is_said_in_the_story_of_the_older_one(
    site: Site, aigw: Aigw
) -> None:
    site.receive_phase(1, range(12))
    site.receive_phase(2, range(12))
    site.decide()
    site.receive_phase(2, range(12, 13))
    site.decide()
    _, out, _ = aigw("explain", CT_SERIES)
    assert "is taken over by revision 2: the same instances in part" in out


LABEL_MAP = Profile(segmentation="label_map", compression="rle")
SEGMENTS = [
    {"label": "Left lung", "found": True, "verdict": "PASS", "reasons": []},
    {
        "label": "Liver",
        "found": True,
        "verdict": "SUSPECT",
        "reasons": ["Liver has 3 mL.", "It is in 9 pieces."],
    },
]


def _finish(site: Site, run: dict[str, Any], *profiles: Profile, hold: Failure | None = None) -> None:
    site.receive(CT_SERIES, 12)
    site.decide()
    now = site.clock.now_s()
    job = site.journal.claim_job("lease", now + 60, now)
    assert job is not None
    keys = tuple(profile.key for profile in profiles)
    seg = NewResult("seg", "1.2", "2.25.77", "2.25.88", EXPLICIT, "p", "d", 9, 1, keys or ("",))
    wanted = Profiles({"pacs": profiles[0]} if profiles else {})
    site.journal.finish_job(job, [seg], run, now, hold, wanted)


def test_explain_tells_the_verdict_on_each_segment_and_why(site: Site, aigw: Aigw) -> None:
    _finish(site, {"segments": SEGMENTS})
    _, out, _ = aigw("explain", CT_SERIES)
    assert "quality    segments: 1 PASS, 1 SUSPECT" in out
    assert "Liver: SUSPECT: Liver has 3 mL. It is in 9 pieces." in out
    assert "Left lung" not in out
    (story,) = _explained(aigw, CT_SERIES)
    assert story["jobs"][0]["run"]["segments"] == SEGMENTS


def test_explain_tells_the_findings_of_runs_that_have_no_verdict_on_segments(site: Site, aigw: Aigw) -> None:
    finding = {"structures": ["liver", "spleen"], "verdict": "PARTIAL", "reason": "They touch the border."}
    _finish(site, {"segments": [{"label": "Liver"}], "quality": [finding, {**finding, "verdict": "PASS"}]})
    _, out, _ = aigw("explain", CT_SERIES)
    assert out.count("liver, spleen: PARTIAL: They touch the border.") == 1


def test_explain_tells_what_of_a_result_is_not_as_its_destination_wants_it(site: Site, aigw: Aigw) -> None:
    note = "RESULT_OVER_LIMIT: Body alone has 3 frames, and the destination takes 2."
    _finish(site, {"results": [{"sop_instance_uid": "2.25.77", "notes": [note]}]})
    assert note in aigw("explain", CT_SERIES)[1]


def test_explain_says_by_name_that_results_are_kept_because_nothing_was_found(site: Site, aigw: Aigw) -> None:
    _finish(site, {}, hold=Failure("NOTHING_FOUND", "None of the 5 structures was found."))
    for verb in ("show", "explain"):
        assert "done, 1 attempt; NOTHING_FOUND: None of the 5 structures" in aigw(verb, CT_SERIES)[1]


def test_explain_tells_what_is_special_about_the_profile_of_a_result(site: Site, aigw: Aigw) -> None:
    _finish(site, {}, LABEL_MAP)
    _, out, _ = aigw("explain", CT_SERIES)
    assert "series 2.25.88, profile segmentation label_map, compression rle" in out
    (story,) = _explained(aigw, CT_SERIES)
    assert story["jobs"][0]["results"][0]["profiles"] == [LABEL_MAP.key]
    assert story["jobs"][0]["profiles"][LABEL_MAP.key]["segmentation"] == "label_map"


def test_explain_tells_of_the_report_of_a_failure_and_the_list_counts_the_run_alone(
    site: Site, aigw: Aigw
) -> None:
    site.receive(CT_SERIES, 12)
    site.decide()
    now = site.clock.now_s()
    job = site.journal.claim_job("lease", now + 60, now)
    assert job is not None
    site.journal.fail_job(job, Failure("WORKER_DIED", "signal 9"), now, Profiles())
    _, out, _ = aigw("explain", CT_SERIES)
    assert "model tissue (card ct-tissue): failed, 1 attempt; WORKER_DIED: signal 9" in out
    assert "report that model tissue (card ct-tissue) has failed: queued, 0 attempts" in out
    assert "results.send_when_failed: pacs will be told that job 1 has failed." in out
    rows = json.loads(aigw("list", "--json")[1])["series"]
    assert rows[0]["job"] == "failed"
