from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pydicom
import pytest

from gateway.errors import OutOfResources
from gateway.receive.part10 import file_header
from gateway.spool import (
    SEAL_BYTES,
    Bytes,
    Found,
    Spool,
    StoredFile,
    damage,
    relative_path,
    transfer_syntax_uid,
)


def files_below(root: Path) -> list[str]:
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def test_a_body_is_kept_byte_for_byte_under_its_own_digest(tmp_path: Path) -> None:
    stored = Spool(tmp_path / "spool").store(b"body", b"header ")
    digest = hashlib.sha256(b"body").hexdigest()
    assert (stored.digest, stored.size_bytes) == (digest, 11)
    assert stored.path == f"objects/{digest[:2]}/{digest}.dcm"
    assert (tmp_path / "spool" / stored.path).read_bytes() == b"header body"
    assert files_below(tmp_path / "spool") == [stored.path]


def test_a_file_is_synced_before_it_has_its_name_and_the_name_before_it_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    calls: list[str] = []
    sync, rename = os.fsync, os.rename

    def noted_sync(handle: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "fsync file")
        sync(handle)

    def noted_rename(path: str, target: str) -> None:
        calls.append("rename")
        rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "rename", noted_rename)
    spool.store(b"body")
    assert calls == ["fsync file", "rename", "fsync directory"]
    calls.clear()
    spool.store(b"body")
    assert calls == ["fsync file", "fsync directory"]


def test_nobody_else_may_read_the_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    path = spool.absolute(spool.store(b"body").path)
    assert path.stat().st_mode & 0o777 == 0o600
    for folder in (spool.root, path.parent, path.parent.parent, spool.root / "incoming"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_the_same_body_again_is_not_written_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    first = spool.store(b"body", b"first ")
    inode = spool.absolute(first.path).stat().st_ino
    assert spool.store(b"body", b"another ") == first
    assert spool.absolute(first.path).stat().st_ino == inode
    assert spool.absolute(first.path).read_bytes() == b"first body"


@pytest.mark.parametrize("broken", [b"", b"bod", b"first bodx"])
def test_a_damaged_object_is_put_aside_and_written_again(tmp_path: Path, broken: bytes) -> None:
    spool = Spool(tmp_path)
    stored = spool.store(b"body", b"first ")
    assert not stored.repaired
    spool.absolute(stored.path).write_bytes(broken)
    again = spool.store(b"body", b"first ")
    assert again == stored
    assert again.repaired
    assert spool.absolute(stored.path).read_bytes() == b"first body"
    assert [p.read_bytes() for p in (tmp_path / "quarantine").iterdir()] == [broken]


def test_many_threads_may_store_the_same_and_other_bodies(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    bodies = [f"body {i % 5}".encode() * 1000 for i in range(40)]
    threads = [threading.Thread(target=spool.store, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert files_below(tmp_path) == sorted({relative_path(hashlib.sha256(b).hexdigest()) for b in bodies})


@pytest.mark.parametrize(
    ("code", "name"), [(errno.ENOSPC, "DISK_FULL"), (errno.EDQUOT, "DISK_FULL"), (errno.EIO, "DISK_ERROR")]
)
@pytest.mark.parametrize("call", ["writev", "fsync"])
def test_a_disk_that_fails_is_named_and_leaves_no_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, name: str
) -> None:
    spool = Spool(tmp_path)

    def fail(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OutOfResources) as caught:
            spool.store(b"body")
    assert (caught.value.name, caught.value.dimse_status) == (name, 0xA700)
    assert files_below(tmp_path) == []
    assert spool.store(b"body").size_bytes == 4


def test_a_limit_of_the_operating_system_on_file_size_is_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, signal, sys, pathlib; from gateway.spool import Spool\n"
        "from gateway.errors import OutOfResources\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"spool = Spool(pathlib.Path({str(tmp_path)!r}))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: spool.store(bytes(300_000))\n"
        "except OutOfResources as error: print(error.name)\n"
        "print(spool.store(bytes(50_000)).size_bytes)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["DISK_FULL", "50000"]
    assert len(files_below(tmp_path)) == 1


def test_parts_of_files_are_removed_at_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    whole = spool.store(b"whole").path
    (tmp_path / "incoming" / "half.part").write_bytes(b"hal")
    restarted = Spool(tmp_path)
    assert restarted.remove_parts() == 1
    assert files_below(tmp_path) == [whole]
    assert restarted.remove_parts() == 0


LATER_S = time.time() + 3600.0


def test_a_file_is_put_aside_only_if_nobody_knows_it_and_it_is_old(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known, unknown = spool.store(b"with row").path, spool.store(b"without row").path
    assert not spool.put_aside(known, lambda: True, LATER_S)
    assert not spool.put_aside(unknown, lambda: False, LATER_S - 7200.0)
    assert spool.put_aside(unknown, lambda: False, LATER_S)
    assert not spool.put_aside(unknown, lambda: False, LATER_S)
    assert files_below(tmp_path) == sorted([known, unknown.replace("objects", "unclaimed")])
    assert spool.unclaimed(Path(unknown).parent.name) == {unknown}


def test_what_was_put_aside_comes_back_or_makes_way_for_what_came_again(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = received(spool)
    content = spool.absolute(path).read_bytes()
    assert spool.put_aside(path, lambda: False, LATER_S)
    assert spool.take_back(path)
    assert not spool.take_back(path)
    assert spool.absolute(path).read_bytes() == content
    assert spool.put_aside(path, lambda: False, LATER_S)
    assert received(spool) == path
    spool.absolute(path).write_bytes(content[:-1])  # what came again is damaged: the other one stays
    assert not spool.take_back(path)
    assert spool.unclaimed(Path(path).parent.name) == {path}
    spool.absolute(path).write_bytes(content)
    assert not spool.take_back(path)
    assert files_below(tmp_path) == [path]


EXPLICIT, JPEG_LOSSLESS, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.70", "1.2.840.10008.1.2"


def labelled(spool: Spool, syntax: str, sender: str = "SCANNER") -> StoredFile:
    """Store one body in this transfer syntax, of which no row needs what is there."""
    incoming = spool.begin(file_header("1.2", "1.2.3", syntax, sender))
    incoming.write(b"body")
    with spool.hold(incoming.digest):
        return incoming.keep(lambda _: False)


def labels(spool: Spool, kind: str) -> list[str | None]:
    return sorted(map(transfer_syntax_uid, (spool.root / kind).glob("*/*.dcm")), key=str)


def test_a_file_that_no_row_needs_makes_way_and_stays_where_its_transfer_syntax_is_another(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path)
    assert not labelled(spool, EXPLICIT).was_there
    assert labelled(spool, EXPLICIT, "OTHER").was_there
    assert labels(spool, "unclaimed") == []
    for _ in range(2):
        for syntax in (JPEG_LOSSLESS, IMPLICIT, EXPLICIT):
            assert not labelled(spool, syntax).was_there
            assert labels(spool, "objects") == [syntax]
    assert labels(spool, "unclaimed") == sorted([JPEG_LOSSLESS, IMPLICIT, EXPLICIT])
    digest = hashlib.sha256(b"body").hexdigest()
    assert spool.unclaimed(digest[:2]) == {relative_path(digest)}


@pytest.mark.parametrize("wanted", [EXPLICIT, JPEG_LOSSLESS, IMPLICIT])
def test_a_row_gets_the_file_of_its_transfer_syntax_and_the_others_stay_aside(
    tmp_path: Path, wanted: str
) -> None:
    spool = Spool(tmp_path)
    for syntax in (EXPLICIT, JPEG_LOSSLESS, IMPLICIT):
        path = labelled(spool, syntax).path
    assert spool.take_back(path, {wanted}) == (wanted != IMPLICIT)
    assert not spool.take_back(path, {wanted})
    assert labels(spool, "objects") == [wanted]
    assert labels(spool, "unclaimed") == sorted({EXPLICIT, JPEG_LOSSLESS, IMPLICIT} - {wanted})
    spool.absolute(path).unlink()
    assert not spool.take_back(path, {wanted})  # gone: another label would be another image
    assert labels(spool, "objects") == []


def test_a_damaged_file_that_was_put_aside_takes_no_place(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    labelled(spool, EXPLICIT)
    path = labelled(spool, JPEG_LOSSLESS).path
    (aside,) = tmp_path.glob("unclaimed/*/*.dcm")
    aside.write_bytes(aside.read_bytes()[:-1])
    assert not spool.take_back(path, {EXPLICIT})
    assert labels(spool, "objects") == [JPEG_LOSSLESS]


@pytest.mark.parametrize("written", [b"", b"no DICOM", bytes(128) + b"DICM", bytes(128) + b"DICM\2\0\x10"])
def test_a_file_without_transfer_syntax_has_none(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "file").write_bytes(written)
    assert transfer_syntax_uid(tmp_path / "file") is None
    header = file_header("1.2", "1.2.3", "../../x", "SCANNER")
    (tmp_path / "file").write_bytes(header)
    assert transfer_syntax_uid(tmp_path / "file") is None


def test_a_file_on_which_an_admission_relies_is_not_removed(tmp_path: Path) -> None:
    """The admission holds the digest from its look for the file until its row is there."""
    spool = Spool(tmp_path)
    path = spool.store(b"body").path  # of an admission that ended without a row
    rows: set[str] = set()
    asked, removed = threading.Event(), []

    def remove() -> None:
        asked.set()
        removed.append(spool.put_aside(path, lambda: path in rows, LATER_S))

    incoming = spool.begin()
    incoming.write(b"body")
    remover = threading.Thread(target=remove)
    with spool.hold(incoming.digest):
        assert incoming.keep().path == path
        remover.start()
        assert asked.wait(10)
        remover.join(0.1)
        assert remover.is_alive()
        rows.add(path)
    remover.join(10)
    assert removed == [False]
    assert files_below(tmp_path) == [path]


def test_foreign_files_among_the_objects_are_left_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = spool.store(b"body").path
    folder = Path(path).parent.name
    for name in (
        "notes.txt",
        "0" * 64,
        f"{'0' * 63}g.dcm",
        f"{(int(folder, 16) + 1) % 256:02x}{'0' * 62}.dcm",
    ):
        (tmp_path / "objects" / folder / name).touch()
    assert spool.files(folder) == {path}
    with pytest.raises(ValueError, match="not the path of an object"):
        spool.put_aside("objects/../journal.db", lambda: False, LATER_S)


# -- bit rot ------------------------------------------------------------------------------------


def received(spool: Spool, body: bytes = b"body") -> str:
    return spool.store(body, file_header("1.2", "1.2.3", "1.2.840.10008.1.2.1", "SCANNER")).path


@pytest.mark.parametrize("at", [0, 130, 141, 142, 160, 205, 290, -5, -1])
def test_a_byte_that_changes_is_found_wherever_it_is(tmp_path: Path, at: int) -> None:
    spool = Spool(tmp_path)
    path = received(spool)
    raw = bytearray(spool.absolute(path).read_bytes())
    raw[at] ^= 1
    spool.absolute(path).write_bytes(raw)
    told: list[Found] = []
    found = spool.examine(path, told.append)
    assert (found, told) == (Found.DAMAGED, [Found.DAMAGED])
    (aside,) = (tmp_path / "quarantine").iterdir()
    assert aside.read_bytes() == raw
    assert not spool.absolute(path).exists()


def test_a_flipped_digit_of_the_transfer_syntax_is_found_and_mended_by_the_same_bytes(tmp_path: Path) -> None:
    """One bit is between JPEG Baseline (1.2.840.10008.1.2.4.50) and JPEG Lossless (4.70)."""
    spool = Spool(tmp_path)
    path = received(spool)
    right = spool.absolute(path).read_bytes()
    wrong = right.replace(b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.5")
    assert wrong != right
    spool.absolute(path).write_bytes(wrong)
    digest = Path(path).stem
    assert damage(spool.absolute(path), digest) is Found.DAMAGED  # as a worker asks
    assert received(spool) == path
    assert spool.absolute(path).read_bytes() == right
    assert [p.read_bytes() for p in (tmp_path / "quarantine").iterdir()] == [wrong]


def test_pydicom_reads_the_sealed_file_meta_information() -> None:
    header = file_header("1.2", "1.2.3", "1.2.840.10008.1.2.1", "SCANNER")
    meta = pydicom.dcmread(io.BytesIO(header)).file_meta
    assert (meta.TransferSyntaxUID, meta.SourceApplicationEntityTitle) == ("1.2.840.10008.1.2.1", "SCANNER")
    assert meta.FileMetaInformationGroupLength == len(header) - 144
    assert meta.PrivateInformation == hashlib.sha256(header[:-32]).digest()


def test_a_file_of_an_earlier_version_which_has_no_seal_is_intact(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    elements = file_header("1.2", "1.2.3", "1.2.840.10008.1.2.1", "SCANNER")[144:-SEAL_BYTES]
    header = bytes(128) + b"DICM\x02\x00\x00\x00UL\x04\x00" + len(elements).to_bytes(4, "little") + elements
    path = spool.store(b"body", header).path
    assert spool.examine(path, lambda _: None) is Found.INTACT


def test_what_is_intact_or_gone_is_told_apart(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    path = received(spool)
    told: list[Found] = []
    read: list[int] = []
    assert spool.examine(path, told.append, pace=read.append) is Found.INTACT
    assert (told, read) == ([], [4])
    spool.absolute(path).unlink()
    assert spool.examine(path, told.append) is Found.MISSING
    assert told == [Found.MISSING]
    assert list((tmp_path / "quarantine").iterdir()) == []


def test_a_sector_that_cannot_be_read_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    path = received(spool)

    def fail(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        assert spool.examine(path, lambda _: None) is Found.DAMAGED


def test_no_descriptors_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path)
    path = received(spool)

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", fail)
        with pytest.raises(OutOfResources, match="DISK_ERROR"):
            spool.examine(path, lambda _: None)
    assert spool.absolute(path).is_file()


def test_the_same_file_damaged_twice_is_kept_aside_twice(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    for broken in (b"one", b"two"):
        path = received(spool)
        spool.absolute(path).write_bytes(broken)
        spool.examine(path, lambda _: None)
    assert {p.read_bytes() for p in (tmp_path / "quarantine").iterdir()} == {b"one", b"two"}


# -- while it arrives ---------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 7, 1 << 20])
def test_chunks_are_written_in_order_however_few_bytes_a_call_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """One call takes the header and all chunks; a call may take less than it was given."""
    spool, real, calls = Spool(tmp_path), os.writev, []
    chunks: list[Bytes] = [b"", b"one", bytearray(b"two"), memoryview(b"-three-")[1:-1], b"", b"4" * 20]

    def writev(handle: int, parts: Sequence[memoryview]) -> int:
        calls.append(len(parts))
        return os.write(handle, b"".join(parts)[:most]) if most < 1 << 20 else real(handle, parts)

    monkeypatch.setattr(os, "writev", writev)
    incoming = spool.begin(b"header")
    incoming.write(*chunks)
    stored = incoming.keep()
    body = b"".join(chunks)
    assert spool.absolute(stored.path).read_bytes() == b"header" + body
    assert (stored.digest, stored.size_bytes) == (hashlib.sha256(body).hexdigest(), 6 + len(body))
    assert most < 1 << 20 or calls == [5]


def test_thousands_of_chunks_are_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    incoming = spool.begin(b"header")
    incoming.write(*(bytes((number % 251,)) for number in range(5000)))
    with incoming.body() as body:
        assert bytes(body) == bytes(number % 251 for number in range(5000))
    assert spool.absolute(incoming.keep().path).stat().st_size == 5006


def test_the_disk_begins_before_the_file_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is new is handed to the disk, once; what the header was read from stays in the page cache."""
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "posix_fadvise", lambda _, offset, count, __: ranges.append((offset, count)))
    incoming = Spool(tmp_path).begin(b"header")
    for _ in range(3):
        incoming.write(bytes(200 << 10))
    incoming.write(b"end")
    incoming.start_flush()
    incoming.start_flush()
    first, step = 6 + (200 << 10), 200 << 10
    assert ranges == [(0, first), (first, step), (first + step, step), (first + 2 * step, 3)]
    incoming.discard()


def test_a_long_body_arrives_and_is_read_without_being_held_in_memory(tmp_path: Path) -> None:
    script = (
        "import pathlib, resource; from gateway.spool import Spool\n"
        f"spool = Spool(pathlib.Path({str(tmp_path)!r}))\n"
        "chunk = bytes(1 << 20)\n"
        "incoming = spool.begin(b'header')\n"
        "incoming.write(chunk)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in range(299): incoming.write(chunk)\n"
        "with incoming.body() as body: ends = len(body), body[0], body[-1]\n"
        "incoming.keep()\n"
        "after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "print(ends[0] >> 20, after - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    mebibytes, grown_kib = map(int, done.stdout.split())
    assert mebibytes == 300
    assert grown_kib < 4096


def test_without_durability_nothing_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path, durable=False)

    def flushed(_: int) -> None:
        raise AssertionError("flushed")

    monkeypatch.setattr(os, "fsync", flushed)
    assert spool.absolute(spool.store(b"body").path).read_bytes() == b"body"
    assert spool.store(b"body").size_bytes == 4


def test_space_that_must_stay_free_is_kept_free(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.check_space(0, 1.0)
    for arguments in ((1 << 60, 1.0), (0, 0.0), (0, 1.0, 1 << 60)):
        with pytest.raises(OutOfResources, match=r"DISK_FULL.*send again"):
            spool.check_space(*arguments)


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "0" * 63 + "/"])
def test_a_path_is_made_from_a_digest_only(digest: str) -> None:
    with pytest.raises(ValueError, match="64 lower-case hex digits"):
        relative_path(digest)


def test_the_spool_keeps_no_file_handles(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for i in range(20):
        spool.store(f"body {i}".encode())
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > before
