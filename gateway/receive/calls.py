"""What is known of a request for an association before it is negotiated, and what can come of it."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Literal

from gateway.receive.tls.certificates import PeerCertificate

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
"""That of DICOM (PS3.7 A.2.1)."""


@dataclass(frozen=True)
class KnownPeer:
    """A configured peer with role source.

    Attributes
    ----------
    host
        An address, or a name that resolves to some.
    addresses
        Further addresses, ranges (``10.1.0.0/16``) and names that it may call from.
    storage_classes
        UIDs of all that it may send; empty: everything that we take.
    max_associations
        At the same time; 0: only the limit of all.
    tls
        ``required``: it is refused on the plain port.
    certificate
        Subject (RFC 4514) or ``sha256:…`` of the one that it must show; so it must use TLS too.
    is_configured
        False for a caller that is only taken because unknown ones are.
    """

    name: str
    ae_title: str
    host: str
    addresses: tuple[str, ...] = ()
    storage_classes: tuple[str, ...] = ()
    max_associations: int = 0
    tls: Literal["allowed", "required"] = "allowed"
    certificate: str | None = None
    is_configured: bool = True

    def takes(self, sop_class_uid: str) -> bool:
        """Whether it may send instances of this SOP class."""
        return not self.storage_classes or sop_class_uid in self.storage_classes


@dataclass(frozen=True)
class Call:
    """A request for an association, before negotiation (PS3.8 9.3.2).

    Attributes
    ----------
    association
        What it is registered as in ``OpenAssociations``.
    address
        IP address of the caller.
    certificate
        The one that was shown, if any.
    secure
        It came in over TLS.
    application_context
        The one that was proposed.
    """

    association: Hashable
    called_ae_title: str
    calling_ae_title: str
    address: str
    certificate: PeerCertificate | None = None
    secure: bool = False
    application_context: str = APPLICATION_CONTEXT


@dataclass(frozen=True)
class Refusal:
    """Why an association is rejected; the numbers are those of A-ASSOCIATE-RJ (PS3.8 Table 9-21), or 0.

    Attributes
    ----------
    reason
        For our own administrator: what happened and what can be done here.
    advice
        For the administrator of the calling system: full sentences to paste into a letter.
    peer
        Name of the configured peer that is concerned; empty if none is known.
    """

    name: str
    reason: str
    result: int
    source: int
    diagnostic: int
    advice: str = ""
    peer: str = ""


@dataclass(frozen=True)
class Node:
    """How peers reach us; letters to their administrators say so. Port 0: there is no such listener."""

    ae_title: str
    port: int = 0
    tls_port: int = 0
