"""What a STOW-RS request says before its body, and whether we take it (PS3.18 10.5.1)."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.errors import GatewayError
from gateway.receive.stow.multipart import boundary_of
from gateway.receive.stow.multipart_header import MultipartError, accepts_json, parse_media_type
from gateway.receive.text import uid_text
from gateway.uids import is_uid

DICOM = "application/dicom"
RETRY_AFTER_S = 30
_MULTIPART = "multipart/related"
_TOO_LARGE = frozenset({"TOO_MANY_PARTS"})
_WRONG_MEDIA = frozenset({"NESTED_MULTIPART"})


class StowRefused(GatewayError):
    """A request that is not taken, or not any further; ``status`` is that of HTTP."""

    def __init__(
        self, name: str, reason: str, status: int, *, retry_after_s: int | None = None, challenge: str = ""
    ) -> None:
        super().__init__(name, reason)
        self.status = status
        self.retry_after_s = retry_after_s
        self.challenge = challenge
        """Of WWW-Authenticate."""


@dataclass(frozen=True)
class StowLimits:
    """What is taken in one request, and how many at once."""

    max_instances: int = 10_000
    max_request_bytes: int = 16 * 1024**3
    max_requests: int = 8
    idle_timeout_s: float = 30.0


@dataclass(frozen=True)
class StoreHead:
    """A request without its body.

    Attributes
    ----------
    address
        IP address of the client; a proxy before us would be the client.
    fields
        Header fields by lower-case name, each with all its values.
    study_instance_uid
        Of the path; None if it names none.
    """

    address: str
    fields: dict[str, tuple[str, ...]] = field(default_factory=dict)
    study_instance_uid: str | None = None

    def one(self, name: str) -> str | None:
        """The only value of a field; None if it is missing. Raises StowRefused (HEADER_TWICE)."""
        values = self.fields.get(name, ())
        if len(values) > 1:
            raise StowRefused(
                "HEADER_TWICE", f"The request has {name} {len(values)} times: send it once.", 400
            )
        return values[0] if values else None


@dataclass(frozen=True)
class Body:
    """How a body is to be read. Without boundary it is one DICOM file."""

    boundary: bytes | None
    gzip: bool
    announced_bytes: int = 0


def check_head(head: StoreHead, limits: StowLimits) -> Body:
    """How to read the body of a request. Raises StowRefused with what is wrong with it."""
    if head.study_instance_uid is not None and not is_uid(head.study_instance_uid):
        uid = uid_text(head.study_instance_uid)
        raise StowRefused("STUDY_UID_INVALID", f"'{uid}' in the path is no UID (PS3.5 9.1).", 400)
    if not accepts_json(",".join(head.fields.get("accept", ())) or None):
        raise StowRefused(
            "JSON_NOT_ACCEPTED", "We answer in application/dicom+json only: add it to Accept.", 406
        )
    return Body(_boundary(head), _is_gzip(head), _announced_bytes(head, limits))


def refused(error: MultipartError) -> StowRefused:
    """A broken message as the answer to it."""
    status = 413 if error.name in _TOO_LARGE else 415 if error.name in _WRONG_MEDIA else 400
    return StowRefused(error.name, error.reason, status)


def check_media_type(name: str) -> None:
    """Only DICOM files: raises StowRefused (415) with why anything else is not taken."""
    if name == DICOM:
        return
    if "xml" in name:
        raise StowRefused(
            "XML_REFUSED", "Metadata in XML is not taken: send DICOM files (application/dicom).", 415
        )
    if name in ("application/dicom+json", "application/json"):
        raise StowRefused(
            "JSON_METADATA_REFUSED",
            "Metadata in JSON with bulk data is not taken, and no BulkDataURI is ever fetched: send DICOM "
            "files (application/dicom).",
            415,
        )
    raise StowRefused(
        "MEDIA_TYPE_REFUSED",
        "A Content-Type is not that of DICOM files: send application/dicom.",
        415,
    )


def _boundary(head: StoreHead) -> bytes | None:
    text = head.one("content-type")
    if text is None:
        raise StowRefused(
            "MEDIA_TYPE_REFUSED", "The request has no Content-Type: send multipart/related.", 415
        )
    try:
        content_type = parse_media_type(text)
        if content_type.name != _MULTIPART:
            check_media_type(content_type.name)
            return None
        check_media_type(parse_media_type(content_type.parameters.get("type", DICOM)).name)
        return boundary_of(content_type)
    except MultipartError as error:
        raise refused(error) from error


def _is_gzip(head: StoreHead) -> bool:
    text = (head.one("content-encoding") or "identity").strip().lower()
    if text in ("identity", "gzip", "x-gzip"):
        return text != "identity"
    raise StowRefused(
        "CONTENT_ENCODING_REFUSED", "This Content-Encoding is not taken: send gzip or none.", 415
    )


def _announced_bytes(head: StoreHead, limits: StowLimits) -> int:
    length = head.one("content-length")
    if length is not None and "transfer-encoding" in head.fields:  # RFC 9112 6.3: request smuggling
        raise StowRefused(
            "LENGTH_AMBIGUOUS",
            "The request has Content-Length and Transfer-Encoding: send one of them.",
            400,
        )
    if length is None:
        if "transfer-encoding" in head.fields:
            return 0
        raise StowRefused(
            "LENGTH_REQUIRED",
            "The request has no body: send Content-Length, or Transfer-Encoding chunked.",
            411,
        )
    announced = int(length) if length.isascii() and length.isdigit() and len(length) <= 20 else -1
    if announced < 0:
        raise StowRefused("LENGTH_INVALID", "Content-Length is no number: send the bytes of the body.", 400)
    if announced > limits.max_request_bytes:
        raise too_large(limits)
    return announced


def stopping() -> StowRefused:
    """We are on our way out: another time, or another node."""
    return StowRefused("STOPPING", "The gateway is stopping: send again.", 503, retry_after_s=RETRY_AFTER_S)


def too_large(limits: StowLimits) -> StowRefused:
    """More than one request may have."""
    return StowRefused(
        "REQUEST_TOO_LARGE",
        f"The request has more than {limits.max_request_bytes >> 20} MiB (web.stow.max_request): send its "
        "instances in several requests.",
        413,
    )
