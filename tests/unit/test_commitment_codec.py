"""The Action Information of a request is read strictly and within bounds; pydicom reads what we write."""

from __future__ import annotations

import struct
import time
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from gateway.errors import Rejected
from gateway.receive.commitment import codec as commitment_codec
from gateway.receive.commitment.codec import read_request, write_report
from tests.peers import encoded

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"


def request(*references: tuple[str, str], transaction: str | None = "1.2.3") -> Dataset:
    data_set = Dataset()
    if transaction is not None:
        data_set.TransactionUID = transaction
    items = []
    for sop_class, uid in references:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, uid
        items.append(item)
    data_set.ReferencedSOPSequence = Sequence(items)
    return data_set


@pytest.mark.parametrize("explicit_vr", [True, False])
def test_a_request_names_its_transaction_and_its_instances_in_order_each_once(explicit_vr: bool) -> None:
    asked = [(CT, "1.2.3.1"), (MR, "1.2.3.2"), (CT, "1.2.3.1"), (CT, "1.2.3.0")]
    read = read_request(encoded(request(*asked), implicit_vr=not explicit_vr), explicit_vr=explicit_vr)
    assert read.transaction_uid == "1.2.3"
    assert read.references == ((CT, "1.2.3.1"), (MR, "1.2.3.2"), (CT, "1.2.3.0"))


def test_undefined_lengths_further_attributes_and_nested_sequences_are_read() -> None:
    asked = request((CT, "1.2.3.1"))
    asked.RetrieveAETitle = "ELSEWHERE"
    asked.StorageMediaFileSetID = "DISK"
    inner = Dataset()
    inner.ReferencedSOPClassUID, inner.ReferencedSOPInstanceUID = MR, "9.9"
    asked.ReferencedSOPSequence[0].PurposeOfReferenceCodeSequence = Sequence([inner])
    asked["ReferencedSOPSequence"].is_undefined_length = True
    asked.ReferencedSOPSequence[0].is_undefined_length_sequence_item = True
    assert read_request(encoded(asked), explicit_vr=True).references == ((CT, "1.2.3.1"),)


def broken(**change: object) -> bytes:
    data_set = request((CT, "1.2.3.1"), (CT, "1.2.3.2"))
    for name, value in change.items():
        if value is None:
            del data_set[name]
        else:
            setattr(data_set, name, value)
    return encoded(data_set)


def item_without(keyword: str) -> bytes:
    data_set = request((CT, "1.2.3.1"), (CT, "1.2.3.2"))
    del data_set.ReferencedSOPSequence[1][keyword]
    return encoded(data_set)


def with_uid(uid: bytes) -> bytes:
    """A request whose second instance has these bytes as its UID."""
    whole = encoded(request((CT, "1.2.3.1"), (CT, "1.2.3.2")))
    assert len(uid) == 8
    return whole.replace(b"1.2.3.2\0", uid)


@pytest.mark.parametrize(
    ("data", "name", "status"),
    [
        (b"", "REQUEST_EMPTY", 0x0115),
        (broken(TransactionUID=None), "TRANSACTION_UID_INVALID", 0x0115),
        (broken(ReferencedSOPSequence=None), "REFERENCES_MISSING", 0x0115),
        (broken(ReferencedSOPSequence=[]), "REFERENCES_MISSING", 0x0115),
        (item_without("ReferencedSOPClassUID"), "REFERENCE_INVALID", 0x0115),
        (item_without("ReferencedSOPInstanceUID"), "REFERENCE_INVALID", 0x0115),
        (with_uid(b"../../a\0"), "REFERENCE_INVALID", 0x0115),
        (with_uid(b"1.2\n3.4\0"), "REFERENCE_INVALID", 0x0115),
        (with_uid(b"1.2\\3.4\0"), "REFERENCE_INVALID", 0x0115),
        (with_uid(b"1.2.3.\xff\0"), "REFERENCE_INVALID", 0x0115),
        (broken()[:-3], "TRUNCATED_DATA_SET", 0x0115),
        (broken() + broken(), "NOT_PARSEABLE", 0x0115),
        (b"\0" * 40 + b"GET / HTTP/1.1", "NOT_PARSEABLE", 0x0115),
    ],
)
def test_a_malformed_request_is_refused_by_name(data: bytes, name: str, status: int) -> None:
    with pytest.raises(Rejected) as refused:
        read_request(data, explicit_vr=True)
    assert (refused.value.name, refused.value.dimse_status) == (name, status)


def test_a_sequence_that_announces_more_than_there_is_costs_nothing() -> None:
    head = struct.pack("<HH2sH", 8, 0x1195, b"UI", 6) + b"1.2.3\0"
    bomb = (
        head + struct.pack("<HH2sHL", 8, 0x1199, b"SQ", 0, 0xFFFFFFF0) + b"\xfe\xff\x00\xe0\xf0\xff\xff\xff"
    )
    with pytest.raises(Rejected, match="TRUNCATED_DATA_SET"):
        read_request(bomb, explicit_vr=True)


def test_more_references_than_allowed_are_refused_for_lack_of_resources(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commitment_codec, "MAX_REFERENCES", 3)
    four = encoded(request(*((CT, f"1.2.3.{n}") for n in range(4))))
    with pytest.raises(Rejected, match="TOO_MANY_REFERENCES") as refused:
        read_request(four, explicit_vr=True)
    assert refused.value.dimse_status == 0x0213
    monkeypatch.setattr(commitment_codec, "MAX_REQUEST_BYTES", 10)
    with pytest.raises(Rejected, match="REQUEST_TOO_LARGE") as refused:
        read_request(four, explicit_vr=True)
    assert refused.value.dimse_status == 0x0213


@pytest.mark.parametrize("explicit_vr", [True, False])
def test_pydicom_reads_the_report_that_we_write(explicit_vr: bool) -> None:
    data = write_report(
        "1.2.3", [(CT, "1.2.3.1"), (CT, "1.2.3.10")], [(MR, "1.2.3.2", 0x0119)], explicit_vr=explicit_vr
    )
    read = dcmread(BytesIO(_as_file(data, explicit_vr)), force=True)
    assert [element.keyword for element in read] == [
        "TransactionUID", "FailedSOPSequence", "ReferencedSOPSequence"
    ]  # fmt: skip
    assert read.TransactionUID == "1.2.3"
    assert [i.ReferencedSOPInstanceUID for i in read.ReferencedSOPSequence] == ["1.2.3.1", "1.2.3.10"]
    (failed,) = read.FailedSOPSequence
    assert (failed.ReferencedSOPClassUID, failed.FailureReason) == (MR, 0x0119)
    # Byte for byte what pydicom would write.
    assert encoded(read, implicit_vr=not explicit_vr) == data


def _as_file(data: bytes, explicit_vr: bool) -> bytes:
    syntax = b"1.2.840.10008.1.2.1\0" if explicit_vr else b"1.2.840.10008.1.2\0"
    meta = struct.pack("<HH2sH", 2, 0x0010, b"UI", len(syntax)) + syntax
    length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(meta))
    return bytes(128) + b"DICM" + length + meta + data


def _name_of(data: bytes, *, explicit_vr: bool) -> str:
    """READ, or the name of the refusal; any other exception is a mistake."""
    try:
        read_request(data, explicit_vr=explicit_vr)
    except Rejected as refused:
        return refused.name
    return "READ"


@given(st.binary(max_size=300), st.booleans())
def test_whatever_comes_is_read_or_refused(data: bytes, explicit_vr: bool) -> None:
    assert _name_of(data, explicit_vr=explicit_vr).isupper()


@given(st.data())
def test_a_request_with_some_bytes_changed_is_read_or_refused(data: st.DataObject) -> None:
    whole = bytearray(encoded(request((CT, "1.2.3.1"), (MR, "1.2.3.2"))))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    assert _name_of(bytes(whole), explicit_vr=True).isupper()


def test_a_hundred_thousand_references_are_read_and_written_in_seconds() -> None:
    references = [(CT, f"1.2.826.0.1.3680043.8.498.{n:020d}".replace(".0000", ".1")) for n in range(100_000)]
    data = write_report("1.2.3", references, [], explicit_vr=True)
    started = time.process_time()
    read = read_request(data, explicit_vr=True)
    assert time.process_time() - started < 15
    assert read.references == tuple(references)
