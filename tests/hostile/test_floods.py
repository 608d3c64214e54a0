"""Too much of the allowed: floods, repetitions, and peers that do not read what they are answered."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.builders import ct_series
from tests.hostile import wire
from tests.hostile.node import CYCLES, IDLE_TIMEOUT_S, HostileNode, good_bytes
from tests.hostile.peer import Gone, RawPeer, digest
from tests.peers import encoded
from tests.waiting import wait_until


@pytest.mark.timeout(1800)
def test_a_flood_of_echoes_on_one_association(node: HostileNode) -> None:
    batch, each = 100, wire.c_echo_rq()
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        for _ in range(CYCLES // batch):
            peer.send(wire.message(3, each) * batch)
            assert all(peer.answer().status == 0 for _ in range(batch))
        node.serves()
        peer.release()
    assert node.grown_mib < 30


def test_the_same_instance_many_times_is_kept_once(node: HostileNode) -> None:
    uid, data_set = good_bytes()
    node.acknowledged[uid.decode()] = digest(data_set)
    stored = node.stored
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        statuses = {peer.store(uid, data_set).status for _ in range(CYCLES // 6)}
        peer.release()
    assert statuses == {0}
    assert node.stored == stored + 1
    assert node.grown_mib < 60


def test_the_same_uid_with_other_bytes_each_time_keeps_the_first(node: HostileNode) -> None:
    dataset = ct_series((1, 8, 8), seed=77)[0]
    uid = str(dataset.SOPInstanceUID)
    with RawPeer(node.dicom_port) as peer:
        peer.associated()
        for number in range(50):
            dataset.InstanceNumber = number
            assert peer.store(uid, encoded(dataset)).status == 0
            if number == 0:
                node.acknowledged[uid] = digest(encoded(dataset))
        peer.release()


def _send_series(node: HostileNode, count: int) -> int:
    """Each instance is a series of its own; returns how many were acknowledged."""
    done = 0
    for _ in range(count):
        uid, data_set = good_bytes()
        try:
            with RawPeer(node.dicom_port) as peer:
                if peer.associate().kind != wire.ASSOCIATE_AC:
                    continue  # refused for now: back-pressure
                if peer.store(uid, data_set).status == 0:
                    node.acknowledged[uid.decode()] = digest(data_set)
                    done += 1
                peer.release()
        except Gone:
            continue
    return done


@pytest.mark.timeout(1800)
def test_a_flood_of_series_from_twenty_peers_is_held_back_and_kept_whole(node: HostileNode) -> None:
    """Twenty at once where twelve are allowed: some are refused for now, none is lost."""
    threads = node.threads
    with ThreadPoolExecutor(20) as pool:
        running = [pool.submit(_send_series, node, CYCLES // 100) for _ in range(20)]
        most = 0
        while not all(each.done() for each in running):
            most = max(most, node.threads)
            time.sleep(0.05)
    assert sum(each.result() for each in running) >= 20 * (CYCLES // 100) // 5
    assert most - threads < 120
    assert node.grown_mib < 100


def test_a_peer_that_reads_no_answer_blocks_no_thread_for_ever(node: HostileNode) -> None:
    """Its answers fill every buffer; then it loses its association, and the thread is free."""
    threads = node.threads
    request = wire.message(3, wire.c_echo_rq()) * 200
    with RawPeer(node.dicom_port, receive_buffer_bytes=4096) as peer:
        peer.associated()
        peer.socket.settimeout(1.0)
        deadline_s = time.monotonic() + IDLE_TIMEOUT_S + 20
        try:
            while time.monotonic() < deadline_s:
                try:
                    peer.socket.sendall(request)
                except TimeoutError:
                    node.serves()
        except OSError:
            pass
        wait_until(
            lambda: node.threads <= threads + 1, IDLE_TIMEOUT_S + 10, "the thread of the deaf peer to end"
        )
    assert node.grown_mib < 60


def test_deaf_peers_do_not_keep_the_node_from_stopping_or_serving(node: HostileNode) -> None:
    peers = [RawPeer(node.dicom_port, "127.0.0.1", receive_buffer_bytes=4096) for _ in range(8)]
    try:
        for peer in peers:
            peer.associated()
            peer.socket.settimeout(0.2)
            try:
                for _ in range(50):
                    peer.socket.sendall(wire.message(3, wire.c_echo_rq()) * 100)
            except OSError:
                pass
        node.serves()
    finally:
        for peer in peers:
            peer.close()
