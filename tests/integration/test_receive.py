from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)
from pynetdicom import evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from gateway.errors import ConfigurationError
from gateway.journal import JournalReader
from gateway.receive.admit import Admission, AdmissionLimits
from gateway.receive.callers import Call, Callers, KnownPeer, Refusal
from gateway.receive.contexts import (
    COMPRESSED_TRANSFER_SYNTAXES,
    TRANSFER_SYNTAXES,
    storage_class_uids,
    storage_contexts,
)
from tests.builders import compressed, ct_series, uid, write_series
from tests.peers import (
    RawSender,
    Receiver,
    dcmsend,
    echoscu,
    encoded,
    receiver,
    recording_scp,
    storescu,
)
from tests.waiting import wait_until

SHARED = Path(__file__).parents[3] / "shared" / "data" / "fixture"
CT = str(CTImageStorage)


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Receiver]:
    with receiver(tmp_path) as running:
        yield running


def members(gateway: Receiver) -> list[Any]:
    return [m for series in gateway.journal.receiving_series() for m in gateway.journal.members(series.id)]


def stored_files(gateway: Receiver) -> list[Path]:
    return sorted(p for p in gateway.folder.rglob("*.dcm") if "spool" in p.parts)


def records(gateway: Receiver) -> list[dict[str, Any]]:
    reader = JournalReader(gateway.folder / "journal.db")
    try:
        return reader.refusals()
    finally:
        reader.close()


def data_set_of(path: Path) -> bytes:
    raw = path.read_bytes()
    assert raw[:132] == bytes(128) + b"DICM"
    return raw[144 + struct.unpack_from("<L", raw, 140)[0] :]


def send(gateway: Receiver, dataset: Dataset, data: bytes | None = None) -> Dataset:
    with RawSender(gateway.port, [dataset.SOPClassUID]) as sender:
        data = encoded(dataset) if data is None else data
        return sender.send(dataset.SOPClassUID, dataset.SOPInstanceUID, data)


# -- associations -------------------------------------------------------------------------------


def test_a_configured_peer_gets_an_echo(gateway: Receiver) -> None:
    assert echoscu(gateway.port).returncode == 0


@pytest.mark.parametrize(
    ("titles", "name", "said", "told"),
    [
        (
            {"called": "SOMEBODY"},
            "CALLED_AE_TITLE_NOT_RECOGNISED",
            "Called AE Title Not Recognized",
            "set our AE title to AIGW",
        ),
        (
            {"calling": "STRANGER"},
            "CALLING_AE_TITLE_NOT_RECOGNISED",
            "Calling AE Title Not Recognized",
            "add a peer with this AE title, host 127.0.0.1",
        ),
    ],
)
def test_a_wrong_ae_title_is_rejected_by_name_and_recorded(
    gateway: Receiver, titles: dict[str, str], name: str, said: str, told: str
) -> None:
    answer = echoscu(gateway.port, **titles)
    assert answer.returncode != 0
    assert f"Reason: {said}" in answer.stderr
    assert "Result: Rejected Permanent, Source: Service User" in answer.stderr
    (record,) = records(gateway)
    assert (record["subject"], record["name"]) == ("association", name)
    assert told in record["reason"]
    assert [line["name"] for line in gateway.log if line["event"] == "association_rejected"] == [name]
    assert echoscu(gateway.port).returncode == 0


def test_the_right_ae_title_from_another_address_is_rejected_and_recorded(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=[KnownPeer("ct", "SCANNER", "192.0.2.7")]) as gateway:
        assert "Calling AE Title Not Recognized" in echoscu(gateway.port).stderr
        (record,) = records(gateway)
        assert record["name"] == "ADDRESS_NOT_ALLOWED"
        assert "192.0.2.7" in record["reason"]


def test_unknown_callers_may_be_accepted_but_never_under_another_called_title(tmp_path: Path) -> None:
    with receiver(tmp_path, peers=[], unknown_callers="accept") as gateway:
        assert echoscu(gateway.port, calling="ANYBODY").returncode == 0
        assert echoscu(gateway.port, called="SOMEBODY").returncode != 0


def test_peers_with_one_ae_title_are_told_apart_by_their_host() -> None:
    peers = [KnownPeer("a", "CT", "192.0.2.1"), KnownPeer("b", "CT", "localhost")]
    callers = Callers("AIGW", peers, "reject")

    def name(*call: str, of: Callers = callers) -> str:
        found = of.identify(Call(None, *call))
        return found.name

    assert name("AIGW", "CT", "192.0.2.1") == "a"
    assert name("AIGW  ", " CT ", "127.0.0.1") == "b"
    assert name("AIGW", "CT", "::ffff:192.0.2.1") == "a"
    assert isinstance(callers.identify(Call(None, "AIGW", "CT", "192.0.2.3")), Refusal)
    accepting = Callers("AIGW", peers, "accept")
    assert name("AIGW", "X\x1b[2J", "192.0.2.3", of=accepting) == "X\\x1b[2J@192.0.2.3"


def test_one_association_too_many_is_rejected_as_transient(tmp_path: Path) -> None:
    with receiver(tmp_path, max_associations=1) as gateway:
        with RawSender(gateway.port, [CT]) as sender:
            assert sender.association.is_established
            assert "Local Limit Exceeded" in echoscu(gateway.port).stderr
            assert records(gateway)[0]["name"] == "TOO_MANY_ASSOCIATIONS"
        wait_until(lambda: gateway.associations.count() == 0)
        assert echoscu(gateway.port).returncode == 0


@pytest.mark.parametrize("ending", ["release", "abort", "cut"])
def test_an_association_is_open_until_it_ends_in_any_way(gateway: Receiver, ending: str) -> None:
    association = RawSender(gateway.port, [CT]).association
    assert gateway.associations.by_source() == {"scanner": 1}
    if ending == "cut":
        association.dul.socket.socket.shutdown(socket.SHUT_RDWR)
    else:
        getattr(association, ending)()
    wait_until(lambda: gateway.associations.by_source() == {})


def test_a_silent_peer_loses_its_association(tmp_path: Path) -> None:
    with receiver(tmp_path, idle_timeout_s=0.5) as gateway:
        sender = RawSender(gateway.port, [CT])
        wait_until(lambda: gateway.associations.by_source() == {})
        wait_until(lambda: not sender.association.is_established)


def test_a_peer_that_stops_in_the_middle_of_a_pdu_loses_its_association(tmp_path: Path) -> None:
    with receiver(tmp_path, idle_timeout_s=0.5) as gateway:
        sender = RawSender(gateway.port, [CT])
        sender.association.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x10\x00half")
        wait_until(lambda: gateway.associations.by_source() == {})
        assert stored_files(gateway) == []


def test_stop_lets_an_open_association_finish(tmp_path: Path) -> None:
    dataset = ct_series((1, 8, 8))[0]
    with receiver(tmp_path, drain_timeout_s=20.0) as gateway:
        port = gateway.port
        sender = RawSender(port, [CT])
        stopping = threading.Thread(target=gateway.scp.stop, args=(20.0,))
        stopping.start()
        wait_until(lambda: not _connects(port))
        assert sender.send(CT, dataset.SOPInstanceUID, encoded(dataset)).Status == 0x0000
        sender.association.release()
        stopping.join(timeout=30.0)
        assert not stopping.is_alive()
        assert len(members(gateway)) == 1


def test_stop_aborts_what_does_not_finish_in_time(tmp_path: Path) -> None:
    with receiver(tmp_path, drain_timeout_s=0.2) as gateway:
        sender = RawSender(gateway.port, [CT])
        started = time.monotonic()
    assert time.monotonic() - started < 15
    wait_until(lambda: not sender.association.is_established)


def _connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


# -- what arrives -------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", [dcmsend, storescu])
def test_a_series_from_dcmtk_arrives_byte_for_byte(
    gateway: Receiver, tmp_path: Path, tool: Callable[..., Any]
) -> None:
    (tmp_path / "in").mkdir()
    series = ct_series((6, 16, 20))
    write_series(series, tmp_path / "in")
    answer = tool(gateway.port, "+sd", tmp_path / "in")
    assert answer.returncode == 0, answer.stderr
    found = {m.sop_instance_uid: m for m in members(gateway)}
    assert len(found) == len(series) == 6
    for dataset in series:
        member = found[dataset.SOPInstanceUID]
        path = gateway.spool.absolute(member.path)
        assert data_set_of(path) == encoded(dataset)
        assert member.transfer_syntax_uid == ExplicitVRLittleEndian
        meta = pydicom.dcmread(path).file_meta
        assert meta.SourceApplicationEntityTitle == "SCANNER"
        assert meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
        assert pydicom.dcmread(path).pixel_array.tobytes() == dataset.PixelData


@pytest.mark.parametrize(
    ("option", "syntax"), [("-xt", JPEGLSLossless), ("-xv", JPEG2000Lossless), ("-xr", RLELossless)]
)
def test_compressed_instances_arrive_as_they_were_sent(
    gateway: Receiver, tmp_path: Path, option: str, syntax: UID
) -> None:
    (tmp_path / "in").mkdir()
    series = compressed(ct_series((2, 64, 64)), syntax)
    (path, _) = write_series(series, tmp_path / "in")
    assert storescu(gateway.port, option, "+sd", tmp_path / "in").returncode == 0
    found = {m.sop_instance_uid: m for m in members(gateway)}
    for dataset in series:
        member = found[dataset.SOPInstanceUID]
        assert member.transfer_syntax_uid == syntax
        kept = pydicom.dcmread(gateway.spool.absolute(member.path))
        assert kept.PixelData == dataset.PixelData
    assert path.exists()


def test_a_real_compressed_series_arrives_as_it_was_sent(gateway: Receiver) -> None:
    files = sorted(p for p in (SHARED / "compressed_nema_wg04").rglob("*") if p.is_file())
    if not files:
        pytest.skip("the NEMA WG-04 images (../shared/data) are not on this machine")
    sent = {}
    for path in files[:: max(1, len(files) // 12)]:
        dataset = pydicom.dcmread(path)
        syntax = dataset.file_meta.TransferSyntaxUID
        data = data_set_after_meta(path)
        with RawSender(gateway.port, [dataset.SOPClassUID], [syntax]) as sender:
            status = sender.send(dataset.SOPClassUID, dataset.SOPInstanceUID, data)
        assert status.Status == 0x0000, f"{path.name}: {status.ErrorComment}"
        sent[(str(dataset.SOPInstanceUID), str(syntax))] = data
    kept = {(m.sop_instance_uid, m.transfer_syntax_uid): m.path for m in members(gateway)}
    assert kept
    for key, path in kept.items():
        assert data_set_of(gateway.spool.absolute(path)) == sent[key]


def data_set_after_meta(path: Path) -> bytes:
    raw = path.read_bytes()
    return raw[144 + struct.unpack_from("<L", raw, 140)[0] :]


def test_explicit_vr_is_chosen_when_both_are_proposed(gateway: Receiver) -> None:
    with RawSender(gateway.port, [CT], [ImplicitVRLittleEndian, ExplicitVRLittleEndian]) as sender:
        (context,) = sender.association.accepted_contexts
        assert context.transfer_syntax == [ExplicitVRLittleEndian]


NAMED_CLASSES = (
    "CTImageStorage",
    "EnhancedCTImageStorage",
    "MRImageStorage",
    "EnhancedMRImageStorage",
    "PositronEmissionTomographyImageStorage",
    "ComputedRadiographyImageStorage",
    "DigitalXRayImageStorageForPresentation",
    "SecondaryCaptureImageStorage",
    "SegmentationStorage",
    "Comprehensive3DSRStorage",
    "RTStructureSetStorage",
)


def test_every_kind_of_object_is_taken(gateway: Receiver) -> None:
    classes = [str(getattr(pydicom.uid, name)) for name in NAMED_CLASSES] + ["1.2.840.10008.5.1.4.1.1.66.7"]
    with RawSender(gateway.port, classes) as sender:
        for number, sop_class in enumerate(classes):
            dataset = Dataset()
            dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, uid(1, "kind", number)
            dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", f"1.2.3.{number + 1}"
            status = sender.send(sop_class, dataset.SOPInstanceUID, encoded(dataset))
            assert status.Status == 0x0000, sop_class
    assert {m.sop_class_uid for m in members(gateway)} == set(classes)


def test_every_listed_compressed_transfer_syntax_can_be_decoded_here() -> None:
    assert len(set(TRANSFER_SYNTAXES)) == len(TRANSFER_SYNTAXES)
    for syntax in COMPRESSED_TRANSFER_SYNTAXES:
        assert get_decoder(syntax).is_available, syntax.name
    assert (TRANSFER_SYNTAXES[0], TRANSFER_SYNTAXES[-1]) == (ExplicitVRLittleEndian, ImplicitVRLittleEndian)


def test_storage_classes_can_be_added_and_restricted() -> None:
    private = "1.2.826.0.1.3680043.10.1.1"
    assert private in storage_class_uids(further=[private])
    assert storage_class_uids(only=["CTImageStorage", private]) == (CT, private)
    assert [c.abstract_syntax for c in storage_contexts(only=[CT])] == [Verification, CT]
    with pytest.raises(ConfigurationError, match="CTImageStorag'"):
        storage_class_uids(further=["CTImageStorag"])


def test_a_private_storage_class_that_was_added_is_taken(tmp_path: Path) -> None:
    private = "1.2.826.0.1.3680043.10.1.2"
    dataset = ct_series((1, 8, 8))[0]
    dataset.SOPClassUID = private
    with receiver(tmp_path, further_classes=[private]) as gateway:
        assert send(gateway, dataset).Status == 0x0000
        assert members(gateway)[0].sop_class_uid == private


# -- the same again -----------------------------------------------------------------------------


def test_the_same_bytes_again_are_acknowledged_and_counted_once(gateway: Receiver) -> None:
    dataset = ct_series((1, 8, 8))[0]
    assert [send(gateway, dataset).Status for _ in range(3)] == [0, 0, 0]
    assert gateway.journal.receiving_series()[0].instance_count == 1
    assert len(stored_files(gateway)) == 1


def test_the_same_uid_with_other_bytes_is_acknowledged_and_both_are_kept(gateway: Receiver) -> None:
    first = ct_series((1, 8, 8))[0]
    other = ct_series((1, 8, 8), SeriesDescription="again")[0]
    other.SOPInstanceUID = first.SOPInstanceUID
    assert send(gateway, first).Status == send(gateway, other).Status == 0x0000
    assert {data_set_of(p) for p in stored_files(gateway)} == {encoded(first), encoded(other)}
    (member,) = members(gateway)
    assert data_set_of(gateway.spool.absolute(member.path)) == encoded(first)
    reader = JournalReader(gateway.folder / "journal.db")
    events = [e["name"] for e in reader.series_details(reader.series()[0])["events"]]
    reader.close()
    assert events == ["opened", "DUPLICATE_SOP_INSTANCE"]


# -- bad input ----------------------------------------------------------------------------------


def test_a_uid_with_dots_and_slashes_is_refused_and_makes_no_file(gateway: Receiver, tmp_path: Path) -> None:
    good = ct_series((1, 8, 8))[0]
    evil = "../../../aigw-evil"
    with RawSender(gateway.port, [CT]) as sender:
        status = sender.send(CT, evil, encoded(good))
        assert status.Status == 0xA900
        assert status.ErrorComment.startswith("UID_INVALID: ")
        assert len(status.ErrorComment) <= 64
        bad = encoded(good).replace(good.SOPInstanceUID.encode()[:18], evil.encode())
        assert sender.send(CT, good.SOPInstanceUID, bad).Status == 0xA900
        assert sender.send(CT, good.SOPInstanceUID, encoded(good)).Status == 0x0000
    assert len(stored_files(gateway)) == 1
    assert not list(tmp_path.parent.rglob("*aigw-evil*"))
    assert [r["name"] for r in records(gateway)] == ["UID_INVALID", "UID_INVALID"]


BAD_DATA_SETS = {
    "not DICOM": (b"GIF89a, not DICOM at all" * 10, "NOT_PARSEABLE"),
    "truncated": (encoded(ct_series((1, 8, 8))[0])[:-30], "TRUNCATED_DATA_SET"),
    "0 bytes": (b"", "EMPTY_DATA_SET"),
}


@pytest.mark.parametrize("kind", BAD_DATA_SETS)
def test_an_object_that_is_no_data_set_is_refused_by_name_and_leaves_nothing(
    gateway: Receiver, kind: str
) -> None:
    data, name = BAD_DATA_SETS[kind]
    dataset = ct_series((1, 8, 8))[0]
    status = send(gateway, dataset, data)
    assert (status.Status, status.ErrorComment.split(":")[0]) == (0xC000, name)
    assert stored_files(gateway) == []
    (record,) = records(gateway)
    assert (record["subject"], record["name"]) == ("instance", name)
    assert record["details"]["source"] == "scanner"
    assert send(gateway, dataset).Status == 0x0000


def test_a_request_without_any_data_set_is_answered(gateway: Receiver) -> None:
    with RawSender(gateway.port, [CT]) as sender:
        status = sender.send(CT, "1.2.3", b"", announce=False)
        assert (status.Status, status.ErrorComment.split(":")[0]) == (0xC000, "EMPTY_DATA_SET")


def test_a_data_set_that_is_not_what_the_request_says_is_refused(gateway: Receiver) -> None:
    first, second = ct_series((2, 8, 8))
    with RawSender(gateway.port, [CT]) as sender:
        status = sender.send(CT, first.SOPInstanceUID, encoded(second))
    assert (status.Status, status.ErrorComment.split(":")[0]) == (0xA900, "IDENTITY_MISMATCH")


def test_pixel_data_shorter_than_the_image_is_kept_for_the_worker_to_refuse(gateway: Receiver) -> None:
    dataset = ct_series((1, 8, 8))[0]
    dataset.PixelData = dataset.PixelData[:10]
    assert send(gateway, dataset).Status == 0x0000


def test_an_instance_over_the_size_limit_is_refused(tmp_path: Path) -> None:
    limits = AdmissionLimits(max_instance_bytes=1000, keep_free_bytes=0, refuse_over_fraction=1.0)
    with receiver(tmp_path, limits=limits) as gateway:
        assert send(gateway, ct_series((1, 32, 32))[0]).ErrorComment.startswith("INSTANCE_TOO_LARGE")


@pytest.mark.parametrize(
    "hello",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"A" * 100_000,
        b"\x04\x00\x00\x00\x00\x04abcd",
        b"",
    ],
    ids=["HTTP", "4 GiB association request", "data before association", "nothing"],
)
def test_a_peer_that_speaks_nonsense_is_cut_off_and_others_are_served(
    gateway: Receiver, hello: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=10) as raw:
        raw.sendall(hello)
        raw.shutdown(socket.SHUT_WR)
        while _receive(raw):
            pass
    assert echoscu(gateway.port).returncode == 0


def _receive(raw: socket.socket) -> bytes:
    try:
        return raw.recv(4096)
    except ConnectionError:
        return b""


def test_a_connection_cut_in_the_middle_of_an_object_stores_nothing(gateway: Receiver) -> None:
    sender = RawSender(gateway.port, [CT])
    dataset = ct_series((1, 64, 64))[0]

    def cut(event: Any) -> None:
        sender.association.dul.socket.socket.shutdown(socket.SHUT_RDWR)

    sender.association.bind(evt.EVT_PDU_SENT, cut)
    sender.association.dimse_timeout = 2
    assert "Status" not in sender.send(CT, dataset.SOPInstanceUID, encoded(dataset))
    wait_until(lambda: gateway.associations.count() == 0)
    assert stored_files(gateway) == []
    assert send(gateway, dataset).Status == 0x0000


# -- a full disk --------------------------------------------------------------------------------


def test_a_disk_without_the_space_to_keep_free_answers_out_of_resources(tmp_path: Path) -> None:
    dataset = ct_series((1, 8, 8))[0]
    full = AdmissionLimits(keep_free_bytes=1 << 60, refuse_over_fraction=1.0)
    with receiver(tmp_path, limits=full) as gateway:
        status = send(gateway, dataset)
        assert (status.Status, status.ErrorComment.split(":")[0]) == (0xA700, "DISK_FULL")
        assert records(gateway)[0]["name"] == "DISK_FULL"
    with receiver(tmp_path) as gateway:
        assert send(gateway, dataset).Status == 0x0000


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_answers_out_of_resources_and_the_node_goes_on(
    gateway: Receiver, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    dataset = ct_series((1, 8, 8))[0]

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        assert send(gateway, dataset).Status == 0xA700
    assert stored_files(gateway) == []
    assert members(gateway) == []
    assert send(gateway, dataset).Status == 0x0000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_fills_up_loses_nothing_acknowledged_and_is_used_again_when_there_is_space(
    small_disk: Path,
) -> None:
    series = ct_series((40, 256, 256))
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(1 << 20))
    acknowledged: dict[str, bytes] = {}
    with receiver(small_disk) as gateway:
        with RawSender(gateway.port, [CT]) as sender:
            for dataset in series:
                status = sender.send(CT, dataset.SOPInstanceUID, encoded(dataset))
                assert status.Status in (0x0000, 0xA700), status
                if status.Status == 0x0000:
                    acknowledged[dataset.SOPInstanceUID] = encoded(dataset)
            assert 0 < len(acknowledged) < len(series)
            ballast.unlink()
            late = series[-1]
            assert sender.send(CT, late.SOPInstanceUID, encoded(late)).Status == 0x0000
            acknowledged[late.SOPInstanceUID] = encoded(late)
        kept = {m.sop_instance_uid: data_set_of(gateway.spool.absolute(m.path)) for m in members(gateway)}
    assert kept == acknowledged


def test_a_programming_error_is_answered_without_c211_and_without_quoting_the_data(
    gateway: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("Gone^Soon")

    with monkeypatch.context() as patch:
        patch.setattr(Admission, "begin", broken)
        status = send(gateway, ct_series((1, 8, 8))[0])
    assert (status.Status, status.ErrorComment.split(":")[0]) == (0xC000, "INTERNAL_ERROR")
    (line,) = [line for line in gateway.log if line["event"] == "store_failed"]
    assert line["error"] == "ZeroDivisionError"
    assert any(frame.endswith(" broken") for frame in line["frames"])
    assert "Gone" not in str(gateway.log)


# -- privacy ------------------------------------------------------------------------------------


def test_no_patient_attribute_reaches_the_journal_or_the_log(
    gateway: Receiver, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    dataset = ct_series((1, 8, 8), PatientName="Planted^Name", PatientID="PLANTED-77")[0]
    assert send(gateway, dataset).Status == 0x0000
    assert send(gateway, dataset, encoded(dataset)[:-5]).Status == 0xC000
    assert b"Planted^Name" in stored_files(gateway)[0].read_bytes()
    for path in gateway.folder.glob("journal.db*"):
        assert b"planted" not in path.read_bytes().lower()
    output = capfd.readouterr()
    seen = f"{gateway.log} {caplog.text} {output.out} {output.err}".lower()
    assert "planted" not in seen
    assert not [p for p in gateway.folder.rglob("*") if "planted" in p.name.lower()]


def test_the_recording_scp_keeps_what_it_gets_and_can_refuse() -> None:
    dataset = ct_series((1, 8, 8))[0]
    with recording_scp() as archive:
        with RawSender(archive.port, [CT], called="ARCHIVE") as sender:
            assert sender.send(CT, dataset.SOPInstanceUID, encoded(dataset)).Status == 0x0000
            archive.answer = lambda _: 0xA700
            assert sender.send(CT, dataset.SOPInstanceUID, encoded(dataset)).Status == 0xA700
        assert archive.received == [(dataset.SOPInstanceUID, encoded(dataset))]
        assert echoscu(archive.port, called="ARCHIVE").returncode == 0
        assert echoscu(archive.port, called="AIGW").returncode != 0


def test_a_message_far_over_the_limit_ends_the_association_before_it_is_all_in_memory(tmp_path: Path) -> None:
    limits = AdmissionLimits(max_instance_bytes=4000, keep_free_bytes=0, refuse_over_fraction=1.0)
    with receiver(tmp_path, limits=limits) as gateway:
        dataset = ct_series((1, 8, 8))[0]
        dataset.PixelData = bytes(40 << 20)
        assert "Status" not in send(gateway, dataset)
        refusals = [line for line in gateway.log if line["event"] == "instance_rejected"]
        assert [line["name"] for line in refusals] == ["INSTANCE_TOO_LARGE"]
        assert "the association was aborted" in refusals[0]["reason"]
        assert send(gateway, ct_series((1, 16, 16), seed=2)[0]).Status == 0x0000
