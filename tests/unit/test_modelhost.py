"""The parts of the model process that need no process: bookkeeping of memory, watchdog, shared memory."""

from __future__ import annotations

import mmap
import os
import socket

import numpy as np
import pytest

from ai.volume import Volume
from gateway.jobs.breaker import CRASHES_IN_A_ROW, URGENT_IN_A_ROW, Breaker, Turns
from gateway.modelhost.protocol import Begin, Cancel, Line, Predict, decode, encode
from gateway.modelhost.share import borrow_volume, describe, info_from, labels_in, lend, lend_volume
from gateway.modelhost.warm import Admission, WarmModels
from gateway.modelhost.watchdog import Watchdog
from tests import builders
from tests.runs import even_geometry


def volume() -> Volume:
    shape = (3, 4, 5)
    affine = builders.affine(shape, (2.0, 0.8, 0.7), "HFS")
    voxels = np.arange(60, dtype=np.int16).reshape(shape)
    return Volume(voxels, even_geometry(affine, shape))


def test_a_volume_arrives_as_it_was_sent_and_cannot_be_changed_on_the_way() -> None:
    sent = volume()
    handle = lend_volume(sent)
    info = info_from(decode_fields(sent))
    got = borrow_volume(handle, info)
    os.close(handle)
    np.testing.assert_array_equal(got.voxels, sent.voxels)
    np.testing.assert_array_equal(got.geometry.index_to_lps, sent.geometry.index_to_lps)
    np.testing.assert_array_equal(got.geometry.origins_mm, sent.geometry.origins_mm)
    assert (got.geometry.spacing_mm, got.unit) == (sent.geometry.spacing_mm, sent.unit)
    assert got.geometry.frames == ()
    with pytest.raises(ValueError, match="read-only"):
        got.voxels[0] = 1


def decode_fields(sent: Volume) -> dict[str, object]:
    """What describes a volume, as JSON gives it back."""
    request = Predict(7, "card", (), "digest", "urgent", (describe(sent),))
    message = decode(encode(request))
    assert message == request
    return vars(describe(sent))


def test_lent_voxels_are_sealed_and_lent_labels_keep_their_size() -> None:
    voxels, labels = lend_volume(volume()), lend(60)
    with pytest.raises(PermissionError):
        mmap.mmap(voxels, 120, access=mmap.ACCESS_WRITE)
    for handle in (voxels, labels):
        with pytest.raises(PermissionError):
            os.ftruncate(handle, 1)
    mmap.mmap(labels, 60)[:3] = b"\1\2\3"
    assert labels_in(labels, (3, 4, 5)).ravel()[:4].tolist() == [1, 2, 3, 0]
    with pytest.raises(ValueError, match="smaller"):
        labels_in(labels, (100, 100, 100))
    os.close(voxels)
    os.close(labels)


@pytest.mark.parametrize(
    "change", [{"type": "object"}, {"shape": [0, 4, 5]}, {"shape": [4, 5]}, {"surprise": 1}]
)
def test_what_describes_no_volume_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="volume"):
        info_from({**vars(describe(volume())), **change})


@pytest.mark.parametrize(
    "line",
    [
        b"[]",
        b'{"type":"Exec"}',
        b'{"type":"Cancel"}',
        b'{"type":"Cancel","id":1,"x":2}',
        b'{"type":"Cancel","id":{}}',
        b'{"type":"Stepped","id":1,"stage":"tile","fraction":0.5,"seconds":"1"}',
        b'{"type":"Refused","id":1,"kind":"run","code":"A","reason":null}',
        b'{"type":"Predicted","id":1,"scalars":{"a":[]},"confidence":{},"facts":{}}',
        b'{"type":"Begin","device":"cpu","memory_bytes":true}',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        decode(line)


def test_descriptors_travel_with_their_message_in_order() -> None:
    ours, theirs = (Line(end) for end in socket.socketpair())
    first, second = lend(1), lend(2)
    ours.send(Begin("cpu"))
    ours.send(Cancel(1), (first, second))
    assert theirs.receive(5.0) == Begin("cpu")
    assert theirs.receive(5.0) == Cancel(1)
    got = theirs.take_handles(2)
    assert [os.fstat(handle).st_size for handle in got] == [1, 2]
    with pytest.raises(ValueError, match="fewer"):
        theirs.take_handles(1)
    with pytest.raises(TimeoutError):
        theirs.receive(0.01)
    ours.close()
    assert theirs.receive(5.0) is None
    theirs.close()
    for handle in (first, second, *got):
        os.close(handle)


def test_the_least_recently_used_model_goes_when_the_budget_is_full() -> None:
    closed: list[str] = []
    warm = WarmModels[str](100, closed.append)
    for name in "abc":
        warm.put(name, name, 30)
    assert warm.get("a") == "a"
    warm.put("d", "d", 30)
    assert closed == ["b"]
    assert (warm.weight_bytes, warm.free_bytes, len(warm)) == (90, 10, 3)
    assert warm.get("b") is None


def test_a_pinned_model_stays_while_it_fits_and_goes_for_a_run_that_needs_all() -> None:
    closed: list[str] = []
    warm = WarmModels[str](100, closed.append)
    warm.put("pinned", "pinned", 60, pinned=True)
    warm.put("a", "a", 30)
    warm.put("b", "b", 40)
    assert closed == ["a"]
    assert warm.admit(1, "b", 60) is Admission.NOW
    assert closed == ["a", "pinned"]


def test_a_model_in_use_is_never_let_go_and_a_run_waits_for_the_other() -> None:
    warm = WarmModels[str](100, lambda _: None)
    warm.put("a", "a", 40)
    warm.put("b", "b", 20)
    assert warm.admit(1, "a", 30) is Admission.NOW
    assert warm.admit(2, "b", 50) is Admission.LATER
    assert "a" in warm
    warm.end(1)
    warm.end(1)
    assert warm.runs == 0
    assert warm.admit(2, "b", 50) is Admission.NOW
    assert "a" not in warm
    warm.end(2)
    assert warm.admit(3, "b", 500) is Admission.NEVER


def test_a_watchdog_counts_the_time_of_what_is_worked_on_only() -> None:
    dog = Watchdog(30.0)
    assert dog.hung_for_s(1e9) is None
    dog.turn(1, "m", 0.0)
    assert dog.limit_s() == 120.0  # its usual step is not known yet
    for second in range(1, 6):
        dog.stepped(1.0, float(second))
    assert dog.limit_s() == 30.0
    dog.turn(2, "n", 5.0)
    dog.turn(1, "m", 1000.0)
    assert dog.hung_for_s(1030.0) is None
    assert dog.hung_for_s(1031.0) == 31.0
    assert dog.working_on == 1


def test_a_model_of_long_steps_has_twenty_times_its_usual_one() -> None:
    dog = Watchdog(30.0)
    dog.turn(1, "m", 0.0)
    for _ in range(5):
        dog.stepped(4.0, 0.0)
    assert dog.limit_s() == 80.0
    dog.turn(2, "m", 0.0, slow=True)
    assert dog.limit_s() == 120.0
    dog.turn(3, "m", 0.0, loading=True)
    assert (dog.limit_s(), dog.loading) == (300.0, True)


def test_a_model_that_starts_again_with_less_memory_is_given_the_time_of_a_cpu() -> None:
    dog = Watchdog(30.0)
    dog.turn(1, "m", 0.0)
    for _ in range(5):
        dog.stepped(0.01, 0.0)
    dog.stepped(0.01, 0.0, starts_again=True)
    assert dog.limit_s() == 480.0


def test_a_model_is_switched_off_after_crashes_on_different_series_in_a_row() -> None:
    breaker = Breaker()
    assert not any(breaker.crashed("m", "1", "signal 11.") for _ in range(5)), "one poison series"
    breaker.crashed("m", "2", "signal 11.")
    breaker.worked("m")
    offs = [breaker.crashed("m", str(job), "signal 11.") for job in range(3, 3 + CRASHES_IN_A_ROW)]
    assert offs == [False] * (CRASHES_IN_A_ROW - 1) + [True]
    assert breaker.off["m"].name == "MODEL_SWITCHED_OFF"
    assert not breaker.seen("m", "a"), "the first look is no change"
    assert breaker.seen("m", "b")
    assert not breaker.off


def test_after_some_urgent_jobs_the_oldest_has_its_turn() -> None:
    turns = Turns()
    for _ in range(URGENT_IN_A_ROW):
        assert not turns.oldest_first
        turns.claimed("urgent")
    assert turns.oldest_first
    turns.claimed("normal")
    assert not turns.oldest_first
