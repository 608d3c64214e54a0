"""Every reader of hostile bytes: its named error or a right result, in bounded time and memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import seeds, targets
from tests.fuzz.mutation import PIECES, damaged, fuzzed

SYNTAX_AND_DATA = st.sampled_from([s for s in targets.SYNTAXES if seeds.data_sets()[s]]).flatmap(
    lambda syntax: st.tuples(st.just(syntax), damaged(seeds.data_sets()[syntax]))
)


def test_the_seeds_are_read() -> None:
    """Else the mutations would only ever scratch the surface."""
    for syntax, each in seeds.data_sets().items():
        read = [targets.tags(data, syntax, memory_bytes=8 << 20) for data in each]
        assert any(read), syntax
    stored = [event for event in targets.messages(seeds.streams()[0]) if event[0] == "stored"]  # type: ignore[index]
    assert stored == [("stored", seeds.data_sets()[targets.SYNTAXES[0]][0])]
    assert targets.part10(seeds.files()[0])[1]
    assert [targets.multipart(each)[0] for each in seeds.multiparts()] == ["complete", "complete"]
    assert {targets.gzip(each)[0] for each in seeds.gzips()} == {"complete"}
    for explicit_vr, each in seeds.commitments().items():
        assert all(targets.commitment(data, explicit_vr=explicit_vr) for data in each)
    happened = targets.pdus(seeds.connections()[0])
    assert [event[0] for event in happened] == ["Evt6", "store", "stored", "respond", "Evt12", 3]  # type: ignore[index]


@fuzzed
@given(SYNTAX_AND_DATA)
def test_a_damaged_data_set_is_rejected_by_name_or_read_as_pydicom_reads_it(
    given_: tuple[object, bytes],
) -> None:
    syntax, data = given_
    targets.tags(data, syntax)  # type: ignore[arg-type]


@pytest.mark.parametrize("syntax", targets.SYNTAXES)
@fuzzed
@given(data=st.binary(max_size=600))
def test_random_bytes_are_rejected_in_every_syntax(syntax: object, data: bytes) -> None:
    assert targets.tags(data, syntax) is None  # type: ignore[arg-type]


@fuzzed
@given(damaged(seeds.of("association_request")))
def test_a_damaged_association_request_is_a_violation_or_right(data: bytes) -> None:
    targets.association_request(data)


@fuzzed
@given(damaged(seeds.of("command_set")))
def test_a_damaged_command_set_is_an_error_or_can_be_answered(data: bytes) -> None:
    targets.command_set(data)


@fuzzed
@given(damaged(seeds.connections()), PIECES)
def test_a_damaged_connection_means_the_same_however_it_is_cut(stream: bytes, pieces: list[int]) -> None:
    assert targets.pdus(stream) == targets.pdus(stream, pieces)


@pytest.mark.parametrize("explicit_vr", [True, False])
@fuzzed
@given(data=st.data())
def test_a_damaged_commitment_request_is_rejected_or_repeated_in_its_report(
    data: st.DataObject, explicit_vr: bool
) -> None:
    targets.commitment(data.draw(damaged(seeds.commitments()[explicit_vr])), explicit_vr=explicit_vr)


@fuzzed
@given(damaged(seeds.gzips()), PIECES)
def test_a_damaged_gzip_stream_means_the_same_however_it_is_cut(data: bytes, pieces: list[int]) -> None:
    assert targets.gzip(data) == targets.gzip(data, pieces)


@fuzzed
@given(damaged(seeds.streams()), PIECES)
def test_a_damaged_stream_means_the_same_however_it_is_cut(stream: bytes, pieces: list[int]) -> None:
    assert targets.messages(stream) == targets.messages(stream, pieces)


@fuzzed
@given(damaged(seeds.files()), PIECES)
def test_a_damaged_file_means_the_same_however_it_is_cut(data: bytes, pieces: list[int]) -> None:
    assert targets.part10(data) == targets.part10(data, pieces)


@fuzzed
@given(damaged(seeds.multiparts()), PIECES)
def test_a_damaged_multipart_message_means_the_same_however_it_is_cut(data: bytes, pieces: list[int]) -> None:
    assert targets.multipart(data) == targets.multipart(data, pieces)


def test_no_reader_allocates_what_a_length_asks_for() -> None:
    """Four gigabytes are announced, in every place where a length stands."""
    for syntax, each in seeds.data_sets().items():
        for data in each:
            for at in range(0, min(len(data) - 4, 600), 4):
                bomb = data[:at] + b"\xff\xff\xff\xfe" + data[at + 4 :]
                targets.tags(bomb, syntax)
    data = seeds.data_sets()[targets.SYNTAXES[0]][0]
    targets.tags(data[:-36] + b"\xff\xff\xff\xfe" + data[-32:], targets.SYNTAXES[0], memory_bytes=8 << 20)
