"""DICOM over TLS against the running node: DCMTK, openssl and Orthanc as callers, and who is let in."""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmwrite
from pynetdicom import AE

from gateway.journal import JournalReader
from tests.builders import ct_series
from tests.certificates import Authority, Leaf, self_signed
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.orthanc import Orthanc
from tests.peers import echoscu, storescu
from tests.ports import free_port
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(180)
CT = "1.2.840.10008.5.1.4.1.1.2"
PEERS = """\
peers:
  scanner: {ae_title: SCANNER, host: localhost, roles: [source], certificate: "O=Clinic, CN=scanner"}
  plain: {ae_title: PLAIN, host: 192.0.2.1, addresses: [127.0.0.0/8], roles: [source], max_associations: 1}
  pinned: {ae_title: PINNED, host: 127.0.0.1, roles: [source], certificate: "sha256:${PINNED}"}
  archive: {ae_title: ARCHIVE, host: 127.0.0.1, roles: [source], tls: required}
  mr: {ae_title: MR, host: 127.0.0.1, roles: [source], storage_classes: [MRImageStorage]}
  far: {ae_title: FAR, host: 192.0.2.9, addresses: [10.0.0.0/8, "fd00::/8"], roles: [source]}
"""


@dataclass
class Site:
    """A hospital: the node, its authority, the certificates of its systems, one image."""

    node: GatewayProcess
    port: int
    authority: Authority
    leaves: dict[str, Leaf]
    image: Path

    def tls(self, tool: str, calling: str, leaf: Leaf | None, *more: str | Path) -> tuple[int, str]:
        """Run a tool of DCMTK over TLS; its exit code and what it said."""
        shown: list[str | Path] = ["+tls", leaf.key, leaf.certificate] if leaf else ["+tla"]
        trusted: list[str | Path] = ["+cf", self.authority.certificate]
        command = [tool, "-v", *shown, *trusted, "-aet", calling, "-aec", "AIGW", "127.0.0.1", str(self.port)]
        done = subprocess.run(
            [*map(str, command), *map(str, more)],
            capture_output=True, text=True, errors="replace", timeout=30, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout + done.stderr

    def refusal(self, name: str) -> dict[str, Any]:
        """The newest refusal of this name."""
        reader = JournalReader(self.node.data / "journal.db")

        def newest() -> dict[str, Any] | None:
            return next((each for each in reader.refusals() if each["name"] == name), None)

        found: dict[str, Any] = wait_until(newest, 10, f"a refusal {name}")
        reader.close()
        return found

    def status(self) -> dict[str, Any]:
        done = self.node.aigw("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    authority = Authority(folder / "tls")
    names = ("scanner", "pinned", "archive", "stranger")
    leaves = {name: authority.issue(name, f"/O=Clinic/CN={name}") for name in names}
    authority.issue("gateway", "/O=Clinic/CN=aigw", days=20)
    tls = (
        '  tls: {listen: {host: 127.0.0.1, port: "${GW_TLS_PORT}"}, certificate: ../tls/gateway.pem,\n'
        "        key: ../tls/gateway.key, authorities: ../tls/authority.pem}\n"
    )
    head, rest = CONFIGURATION.split("peers:\n")
    rest = rest[rest.index("completion:") :].replace("    send: [pacs]\n", "")
    node = GatewayProcess(folder / "node", free_port(), f"{head}{tls}{PEERS}{rest}")
    port = free_port()
    node.environment |= {"GW_TLS_PORT": str(port), "PINNED": leaves["pinned"].sha256}
    image = folder / "image.dcm"
    dcmwrite(image, ct_series()[0], enforce_file_format=True)
    with node:
        assert not node.died, node.log.read_text()
        yield Site(node, port, authority, leaves, image)


@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_stores_with_every_profile_of_bcp_195(site: Site, profile: str) -> None:
    code, said = site.tls("storescu", "SCANNER", site.leaves["scanner"], site.image, profile)
    assert code == 0, said
    assert "Received Store Response (Success)" in said


def test_a_fingerprint_binds_as_well_as_a_subject(site: Site) -> None:
    assert site.tls("echoscu", "PINNED", site.leaves["pinned"])[0] == 0
    code, said = site.tls("echoscu", "PINNED", site.leaves["stranger"])
    assert code != 0
    assert "Calling AE Title Not Recognized" in said
    refusal = site.refusal("CERTIFICATE_NOT_EXPECTED")
    assert refusal["details"]["source"] == "pinned"
    assert refusal["details"]["address"] == "127.0.0.1"
    advice = refusal["details"]["advice"]
    assert "'PINNED'" in advice
    assert "CN=stranger,O=Clinic" in advice
    assert f"port {site.port}" in advice
    assert advice in site.node.aigw("study", "explain", "--refusals").stdout


def test_the_certificate_of_another_peer_is_refused_by_name(site: Site) -> None:
    for calling in ("ARCHIVE", "NOBODY"):
        assert site.tls("echoscu", calling, site.leaves["scanner"])[0] != 0
        refusal = site.refusal("CERTIFICATE_OF_ANOTHER_PEER")
        assert refusal["details"]["calling"] == calling
        assert "which belongs to scanner ('SCANNER')" in refusal["reason"]


def test_bad_certificates_and_old_profiles_do_not_get_through_the_handshake(
    site: Site, tmp_path: Path
) -> None:
    own = self_signed(tmp_path, "own", "/O=Clinic/CN=scanner")
    expired = site.authority.issue("expired", "/O=Clinic/CN=scanner", days=-1)
    for leaf, name in (
        (own, "CERTIFICATE_NOT_TRUSTED"),
        (expired, "CERTIFICATE_EXPIRED"),
        (None, "CERTIFICATE_MISSING"),
    ):
        assert site.tls("echoscu", "SCANNER", leaf)[0] != 0
        assert "Please" in site.refusal(name)["details"]["advice"]
    assert site.tls("echoscu", "SCANNER", site.leaves["scanner"], "+pa")[0] != 0
    said = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}",
         "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20,
    ).stdout  # fmt: skip
    assert "Cipher is (NONE)" in said
    site.refusal("TLS_VERSION_TOO_OLD")


def test_who_must_use_tls_is_refused_on_the_plain_port(site: Site) -> None:
    for calling in ("SCANNER", "ARCHIVE"):
        assert echoscu(site.node.dicom_port, calling=calling).returncode != 0
        refusal = site.refusal("TLS_REQUIRED")
        assert refusal["details"]["calling"] == calling
        assert f"Please send to port {site.port}" in refusal["details"]["advice"]
    assert site.tls("echoscu", "ARCHIVE", site.leaves["archive"])[0] == 0


def test_without_tls_on_the_tls_port(site: Site) -> None:
    assert echoscu(site.port, calling="PLAIN").returncode != 0
    assert f"send to port {site.node.dicom_port}" in site.refusal("TLS_EXPECTED")["details"]["advice"]


def test_addresses_limits_and_classes_of_a_peer(site: Site) -> None:
    assert storescu(site.node.dicom_port, site.image, calling="PLAIN").returncode == 0
    assert echoscu(site.node.dicom_port, calling="FAR").returncode != 0
    assert "10.0.0.0/8" in site.refusal("ADDRESS_NOT_ALLOWED")["details"]["advice"]
    ae = AE("PLAIN")
    ae.add_requested_context(CT)
    first = ae.associate("127.0.0.1", site.node.dicom_port, ae_title="AIGW")
    assert first.is_established
    answer = echoscu(site.node.dicom_port, calling="PLAIN")
    assert "Local Limit Exceeded" in answer.stderr
    assert echoscu(site.node.dicom_port, calling="MR").returncode == 0, "others still get in"
    first.release()
    assert site.refusal("TOO_MANY_ASSOCIATIONS_OF_PEER")["details"]["source"] == "plain"
    assert storescu(site.node.dicom_port, site.image, calling="MR").returncode != 0


def test_silent_and_dripping_connections_delay_nobody(site: Site) -> None:
    with (
        socket.create_connection(("127.0.0.1", site.port)),
        socket.create_connection(("127.0.0.1", site.port)) as dripping,
    ):
        dripping.sendall(b"\x16\x03\x01")
        began_s = time.monotonic()
        assert site.tls("echoscu", "SCANNER", site.leaves["scanner"])[0] == 0
        assert time.monotonic() - began_s < 8, "the others have 10 s for their handshakes"


def test_orthanc_sends_over_tls(site: Site, tmp_path: Path) -> None:
    leaf = site.leaves["archive"]
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(leaf.certificate),
        "DicomTlsPrivateKey": str(leaf.key),
        "DicomTlsTrustedCertificates": str(site.authority.certificate),
        "DicomModalities": {
            "aigw": {"AET": "AIGW", "Host": "127.0.0.1", "Port": site.port, "UseDicomTls": True}
        },
    }
    before = site.status()["instances"]["stored"]
    with Orthanc(tmp_path, "ARCHIVE", options) as orthanc:
        image = tmp_path / "other.dcm"
        dcmwrite(image, ct_series()[1], enforce_file_format=True)
        orthanc.store(image.read_bytes())
        (instance,) = orthanc.get("/instances")
        request = urllib.request.Request(
            f"http://127.0.0.1:{orthanc.http_port}/modalities/aigw/store", instance.encode(), method="POST"
        )
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - loopback http
            answer = json.load(response)
    assert answer["FailedInstancesCount"] == 0
    status = site.status()
    assert status["instances"]["stored"] == before + 1
    seen = {each["name"]: each["subject"] for each in status["certificates"] if each["kind"] == "peer"}
    assert seen["archive"] == "CN=archive,O=Clinic"


def test_status_and_metrics_tell_days_left_sources_and_refusals(site: Site) -> None:
    assert site.tls("storescu", "SCANNER", site.leaves["scanner"], site.image)[0] == 0
    status = site.status()
    ours = next(each for each in status["certificates"] if each["kind"] == "ours")
    assert 19 < ours["days_left"] <= 20
    assert any("CN=aigw,O=Clinic (ours) ends in 20 days" in each for each in status["warnings"])
    assert {each["name"]: each["port"] for each in status["listeners"]} == {
        "dicom": site.node.dicom_port,
        "dicom_tls": site.port,
        "web": site.node.http_port,
    }
    scanner = next(each for each in status["instances"]["by_source"] if each["source"] == "scanner")
    assert sum(scanner["since_start"].values()) >= 1
    assert time.time() - scanner["last_at"] < 60
    assert status["disk"]["slices_per_s"] > 0
    assert status["journal"]["bytes"] > 0
    text = site.node.aigw("status").stdout
    assert "ours: CN=aigw,O=Clinic, 20 days left" in text
    connection = socket.create_connection(("127.0.0.1", site.node.http_port))
    with connection, connection.makefile("rb") as answer:
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")
        metrics = answer.read().decode()
    assert 'aigw_certificate_days_left{kind="ours",peer=""} 19.' in metrics
    assert 'source="scanner"' in metrics
    assert "aigw_store_seconds_bucket" in metrics
    assert "1.2.826" not in metrics
    assert "1.2.3" not in metrics
    warned = [each for each in site.node.events() if each["event"] == "certificate_ends"]
    assert [each["name"] for each in warned if each["whose"] == "dicom.tls.certificate"] == [
        "CERTIFICATE_ENDS_SOON"
    ]


def test_a_new_certificate_is_shown_without_a_restart(site: Site) -> None:
    site.authority.issue("gateway", "/O=Clinic/CN=renewed")
    assert site.tls("echoscu", "SCANNER", site.leaves["scanner"])[0] == 0
    shown = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{site.port}"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20,
    ).stdout  # fmt: skip
    assert "CN = renewed" in shown
    certificates = site.status()["certificates"]
    assert next(each["subject"] for each in certificates if each["kind"] == "ours") == "CN=renewed,O=Clinic"


def test_status_of_no_gateway_is_exit_4(tmp_path: Path) -> None:
    node = GatewayProcess(tmp_path / "none", free_port())
    done = node.aigw("status")
    assert done.returncode == 4
    assert "NOT_RUNNING" in done.stderr
