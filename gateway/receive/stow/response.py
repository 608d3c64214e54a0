"""The Store Instances Response Module (PS3.18 Annex I) as DICOM JSON (Annex F) and the HTTP status (10.5.3).

We have no Retrieve transaction, so Retrieve URL, which is of type 2, is always there and always empty.

Warning Reason is B111 for an instance whose UID was known with other bytes: both are kept, the first one
stays in use. No code of PS3.18 I.2.1 says so, and further ones are allowed; this one is of the class of
warnings (Bxxx), after 0111, Duplicate SOP Instance (PS3.7 C.5.3). Failure Reasons are those of PS3.18 I.2.2,
and 0111 for a duplicate that is refused.
Error Comment (0000,0902) says what the codes cannot; a reader that does not know it passes over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.errors import GatewayError
from gateway.receive.stow.request import StowRefused
from gateway.receive.text import ascii_text

DUPLICATE_KEPT = 0xB111
PROCESSING_FAILURE = 0x0110
_COMMENT_CHARACTERS = 64  # VR LO
_WARNING_CHARACTERS = 500
_METHOD_NOT_ALLOWED = 405
_JSON, _DICOM_JSON = "application/json", "application/dicom+json"


@dataclass(frozen=True)
class Stored:
    """An instance that is durable; ``warning`` is its Warning Reason, or None."""

    sop_class_uid: str
    sop_instance_uid: str
    warning: int | None = None


@dataclass(frozen=True)
class Failed:
    """A part that was not stored; the UIDs are empty if it has none that can be used.

    ``http_status`` is what the request is answered if nothing was stored and all parts failed alike.
    """

    failure_reason: int
    comment: str
    sop_class_uid: str = ""
    sop_instance_uid: str = ""
    http_status: int = 409


@dataclass(frozen=True)
class Answer:
    """Of HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def respond(stored: Sequence[Stored], failed: Sequence[Failed], error: GatewayError | None = None) -> Answer:
    """The answer to a request that was read, or that was left at ``error``."""
    if not stored and not failed:
        return refuse(error or _no_parts())
    headers = {"Content-Type": _DICOM_JSON, **_error_headers(error)}
    data_set = _data_set(stored, failed, error)
    return Answer(
        _status(stored, failed, error), headers, json.dumps(data_set, sort_keys=True).encode("ascii")
    )


def refuse(error: GatewayError) -> Answer:
    """The answer to a request of which nothing was stored or tried: its name and reason as JSON."""
    body = json.dumps({"name": error.name, "reason": error.reason}).encode("ascii")
    return Answer(_status_of(error), {"Content-Type": _JSON, **_error_headers(error)}, body)


def _no_parts() -> StowRefused:
    return StowRefused("NO_PARTS", "The request has no parts: send at least one DICOM file.", 400)


def _status(stored: Sequence[Stored], failed: Sequence[Failed], error: GatewayError | None) -> int:
    if error is not None:
        return _status_of(error)
    if not stored:
        statuses = {each.http_status for each in failed}
        return statuses.pop() if len(statuses) == 1 else 409
    return 202 if failed or any(each.warning is not None for each in stored) else 200


def _status_of(error: GatewayError) -> int:
    return error.status if isinstance(error, StowRefused) else 500


def _error_headers(error: GatewayError | None) -> dict[str, str]:
    """What the error asks for, and the whole sentence: a data set has only room for 64 characters of it."""
    if error is None:
        return {}
    text = ascii_text(f"{error.name}: {error.reason}", _WARNING_CHARACTERS).replace('"', "'")
    headers = {"Warning": f'299 aigw "{text}"'}
    if isinstance(error, StowRefused):
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        if error.challenge:
            headers["WWW-Authenticate"] = error.challenge
        if error.status == _METHOD_NOT_ALLOWED:
            headers["Allow"] = "POST"  # RFC 9110 15.5.6
    return headers


def _data_set(
    stored: Sequence[Stored], failed: Sequence[Failed], error: GatewayError | None
) -> dict[str, Any]:
    named = [each for each in failed if each.sop_instance_uid]
    others = [each for each in failed if not each.sop_instance_uid]
    data_set: dict[str, Any] = {}
    if error is not None:
        data_set["00000902"] = _element(
            "LO", ascii_text(f"{error.name}: {error.reason}", _COMMENT_CHARACTERS)
        )
    data_set["00081190"] = _element("UR")
    if named:
        data_set["00081198"] = _element("SQ", *(_failed_item(each) for each in named))
    if stored:
        data_set["00081199"] = _element("SQ", *(_stored_item(each) for each in stored))
    if others:
        data_set["0008119A"] = _element("SQ", *(_failure(each) for each in others))
    return data_set


def _stored_item(instance: Stored) -> dict[str, Any]:
    item = _reference(instance.sop_class_uid, instance.sop_instance_uid)
    item["00081190"] = _element("UR")
    if instance.warning is not None:
        item["00081196"] = _element("US", instance.warning)
    return item


def _failed_item(instance: Failed) -> dict[str, Any]:
    return _reference(instance.sop_class_uid, instance.sop_instance_uid) | _failure(instance)


def _failure(instance: Failed) -> dict[str, Any]:
    comment = ascii_text(instance.comment, _COMMENT_CHARACTERS)
    return {"00000902": _element("LO", comment), "00081197": _element("US", instance.failure_reason)}


def _reference(sop_class_uid: str, sop_instance_uid: str) -> dict[str, Any]:
    return {"00081150": _element("UI", sop_class_uid), "00081155": _element("UI", sop_instance_uid)}


def _element(vr: str, *values: object) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}
