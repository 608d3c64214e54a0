"""The files of a TLS listener: what is wrong with them, what they say, and the context made of them."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes, PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from gateway.errors import GatewayError
from gateway.receive.tls.certificates import PeerCertificate, facts, read_pem

SUITES = "ECDHE+AESGCM:ECDHE+CHACHA20:!aNULL:@SECLEVEL=2"
"""Of TLS 1.2 (RFC 9325 4.2); those of TLS 1.3 are all of this kind."""

_OTHERS_MAY_READ = 0o077


@dataclass(frozen=True)
class TlsFiles:
    """PEM files: our certificate and the intermediate ones, its key, and whom we trust.

    Without authorities nobody is asked for a certificate. ``setting`` is where they are configured.
    """

    certificate: Path
    key: Path
    authorities: Path | None = None
    setting: str = "dicom.tls"

    @property
    def all(self) -> tuple[Path, ...]:
        """Those that there are."""
        return (self.certificate, self.key, *([self.authorities] if self.authorities else ()))


@dataclass(frozen=True)
class TlsState:
    """What is in use now, for status and metrics.

    Attributes
    ----------
    problem
        Why files that have changed are not in use; empty if they are.
    """

    ours: PeerCertificate
    authorities: tuple[PeerCertificate, ...]
    problem: str = ""


def file_problems(files: TlsFiles) -> list[tuple[str, str]]:
    """What keeps the files from being used: (``certificate`` | ``key`` | ``authorities``, sentence)."""
    found = []
    chain: list[x509.Certificate] = []
    key = None
    for name, path in (("certificate", files.certificate), ("authorities", files.authorities)):
        if path is None:
            continue
        try:
            certificates = read_pem(path)
        except OSError as error:
            found.append((name, f"{path} cannot be read: {os.strerror(error.errno or 0)}"))
        except ValueError:
            sentence = "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----), or a damaged one"
            found.append((name, f"{path} {sentence}"))
        else:
            chain = list(certificates) if name == "certificate" else chain
    try:
        key = load_pem_private_key(files.key.read_bytes(), password=None).public_key()
    except OSError as error:
        found.append(("key", f"{files.key} cannot be read: {os.strerror(error.errno or 0)}"))
    except TypeError:  # that is what cryptography says of a missing password
        found.append(("key", f"{files.key} is encrypted; nobody is there to type its password at the start"))
    except (ValueError, UnsupportedAlgorithm):
        found.append(("key", f"{files.key} holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)"))
    if chain and key is not None and _encoded(key) != _public_key(chain[0]):
        found.append(("key", f"{files.key} is not the key of the first certificate in {files.certificate}"))
    return found


def file_warnings(files: TlsFiles, now_s: float, warn_before_s: float) -> list[tuple[str, str]]:
    """What should be seen to soon, of files without problems."""
    found = []
    mode = files.key.stat().st_mode
    if mode & _OTHERS_MAY_READ:
        found.append(("key", f"{files.key} can be read by other users (mode {mode & 0o777:o}): chmod 600"))
    state = read_state(files)
    for name, each in (("certificate", state.ours), *(("authorities", a) for a in state.authorities)):
        if warning := end_warning(each, now_s, warn_before_s):
            found.append((name, warning))
    return found


def end_warning(certificate: PeerCertificate, now_s: float, warn_before_s: float) -> str:
    """A sentence about a certificate that ends soon or has ended; empty for any other."""
    days = certificate.days_left(now_s)
    if certificate.not_after_s <= now_s:
        return f"the certificate {certificate.subject} ended {-days:.0f} days ago: renew it"
    if certificate.not_after_s - now_s <= warn_before_s:
        return f"the certificate {certificate.subject} ends in {days:.0f} days: renew it"
    return ""


def make_context(files: TlsFiles, required: bool) -> ssl.SSLContext:
    """The context of a listener; ``required``: peers must show a certificate.

    Raises
    ------
    GatewayError
        TLS_FILES_UNUSABLE, with every problem.
    """
    if problems := file_problems(files):
        raise _unusable(files, "; ".join(sentence for _, sentence in problems))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(SUITES)
    context.options |= (
        ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_TICKET
    )
    context.num_tickets = 0  # what a certificate may, is asked anew for every connection
    try:
        context.load_cert_chain(files.certificate, files.key)
        if files.authorities is not None:
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
            context.load_verify_locations(cafile=files.authorities)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError: a key that is too short, for one
        reason = getattr(error, "reason", None) or type(error).__name__
        sentence = f"OpenSSL does not take {files.certificate} with {files.key} ({reason})"
        raise _unusable(files, sentence) from error
    return context


def read_state(files: TlsFiles) -> TlsState:
    """Subjects and ends of our certificate and of the authorities; raises GatewayError."""
    try:
        ours = read_pem(files.certificate)
        authorities = read_pem(files.authorities) if files.authorities else ()
        return TlsState(facts(ours[0]), tuple(_by_end(authorities)))
    except (OSError, ValueError) as error:
        raise _unusable(files, f"{files.certificate} or {files.authorities} cannot be read") from error


def stamp_of(files: TlsFiles) -> tuple[tuple[int, ...], ...]:
    """Changes whenever a file is replaced or written."""
    return tuple(_stamp(path) for path in files.all)


def changed_s(files: TlsFiles) -> float:
    """When one of the files, or the folder of one that is gone, was changed last; seconds since 1970."""
    return max(_changed_s(path) for path in files.all)


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_ctime
    except OSError:
        pass
    try:
        return path.parent.stat().st_mtime
    except OSError:
        return 0.0


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _public_key(certificate: x509.Certificate) -> bytes | None:
    """None for one of a kind that cannot be read."""
    try:
        return _encoded(certificate.public_key())
    except (ValueError, UnsupportedAlgorithm):
        return None


def _encoded(key: CertificatePublicKeyTypes | PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _by_end(certificates: Sequence[x509.Certificate]) -> list[PeerCertificate]:
    return sorted((facts(each) for each in certificates), key=lambda each: each.not_after_s)


def _unusable(files: TlsFiles, reason: str) -> GatewayError:
    return GatewayError("TLS_FILES_UNUSABLE", f"{reason}: correct {files.setting} or the files.")
