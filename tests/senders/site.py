"""A node with both listeners, an Orthanc, and certificates; and what the node has stored."""

from __future__ import annotations

import hashlib
import sqlite3
import struct
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.certificates import Authority
from tests.gateway_process import GatewayProcess
from tests.orthanc import Orthanc
from tests.ports import free_port
from tests.senders.clients import ORTHANC_AE_TITLE

_CONFIGURATION = """\
version: 1
data_dir: ${GW_DATA}
dicom:
  ae_title: AIGW
  listen: {host: 127.0.0.1, port: "${GW_DICOM_PORT}"}
  max_associations: 40
  tls:
    listen: {host: 127.0.0.1, port: "${GW_TLS_PORT}"}
    certificate: ${GW_TLS}/node.pem
    key: ${GW_TLS}/node.key
    authorities: ${GW_TLS}/authority.pem
peers:
  scanner: {ae_title: SCANNER, host: 127.0.0.1, roles: [source]}
  workstation: {ae_title: DCMJS, host: 127.0.0.1, roles: [source]}
  archive: {ae_title: ORTHANC, host: 127.0.0.1, roles: [source]}
completion: {quiet_for: 1h, at_most: 2h}
workers: {device: cpu}
web:
  listen: {host: 127.0.0.1, port: "${GW_HTTP_PORT}"}
"""
_INSTANCES = """\
SELECT sop_instance_uid, series_instance_uid, transfer_syntax_uid, source, path, digest FROM instance
"""


@dataclass(frozen=True)
class StoredInstance:
    """A row of the journal, and the data set of its file."""

    sop_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    source: str
    data_set: bytes


class Site:
    """Use as a context manager; everything runs inside."""

    def __init__(self, root: Path) -> None:
        self.authority = Authority(root / "tls")
        self.authority.issue("node", "/O=Clinic/CN=gateway")
        self.leaf = self.authority.issue("scanner", "/O=Clinic/CN=scanner")
        self.tls_port = free_port()
        self.node = GatewayProcess(root / "node", free_port(), _CONFIGURATION)
        self.node.environment |= {"GW_TLS": str(root / "tls"), "GW_TLS_PORT": str(self.tls_port)}
        certificates = {
            "DicomTlsCertificate": str(self.leaf.certificate),
            "DicomTlsPrivateKey": str(self.leaf.key),
            "DicomTlsTrustedCertificates": str(self.authority.certificate),
        }
        self.orthanc = Orthanc(root / "orthanc", ORTHANC_AE_TITLE, certificates)
        self._stack = ExitStack()

    def __enter__(self) -> Site:
        self._stack.enter_context(self.node)
        self._stack.enter_context(self.orthanc)
        assert not self.node.died, self.node.log.read_text()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def stored(self) -> dict[str, StoredInstance]:
        """SOP Instance UID → what is stored, read from the journal and the spool of the running node."""
        journal = self.node.data / "journal.db"
        with closing(sqlite3.connect(f"{journal.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute(_INSTANCES).fetchall()
        found = {}
        for uid, series_uid, syntax, source, path, digest in rows:
            data_set = data_set_of(self.node.data / "spool" / path)
            assert hashlib.sha256(data_set).hexdigest() == digest
            found[uid] = StoredInstance(uid, series_uid, syntax, source, data_set)
        return found


def data_set_of(path: Path) -> bytes:
    """A Part 10 file without preamble and file meta information."""
    raw = path.read_bytes()
    assert raw[128:132] == b"DICM"
    return raw[144 + struct.unpack_from("<L", raw, 140)[0] :]


PEER_OF = {"dcmsend": "scanner", "storescu": "scanner", "dcmjs-dimse": "workstation", "Orthanc": "archive"}
"""Sender → the configured peer that it is."""
