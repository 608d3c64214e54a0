"""What STOW-RS is made of, without a network: DICOM files as they arrive, gzip, credentials, answers."""

# ruff: noqa: S106
from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from gateway.errors import GatewayError, Rejected
from gateway.receive.callers import KnownPeer
from gateway.receive.part10 import file_header
from gateway.receive.stow.access import CHALLENGE, WebCallers, WebPeer
from gateway.receive.stow.inflate import Inflater
from gateway.receive.stow.part10_stream import FileMeta, Part10Reader
from gateway.receive.stow.request import Body, StoreHead, StowLimits, StowRefused, check_head
from gateway.receive.stow.response import Failed, Stored, respond

META = FileMeta("1.2.840.10008.5.1.4.1.1.2", "1.2.3", "1.2.840.10008.1.2.1")
HEADER = file_header(META.sop_class_uid, META.sop_instance_uid, META.transfer_syntax_uid, "VNA")


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [*sorted({p % (len(data) + 1) for p in places}), len(data)]
    return [data[a:b] for a, b in zip([0, *ends], ends, strict=False)]


def read(chunks: list[bytes]) -> tuple[bytes, FileMeta | None, str]:
    reader, found = Part10Reader(), b""
    try:
        for chunk in chunks:
            found += bytes(reader.feed(memoryview(chunk)))
        reader.finish()
    except Rejected as rejection:
        return b"", None, rejection.name
    return found, reader.meta, ""


# -- DICOM files -------------------------------------------------------------------------------


@settings(max_examples=200)
@given(
    st.binary(max_size=300), st.lists(st.integers(0, 1000), max_size=8), st.binary(min_size=128, max_size=128)
)
def test_the_data_set_comes_out_byte_for_byte_however_it_is_cut(
    data: bytes, places: list[int], preamble: bytes
) -> None:
    assume(not data.startswith(b"\2"))  # perhaps one more element of group 0002
    assert read(cut(preamble + HEADER[128:] + data, places)) == (data, META, "")


@settings(max_examples=100)
@given(st.binary(min_size=8, max_size=300), st.lists(st.integers(0, 1000), max_size=8))
def test_the_group_length_may_be_missing(data: bytes, places: list[int]) -> None:
    """As in what pydicom writes, and so dicomweb-client sends."""
    data = b"\x08\0" + data
    assert read(cut(HEADER[:132] + HEADER[144:] + data, places)) == (data, META, "")


def test_without_data_set_there_is_nothing_to_find() -> None:
    assert read([HEADER]) == read([HEADER[:132] + HEADER[144:]]) == (b"", META, "")


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), max_size=6),
    st.integers(0, len(HEADER) + 8),
    st.lists(st.integers(0, 1000), max_size=8),
)
def test_any_damage_is_named_the_same_however_it_is_cut(
    changes: list[tuple[int, int]], length: int, places: list[int]
) -> None:
    damaged = bytearray(HEADER + b"12345678")
    for at, value in changes:
        damaged[at] = value
    whole = read([bytes(damaged[:length])])
    assert read(cut(bytes(damaged[:length]), places)) == whole
    assert whole[2] in ("", "NOT_PART_10", "FILE_META_MALFORMED", "FILE_META_TOO_LONG")


def group(*elements: bytes, length: int | None = None) -> bytes:
    body = b"".join(elements)
    return (
        bytes(128)
        + b"DICM"
        + struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body) if length is None else length)
        + body
    )


def element(number: int, value: bytes, vr: bytes = b"UI", tag_group: int = 2) -> bytes:
    return struct.pack("<HH2sH", tag_group, number, vr, len(value)) + value


CLASS, INSTANCE, SYNTAX = element(2, b"1.2\0"), element(3, b"1.3\0"), element(0x10, b"1.4\0")


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "NOT_PART_10"),
        (bytes(132) + bytes(100), "NOT_PART_10"),
        (bytes(128) + b"DICM" + bytes(100), "FILE_META_MALFORMED"),
        (group(CLASS, INSTANCE, SYNTAX)[:-1], "NOT_PART_10"),
        (group(length=65537), "FILE_META_TOO_LONG"),
        (group(length=0xFFFFFFFF), "FILE_META_TOO_LONG"),
        (group(), "FILE_META_MALFORMED"),
        (group(CLASS, INSTANCE), "FILE_META_MALFORMED"),
        (group(INSTANCE, CLASS, SYNTAX), "FILE_META_MALFORMED"),
        (group(CLASS, CLASS, INSTANCE, SYNTAX), "FILE_META_MALFORMED"),
        (group(CLASS, INSTANCE, SYNTAX, element(5, b"", tag_group=8)), "FILE_META_MALFORMED"),
        (group(CLASS, INSTANCE, element(0x10, b"1.4\0", b"zz")), "FILE_META_MALFORMED"),
        (group(CLASS, element(3, b"../../x "), SYNTAX), "FILE_META_MALFORMED"),
        (group(CLASS, element(3, "1.٢".encode() + b"\0"), SYNTAX), "FILE_META_MALFORMED"),
        (group(CLASS, INSTANCE, SYNTAX, b"\2\0\x10"), "FILE_META_MALFORMED"),
        (group(element(1, b"", b"OB") + b"\xff\xff\xff\xff", CLASS, INSTANCE, SYNTAX), "FILE_META_MALFORMED"),
    ],
)
def test_what_is_no_dicom_file_is_refused_by_name(data: bytes, name: str) -> None:
    assert read([data]) == (b"", None, name)
    assert read([data[i : i + 1] for i in range(len(data))]) == (b"", None, name)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 1000), max_size=8))
def test_what_stands_behind_the_group_length_is_read_as_well(places: list[int]) -> None:
    """As if somebody had added elements and left the group length as it was."""
    added = element(0x12, b"1.2.3\0") + element(0x13, b"EDITOR", b"SH")
    known = FileMeta("1.2", "1.3", "1.4")
    short = group(CLASS, INSTANCE, SYNTAX, added, length=len(CLASS + INSTANCE + SYNTAX))
    data = b"\x08\0data set"
    assert read(cut(short + data, places)) == (data, known, "")
    again = group(CLASS, INSTANCE, SYNTAX) + element(0x10, b"1.5\0") + data
    assert read(cut(again, places)) == (b"", None, "FILE_META_MALFORMED")


# -- gzip --------------------------------------------------------------------------------------


def inflate(chunks: list[bytes]) -> bytes:
    inflater = Inflater()
    found = b"".join(piece for chunk in chunks for piece in inflater.feed(chunk))
    inflater.finish()
    return found


@settings(max_examples=60)
@given(st.binary(max_size=4000), st.lists(st.integers(0, 5000), max_size=6))
def test_gzip_is_inflated_however_it_is_cut(data: bytes, places: list[int]) -> None:
    assert inflate(cut(gzip.compress(data), places)) == data


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.lists(st.integers(0, 2000), max_size=6))
def test_gzip_may_have_several_members(members: list[bytes], places: list[int]) -> None:
    """RFC 1952 2.2: as `cat a.gz b.gz` and parallel compressors make them."""
    assert inflate(cut(b"".join(map(gzip.compress, members)), places)) == b"".join(members)


def test_a_slice_is_never_large() -> None:
    assert max(map(len, Inflater().feed(gzip.compress(bytes(40 << 20))))) <= 262144


@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (b"no gzip at all", "GZIP_DAMAGED", 400),
        (gzip.compress(b"x" * 100)[:-3], "GZIP_TRUNCATED", 400),
        (gzip.compress(b"x") + b"y", "GZIP_DAMAGED", 400),
        (gzip.compress(b"x") * 2 + b"y", "GZIP_DAMAGED", 400),
        ((gzip.compress(b"x") * 2)[:-3], "GZIP_TRUNCATED", 400),
        (gzip.compress(bytes(1 << 20)) * 80, "GZIP_BOMB", 413),
        (zlib.compress(b"x"), "GZIP_DAMAGED", 400),
        (b"", "GZIP_TRUNCATED", 400),
        (gzip.compress(bytes(80 << 20)), "GZIP_BOMB", 413),
    ],
    ids=[
        "no gzip",
        "cut off",
        "something after it",
        "after the second",
        "second cut off",
        "members",
        "zlib",
        "empty",
        "bomb",
    ],
)
def test_gzip_that_is_refused(data: bytes, name: str, status: int) -> None:
    with pytest.raises(StowRefused) as caught:
        inflate([data])
    assert (caught.value.name, caught.value.status) == (name, status)


# -- heads -------------------------------------------------------------------------------------


def head(study: str | None = None, **fields: str) -> StoreHead:
    given = {
        "content_type": "multipart/related; type=application/dicom; boundary=x",
        "content_length": "5",
    } | fields
    return StoreHead("127.0.0.1", {k.replace("_", "-"): (v,) for k, v in given.items() if v}, study)


def test_a_head_says_how_to_read_the_body() -> None:
    assert check_head(head(), StowLimits()) == Body(b"x", False, 5)
    assert check_head(head(content_type="multipart/related; boundary=x"), StowLimits()) == Body(
        b"x", False, 5
    )
    assert check_head(head(content_length="", transfer_encoding="chunked"), StowLimits()) == Body(
        b"x", False, 0
    )
    assert check_head(head(content_encoding="GZIP"), StowLimits()) == Body(b"x", True, 5)
    assert check_head(head(content_type='application/dicom; transfer-syntax="1.2"'), StowLimits()) == Body(
        None, False, 5
    )


@pytest.mark.parametrize(
    ("wrong", "name", "status"),
    [
        (head("1.2.x"), "STUDY_UID_INVALID", 400),
        (head("../x"), "STUDY_UID_INVALID", 400),
        (head(accept="application/dicom+xml"), "JSON_NOT_ACCEPTED", 406),
        (head(content_type=""), "MEDIA_TYPE_REFUSED", 415),
        (head(content_type="text/plain"), "MEDIA_TYPE_REFUSED", 415),
        (head(content_type="application/dicom+xml"), "XML_REFUSED", 415),
        (
            head(content_type='multipart/related; type="application/dicom+xml"; boundary=x'),
            "XML_REFUSED",
            415,
        ),
        (
            head(content_type='multipart/related; type="application/dicom+json"; boundary=x'),
            "JSON_METADATA_REFUSED",
            415,
        ),
        (head(content_type="multipart/form-data; boundary=x"), "MEDIA_TYPE_REFUSED", 415),
        (head(content_type="multipart/related; type=application/dicom"), "BOUNDARY_MISSING", 400),
        (head(content_type="multipart/related; boundary=x; boundary=y"), "MEDIA_TYPE_MALFORMED", 400),
        (head(content_type=";;;"), "MEDIA_TYPE_MALFORMED", 400),
        (head(content_encoding="deflate"), "CONTENT_ENCODING_REFUSED", 415),
        (head(content_encoding="gzip, gzip"), "CONTENT_ENCODING_REFUSED", 415),
        (head(content_length=""), "LENGTH_REQUIRED", 411),
        (head(content_length="-1"), "LENGTH_INVALID", 400),
        (head(transfer_encoding="chunked"), "LENGTH_AMBIGUOUS", 400),
        (head(content_length=str(17 << 30)), "REQUEST_TOO_LARGE", 413),
    ],
)
def test_a_head_that_is_refused(wrong: StoreHead, name: str, status: int) -> None:
    with pytest.raises(StowRefused) as caught:
        check_head(wrong, StowLimits())
    assert (caught.value.name, caught.value.status) == (name, status)


def test_a_field_that_may_come_once_comes_once() -> None:
    twice = StoreHead("127.0.0.1", {"content-type": ("multipart/related; boundary=a",) * 2})
    with pytest.raises(StowRefused) as caught:
        check_head(twice, StowLimits())
    assert caught.value.name == "HEADER_TWICE"


# -- credentials -------------------------------------------------------------------------------

SCANNER = KnownPeer("scanner", "CT1", "127.0.0.1", addresses=("10.1.0.0/16",))
VIEWER = KnownPeer("vna", "VNA", "10.2.0.1")
CALLERS = WebCallers([WebPeer(SCANNER, user="ct", password="pass:word"), WebPeer(VIEWER, token="t0ken")])


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(authorization: str, address: str = "127.0.0.1") -> StoreHead:
    return StoreHead(address, {"authorization": (authorization,)} if authorization else {})


def test_who_has_the_credentials_is_that_peer() -> None:
    assert CALLERS.identify(ask(basic("ct", "pass:word"))) is SCANNER
    assert CALLERS.identify(ask(basic("ct", "pass:word"), "10.1.7.7")) is SCANNER
    assert CALLERS.identify(ask(basic("ct", "pass:word"), "::ffff:10.1.7.7")) is SCANNER
    assert CALLERS.identify(ask("bearer t0ken", "10.2.0.1")) is VIEWER


@pytest.mark.parametrize(
    ("given", "address", "name", "status"),
    [
        ("", "127.0.0.1", "CREDENTIALS_MISSING", 401),
        ("Bearer", "127.0.0.1", "CREDENTIALS_MISSING", 401),
        ("Digest t0ken", "127.0.0.1", "CREDENTIALS_MISSING", 401),
        ("Basic ????", "127.0.0.1", "CREDENTIALS_MISSING", 401),
        ("Bearer " + "x" * 5000, "127.0.0.1", "CREDENTIALS_MISSING", 401),
        ("Bearer t0kem", "10.2.0.1", "CREDENTIALS_WRONG", 401),
        ("Bearer t0ken2", "10.2.0.1", "CREDENTIALS_WRONG", 401),
        ("Bearer ct:pass:word", "127.0.0.1", "CREDENTIALS_WRONG", 401),
        (basic("ct", ""), "127.0.0.1", "CREDENTIALS_WRONG", 401),
        (basic("", "t0ken"), "10.2.0.1", "CREDENTIALS_WRONG", 401),
        ("Bearer t0ken", "10.2.0.2", "ADDRESS_NOT_ALLOWED", 403),
        (basic("ct", "pass:word"), "10.2.0.1", "ADDRESS_NOT_ALLOWED", 403),
    ],
)
def test_who_has_not_is_refused(given: str, address: str, name: str, status: int) -> None:
    with pytest.raises(StowRefused) as caught:
        CALLERS.identify(ask(given, address))
    assert (caught.value.name, caught.value.status) == (name, status)
    assert caught.value.challenge == (CHALLENGE if status == 401 else "")
    assert "t0ken" not in caught.value.reason


def test_without_any_peer_for_it_there_is_nothing_here() -> None:
    with pytest.raises(StowRefused) as caught:
        WebCallers([WebPeer(SCANNER), WebPeer(VIEWER, user="x")]).identify(ask("Bearer "))
    assert (caught.value.name, caught.value.status) == ("STOW_NOT_CONFIGURED", 404)


def test_secrets_are_not_shown() -> None:
    assert "t0ken" not in repr(WebPeer(VIEWER, token="t0ken"))
    assert "word" not in repr(WebPeer(SCANNER, user="ct", password="pass:word"))


# -- answers -----------------------------------------------------------------------------------

GOOD, ODD = Stored("1.2", "1.3"), Stored("1.2", "1.4", 0xB111)
BAD, LOST = Failed(0xA900, "STUDY_MISMATCH: …\n", "1.2", "1.5"), Failed(0xC000, "NOT_PART_10: x")
XML = Failed(0xC000, "XML_REFUSED: x", http_status=415)


@pytest.mark.parametrize(
    ("stored", "failed", "error", "status"),
    [
        ([GOOD], [], None, 200),
        ([GOOD, ODD], [], None, 202),
        ([GOOD], [BAD], None, 202),
        ([], [BAD, LOST], None, 409),
        ([], [XML, XML], None, 415),
        ([], [XML, BAD], None, 409),
        ([], [], None, 400),
        ([GOOD], [], StowRefused("TRUNCATED_MESSAGE", "It ends.", 400), 400),
        ([GOOD], [], StowRefused("DISK_FULL", "Full.", 503, retry_after_s=30), 503),
        ([GOOD], [], GatewayError("INTERNAL_ERROR", "See the log."), 500),
    ],
)
def test_the_status_says_what_became_of_it(
    stored: list[Stored], failed: list[Failed], error: GatewayError | None, status: int
) -> None:
    assert respond(stored, failed, error).status == status


def test_the_data_set_is_the_module_of_annex_i() -> None:
    error = StowRefused("DISK_FULL", 'The "disk" is full: free\nsome.', 503, retry_after_s=30)
    answer = respond([GOOD, ODD], [BAD, LOST], error)
    found = Dataset.from_json(answer.body.decode())
    assert found.RetrieveURL is None or found.RetrieveURL == ""
    assert [(i.ReferencedSOPInstanceUID, i.get("WarningReason")) for i in found.ReferencedSOPSequence] == [
        ("1.3", None),
        ("1.4", 0xB111),
    ]
    assert all("RetrieveURL" in item for item in found.ReferencedSOPSequence)
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in found.FailedSOPSequence] == [
        ("1.5", 0xA900)
    ]
    assert [i.FailureReason for i in found.OtherFailuresSequence] == [0xC000]
    assert json.loads(answer.body)["00000902"]["Value"][0].startswith("DISK_FULL: ")
    assert answer.headers["Retry-After"] == "30"
    assert answer.headers["Warning"].count('"') == 2
    assert "\n" not in answer.headers["Warning"]
    keys = list(json.loads(answer.body))
    assert keys == sorted(keys)
