"""Where the receiver listens, and the bounds of who connects there."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.receive.commitment.codec import MAX_REQUEST_BYTES
from gateway.receive.tls.context import TlsContext


@dataclass(frozen=True)
class TlsListener:
    """Where DICOM over TLS is taken (PS3.15 B.12)."""

    host: str
    port: int
    context: TlsContext


@dataclass(frozen=True)
class ScpLimits:
    """Bounds of connections and associations.

    Attributes
    ----------
    max_associations
        Open at the same time; the gate keeps to it, here it bounds the connections without one.
    max_connections_per_address
        Without association.
    max_pdu_bytes
        The longest P-DATA-TF that a peer may send; 0: of any length.
    idle_timeout_s
        A peer that is silent for so long loses its association.
    association_timeout_s
        For a TLS handshake, and for the A-ASSOCIATE-RQ after it.
    max_message_bytes
        Of messages other than C-STORE, which are held in memory, one of each association. Requests of
        storage commitment are the longest.
    """

    max_associations: int = 20
    max_connections_per_address: int = 32
    max_pdu_bytes: int = 131072
    idle_timeout_s: float = 60.0
    association_timeout_s: float = 10.0
    max_message_bytes: int = MAX_REQUEST_BYTES
