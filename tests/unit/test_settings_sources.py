"""Settings of those who send to us: addresses, certificates, TLS files, web access; problems and warnings."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings import Problem, Settings, SettingsError, load_settings
from gateway.settings.tls_check import check_tls_files
from tests.certificates import Authority

TLS = "dicom: {tls: {certificate: gateway.pem, key: gateway.key, authorities: authority.pem}}\n"
HEAD = "version: 1\ndata_dir: /srv/aigw\n"


def load(folder: Path, text: str, **environment: str) -> tuple[Settings, list[Problem]]:
    path = folder / "gw.yaml"
    path.write_text(HEAD + text, encoding="utf-8")
    warnings: list[Problem] = []
    return load_settings(path, environment, further=(check_tls_files,), warnings=warnings), warnings


def problems(folder: Path, text: str, **environment: str) -> list[Problem]:
    with pytest.raises(SettingsError) as caught:
        load(folder, text, **environment)
    return list(caught.value.details)


def peers(*lines: str) -> str:
    return "peers:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.fixture
def tls_folder(tmp_path: Path) -> Path:
    Authority(tmp_path).issue("gateway", "/O=Clinic/CN=aigw")
    return tmp_path


@pytest.mark.parametrize(
    ("peer", "path", "message"),
    [
        ("addresses: [10.1.2.0/16]", "peers.a.addresses.0", "the range is 10.1.0.0/16"),
        ("addresses: [10.1.2.0/99]", "peers.a.addresses.0", "no range of addresses"),
        ("addresses: [10.1.2.300]", "peers.a.addresses.0", "neither an IP address nor a host name"),
        ("addresses: ['fd00:::1']", "peers.a.addresses.0", "neither an IP address nor a host name"),
        ("addresses: ['a b']", "peers.a.addresses.0", "neither an IP address nor a host name"),
        ("addresses: [10.1.0.1-10.1.0.9]", "peers.a.addresses.0", "ranges go into addresses"),
        ("addresses: [10.1.0.1 - 10.1.0.9]", "peers.a.addresses.0", "like 10.1.0.0/16"),
        ("addresses: [10.1.0.1-9]", "peers.a.addresses.0", "like 10.1.0.0/16"),
        ("addresses: [10.1.0.x]", "peers.a.addresses.0", "like 10.1.0.0/16"),
        ("addresses: [10.1.X.X]", "peers.a.addresses.0", "like 10.1.0.0/16"),
        ("addresses: ['10.1.0.*']", "peers.a.addresses.0", "like 10.1.0.0/16"),
        ("max_associations: 41", "peers.a.max_associations", "more than dicom.max_associations (40)"),
        ("storage_classes: [CTImage]", "peers.a.storage_classes.0", "neither a UID nor the keyword"),
        ("tls: required", "peers.a.tls", "needs dicom.tls"),
        ("tls: needed", "peers.a.tls", "must be 'allowed' or 'required'"),
        ("certificate: 'CN=a'", "peers.a.certificate", "needs dicom.tls"),
        ("web: {}", "peers.a.web", "needs a token, or user and password"),
        ("web: {user: x}", "peers.a.web", "belong together"),
        ("web: {user: 'a:b', password: secret-secret-secret}", "peers.a.web.user", "no colon"),
        ("web: {token: 'a b'}", "peers.a.web.token", "RFC 6750"),
    ],
)
def test_a_wrong_setting_of_a_source_is_named_with_its_place(
    tmp_path: Path, peer: str, path: str, message: str
) -> None:
    (found,) = problems(tmp_path, peers(f"a: {{ae_title: A, host: 10.0.0.1, roles: [source], {peer}}}"))
    assert (found.line, found.path) == (4, path)
    assert message in found.message


def test_a_host_is_no_range(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, peers("a: {ae_title: A, host: 10.0.0.0/8, roles: [source]}"))
    assert (found.path, found.message) == (
        "peers.a.host",
        "is one address or name; ranges go into addresses",
    )


def test_what_only_a_source_has_is_an_error_elsewhere(tmp_path: Path) -> None:
    line = "a: {ae_title: A, host: h, port: 104, roles: [destination], addresses: [h2], web: {token: x}}"
    found = problems(tmp_path, peers(line))
    assert [each.path for each in found] == ["peers.a.addresses", "peers.a.web"]
    assert all("does not have the role source" in each.message for each in found)


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("host: 10.0.0.1", "host: 10.0.0.1", "10.0.0.1"),
        ("host: h1, addresses: [10.0.0.0/8]", "host: 10.9.9.9", "10.9.9.9"),
        ("host: h1, addresses: [10.0.0.0/8]", "host: h2, addresses: [10.1.0.0/16]", "10.0.0.0/8"),
        ("host: ct.clinic", "host: CT.clinic", "ct.clinic"),
        ("host: h1, addresses: ['fd00::/8']", "host: 'fd00::1'", "fd00::1"),
        ("host: h1, certificate: 'CN=a,O=b'", "host: h1, certificate: 'O=B, CN=A'", "h1"),
    ],
)
def test_two_sources_that_cannot_be_told_apart(
    tls_folder: Path, first: str, second: str, shared: str
) -> None:
    lines = [
        f"{name}: {{ae_title: CT, roles: [source], {text}}}" for name, text in (("a", first), ("b", second))
    ]
    (found,) = problems(tls_folder, TLS + peers(*lines))
    assert found.path == "peers.b"
    assert f'cannot be told from source "a": same AE title, and both may call from {shared}' in found.message


def test_an_address_or_a_certificate_tells_sources_apart(tls_folder: Path) -> None:
    settings, _ = load(
        tls_folder,
        TLS
        + peers(
            "a: {ae_title: CT, roles: [source], host: 10.0.0.1, addresses: [10.1.0.0/16]}",
            "b: {ae_title: CT, roles: [source], host: 10.0.0.2, addresses: [10.2.0.0/16, 'fd00::/8']}",
            "c: {ae_title: CT, roles: [source], host: 10.0.0.2, certificate: 'CN=c'}",
            "d: {ae_title: CT, roles: [source], host: 10.0.0.2, certificate: 'CN=d'}",
        ),
    )
    assert len(settings.peers) == 4


def test_secrets_in_the_file_and_short_ones_are_warnings_and_never_shown(tmp_path: Path) -> None:
    text = peers(
        "a: {ae_title: A, host: h1, roles: [source], web: {token: abcdefghijklmnop}}",
        "b: {ae_title: B, host: h2, roles: [source], web: {token: '${TOKEN}'}}",
        "c: {ae_title: C, host: h3, roles: [source], web: {user: c, password: '${SECOND}'}}",
    )
    settings, warnings = load(tmp_path, text, TOKEN="t" * 32, SECOND="short")
    assert [(each.line, each.path) for each in warnings] == [
        (4, "peers.a.web.token"),
        (6, "peers.c.web.password"),
    ]
    assert "stands in the file" in warnings[0].message
    assert "shorter than 16" in warnings[1].message
    shown = "".join(map(str, warnings)) + repr(settings)
    assert not any(secret in shown for secret in ("abcdefghijklmnop", "t" * 32, "short'"))
    wrong = problems(tmp_path, peers("a: {ae_title: A, host: h, roles: [source], web: {token: 12345678}}"))
    assert "12345678" not in "".join(map(str, wrong))


def test_two_peers_with_one_secret_are_refused(tmp_path: Path) -> None:
    (found,) = problems(
        tmp_path,
        peers(
            "a: {ae_title: A, host: h1, roles: [source], web: {token: '${T}'}}",
            "b: {ae_title: B, host: h2, roles: [source], web: {token: '${T}'}}",
        ),
        T="t" * 32,
    )
    assert (found.path, found.line) == ("peers.b.web.token", 5)
    assert 'peer "a" has the same' in found.message


def test_web_credentials_over_the_network_without_tls_are_a_warning(tmp_path: Path) -> None:
    text = peers("a: {ae_title: A, host: h1, roles: [source], web: {token: '${T}'}}")
    _, warnings = load(tmp_path, text + "web: {listen: {host: 0.0.0.0, port: 8080}}\n", T="t" * 32)
    assert ["HTTP without encryption" in each.message for each in warnings] == [True]


@pytest.mark.parametrize("must", ["tls: required", "certificate: 'CN=a'"])
def test_who_must_use_tls_cannot_store_over_the_network_without(tls_folder: Path, must: str) -> None:
    text = TLS + peers(f"a: {{ae_title: A, host: h1, roles: [source], {must}, web: {{token: '${{T}}'}}}}")
    (found,) = problems(tls_folder, text + "web: {listen: {host: 0.0.0.0, port: 8080}}\n", T="t" * 32)
    assert (found.path, found.line) == ("peers.a.web", 5)
    assert "a must use TLS" in found.message
    assert "set web.tls" in found.message
    https = "web: {listen: {host: 0.0.0.0, port: 8443}, tls: {certificate: gateway.pem, key: gateway.key}}\n"
    for web in ("", https):
        _, warnings = load(tls_folder, text + web, T="t" * 32)
        assert not warnings
    (found,) = problems(tls_folder, text + https.replace("gateway.key", "none.key"), T="t" * 32)
    assert (found.path, "No such file" in found.message) == ("web.tls.key", True)


def test_tls_files_start_at_the_file_and_are_looked_into(tls_folder: Path) -> None:
    settings, warnings = load(tls_folder, TLS)
    assert settings.dicom.tls is not None
    assert settings.dicom.tls.key == tls_folder / "gateway.key"
    assert not warnings
    (tls_folder / "gateway.key").chmod(0o644)
    _, (warning,) = load(tls_folder, TLS)
    assert (warning.path, warning.line) == ("dicom.tls.key", 3)
    assert "chmod 600" in warning.message
    other = Authority(tls_folder / "other").issue("x", "/CN=x")
    (tls_folder / "gateway.key").write_bytes(other.key.read_bytes())
    (tls_folder / "authority.pem").unlink()
    found = problems(tls_folder, TLS)
    assert [each.path for each in found] == ["dicom.tls.key", "dicom.tls.authorities"]
    assert "is not the key of" in found[0].message
    assert "No such file" in found[1].message
    assert (found[0].column, found[1].column) == (41, 59)


def test_a_key_that_openssl_does_not_take_is_found_before_the_start(tls_folder: Path) -> None:
    Authority(tls_folder / "weak").issue("weak", "/CN=weak", rsa_bits=1024)
    (found,) = problems(tls_folder, TLS.replace("gateway.", "weak/weak."))
    assert (found.path, found.line) == ("dicom.tls.certificate", 3)
    assert "OpenSSL does not take" in found.message
    web = "web: {tls: {certificate: weak/weak.pem, key: weak/weak.key}}\n"
    (found,) = problems(tls_folder, web)
    assert found.path == "web.tls.certificate"


def test_a_name_that_looks_a_little_like_an_address_is_a_name(tmp_path: Path) -> None:
    names = "[1-2.ct.clinic, 10.ct.clinic, x1, 4.3.2.1.dsl.clinic, a-10]"
    settings, _ = load(tmp_path, peers(f"a: {{ae_title: A, host: h, roles: [source], addresses: {names}}}"))
    assert len(settings.peers["a"].addresses) == 5


def test_each_port_has_one_listener(tls_folder: Path) -> None:
    text = TLS.replace("{tls: {", "{tls: {listen: {port: 8080}, ")
    (found,) = problems(tls_folder, text)
    assert (found.path, found.message) == (
        "web.listen.port",
        "port 8080 is already taken by dicom.tls.listen",
    )


def test_the_waits_of_commitment_are_in_order(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "commitment: {first_retry: 1h, longest_wait: 1m}\n")
    assert found.path == "commitment"
