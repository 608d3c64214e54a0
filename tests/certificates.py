"""Certificates made with openssl, as a hospital would: an authority, leaves, and some that are wrong."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from gateway.receive.tls.files import TlsFiles


@dataclass(frozen=True)
class Leaf:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path

    @property
    def sha256(self) -> str:
        """Fingerprint as openssl prints it."""
        said = openssl("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256")
        return said.partition("=")[2].strip()


class Authority:
    """A certificate authority in a folder."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _new_key(self._key)
        openssl(
            "req", "-x509", "-new", "-key", self._key, "-out", self.certificate, "-days", "3650",
            "-subj", f"/O=Clinic/CN={name}", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(
        self, name: str, subject: str, *, days: int = 365, purpose: str = "", rsa_bits: int = 0
    ) -> Leaf:
        """A leaf with subject ``/O=Clinic/CN=ct1``; ``days`` may be negative (it has ended)."""
        leaf = Leaf(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        request, extensions = self._folder / f"{name}.csr", self._folder / f"{name}.ext"
        _new_key(leaf.key, rsa_bits)
        openssl("req", "-new", "-key", leaf.key, "-subj", subject, "-out", request)
        usage = purpose or "clientAuth,serverAuth"
        extensions.write_text(
            "basicConstraints=CA:FALSE\nsubjectAltName=DNS:localhost,IP:127.0.0.1\n"
            f"extendedKeyUsage={usage}\n"
        )
        openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self._key,
            "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", leaf.certificate,
        )  # fmt: skip
        return leaf

    def files(self, leaf: Leaf) -> TlsFiles:
        """What a gateway with this leaf is configured with, trusting this authority."""
        return TlsFiles(leaf.certificate, leaf.key, self.certificate)


def self_signed(folder: Path, name: str, subject: str) -> Leaf:
    """A leaf that no authority has signed."""
    leaf = Leaf(folder / f"{name}.pem", folder / f"{name}.key")
    _new_key(leaf.key)
    openssl("req", "-x509", "-new", "-key", leaf.key, "-subj", subject, "-out", leaf.certificate)
    return leaf


def openssl(*arguments: str | Path) -> str:
    """Run openssl; its answer on stdout."""
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _new_key(path: Path, rsa_bits: int = 0) -> None:
    if rsa_bits:
        openssl("genrsa", "-out", path, str(rsa_bits))
    else:
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path)
    path.chmod(0o600)
