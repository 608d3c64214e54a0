"""Header fields of a request and of its parts: media types and header blocks, within bounds.

No error quotes what was received: a file name in it is often the name of a patient.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import GatewayError

_NAME = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_TYPE = re.compile(rf"[ \t]*({_NAME}/{_NAME})[ \t]*")
_PARAMETER = re.compile(
    rf";[ \t]*(?:({_NAME})[ \t]*=[ \t]*"
    r'(?:([^\s";,]+)|"((?:[^"\\\x00-\x1f\x7f]|\\[\x20-\x7e])*)")[ \t]*)?'
)
_FIELD_NAME = re.compile(_NAME)
_ESCAPED = re.compile(r"\\(.)")
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MOST_FIELDS = 32


class MultipartError(GatewayError):
    """The bytes are no multipart/related message that we take (RFC 2387, RFC 2046)."""


@dataclass(frozen=True)
class MediaType:
    """A media type in lower case, and its parameters with names in lower case."""

    name: str
    parameters: Mapping[str, str]


def parse_media_type(text: str) -> MediaType:
    """A Content-Type value (RFC 9110 8.3.1). Raises MultipartError (MEDIA_TYPE_MALFORMED)."""
    found = _TYPE.match(text)
    if found is None or len(text) > 1024:
        raise _malformed()
    parameters: dict[str, str] = {}
    at = found.end()
    while at < len(text):
        parameter = _PARAMETER.match(text, at)
        if parameter is None:
            raise _malformed()
        at = parameter.end()
        name, plain, quoted = parameter.groups()
        if name is None:  # "type;" and "type; ; a=b" are around
            continue
        if name.lower() in parameters:
            raise MultipartError("MEDIA_TYPE_MALFORMED", "Content-Type has a parameter twice: send it once.")
        parameters[name.lower()] = plain if quoted is None else _ESCAPED.sub(r"\1", quoted)
    return MediaType(found.group(1).lower(), parameters)


def accepts_json(accept: str | None) -> bool:
    """Whether an Accept value (RFC 9110 12.5.1) takes DICOM JSON; without one everything is taken."""
    if accept is None or not accept.strip():
        return True
    return any(_takes_json(each) for each in accept.split(",") if each.strip())


def _takes_json(media_range: str) -> bool:
    name, *parameters = (part.strip().lower() for part in media_range.split(";"))
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key.strip() == "q" and re.fullmatch(r"0(\.0*)?", value.strip()):
            return False
    return name in ("*/*", "application/*", "application/json", "application/dicom+json")


def parse_fields(block: bytes) -> dict[str, str]:
    """Header fields of a part by lower-case name; folded lines are unfolded (RFC 822 3.1.1).

    Raises
    ------
    MultipartError
        PART_HEADER_MALFORMED: a line is no field, a name comes twice, or there are more than 32.
    """
    fields: dict[str, str] = {}
    for number, line in enumerate(_unfolded(block), start=1):
        name, colon, value = line.partition(":")
        if not colon or _FIELD_NAME.fullmatch(name) is None or _CONTROL.search(value):
            raise MultipartError(
                "PART_HEADER_MALFORMED",
                f"Field {number} of the header of a part is not 'Name: value': send Content-Type and then an "
                "empty line.",
            )
        name = name.lower()
        if name in fields or len(fields) == _MOST_FIELDS:
            raise MultipartError(
                "PART_HEADER_MALFORMED",
                f"The header of a part has a field twice, or more than {_MOST_FIELDS} fields: send "
                "Content-Type only.",
            )
        fields[name] = value.strip(" \t")
    return fields


def _unfolded(block: bytes) -> Iterator[str]:
    line = ""
    for part in block.decode("latin-1").split("\r\n"):
        if line and part[:1] in (" ", "\t"):
            line += " " + part.strip(" \t")
            continue
        if line:
            yield line
        line = part
    if line:
        yield line


def _malformed() -> MultipartError:
    return MultipartError(
        "MEDIA_TYPE_MALFORMED",
        "A Content-Type, or its parameter type, is no media type (RFC 9110 8.3.1): send application/dicom.",
    )
