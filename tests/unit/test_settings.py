"""The configuration file: what is accepted, what it means, and how mistakes are shown."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import hypothesis
import pytest
from hypothesis import strategies as st
from pydantic import BaseModel

from ai.model import find_card
from ai.profile import DEFAULT_PROFILE, Profile
from gateway.completion import CompletionRules
from gateway.errors import ConfigurationError
from gateway.settings import Problem, Settings, SettingsError, load_settings
from gateway.settings.dicom import Tls
from gateway.settings.runtime import cards, completion_rules, profiles, routes
from gateway.settings.schema import schema_text
from gateway.settings.wiring import dispatch_settings, model_needs, sweep_rules, worker_settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "config" / "gateway.yaml"
ACCEPTANCE = ROOT / "tests" / "data" / "acceptance-gateway.yaml"
SHARED_ACCEPTANCE = ROOT.parent / "shared" / "acceptance" / "gateway.yaml"
VARIABLES = {
    "GW_DATA": "/srv/aigw",
    "GW_DICOM_PORT": "11112",
    "GW_PACS_PORT": "4242",
    "GW_HTTP_PORT": "8080",
    "GW_DEVICE": "cpu",
}
MINIMAL = "version: 1\ndata_dir: /srv/aigw\n"
COMPLETE = (
    MINIMAL
    + """\
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}
  pacs: {ae_title: ORTHANC, host: 127.0.0.1, port: 4242, roles: [destination]}
models:
  tissue: {card: ct-tissue}
"""
)


def load(text: str, tmp_path: Path, **environment: str) -> Settings:
    path = tmp_path / "gw.yaml"
    path.write_text(text, encoding="utf-8")
    return load_settings(path, environment, find_card)


def problems(text: str, tmp_path: Path, **environment: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path, **environment)
    return list(caught.value.details)


def only_problem(text: str, tmp_path: Path, **environment: str) -> Problem:
    found = problems(text, tmp_path, **environment)
    assert len(found) == 1, [str(each) for each in found]
    return found[0]


@pytest.mark.parametrize("path", [ACCEPTANCE, SHARED_ACCEPTANCE], ids=["copy", "shared"])
def test_the_acceptance_file_means_what_its_comments_say(path: Path) -> None:
    if not path.exists():
        pytest.skip(f"{path} is not here; its copy in tests/data is tested")
    settings = load_settings(path, VARIABLES, find_card)
    assert settings.data_dir == Path("/srv/aigw")
    assert settings.dicom.ae_title == "AIGW"
    assert (settings.dicom.listen.host, settings.dicom.listen.port) == ("127.0.0.1", 11112)
    assert settings.dicom.unknown_callers == "reject"
    assert settings.peers["scanner"].roles == ("source",)
    assert settings.peers["pacs"].port == 4242
    assert settings.peers["pacs"].roles == ("source", "destination", "query")
    assert (settings.completion.quiet_for, settings.completion.at_most) == (2.0, 900.0)
    assert settings.results.status == "live"
    assert settings.results.series_number_base == 9000
    assert settings.web.listen.port == 8080
    assert settings.workers.device == ("cpu",)
    first, second = routes(settings)
    assert [f"{c.name} {c.describe()}" for c in first.conditions] == [
        "Modality is CT",
        "ImageType lacks LOCALIZER",
        "instances at least 10",
    ]
    assert (first.model, first.send) == ("tissue", ("pacs",))
    assert (second.action, second.reason) == ("ignore", "No model for this kind of series")
    assert cards(settings) == {"tissue": "ct-tissue"}


def test_the_reference_loads_as_it_is_and_gives_the_defaults() -> None:
    settings = load_settings(REFERENCE, {"AIGW_DATA": "/srv/aigw"}, find_card)
    defaults = Settings.model_validate({"version": 1, "data_dir": "/srv/aigw"})
    given = ("peers", "models", "routes")
    assert settings.model_dump(exclude=set(given)) == defaults.model_dump(exclude=set(given))
    assert all(getattr(settings, name) for name in given)


def _setting_paths(model: type[BaseModel]) -> set[str]:
    """Every setting below a section; list items and named entries are searched too."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        found.add(name)
        for file, kind in re.findall(r"gateway\.settings\.(\w+)\.(\w+)", str(field.annotation)):
            module = import_module(f"gateway.settings.{file}")
            found |= {f"{name}.{below}" for below in _setting_paths(getattr(module, kind))}
    return found


def everything() -> str:
    """The reference with the settings in it that are commented out because they need files and secrets."""
    return re.sub(r"(?m)^( +)# (?=( *)[a-z_]+: )", r"\1", _with_bare_sections())


def _with_bare_sections() -> str:
    """``# tls:`` and the like, whose value is a section."""
    return re.sub(r"(?m)^( +)# (?=( *)[a-z_]+:($| +#))", r"\1", REFERENCE.read_text(encoding="utf-8"))


def test_what_is_commented_out_in_the_reference_loads_too(tmp_path: Path) -> None:
    settings = load(everything(), tmp_path, AIGW_DATA="/srv", CT1_TOKEN="x" * 20, CT1_PASSWORD="y" * 20)
    tls, ct1 = settings.dicom.tls, settings.peers["ct1"]
    assert tls is not None
    assert ct1.web is not None
    assert (tls.listen.port, ct1.certificate, ct1.web.token) == (2762, "CN=ct1,O=Clinic", "x" * 20)
    assert tls.key == tmp_path / "tls" / "gateway.key"
    defaults = Tls(certificate=tls.certificate, key=tls.key, authorities=tls.authorities)
    assert tls == defaults


def test_every_setting_stands_in_the_reference() -> None:
    from gateway.settings.document import parse

    document = parse(
        everything(), "gateway.yaml", {"AIGW_DATA": "/srv", "CT1_TOKEN": "x", "CT1_PASSWORD": "x"}
    )
    named = {"peers": 1, "models": 1, "routes": 1}
    written = set()
    for location in document.marks:
        keys = [
            str(step)
            for index, step in enumerate(location)
            if index == 0 or location[0] not in named or index > 1
        ]
        written.add(".".join(keys))
    expected = _setting_paths(Settings)
    assert "workers.heartbeat" in expected
    assert "peers.ae_title" in expected
    assert expected - written == set()


def test_the_published_schema_is_current() -> None:
    assert (ROOT / "config" / "schema.json").read_text(encoding="utf-8") == schema_text(), (
        "write it again: aigw config schema > config/schema.json"
    )


def test_a_minimal_file_gives_shadow_mode_and_rejects_strangers(tmp_path: Path) -> None:
    settings = load(MINIMAL, tmp_path)
    assert settings.results.status == "shadow"
    assert settings.dicom.unknown_callers == "reject"
    assert completion_rules(settings) == CompletionRules(quiet_for_s=30.0, at_most_s=900.0)


def test_an_unknown_setting_is_shown_with_its_place_and_the_closest_known_one(tmp_path: Path) -> None:
    text = MINIMAL + "dicom:\n  listen: {host: 0.0.0.0, port: 111120}\n  unkown_callers: reject\n"
    with pytest.raises(ConfigurationError) as caught:
        load(text, tmp_path)
    file = tmp_path / "gw.yaml"
    assert caught.value.problems == (
        f"{file}:4:27  dicom.listen.port: Input should be less than or equal to 65535\n"
        "     4 |   listen: {host: 0.0.0.0, port: 111120}\n"
        "       |                           ^",
        f'{file}:5:3  dicom.unkown_callers: unknown setting, did you mean "unknown_callers"?\n'
        "     5 |   unkown_callers: reject\n"
        "       |   ^",
    )


@pytest.mark.parametrize(
    ("addition", "line", "path", "message"),
    [
        ("compleation: {}", 8, "compleation", 'unknown setting, did you mean "completion"?'),
        ("completion: {quiet_fr: 2s}", 8, "completion.quiet_fr", 'did you mean "quiet_for"?'),
        ("completion: {quiet_for: 30}", 8, "completion.quiet_for", "number with its unit"),
        ("completion: {quiet_for: 2.5}", 8, "completion.quiet_for", "number with its unit"),
        ("completion: {quiet_for: 20m}", 8, "completion.quiet_for", "is longer than at_most (900 s)"),
        ("completion:", 8, "completion", "has no value"),
        ("completion: soon", 8, "completion", "must be a mapping of settings"),
        ("admission: {refuse_when_disk_over: 95}", 8, "admission.refuse_when_disk_over", "example 90%"),
        ("admission: {max_instance_size: 2 Gb}", 8, "admission.max_instance_size", "example 512MiB"),
        ("delivery: {factor: 0.5}", 8, "delivery.factor", "greater than or equal to 1"),
        ("workers: {max_attempts: true}", 8, "workers.max_attempts", "true and false are no values"),
        ("workers: {device: gpu}", 8, "workers.device", "auto, cpu, cuda or cuda:N"),
        ("workers: {device: [cuda:0, gpu]}", 8, "workers.device", "not 'gpu'"),
        ("workers: {device: []}", 8, "workers.device", "a list of devices"),
        ("workers: {device: [cuda:0, cuda:0]}", 8, "workers.device", "names a device twice"),
        ("workers: {device: [auto, cpu]}", 8, "workers.device", "auto is every GPU already"),
        ("workers: {deterministic: yes}", 8, "workers.deterministic", "must be true or false"),
        ("workers: {memory_limit: 500MiB}", 8, "workers.memory_limit", "at least 1GiB; 0 is no limit"),
        ("workers: {heartbeat: 20s}", 8, "workers.heartbeat", "must fit twice into lease (30 s)"),
        ("dicom: {ae_title: THIS_IS_LONGER_THAN_16}", 8, "dicom.ae_title", "1 to 16 printable"),
        ("dicom: {ae_title: 1234}", 8, "dicom.ae_title", "write it in quotes"),
        (
            "dicom: {unknown_callers: no}",
            8,
            "dicom.unknown_callers",
            "must be 'reject' or 'accept', not 'no'",
        ),
        ("dicom: {storage_classes: [CTImageStorag]}", 8, "dicom.storage_classes.0", "neither a UID nor"),
        ("dicom: {listen: {port: 80a}}", 8, "dicom.listen.port", "must be a whole number, not '80a'"),
        ("dicom: {listen: {port: 8080}}", 8, "web.listen.port", "already taken by dicom.listen"),
        ("version: 1", 8, "version", "is given twice; the first is in line 1"),
        ("web: !!python/object:os.system {}", 8, "web", "YAML tags"),
        ("model_dirs: /models", 8, "model_dirs", "must be a list"),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(
    addition: str, line: int, path: str, message: str, tmp_path: Path
) -> None:
    problem = only_problem(COMPLETE + addition + "\n", tmp_path)
    assert message in problem.message
    assert problem.path == path
    if path != "web.listen.port":  # it stands at its default, so it has no line of its own
        assert problem.line == line


@pytest.mark.parametrize(
    ("route", "path", "message"),
    [
        ("{name: a, model: tisue}", "routes.0.model", 'unknown model "tisue", did you mean "tissue"?'),
        (
            "{name: a, model: tissue, send: [pac]}",
            "routes.0.send.0",
            'unknown peer "pac", did you mean "pacs"?',
        ),
        (
            "{name: a, model: tissue, send: [scanner]}",
            "routes.0.send.0",
            "does not have the role destination",
        ),
        ("{name: a, model: tissue, send: [pacs, pacs]}", "routes.0.send.1", "named twice"),
        ("{name: a}", "routes.0", "needs a model, or action: ignore"),
        ("{model: tissue}", "routes.0.name", "this setting is required"),
        ("{name: a, action: ignore, model: tissue}", "routes.0.model", "runs nothing"),
        ("{name: a, modell: tissue, action: ignore}", "routes.0.modell", 'did you mean "model"?'),
        (
            "{name: a, model: tissue, when: {Modalty: CT}}",
            "routes.0.when.Modalty",
            'unknown attribute that routes can see "Modalty", did you mean "Modality"?',
        ),
        (
            "{name: a, model: tissue, when: {instances: {at_lest: 10}}}",
            "routes.0.when.instances.at_lest",
            'unknown operator "at_lest", did you mean "at_least"?',
        ),
        (
            '{name: a, model: tissue, when: {SeriesDescription: {matches: "(thorax"}}}',
            "routes.0.when.SeriesDescription.matches",
            "not a regular expression: missing ), unterminated subpattern",
        ),
    ],
)
def test_a_wrong_route_is_named_with_its_line(route: str, path: str, message: str, tmp_path: Path) -> None:
    problem = only_problem(COMPLETE + f"routes:\n  - {route}\n", tmp_path)
    assert message in problem.message
    assert problem.path == path
    assert problem.line == 9


def test_an_unknown_card_is_shown_with_its_place_and_the_closest_one(tmp_path: Path) -> None:
    problem = only_problem(MINIMAL + "models:\n  tissue: {card: ct-tisue}\n", tmp_path)
    assert (problem.line, problem.column, problem.path) == (4, 12, "models.tissue.card")
    assert "ct-tissue" in problem.message


def test_two_routes_of_one_name_and_an_unreachable_one_are_refused(tmp_path: Path) -> None:
    text = (
        COMPLETE
        + "routes:\n  - {name: a, action: ignore}\n  - {name: a, action: ignore, when: {Modality: CT}}\n"
    )
    found = problems(text, tmp_path)
    assert [(p.line, p.path) for p in found] == [(10, "routes.1.name"), (10, "routes.1.name")]
    assert 'another route is named "a" (line 9)' in found[1].message + found[0].message
    assert (
        'can never match: route "a" (line 9) comes first and takes every series'
        in found[1].message + found[0].message
    )


def test_all_problems_are_shown_at_once_in_order(tmp_path: Path) -> None:
    text = (
        "version: 1\n"
        "data_dir: ${NOWHERE}\n"
        "dicom: {ae_titel: X}\n"
        "peers:\n"
        "  pacs: {ae_title: P, host: h, roles: [destination]}\n"
        "routes:\n"
        "  - {name: a, model: gone, when: {Modality: {equals: CT}}}\n"
        "workers: {device: tpu}\n"
    )
    found = problems(text, tmp_path)
    assert [p.line for p in found] == [2, 3, 5, 7, 7, 8]
    assert [p.path for p in found][:3] == ["data_dir", "dicom.ae_titel", "peers.pacs"]
    assert "port is missing" in found[2].message


def test_a_missing_environment_variable_is_named_and_a_default_is_taken(tmp_path: Path) -> None:
    problem = only_problem("version: 1\ndata_dir: ${DATA}\n", tmp_path)
    assert problem.message == "environment variable DATA is not set"
    assert (problem.line, problem.column) == (2, 1)
    problem = only_problem("version: 1\ndata_dir: ${DATA}\n", tmp_path, DATA="")
    assert problem.message == "environment variable DATA is empty"
    assert load("version: 1\ndata_dir: ${DATA:-/var/lib/aigw}\n", tmp_path).data_dir == Path("/var/lib/aigw")


def test_text_from_the_environment_is_never_read_as_yaml(tmp_path: Path) -> None:
    text = COMPLETE + 'routes:\n  - {name: a, action: ignore, reason: "${REASON}"}\n'
    settings = load(text, tmp_path, REASON="x}\n- {name: evil, ${HOME}: true")
    assert settings.routes[0].reason == "x}\n- {name: evil, ${HOME}: true"
    assert len(settings.routes) == 1


def test_a_doubled_dollar_stands_for_itself(tmp_path: Path) -> None:
    text = COMPLETE + 'routes:\n  - {name: a, action: ignore, reason: "costs $${X}"}\n'
    assert load(text, tmp_path).routes[0].reason == "costs ${X}"


def test_only_true_and_false_are_booleans(tmp_path: Path) -> None:
    text = COMPLETE + "routes:\n  - {name: a, action: ignore, when: {BodyPartExamined: [no, off, y]}}\n"
    (condition,) = routes(load(text, tmp_path))[0].conditions
    assert condition.wanted == ("no", "off", "y")


def test_a_relative_data_folder_starts_at_the_file(tmp_path: Path) -> None:
    assert load("version: 1\ndata_dir: data\n", tmp_path).data_dir == tmp_path / "data"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (b"version: 1\ndicom: {ae_title: X\n", 2, "flow mapping (begun in line 2) expected"),
        (b"version: 1\ndicom:\n\tae_title: X\n", 3, "a tab; indent with spaces"),
        (b"version: 1\ndicom: {listen: {port: ${PORT}}}\n", 2, 'write "${NAME}" in quotes'),
        (b"version: 1\n---\nversion: 1\n", 2, "single document"),
        (b"version: 1\nname: \xff\n", 2, "not UTF-8"),
        (b"version: 1\nname: \x00\n", 2, "is not allowed"),
        (b"", 1, "the file is empty"),
        (b"- a\n- b\n", 1, "a configuration is a mapping"),
        (b"[" * 100_000, 1, "nested too deeply"),
        (b"a: " + b"x" * (1024 * 1024), 1, "larger than 1048576 bytes"),
        (
            b"a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + b"".join(
                b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 10)) for c in range(98, 110)
            ),
            1,
            "too many values",
        ),
    ],
    ids=[
        "open brace",
        "tab",
        "bare variable",
        "two documents",
        "latin-1",
        "nul",
        "empty",
        "list",
        "deep",
        "large",
        "bomb",
    ],
)
def test_a_file_that_is_no_configuration_is_refused_with_its_line(
    content: bytes, line: int, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "gw.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load_settings(path, {})
    assert message in caught.value.details[0].message
    assert caught.value.details[0].line == line


_FRAGMENTS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    "- ",
    "&a ",
    "*a",
    "<<: ",
    "${X}",
    "${",
    "!!int ",
    "\t",
    "\n",
    "null",
    "1e999",
]
_DAMAGE = st.tuples(st.integers(0, 1800), st.integers(0, 12), st.sampled_from(_FRAGMENTS))


def _outcome(path: Path) -> Settings | SettingsError:
    try:
        return load_settings(path, VARIABLES, find_card)
    except SettingsError as error:
        return error


@hypothesis.given(damages=st.lists(_DAMAGE, min_size=1, max_size=4))
@hypothesis.settings(max_examples=60)
def test_a_damaged_file_gives_settings_or_problems_with_a_place_and_nothing_else(
    damages: list[tuple[int, int, str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    text = ACCEPTANCE.read_text(encoding="utf-8")
    for place, removed, inserted in damages:
        text = text[:place] + inserted + text[place + removed :]
    path = tmp_path_factory.getbasetemp() / "damaged.yaml"
    path.write_text(text, encoding="utf-8")
    outcome = _outcome(path)
    if isinstance(outcome, SettingsError):
        assert outcome.details
        assert all(problem.line >= 1 and problem.column >= 1 for problem in outcome.details)
    else:
        assert outcome.version == 1


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory"):
        load_settings(tmp_path / "none.yaml", {})


def test_two_sources_that_cannot_be_told_apart_are_refused(tmp_path: Path) -> None:
    text = MINIMAL + (
        "peers:\n"
        "  a: {ae_title: CT, host: 10.0.0.1, roles: [source]}\n"
        "  b: {ae_title: CT, host: 10.0.0.1, roles: [source]}\n"
    )
    assert 'cannot be told from source "a"' in only_problem(text, tmp_path).message


def test_the_worker_is_told_its_memory_limit_and_the_sweeper_what_the_card_asks_for(tmp_path: Path) -> None:
    settings = load(f"{COMPLETE}workers: {{memory_limit: 16GiB}}\n", tmp_path)
    (worker,) = worker_settings(settings)
    assert worker.memory_limit_bytes == 16 * 2**30
    (worker,) = worker_settings(load(COMPLETE, tmp_path))
    assert worker.memory_limit_bytes is None
    accepts = find_card("ct-tissue").accepts
    needs = sweep_rules(settings).needs["tissue"]
    assert needs.minimum_slices == accepts.minimum_slices
    assert needs.maximum_slice_spacing_mm == accepts.maximum_slice_spacing_mm


def test_each_device_has_a_worker_with_a_scratch_folder_of_its_own(tmp_path: Path) -> None:
    added = "workers: {device: [cuda:0, cuda:1], deterministic: true, model_memory: 8GiB, step_timeout: 1m}\n"
    text = COMPLETE.replace("{card: ct-tissue}", "{card: ct-tissue, pinned: true}") + added
    first, second = worker_settings(load(text, tmp_path))
    assert (first.device, second.device) == ("cuda:0", "cuda:1")
    assert first.scratch != second.scratch
    assert (first.deterministic, first.model_memory_bytes, first.step_timeout_s) == (True, 8 * 2**30, 60.0)
    assert first.pinned == ("ct-tissue",)


def test_a_route_may_give_its_jobs_a_priority(tmp_path: Path) -> None:
    text = f"{COMPLETE}routes:\n  - {{name: a, when: {{}}, model: tissue, priority: urgent}}\n"
    assert [route.priority for route in routes(load(text, tmp_path))] == ["urgent"]
    assert "'normal'" in only_problem(text.replace("urgent", "stat"), tmp_path).message


def test_a_model_whose_card_is_gone_has_no_needs_and_its_jobs_wait_for_the_worker(tmp_path: Path) -> None:
    path = tmp_path / "gw.yaml"
    path.write_text(COMPLETE.replace("ct-tissue", "ct-gone"), encoding="utf-8")
    assert model_needs(load_settings(path, {})) == {}


PEERS = """\
peers:
  scanner: {{ae_title: SCANNER, host: 127.0.0.1, roles: [source]{source}}}
  pacs:
    ae_title: ORTHANC
    host: 127.0.0.1
    port: 4242
    roles: [destination]
    results: {{{pacs}}}
"""


def with_results(pacs: str, source: str = "") -> str:
    return MINIMAL + PEERS.format(pacs=pacs, source=source)


def test_a_destination_without_settings_gets_the_default_profile(tmp_path: Path) -> None:
    found = profiles(load(COMPLETE, tmp_path))
    assert found.of("pacs") == DEFAULT_PROFILE
    assert found.of("pacs").key == ""
    assert found.of("a peer of yesterday") == DEFAULT_PROFILE


def test_every_setting_of_a_profile_arrives(tmp_path: Path) -> None:
    text = with_results(
        "segmentation: label_map, compression: jpeg_ls, max_frames: 2000, max_segments: 100, "
        "when_over: label_map, absent: report, report: false, overview: false, rtstruct: true"
    )
    settings = load(text, tmp_path)
    expected = Profile("label_map", "jpeg_ls", 2000, 100, "label_map", "report", False, False, True)
    assert profiles(settings).of("pacs") == expected
    assert dispatch_settings(settings, tmp_path, tmp_path).sending.profiles.of("pacs") == expected
    assert sweep_rules(settings).profiles.of("pacs") == expected


def test_binary_segmentations_cannot_be_compressed(tmp_path: Path) -> None:
    problem = only_problem(with_results("max_frames: 10, compression: rle"), tmp_path)
    assert (problem.line, problem.column, problem.path) == (10, 31, "peers.pacs.results.compression")
    assert problem.message.startswith("rle cannot compress binary segmentations")
    assert str(problem).startswith(f"{tmp_path}/gw.yaml:10:31  peers.pacs.results.compression: ")
    assert load(with_results("compression: rle, segmentation: fractional"), tmp_path)
    assert load(with_results("compression: rle, when_over: label_map, max_frames: 10"), tmp_path), (
        "what is over the limit becomes a label map, which can be compressed"
    )
    only_problem(with_results("compression: rle, when_over: label_map"), tmp_path)
    wrong = only_problem(with_results("segmentation: labelmap, compression: rle"), tmp_path)
    assert wrong.path == "peers.pacs.results.segmentation", "what it should be is not known"


def test_only_destinations_have_a_profile(tmp_path: Path) -> None:
    problem = only_problem(with_results("report: true", ", results: {report: false}"), tmp_path)
    assert problem.path == "peers.scanner.results"
    assert "does not have the role destination" in problem.message


@pytest.mark.parametrize(
    ("given", "path", "said"),
    [
        ("segmentation: labelmap", "segmentation", "must be 'binary', 'label_map' or 'fractional'"),
        ("compression: jpeg2000", "compression", "must be 'none', 'rle' or 'jpeg_ls'"),
        ("max_frames: -1", "max_frames", "greater than or equal to 0"),
        ("max_segments: many", "max_segments", "must be a whole number"),
        ("report: 1", "report", "must be true or false, without quotes"),
        ("overveiw: true", "overveiw", 'did you mean "overview"?'),
    ],
)
def test_mistakes_in_a_profile_are_found_at_their_place(
    tmp_path: Path, given: str, path: str, said: str
) -> None:
    problem = only_problem(with_results(given), tmp_path)
    assert (problem.line, problem.path) == (10, f"peers.pacs.results.{path}")
    assert said in problem.message


def test_what_is_sent_when_nothing_was_found_or_a_job_failed_is_a_setting(tmp_path: Path) -> None:
    sending = dispatch_settings(load(MINIMAL, tmp_path), tmp_path, tmp_path).sending
    assert (sending.nothing_found, sending.failures, sending.failed_quality) == (True, False, False)
    text = MINIMAL + "results: {send_when_nothing_found: false, send_when_failed: true}\n"
    sending = dispatch_settings(load(text, tmp_path), tmp_path, tmp_path).sending
    assert (sending.nothing_found, sending.failures) == (False, True)
