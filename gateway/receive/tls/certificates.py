"""X.509 certificates as admission sees them: subject, fingerprint, end (RFC 5280; subjects as RFC 4514)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

_FINGERPRINT_PREFIX = "sha256:"
_DAY_S = 24 * 3600.0
_FURTHER_NAMES = {
    # What openssl and Windows write besides the names of RFC 4514 section 3.
    "E": NameOID.EMAIL_ADDRESS,
    "EMAILADDRESS": NameOID.EMAIL_ADDRESS,
    "S": NameOID.STATE_OR_PROVINCE_NAME,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "SN": NameOID.SURNAME,
    "GN": NameOID.GIVEN_NAME,
    "T": NameOID.TITLE,
}
_ESCAPED_OR_START = re.compile(
    r"(?P<escaped>\\.)|\s*(?P<before>^|[,+])\s*(?P<name>[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+)\s*=\s*",
    re.DOTALL,
)
_CUT_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\\Z")


@dataclass(frozen=True)
class PeerCertificate:
    """A certificate that was shown, and that an authority of ours has signed.

    Attributes
    ----------
    subject
        RFC 4514, ``CN=ct1,O=Clinic``.
    sha256
        Of the DER certificate, 64 lower case hexadecimal digits.
    not_after_s
        Its end, seconds since 1970.
    """

    subject: str
    sha256: str
    not_after_s: float

    def days_left(self, now_s: float) -> float:
        """Days until it ends; negative afterwards."""
        return (self.not_after_s - now_s) / _DAY_S


@dataclass(frozen=True)
class ExpectedCertificate:
    """What the certificate of a peer must be: a fingerprint, or all attributes of its subject."""

    text: str
    sha256: str
    attributes: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> ExpectedCertificate:
        """From ``CN=ct1,O=Clinic`` in any order, or ``sha256:`` and 64 digits; colons between them are fine.

        Raises
        ------
        ValueError
            It is neither; the message says how to write it.
        """
        text = text.strip()
        if _CUT_ESCAPE.search(text):  # a value may end with a space, and YAML too takes that for nothing
            text += " "
        if text.lower().startswith(_FINGERPRINT_PREFIX):
            digits = text[len(_FINGERPRINT_PREFIX) :].replace(":", "").replace(" ", "").lower()
            if not re.fullmatch(r"[0-9a-f]{64}", digits):
                raise ValueError("a fingerprint is sha256: and 64 hexadecimal digits")
            return cls(text, digits, ())
        attributes = _attributes(text)
        if not attributes:
            raise ValueError("write the subject of the certificate (CN=ct1,O=Clinic) or sha256:…")
        return cls(text, "", attributes)

    def matches(self, certificate: PeerCertificate) -> bool:
        """True for the one that is meant; upper and lower case of a subject are alike (RFC 5280 7.1)."""
        if self.sha256:
            return certificate.sha256 == self.sha256
        try:
            return _attributes(certificate.subject) == self.attributes
        except ValueError:  # octets that are no text, for one: nobody can have written that into a setting
            return False


def decode_der(der: bytes) -> PeerCertificate:
    """Facts of a DER certificate; raises ValueError if it is none."""
    with _only_value_errors():
        return facts(x509.load_der_x509_certificate(der))


def read_pem(path: Path) -> Sequence[x509.Certificate]:
    """All certificates of a PEM file, ours first; each has facts. Raises OSError or ValueError."""
    content = path.read_bytes()
    with _only_value_errors():
        found = x509.load_pem_x509_certificates(content)
        for each in found:
            facts(each)
    return found


def facts(certificate: x509.Certificate) -> PeerCertificate:
    """What admission, status and metrics need of a certificate."""
    return PeerCertificate(
        subject=certificate.subject.rfc4514_string(),
        sha256=certificate.fingerprint(SHA256()).hex(),
        not_after_s=certificate.not_valid_after_utc.timestamp(),
    )


@contextmanager
def _only_value_errors() -> Iterator[None]:
    """cryptography has errors of its own for what stands in a certificate, which are no ValueErrors."""
    try:
        yield
    except (x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error


def _attributes(subject: str) -> tuple[tuple[str, str], ...]:
    """(object identifier, value) of every attribute of a subject, sorted: their order says nothing."""
    spaced = _ESCAPED_OR_START.sub(
        lambda match: match["escaped"] or f"{match['before']}{match['name'].upper()}=", subject
    )
    try:
        name = x509.Name.from_rfc4514_string(spaced, _FURTHER_NAMES)
    except ValueError as error:
        raise ValueError(
            "is neither sha256:… nor a certificate subject such as CN=ct1,O=Clinic (RFC 4514)"
        ) from error
    values = ((each.oid.dotted_string, str(each.value)) for each in name)
    return tuple(sorted((oid, " ".join(value.casefold().split())) for oid, value in values))
