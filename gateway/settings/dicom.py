"""Settings of our own application entity and of the systems that we talk to."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ai.profile import DEFAULT_PROFILE, Compression, SegmentationKind
from gateway.settings.section import AETitle, Listen, PathName, PduBytes, Seconds, Section, Timeout


class Tls(Section):
    """A second listener, for DICOM over TLS (PS3.15 B.12). The files are PEM, read anew when they change."""

    listen: Listen = Listen(port=2762)
    certificate: PathName
    """Ours, followed by the intermediate ones."""
    key: PathName
    authorities: PathName
    """Certificates of who may have signed those of our peers."""
    client_certificates: Literal["required", "optional"] = "required"
    warn_before: Seconds = 30 * 24 * 3600.0
    """How long before a certificate ends the gateway says so."""


class Dicom(Section):
    """Our own application entity."""

    ae_title: AETitle = "AIGW"
    listen: Listen = Listen(port=11112)
    unknown_callers: Literal["reject", "accept"] = "reject"
    max_associations: int = Field(default=40, ge=1, le=1000)
    max_pdu: PduBytes = 131072
    idle_timeout: Timeout = 60.0
    association_timeout: Timeout = 10.0
    """For a new connection to shake hands (TLS) and to ask for an association (ARTIM timer, PS3.8 9.1.5)."""
    max_connections_per_address: int = Field(default=32, ge=1)
    """That have not asked for an association yet."""
    tls: Tls | None = None
    storage_classes: tuple[str, ...] = ()
    """Further storage SOP classes by UID or keyword; empty: every storage class of the standard."""


class ResultProfile(Section):
    """How results are written for a destination; see :class:`ai.profile.Profile`."""

    segmentation: SegmentationKind = DEFAULT_PROFILE.segmentation
    compression: Compression = DEFAULT_PROFILE.compression
    """Of label maps and fractional segmentations; binary ones are never compressed (PS3.5 8.2)."""
    max_frames: int = Field(default=DEFAULT_PROFILE.maximum_frames or 0, ge=0)
    """Of one object; 0: no limit."""
    max_segments: int = Field(default=DEFAULT_PROFILE.maximum_segments or 0, ge=0)
    when_over: Literal["split", "label_map"] = DEFAULT_PROFILE.when_over
    absent: Literal["segment", "report"] = DEFAULT_PROFILE.absent
    report: bool = DEFAULT_PROFILE.report
    overview: bool = DEFAULT_PROFILE.overview
    rtstruct: bool = DEFAULT_PROFILE.rtstruct


class WebAccess(Section):
    """How a peer says who it is over HTTP: a bearer token, or a user and a password."""

    token: str | None = Field(default=None, min_length=1, repr=False)
    user: str | None = Field(default=None, min_length=1)
    password: str | None = Field(default=None, min_length=1, repr=False)


class Peer(Section):
    """A system that we talk to."""

    ae_title: AETitle
    host: str
    """Where we call it, and where it may call from."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    roles: tuple[Literal["source", "destination", "query"], ...] = Field(min_length=1)
    addresses: tuple[str, ...] = ()
    """Further addresses and ranges (10.1.0.0/16) that a source may call from."""
    max_associations: int = Field(default=0, ge=0)
    """Of a source at the same time; 0: only dicom.max_associations."""
    storage_classes: tuple[str, ...] = ()
    """All that is taken from a source, by UID or keyword; empty: everything that dicom takes."""
    tls: Literal["allowed", "required"] = "allowed"
    """required: this source is refused on the plain port."""
    certificate: str | None = None
    """Subject (RFC 4514, ``CN=ct1,O=Clinic``) or ``sha256:…`` of the certificate that it must show."""
    web: WebAccess | None = None
    """A source with it may store by STOW-RS."""
    results: ResultProfile = ResultProfile()
    """Only of a destination."""
