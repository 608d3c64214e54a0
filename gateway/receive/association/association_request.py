"""Reads an A-ASSOCIATE-RQ (PS3.8 9.3.2) and checks how it is built, before anything is made of it.

The presentation contexts are read here: 128 of them with 30 transfer syntaxes each take pynetdicom
50 ms. Everything else is only checked, for pynetdicom to read afterwards.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.receive.association.violations import pdu_invalid

MAX_ASSOCIATION_PDU_BYTES = 1 << 20
"""No real A-ASSOCIATE-RQ is longer: 128 contexts with 40 transfer syntaxes have 330 KiB."""

_FIXED_BYTES = 68
_AE_TITLES, _AE_TITLE_BYTES = {"called": 4, "calling": 20}, 16  # PS3.8 Table 9-11
_MAX_CONTEXTS = 128  # odd ids from 1 to 255 (PS3.8 9.3.2.2)
_MAX_SYNTAXES = 256  # of one context; the standard knows some 60
_MAX_USER_ITEMS = 1024  # role selections and extended negotiations of some hundred SOP classes
_MAX_UID_BYTES = 64  # PS3.5 9.1
_OF_AE_TITLES = frozenset(range(0x20, 0x7F)) - frozenset(b"\\")
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _USER_INFORMATION = 0x10, 0x20, 0x50
_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX = 0x30, 0x40
_CONTEXT_HEAD_BYTES = 4

_USER_IDENTITY = 0x58
_USER_IDENTITY_TYPES = range(1, 6)  # user name, passcode, Kerberos, SAML, JSON web token (PS3.7 D.3.3.7.1)

_ITEM = struct.Struct(">BxH")

_Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Abstract syntaxes and transfer syntaxes."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """A presentation context as it was proposed."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ says.

    Attributes
    ----------
    rest
        The PDU after its header, without the presentation contexts.
    """

    proposals: tuple[Proposal, ...]
    rest: bytes


def read_association_request(body: bytes | bytearray) -> AssociationRequest:
    """Read what follows the six bytes of the PDU header; raises Violation (PDU_INVALID)."""
    if len(body) < _FIXED_BYTES:
        raise pdu_invalid(f"An A-ASSOCIATE-RQ has {len(body)} bytes, which is less than its fixed part.")
    kinds: Counter[int] = Counter()
    proposals: dict[int, Proposal] = {}
    known: dict[bytes, _Names] = {}
    rest = bytearray(body[:_FIXED_BYTES])
    for what, at in _AE_TITLES.items():
        rest[at : at + _AE_TITLE_BYTES] = _ae_title(what, rest[at : at + _AE_TITLE_BYTES])
    for kind, item in _items(memoryview(body)[_FIXED_BYTES:]):
        kinds[kind] += 1
        if kind == _PRESENTATION_CONTEXT:
            if len(proposals) == _MAX_CONTEXTS:
                raise pdu_invalid(f"An A-ASSOCIATE-RQ has more than {_MAX_CONTEXTS} presentation contexts.")
            proposal = _proposal(item, known)
            if proposal.context_id in proposals:
                raise pdu_invalid("Two presentation contexts have the same id.")
            proposals[proposal.context_id] = proposal
            continue
        if kind == _USER_INFORMATION:
            _check_user_information(item)
        rest += _ITEM.pack(kind, len(item))
        rest += item
    if kinds[_APPLICATION_CONTEXT] != 1 or kinds[_USER_INFORMATION] != 1 or not proposals:
        raise pdu_invalid(
            "An A-ASSOCIATE-RQ needs one application context, presentation contexts and one user information."
        )
    return AssociationRequest(tuple(proposals.values()), bytes(rest))


def _check_user_information(item: memoryview) -> None:
    """Raises Violation; what is not checked here, pynetdicom reads."""
    for number, (kind, value) in enumerate(_items(item)):
        if number == _MAX_USER_ITEMS:
            raise pdu_invalid(f"An A-ASSOCIATE-RQ has more than {_MAX_USER_ITEMS} user information items.")
        if kind == _USER_IDENTITY and not (len(value) and value[0] in _USER_IDENTITY_TYPES):
            raise pdu_invalid("A user identity is of no type that PS3.7 D.3.3.7 knows.")


def _ae_title(what: str, raw: bytearray) -> bytes:
    """Filled with spaces; some peers fill with NUL instead."""
    title = bytes(raw).rstrip(b"\0 ").ljust(_AE_TITLE_BYTES)
    if title.isspace() or not _OF_AE_TITLES.issuperset(title):
        raise pdu_invalid(
            f"The {what} AE title is none: printable ASCII without backslash, not only spaces (PS3.5 6.2). "
            "Correct it in the configuration of the calling system."
        )
    return title


def _proposal(item: memoryview, known: dict[bytes, _Names]) -> Proposal:
    """Of a presentation context item (PS3.8 9.3.2.2).

    Peers propose the same transfer syntaxes for every SOP class, after its abstract syntax: what was
    read once is ``known`` by its bytes.
    """
    if len(item) < _CONTEXT_HEAD_BYTES or not item[0] % 2:
        raise pdu_invalid("A presentation context has no odd id.")
    items = item[_CONTEXT_HEAD_BYTES:]
    first_bytes = 0
    for _, first in _items(items):
        first_bytes = _ITEM.size + len(first)
        break
    abstract: tuple[str, ...] = ()
    transfer: tuple[str, ...] = ()
    for part in (bytes(items[:first_bytes]), bytes(items[first_bytes:])):
        if part not in known:
            known[part] = _names(part)
        abstract += known[part][0]
        transfer += known[part][1]
    if len(abstract) != 1 or not 1 <= len(transfer) <= _MAX_SYNTAXES:
        raise pdu_invalid(
            f"A presentation context needs one abstract syntax and 1 to {_MAX_SYNTAXES} transfer syntaxes."
        )
    return Proposal(item[0], abstract[0], tuple(dict.fromkeys(transfer)))


def _names(items: bytes) -> _Names:
    """Abstract and transfer syntaxes among sub-items; others are ignored (PS3.8 9.3.1)."""
    abstract: list[str] = []
    transfer: dict[str, None] = {}
    for kind, value in _items(memoryview(items)):
        if kind == _ABSTRACT_SYNTAX:
            abstract.append(_uid(value))
        elif kind == _TRANSFER_SYNTAX and len(value):
            transfer[_uid(value)] = None
    return tuple(abstract), tuple(transfer)


def _uid(value: memoryview) -> str:
    """As pynetdicom takes it: any ASCII of 1 to 64 characters, one NUL of padding after it."""
    raw = bytes(value)
    raw = raw[:-1] if raw.endswith(b"\0") else raw
    if not raw.isascii() or not 1 <= len(raw) <= _MAX_UID_BYTES:
        raise pdu_invalid("The name of a syntax in a presentation context is no UID.")
    return raw.decode("ascii")


def _items(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(type, value) of consecutive items."""
    position = 0
    while position < len(data):
        if len(data) - position < _ITEM.size:
            raise pdu_invalid("An item ends inside its header.")
        kind, length = _ITEM.unpack_from(data, position)
        position += _ITEM.size
        if length > len(data) - position:
            raise pdu_invalid(f"An item of type {kind:02X} says {length} bytes, which is more than are left.")
        yield kind, data[position : position + length]
        position += length
