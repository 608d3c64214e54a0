"""HTTPS: STOW-RS with curl and Python, files that change, and clients that mean no good."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog

from gateway.clock import SystemClock
from gateway.control.questions import ask_status
from gateway.journal import JournalReader
from gateway.receive.tls.files import TlsFiles
from gateway.receive.tls.source import TlsSource
from gateway.web import tls
from gateway.web.tls import TlsDoor
from tests.builders import ct_series
from tests.certificates import Authority, Leaf
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.peers import encoded
from tests.ports import free_port
from tests.stow import AUTHORIZATION, CONTENT_TYPE, StowServer, multipart, part10, stow_server
from tests.waiting import wait_until

FIELDS = [f"{name}: {value}" for name, value in {**AUTHORIZATION, "Content-Type": CONTENT_TYPE}.items()]


@dataclass
class Site:
    """A server with HTTPS, and whoever failed at its door."""

    server: StowServer
    authority: Authority
    files: TlsFiles
    failures: list[tuple[str, OSError]]

    def install(self, leaf: Leaf) -> None:
        self.files.certificate.write_bytes(leaf.certificate.read_bytes())
        self.files.key.write_bytes(leaf.key.read_bytes())

    def curl(self, *more: str | Path) -> subprocess.CompletedProcess[str]:
        url = f"https://localhost:{self.server.port}"
        command = ["curl", "-sS", "--cacert", str(self.authority.certificate), *map(str, more)]
        command = [word.replace("URL", url) for word in command]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        return socket.create_connection(
            ("127.0.0.1", self.server.port), timeout=10, source_address=(source, 0)
        )


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def site(tmp_path: Path, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(tls, "HANDSHAKE_TIMEOUT_S", 3)
    files = TlsFiles(tmp_path / "web.pem", tmp_path / "web.key", setting="web.tls")
    leaf = authority.issue("web", "/CN=web")
    files.certificate.write_bytes(leaf.certificate.read_bytes())
    files.key.write_bytes(leaf.key.read_bytes())
    source = TlsSource(files, "optional", SystemClock(), structlog.get_logger())
    failures: list[tuple[str, OSError]] = []
    door = TlsDoor(source.context, lambda *each: failures.append(each))
    with stow_server(tmp_path / "gateway", door=door) as server:
        yield Site(server, authority, files, failures)


def test_curl_stores_a_series(site: Site, tmp_path: Path) -> None:
    series = ct_series((40, 256, 256))
    body = tmp_path / "body"
    body.write_bytes(multipart([part10(each) for each in series]))
    fields = [word for each in FIELDS for word in ("-H", each)]
    for version in ("1.2", "1.3"):
        answer = tmp_path / "answer"
        done = site.curl(
            *fields, f"--tlsv{version}", "--tls-max", version, "--data-binary", f"@{body}", "-o", answer,
            "-w", "%{http_code}", "URL/dicom-web/studies",
        )  # fmt: skip
        assert (done.stdout, done.stderr) == ("200", "")
        assert len(json.loads(answer.read_text())["00081199"]["Value"]) == len(series)
    assert site.server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}
    assert not site.failures


def test_old_versions_and_http_are_refused_and_seen(site: Site) -> None:
    done = site.curl("--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0", "URL/health/live")
    assert done.returncode == 35
    wait_until(lambda: len(site.failures) == 1, 20, "the first failure")
    assert "UNSUPPORTED_PROTOCOL" in str(site.failures[0][1])
    connection = http.client.HTTPConnection("127.0.0.1", site.server.port, timeout=10)
    connection.request("GET", "/health/live", headers=AUTHORIZATION)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    wait_until(lambda: len(site.failures) == 2, 20, "the second failure")
    assert "HTTP_REQUEST" in str(site.failures[1][1])
    site.connect().close()  # a port monitor
    assert site.curl("URL/health/live").stdout == '{"status":"alive"}'
    assert [address for address, _ in site.failures] == ["127.0.0.1"] * 2


def test_a_new_certificate_is_shown_without_a_restart(site: Site) -> None:
    assert "CN=web" in site.curl("-v", "URL/health/live").stderr
    site.install(site.authority.issue("newer", "/CN=newer"))
    assert "CN=newer" in site.curl("-v", "URL/health/live").stderr


def test_silent_connections_keep_nobody_out_and_are_cut(site: Site) -> None:
    silent = [site.connect() for _ in range(tls.MAX_HANDSHAKES + 20)]
    silent[-1].sendall(b"\x16\x03\x01")
    assert site.curl("URL/health/live").returncode == 0
    assert not site.failures, "the slow one still has time"
    for each in silent:
        with suppress(ConnectionResetError):
            assert each.recv(1) == b""
        each.close()
    wait_until(lambda: site.failures, 20, "the slow ones to be seen")
    assert "longer than 3 seconds" in str(site.failures[0][1])


def test_a_crowd_of_one_address_ends_its_own_handshakes(site: Site) -> None:
    """One from elsewhere is never the one that makes room, however slow its network."""
    context = ssl.create_default_context(cafile=str(site.authority.certificate))
    with site.connect("127.0.0.2") as raw, ExitStack() as crowd:
        for _ in range(3 * tls.MAX_HANDSHAKES):
            crowd.enter_context(site.connect())
        with context.wrap_socket(raw, server_hostname="localhost") as secure:
            secure.sendall(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(100).startswith(b"HTTP/1.1 200")


def test_the_slow_loris_inside_tls_is_bounded_as_without(site: Site) -> None:
    context = ssl.create_default_context(cafile=str(site.authority.certificate))
    with context.wrap_socket(site.connect(), server_hostname="localhost") as secure:
        secure.sendall(b"GET /health/live HTTP/1.1\r\nX: " + b"x" * 20_000)
        assert secure.recv(100).startswith(b"HTTP/1.1 400")


def test_the_node_serves_https_and_watches_its_certificate(tmp_path: Path, authority: Authority) -> None:
    leaf = authority.issue("node", "/CN=node", days=10)
    text = CONFIGURATION.replace(
        'listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}',
        f'listen: {{host: 127.0.0.1, port: "${{GW_HTTP_PORT}}"}}\n'
        f"  tls: {{certificate: {leaf.certificate}, key: {leaf.key}}}",
    )
    with GatewayProcess(tmp_path, free_port(), text) as node:
        url = f"https://localhost:{node.http_port}"
        command = ["curl", "-sS", "--cacert", str(authority.certificate), f"{url}/metrics"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert 'aigw_certificate_days_left{kind="web",peer=""} 9.' in told
        status = ask_status(node.data)
        assert status is not None
        assert [each["kind"] for each in status["certificates"]] == ["web"]
        assert any("CN=node (web) ends in 10 days" in each for each in status["warnings"])
        assert subprocess.run(["curl", "-sS", url], capture_output=True, check=False).returncode == 60
        with closing(JournalReader(node.data / "journal.db")) as reader:
            [refusal] = wait_until(reader.refusals, 20, "the refusal")
        assert refusal["name"] == "HTTPS_HANDSHAKE_FAILED"
        assert "does not trust our certificate" in refusal["details"]["advice"]
        [warning] = [each for each in node.events() if each["event"] == "configuration_warning"]
        assert warning["setting"] == "web.tls.certificate"
