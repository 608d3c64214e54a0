"""Values that ``aigw check`` must not let pass, because the gateway could not work with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Problem, Settings, SettingsError, load_settings

HEAD = "version: 1\ndata_dir: /srv/aigw\n"


def load(text: str, tmp_path: Path) -> tuple[Settings, list[Problem]]:
    path = tmp_path / "gw.yaml"
    path.write_text(text, encoding="utf-8")
    warnings: list[Problem] = []
    return load_settings(path, {}, warnings=warnings), warnings


def problems(text: str, tmp_path: Path) -> list[tuple[str, str]]:
    with pytest.raises(SettingsError) as caught:
        load(text, tmp_path)
    return [(each.path, each.message) for each in caught.value.details]


@pytest.mark.parametrize(
    ("section", "setting", "value", "said"),
    [
        ("dicom", "association_timeout", "25d", "at most 1d"),
        ("dicom", "association_timeout", "0s", "more than 0"),
        ("dicom", "idle_timeout", "0s", "more than 0"),
        ("dicom", "idle_timeout", "25d", "at most 1d"),
        ("dicom", "max_pdu", "8GiB", "between 4KiB and 1GiB"),
        ("dicom", "max_pdu", "100", "between 4KiB and 1GiB"),
        ("admission", "max_instance_size", "0", "more than 0"),
        ("admission", "max_instance_size", "9" * 400 + "GiB", "too large"),
        ("admission", "keep_free", "9" * 20, "at most 1048576GiB"),
        ("storage", "verify_rate", "9" * 9 + "GiB", "at most 1048576GiB"),
        ("completion", "at_most", "9999999d", "at most 3650d"),
        ("completion", "at_most", "9" * 400 + "d", "too large"),
        ("delivery", "first_retry", "0s", "more than 0"),
        ("delivery", "timeout", "0s", "more than 0"),
        ("delivery", "give_up_after", "9999999d", "at most 3650d"),
        ("delivery", "factor", "1e300", "less than or equal to 1000"),
        ("commitment", "give_up_after", "9999999d", "at most 3650d"),
        ("workers", "job_timeout", "0s", "more than 0"),
        ("workers", "lease", "9999999d", "at most 1d"),
        ("workers", "step_timeout", "0s", "more than 0"),
    ],
)
def test_a_value_out_of_bounds_is_named(
    tmp_path: Path, section: str, setting: str, value: str, said: str
) -> None:
    ((path, message),) = problems(f"{HEAD}{section}: {{{setting}: {value}}}\n", tmp_path)
    assert path == f"{section}.{setting}"
    assert said in message


@pytest.mark.parametrize(("value", "said"), [("0s", "more than 0"), ("25d", "at most 1d")])
def test_a_client_has_some_time_between_its_bytes(tmp_path: Path, value: str, said: str) -> None:
    ((path, message),) = problems(f"{HEAD}web: {{stow: {{idle_timeout: {value}}}}}\n", tmp_path)
    assert (path, said in message) == ("web.stow.idle_timeout", True)


def test_a_drain_has_an_end_and_may_take_no_time(tmp_path: Path) -> None:
    ((path, message),) = problems(f"{HEAD}drain_timeout: 9999999d\n", tmp_path)
    assert (path, message) == ("drain_timeout", "must be at least 0 and at most 1d")
    assert load(f"{HEAD}drain_timeout: 0s\n", tmp_path)[0].drain_timeout == 0.0


@pytest.mark.parametrize(("value", "expected"), [("0", 0), ("4KiB", 4096), ("1GiB", 2**30)])
def test_the_length_of_a_pdu_may_be_unlimited_or_within_its_bounds(
    tmp_path: Path, value: str, expected: int
) -> None:
    assert load(f"{HEAD}dicom: {{max_pdu: {value}}}\n", tmp_path)[0].dicom.max_pdu == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [("~/data", "${HOME}"), ('""', "must name"), ('" "', "must name"), ('"a\\0b"', "must name")],
)
def test_a_path_names_something(tmp_path: Path, value: str, said: str) -> None:
    ((path, message),) = problems(f"version: 1\ndata_dir: {value}\n", tmp_path)
    assert (path, said in message) == ("data_dir", True)
    ((path, message),) = problems(f"{HEAD}model_dirs: [{value}]\n", tmp_path)
    assert (path, said in message) == ("model_dirs.0", True)
    tls = f"{HEAD}dicom: {{tls: {{certificate: {value}, key: k, authorities: a}}}}\n"
    ((path, message),) = problems(tls, tmp_path)
    assert (path, said in message) == ("dicom.tls.certificate", True)


def test_a_missing_folder_of_models_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    _, (warning,) = load(f"{HEAD}model_dirs: [here, gone]\n", tmp_path)
    assert (warning.path, warning.line) == ("model_dirs.1", 3)
    assert f"{tmp_path / 'gone'} is no folder" in warning.message


TLS = "{certificate: c, key: k, authorities: a}"


@pytest.mark.parametrize(
    ("dicom", "paths"),
    [
        (f"{{listen: {{port: 211120}}, tls: {TLS}}}", ["dicom.listen.port"]),
        (
            f"{{tls: {TLS.replace('authorities', 'authority')}}}",
            ["dicom.tls.authorities", "dicom.tls.authority"],
        ),
        (f"{{max_associations: many, tls: {TLS}}}", ["dicom.max_associations"]),
        (f"{{listen: {{port: x}}, storage_classes: [1.2.3.4.99], tls: {TLS}}}", ["dicom.listen.port"]),
    ],
)
def test_a_mistake_in_dicom_is_not_said_again_of_peers(tmp_path: Path, dicom: str, paths: list[str]) -> None:
    peer = (
        "{ae_title: A, host: h, roles: [source], tls: required, certificate: 'CN=a', max_associations: 41, "
        "storage_classes: [1.2.3.4.99]}"
    )
    found = problems(f"{HEAD}dicom: {dicom}\npeers: {{a: {peer}}}\n", tmp_path)
    assert [path for path, _ in found] == paths


def test_a_wrong_role_is_said_once_and_no_role_is_said(tmp_path: Path) -> None:
    peer = HEAD + "peers: {{a: {{ae_title: A, host: h, roles: [{roles}]}}}}\n"
    ((path, message),) = problems(peer.format(roles="Source"), tmp_path)
    assert (path, "not 'Source'" in message) == ("peers.a.roles.0", True)
    assert problems(peer.format(roles=""), tmp_path) == [("peers.a.roles", "must name at least one")]


def test_no_peer_is_named_like_strangers_are_counted(tmp_path: Path) -> None:
    ((path, message),) = problems(
        f"{HEAD}peers: {{unknown: {{ae_title: A, host: h, roles: [source]}}}}\n", tmp_path
    )
    assert (path, "another name" in message) == ("peers.unknown", True)


def test_what_a_peer_may_store_is_taken_at_all(tmp_path: Path) -> None:
    peer = (
        "peers: {a: {ae_title: A, host: h, roles: [source], storage_classes: [CTImageStorage, 1.2.3.4.99]}}\n"
    )
    ((path, message),) = problems(HEAD + peer, tmp_path)
    assert path == "peers.a.storage_classes.1"
    assert '"1.2.3.4.99"' in message
    assert "dicom.storage_classes" in message
    assert load(f"{HEAD}dicom: {{storage_classes: [1.2.3.4.99]}}\n{peer}", tmp_path)


def test_a_class_that_stores_nothing_is_no_storage_class(tmp_path: Path) -> None:
    ((path, message),) = problems(f"{HEAD}dicom: {{storage_classes: [Verification]}}\n", tmp_path)
    assert (path, "storage SOP class" in message) == ("dicom.storage_classes.0", True)
