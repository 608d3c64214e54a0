"""The TLS listener's handshake against openssl: who gets in, who is told what, and files that change."""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from gateway.clock import SystemClock
from gateway.errors import GatewayError
from gateway.journal import Journal
from gateway.receive.calls import Call, Node, Refusal
from gateway.receive.sockets import listen
from gateway.receive.tls.certificates import decode_der
from gateway.receive.tls.context import HandshakeFailed, TlsContext, peer_certificate
from gateway.receive.tls.files import TlsFiles, file_problems, file_warnings
from gateway.receive.tls.source import TlsSource
from gateway.receive.tls.watch import CertificateWatch
from tests.certificates import Authority, Leaf, self_signed
from tests.ports import needs_both_families
from tests.waiting import wait_until

DAY_S = 24 * 3600.0


@dataclass
class Clock(SystemClock):
    """Ahead of the files: what was changed in them, was changed then."""

    ahead_s: float

    def now_s(self) -> float:
        return super().now_s() + self.ahead_s


@dataclass
class Port:
    """A port that shakes hands in one thread for each connection, and says ``hello`` to who gets in."""

    context: TlsContext
    source: TlsSource
    timeout_s: float = 5.0
    refusals: list[Refusal] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    subjects: list[str | None] = field(default_factory=list)
    number: int = 0

    def accept(self, listening: socket.socket) -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=self.greet, args=(connection,), daemon=True).start()

    def greet(self, connection: socket.socket) -> None:
        try:
            secure = self.context.wrap(connection, self.timeout_s)
        except HandshakeFailed:
            return
        with secure:
            shown = peer_certificate(secure)
            self.subjects.append(shown.subject if shown else None)
            secure.sendall(b"hello")

    def names(self) -> list[str]:
        """In whatever order their threads came to it."""
        return sorted(refusal.name for refusal in self.refusals)

    def advice(self, name: str) -> list[str]:
        return [refusal.advice for refusal in self.refusals if refusal.name == name]


@contextmanager
def port(
    files: TlsFiles,
    client_certificates: Any = "required",
    timeout_s: float = 5.0,
    clock: Clock | None = None,
    host: str = "127.0.0.1",
) -> Iterator[Port]:
    log = structlog.wrap_logger(None, processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    refusals: list[Refusal] = []
    alarms: list[str] = []

    def note(refusal: Refusal, call: Call) -> None:
        assert call.address == "127.0.0.1"
        refusals.append(refusal)

    source = TlsSource(
        files, client_certificates, clock or Clock(10), log, lambda name, _: alarms.append(name)
    )
    context = TlsContext(source, Node("AIGW", 11112, 2762), note)
    with listen(host, 0, 128) as listening:
        opened = Port(context, source, timeout_s, refusals, alarms, number=listening.getsockname()[1])
        threading.Thread(target=opened.accept, args=(listening,), daemon=True).start()
        yield opened
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ours(authority: Authority) -> Leaf:
    return authority.issue("gateway", "/O=Clinic/CN=aigw")


@pytest.fixture(scope="module")
def theirs(authority: Authority) -> Leaf:
    return authority.issue("ct1", "/O=Clinic/CN=ct1")


def client(to: Port, leaf: Leaf | None, *more: str) -> str:
    """Everything that ``openssl s_client`` says of a connection."""
    shown = ["-cert", str(leaf.certificate), "-key", str(leaf.key)] if leaf else []
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{to.number}", *shown, *more]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20
    )
    return done.stdout + done.stderr


def greeting(to: Port, leaf: Leaf | None) -> bytes:
    """What a client with Python's ssl gets; empty when it is refused."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if leaf:
        context.load_cert_chain(leaf.certificate, leaf.key)
    try:
        with (
            socket.create_connection(("127.0.0.1", to.number), timeout=10) as raw,
            context.wrap_socket(raw) as secure,
        ):
            return secure.recv(10)
    except OSError:
        return b""


def test_a_trusted_certificate_gets_in_and_is_known(authority: Authority, ours: Leaf, theirs: Leaf) -> None:
    with port(authority.files(ours)) as to:
        assert greeting(to, theirs) == b"hello"
        assert to.subjects == ["CN=ct1,O=Clinic"]
        assert not to.refusals


def test_without_a_certificate_only_where_none_is_required(authority: Authority, ours: Leaf) -> None:
    with port(authority.files(ours)) as to:
        assert greeting(to, None) == b""
        wait_until(lambda: to.names() == ["CERTIFICATE_MISSING"])
    with port(authority.files(ours), "optional") as to:
        assert greeting(to, None) == b"hello"
        assert to.subjects == [None]


def test_certificates_that_are_wrong_are_refused_by_name(
    tmp_path: Path, authority: Authority, ours: Leaf
) -> None:
    stranger = Authority(tmp_path / "other", "other").issue("x", "/CN=x")
    wrong = {
        "CERTIFICATE_EXPIRED": authority.issue("old", "/CN=old", days=-1),
        "CERTIFICATE_NOT_TRUSTED": self_signed(tmp_path, "self", "/CN=ct1"),
        "CERTIFICATE_WRONG_PURPOSE": authority.issue("server", "/CN=server", purpose="serverAuth"),
    }
    for mode in ("required", "optional"):
        with port(authority.files(ours), mode) as to:
            for leaf in wrong.values():
                assert greeting(to, leaf) == b""
            wait_until(lambda to=to: to.names() == sorted(wrong))
            (told,) = to.advice("CERTIFICATE_NOT_TRUSTED")
            assert "self-signed" in told
            assert greeting(to, stranger) == b""
            wait_until(lambda to=to: to.names() == sorted([*wrong, "CERTIFICATE_NOT_TRUSTED"]))
            assert "do not know the authority" in to.advice("CERTIFICATE_NOT_TRUSTED")[-1]
            assert all("127.0.0.1" in refusal.advice for refusal in to.refusals)


def test_a_peer_that_sends_at_once_still_reads_why_it_is_refused(
    tmp_path: Path, authority: Authority, ours: Leaf
) -> None:
    """In TLS 1.3 it may send before we have looked at its certificate; 40 times, for it is a race."""
    stranger = Authority(tmp_path, "other").issue("x", "/CN=x")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(stranger.certificate, stranger.key)
    told = []
    with port(authority.files(ours)) as to:
        for _ in range(40):
            with (
                socket.create_connection(("127.0.0.1", to.number), timeout=20) as raw,
                context.wrap_socket(raw, server_hostname="localhost") as secure,
            ):
                try:
                    secure.sendall(bytes(20_000))
                    time.sleep(0.02)  # it does something else; meanwhile the connection is closed
                    told.append(str(secure.recv(1)))
                except ssl.SSLError as error:
                    told.append(str(error.reason))
                except OSError as error:
                    told.append(type(error).__name__)
    assert told == ["TLSV1_ALERT_UNKNOWN_CA"] * 40


def test_a_refused_peer_that_goes_on_sending_is_cut(tmp_path: Path, authority: Authority, ours: Leaf) -> None:
    """However fast, and however long it neither reads nor closes."""
    stranger = Authority(tmp_path, "other").issue("x", "/CN=x")
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.load_cert_chain(stranger.certificate, stranger.key)
    with port(authority.files(ours)) as to, socket.create_connection(("127.0.0.1", to.number)) as raw:
        secure = context.wrap_socket(raw, server_hostname="localhost")
        secure.settimeout(20)
        with pytest.raises(OSError, match=r"reset|pipe|EOF"):
            secure.sendall(bytes(1 << 26))
        secure.close()


def test_old_versions_and_weak_suites_are_refused(authority: Authority, ours: Leaf, theirs: Leaf) -> None:
    with port(authority.files(ours)) as to:
        for version in ("-tls1", "-tls1_1"):
            assert "Cipher is (NONE)" in client(to, theirs, version, "-cipher", "ALL:@SECLEVEL=0")
        wait_until(lambda: to.names() == ["TLS_VERSION_TOO_OLD"] * 2)
        assert "TLS 1.2 or 1.3" in to.refusals[0].advice
        for suite in ("AES128-GCM-SHA256", "ECDHE-ECDSA-AES128-SHA256", "DHE-RSA-AES128-GCM-SHA256"):
            assert "Cipher is (NONE)" in client(to, theirs, "-tls1_2", "-cipher", suite)
        wait_until(lambda: to.names() == ["TLS_NO_SHARED_CIPHER"] * 3 + ["TLS_VERSION_TOO_OLD"] * 2)


def test_the_suites_that_are_offered_are_those_of_the_profile(
    authority: Authority, ours: Leaf, theirs: Leaf
) -> None:
    """Every TLS 1.2 suite that openssl knows, one by one, as testssl does."""
    listed = subprocess.run(
        ["openssl", "ciphers", "-s", "-tls1_2", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    taken = set()
    with port(authority.files(ours)) as to:
        for suite in listed.strip().split(":"):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.maximum_version = ssl.TLSVersion.TLSv1_2
            try:
                context.set_ciphers(f"{suite}:@SECLEVEL=0")
            except ssl.SSLError:
                continue
            context.load_cert_chain(theirs.certificate, theirs.key)
            try:
                with (
                    socket.create_connection(("127.0.0.1", to.number)) as raw,
                    context.wrap_socket(raw) as tls,
                ):
                    taken.add((tls.cipher() or ("",))[0])
                    assert tls.compression() is None
            except OSError:
                continue
        said = client(to, theirs, "-tls1_3")
        assert "TLSv1.3" in said
        assert "X25519" in said
        assert "Compression: NONE" in client(to, theirs, "-tls1_2")
    assert taken == {
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    }


def test_a_session_is_not_resumed(authority: Authority, ours: Leaf, theirs: Leaf) -> None:
    with port(authority.files(ours)) as to:
        for version in ("-tls1_2", "-tls1_3"):
            assert "Reused, " not in client(to, theirs, version, "-reconnect")


def test_a_peer_that_does_not_trust_us_is_named(tmp_path: Path, authority: Authority, ours: Leaf) -> None:
    stranger = Authority(tmp_path, "other")
    with port(authority.files(ours)) as to:
        context = ssl.create_default_context(cafile=str(stranger.certificate))
        with (
            socket.create_connection(("127.0.0.1", to.number)) as raw,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            context.wrap_socket(raw, server_hostname="localhost")
        wait_until(lambda: to.names() == ["TLS_REFUSED_BY_PEER"])
        assert "UNKNOWN_CA" in to.refusals[0].reason
        with socket.create_connection(("127.0.0.1", to.number)) as raw:
            raw.sendall(b"\x16\x03\x01")
        wait_until(lambda: to.names() == ["TLS_HANDSHAKE_BROKEN_OFF", "TLS_REFUSED_BY_PEER"])


def test_a_plain_association_on_the_tls_port_is_named(authority: Authority, ours: Leaf) -> None:
    with port(authority.files(ours)) as to:
        with socket.create_connection(("127.0.0.1", to.number), timeout=20) as raw:
            raw.sendall(b"\x01\x00\x00\x00\x00\x10" + bytes(16))
            with suppress(ConnectionResetError):
                assert raw.recv(1) == b""
        wait_until(lambda: to.names() == ["TLS_EXPECTED"])
        assert "port 11112" in to.refusals[0].advice


@needs_both_families
def test_a_caller_by_ipv4_at_the_address_of_both_families_is_named_as_such(
    authority: Authority, ours: Leaf
) -> None:
    with port(authority.files(ours), host="::") as to:
        with socket.create_connection(("127.0.0.1", to.number), timeout=20) as raw:
            raw.sendall(b"GET / HTTP/1.1")
        wait_until(lambda: to.names() == ["TLS_EXPECTED"])
        assert " 127.0.0.1" in to.refusals[0].advice


@pytest.mark.parametrize("drip", [False, True])
def test_a_handshake_that_never_ends_is_cut_and_delays_nobody(
    authority: Authority, ours: Leaf, theirs: Leaf, drip: bool
) -> None:
    """One byte at a time does not help: the deadline is for the whole handshake."""
    with port(authority.files(ours), timeout_s=2.0) as to:
        began_s = time.monotonic()
        with socket.create_connection(("127.0.0.1", to.number), timeout=20) as raw:
            raw.sendall(b"\x16")
            assert greeting(to, theirs) == b"hello"
            assert not to.refusals, "the other one still has time"
            for byte in b"\x03\x01\x02\x00" + bytes(200):
                if to.refusals:
                    break
                if drip:
                    with suppress(ConnectionError):
                        raw.sendall(bytes([byte]))
                time.sleep(0.1)
        wait_until(lambda: to.names() == ["TLS_HANDSHAKE_TIMEOUT"])
        assert 1.9 < time.monotonic() - began_s < 15


def test_a_connection_without_a_byte_is_no_event(authority: Authority, ours: Leaf, theirs: Leaf) -> None:
    """Load balancers and port monitors do that all day."""
    with port(authority.files(ours)) as to:
        socket.create_connection(("127.0.0.1", to.number)).close()
        assert greeting(to, theirs) == b"hello"
        assert not to.refusals


def test_new_files_are_used_without_a_restart(tmp_path: Path, authority: Authority, theirs: Leaf) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    authorities = folder / "ca.pem"
    files = TlsFiles(folder / "own.pem", folder / "own.key", authorities)

    def install(leaf: Leaf, trusted: Path) -> None:
        for source, target in ((leaf.certificate, files.certificate), (leaf.key, files.key)):
            target.with_suffix(".new").write_bytes(source.read_bytes())
            target.with_suffix(".new").rename(target)
        authorities.write_bytes(trusted.read_bytes())

    install(authority.issue("first", "/CN=first"), authority.certificate)
    with port(files) as to:
        assert "CN = first" in client(to, theirs)
        install(authority.issue("second", "/CN=second"), authority.certificate)
        assert "CN = second" in client(to, theirs)
        assert to.source.state().ours.subject == "CN=second"

        files.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\n")
        assert "CN = second" in client(to, theirs)
        assert to.alarms == ["TLS_FILES_UNUSABLE"]
        assert "own.pem" in to.source.state().problem
        assert greeting(to, theirs) == b"hello"
        assert to.alarms == ["TLS_FILES_UNUSABLE"], "one alarm for one change"

        install(authority.issue("third", "/CN=third"), authority.certificate)
        assert greeting(to, theirs) == b"hello"
        assert to.source.state().problem == ""

        other = Authority(tmp_path / "other", "other")
        authorities.write_bytes(other.certificate.read_bytes())
        assert greeting(to, theirs) == b"", "nobody trusts the old authority any more"
        assert greeting(to, other.issue("ct1", "/CN=ct1")) == b"hello"


def test_files_that_are_being_replaced_raise_no_alarm(
    tmp_path: Path, authority: Authority, theirs: Leaf
) -> None:
    """The certificate is there, its key is not yet: whoever calls in between gets the old ones."""
    first, second = authority.issue("before", "/CN=before"), authority.issue("after", "/CN=after")
    files = TlsFiles(tmp_path / "own.pem", tmp_path / "own.key", authority.certificate)
    files.certificate.write_bytes(first.certificate.read_bytes())
    files.key.write_bytes(first.key.read_bytes())
    clock = Clock(-3600)  # however long it takes here, the files have just been changed
    with port(files, clock=clock) as to:
        files.certificate.write_bytes(second.certificate.read_bytes())
        assert "CN = before" in client(to, theirs)
        assert not to.alarms
        files.key.write_bytes(second.key.read_bytes())
        assert "CN = after" in client(to, theirs)
        assert not to.alarms
        files.key.write_bytes(first.key.read_bytes())
        to.source.refresh()
        assert not to.alarms
        files.certificate.unlink()
        to.source.refresh()
        assert not to.alarms
        clock.ahead_s = 10
        to.source.refresh()
        assert to.alarms == ["TLS_FILES_UNUSABLE"]


def test_files_in_a_folder_that_cannot_be_entered_any_more_are_an_alarm(
    tmp_path: Path, authority: Authority, ours: Leaf
) -> None:
    """Neither the files nor their folder can be looked at: what was read before stays in use."""
    folder = tmp_path / "closed" / "tls"
    folder.mkdir(parents=True)
    files = TlsFiles(folder / "own.pem", folder / "own.key", authority.certificate)
    files.certificate.write_bytes(ours.certificate.read_bytes())
    files.key.write_bytes(ours.key.read_bytes())
    log = structlog.wrap_logger(None, processors=[lambda *_: (_ for _ in ()).throw(structlog.DropEvent)])
    alarms: list[str] = []
    source = TlsSource(files, "required", Clock(10), log, lambda name, _: alarms.append(name))
    before, journal = source.context(), Journal(tmp_path / "journal.db")
    watch = CertificateWatch({"ours": source}, dict, 0.0, journal, Clock(10), log)
    with closing(journal):
        with shut(folder.parent):
            watch.look()
            assert source.context() is before
        assert alarms == ["TLS_FILES_UNUSABLE"]
        assert "cannot be read: Permission denied" in watch.problem()
        watch.look()
        assert watch.problem() == ""


def test_a_certificate_of_an_unknown_version_leaves_the_old_files_in_use(
    tmp_path: Path, authority: Authority, ours: Leaf
) -> None:
    """OpenSSL reads X.509 version 2, and cryptography raises an error of its own."""
    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(authority.certificate.read_bytes())
    files = TlsFiles(ours.certificate, ours.key, authorities)
    with port(files) as to:
        before = to.source.context()
        authorities.write_bytes(authority.certificate.read_bytes() + version_2(authority.certificate))
        to.source.refresh()
        assert to.source.context() is before
        assert to.alarms == ["TLS_FILES_UNUSABLE"]
        assert "ca.pem holds" in to.source.state().problem
    assert [name for name, _ in file_problems(files)] == ["authorities"], "aigw check says so too"
    with pytest.raises(GatewayError, match=r"ca\.pem holds"), port(files):
        pass
    der = ssl.PEM_cert_to_DER_cert(version_2(authority.certificate).decode())
    with pytest.raises(ValueError, match="version"):
        decode_der(der)


def test_whatever_a_file_makes_the_reader_raise_leaves_the_old_ones_in_use(
    tmp_path: Path, authority: Authority, ours: Leaf, monkeypatch: pytest.MonkeyPatch
) -> None:
    class UnheardOf(Exception):
        """Of a new version of a library."""

    def broken(_: object) -> None:
        raise UnheardOf

    authorities = tmp_path / "ca.pem"
    authorities.write_bytes(authority.certificate.read_bytes())
    with port(TlsFiles(ours.certificate, ours.key, authorities)) as to:
        before = to.source.context()
        authorities.write_bytes(authority.certificate.read_bytes() * 2)
        with monkeypatch.context() as patch:
            patch.setattr("gateway.receive.tls.files.facts", broken)
            to.source.refresh()
        assert to.source.context() is before
        assert to.alarms == ["TLS_FILES_UNUSABLE"]
        assert "(UnheardOf)" in to.source.state().problem


def version_2(certificate: Path) -> bytes:
    """The certificate as one of X.509 version 2, PEM; its signature is wrong then."""
    der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
    assert der.count(b"\xa0\x03\x02\x01\x02") == 1
    return ssl.DER_cert_to_PEM_cert(der.replace(b"\xa0\x03\x02\x01\x02", b"\xa0\x03\x02\x01\x01")).encode()


@contextmanager
def shut(folder: Path) -> Iterator[None]:
    """Nobody may enter the folder, and this process is not root meanwhile."""
    folder.chmod(0)
    if is_root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        folder.chmod(0o700)


def test_rsa_certificates_are_taken_and_short_ones_are_not(tmp_path: Path, authority: Authority) -> None:
    ours, weak = (
        authority.issue("rsa", "/CN=rsa", rsa_bits=2048),
        authority.issue("w", "/CN=w", rsa_bits=1024),
    )
    with port(authority.files(ours)) as to:
        assert "Cipher is ECDHE-RSA-AES" in client(to, ours, "-tls1_2")
        assert "TLSv1.3" in client(to, ours)
        client(to, weak, "-cipher", "ALL:@SECLEVEL=0")
        wait_until(lambda: to.names() == ["CERTIFICATE_TOO_WEAK"])
        assert "2048 bits" in to.refusals[0].advice
    with pytest.raises(GatewayError, match="EE_KEY_TOO_SMALL"), port(authority.files(weak)):
        pass


def test_files_that_cannot_be_used_are_said_by_name(
    tmp_path: Path, authority: Authority, ours: Leaf, theirs: Leaf
) -> None:
    good = authority.files(ours)
    assert not file_problems(good)
    text = tmp_path / "text"
    text.write_text("no PEM")
    locked = tmp_path / "locked.key"
    subprocess.run(
        ["openssl", "ec", "-aes128", "-passout", "pass:x", "-in", ours.key, "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    for files, name, said in (
        (TlsFiles(tmp_path / "none", good.key, good.authorities), "certificate", "No such file"),
        (TlsFiles(text, good.key, good.authorities), "certificate", "PEM"),
        (TlsFiles(good.certificate, text, good.authorities), "key", "PEM"),
        (TlsFiles(good.certificate, locked, good.authorities), "key", "encrypted"),
        (TlsFiles(good.certificate, theirs.key, good.authorities), "key", "is not the key of"),
        (TlsFiles(good.certificate, good.key, text), "authorities", "PEM"),
    ):
        assert [(field, said in sentence) for field, sentence in file_problems(files)] == [(name, True)]
        with pytest.raises(GatewayError, match="correct dicom") as raised, port(files):
            pass
        assert raised.value.name == "TLS_FILES_UNUSABLE"


def test_a_key_that_others_read_and_an_end_that_is_near_are_warnings(
    tmp_path: Path, authority: Authority, ours: Leaf
) -> None:
    now_s = time.time()
    assert not file_warnings(authority.files(ours), now_s, 30 * DAY_S)
    near = authority.files(authority.issue("near", "/CN=near", days=10))
    (warning,) = file_warnings(near, now_s, 30 * DAY_S)
    assert warning[0] == "certificate"
    assert "CN=near ends in 10 days" in warning[1]
    assert "ended 5 days ago" in file_warnings(near, now_s + 15 * DAY_S, DAY_S)[0][1]
    open_key = tmp_path / "open.key"
    open_key.write_bytes(ours.key.read_bytes())
    open_key.chmod(0o640)
    files = TlsFiles(ours.certificate, open_key, authority.certificate)
    assert "mode 640" in file_warnings(files, now_s, 0)[0][1]
