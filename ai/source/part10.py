"""The header of one DICOM file (PS3.10 7), read within bounds and without its pixels."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from mmap import ACCESS_READ, mmap
from pathlib import Path

from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from ai.errors import HeaderError, SeriesRefused
from ai.source.elements import ElementReader, Encoding
from ai.source.facts import Header, read_encoded
from ai.source.keywords import ALL
from ai.source.values import ValueReader

_PREAMBLE_BYTES = 132
_EXPLICIT = Encoding(explicit_vr=True)
_META = {0x00020002: "SOPClassUID", 0x00020003: "SOPInstanceUID", 0x00020010: "TransferSyntaxUID"}
_ANY_TAG = range(1 << 32)
_DAMAGED = frozenset({"EMPTY_DATA_SET", "TRUNCATED_DATA_SET", "NOT_PARSEABLE"})


@dataclass(frozen=True)
class SourceFile:
    """A DICOM file whose header has been read.

    Attributes
    ----------
    transfer_syntax_uid
        As the file meta information says; where it says nothing, what the first bytes look like.
    data_set_offset
        Where the data set starts: ``header.pixel_data.offset`` counts from here. Pixel data may be cut
        off: compare with ``size_bytes``.
    """

    path: Path
    size_bytes: int
    transfer_syntax_uid: str
    data_set_offset: int
    header: Header


def read_file(path: Path, wanted: frozenset[str] = ALL) -> SourceFile:
    """Read the wanted attributes of a file; no byte of its pixels is touched.

    SOP Class and Instance UID are completed from the file meta information where the data set has none.

    Raises
    ------
    SeriesRefused
        EMPTY_FILE, NOT_DICOM, TRUNCATED_FILE, DEFLATED_FILE; NESTED_TOO_DEEPLY and HEADER_TOO_LARGE for
        a header beyond the bounds.
    OSError
        The file cannot be opened.
    """
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            raise SeriesRefused("EMPTY_FILE", f"{path.name} has 0 bytes.")
        with mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            if mapped[128:_PREAMBLE_BYTES] != b"DICM":
                raise SeriesRefused("NOT_DICOM", f"{path.name} is not a DICOM file.")
            with memoryview(mapped) as view:
                return _read(path, view, wanted)


def _read(path: Path, view: memoryview, wanted: frozenset[str]) -> SourceFile:
    try:
        with view[_PREAMBLE_BYTES:] as behind_preamble:
            meta, length = _file_meta(behind_preamble)
        start = _PREAMBLE_BYTES + length
        with view[start:] as data_set:
            syntax = meta.pop("TransferSyntaxUID", None) or _guessed_syntax(data_set)
            if syntax == DeflatedExplicitVRLittleEndian:
                raise SeriesRefused(
                    "DEFLATED_FILE",
                    f"{path.name} is a deflated data set, which is not taken: "
                    "give Explicit VR Little Endian.",
                )
            header = read_encoded(data_set, _encoding(syntax, data_set), wanted, check_pixels=False)
    except HeaderError as error:
        if error.code not in _DAMAGED:
            raise SeriesRefused(error.code, f"{path.name}: {error.reason}") from error
        raise SeriesRefused(
            "TRUNCATED_FILE", f"The header of {path.name} ends early or is damaged: {error.reason}"
        ) from error
    lacking = {k: (v,) for k, v in meta.items() if k in wanted and k not in header.facts}
    header = replace(header, facts={**header.facts, **lacking})
    return SourceFile(path, len(view), syntax, start, header)


def _file_meta(view: memoryview) -> tuple[dict[str, str], int]:
    """UIDs of group 0002, and its length; read element by element, for its group length may lie."""
    elements = ElementReader(view).elements(0, len(view), _EXPLICIT, _ANY_TAG)
    values = ValueReader(view)
    found = {}
    end = 0
    while bytes(view[end : end + 2]) == b"\x02\x00":
        element = next(elements)
        end = element.end
        if element.tag in _META:
            found[_META[element.tag]] = next(iter(values.values(element, "UI", _EXPLICIT)), "")
    return {keyword: text for keyword, text in found.items() if text}, end


def _guessed_syntax(data_set: memoryview) -> str:
    """What the first element looks like: a group above 1023 has its bytes the wrong way round."""
    if int.from_bytes(data_set[:2], "little") >= 1024:
        return str(ExplicitVRBigEndian)
    return str(ExplicitVRLittleEndian if _has_vr(data_set) else ImplicitVRLittleEndian)


def _encoding(transfer_syntax_uid: str, data_set: memoryview) -> Encoding:
    """By the first element: some files say explicit VR and are implicit, or the other way round."""
    big_endian = transfer_syntax_uid == ExplicitVRBigEndian
    return Encoding(explicit_vr=big_endian or _has_vr(data_set), big_endian=big_endian)


def _has_vr(data_set: memoryview) -> bool:
    vr = bytes(data_set[4:6])
    return vr.isalpha() and vr.isupper()
