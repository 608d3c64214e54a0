from __future__ import annotations

import errno
import hashlib
import os
import resource
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gateway.errors import OutOfResources
from gateway.spool import Spool, relative_path


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
    sync, rename = os.fsync, Path.rename

    def noted_sync(handle: int) -> None:
        calls.append("fsync directory" if stat.S_ISDIR(os.fstat(handle).st_mode) else "fsync file")
        sync(handle)

    def noted_rename(path: Path, target: Path) -> Path:
        calls.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "rename", noted_rename)
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


@pytest.mark.parametrize("damage", [b"", b"bod", b"first bodx"])
def test_a_damaged_object_is_written_again(tmp_path: Path, damage: bytes) -> None:
    spool = Spool(tmp_path)
    stored = spool.store(b"body", b"first ")
    spool.absolute(stored.path).write_bytes(damage)
    assert spool.store(b"body", b"first ") == stored
    assert spool.absolute(stored.path).read_bytes() == b"first body"


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
@pytest.mark.parametrize("call", ["write", "fsync"])
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


def test_recovery_removes_parts_and_files_without_row_and_nothing_else(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known = spool.store(b"with row").path
    spool.store(b"without row")
    (tmp_path / "incoming" / "half.part").write_bytes(b"hal")
    restarted = Spool(tmp_path)
    assert restarted.remove_garbage({known}) == 2
    assert files_below(tmp_path) == [known]
    assert restarted.remove_garbage({known}) == 0


def test_a_row_without_file_is_reported(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    known, lost = spool.store(b"here").path, spool.store(b"lost").path
    spool.absolute(lost).unlink()
    assert spool.missing({known, lost}) == (lost,)


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
