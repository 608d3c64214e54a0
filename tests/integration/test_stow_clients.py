"""STOW-RS with real clients (dicomweb-client, Orthanc, curl), kill -9 in the middle, and a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from pydicom import dcmread
from pydicom.dataset import Dataset
from requests import HTTPError, Session

from gateway.receive.callers import KnownPeer
from gateway.receive.stow.access import WebPeer
from gateway.receive.stow.request import StowLimits
from tests.builders import ct_series
from tests.orthanc import Orthanc
from tests.peers import encoded
from tests.stow import (
    AUTHORIZATION,
    CONTENT_TYPE,
    VNA,
    StowServer,
    multipart,
    part10,
    post,
    stow_server,
)

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "fixture"
BASIC = WebPeer(KnownPeer("pacs", "ORTHANC", "127.0.0.1"), user="pacs", password="a password of the tests")  # noqa: S106


@pytest.fixture
def server(tmp_path: Path) -> Iterator[StowServer]:
    with stow_server(tmp_path / "gateway", [VNA, BASIC]) as running:
        yield running


@pytest.fixture
def series() -> list[Dataset]:
    return ct_series((12, 64, 64))


# -- clients -------------------------------------------------------------------------------------


def test_dicomweb_client_stores_and_reads_our_answer(server: StowServer, series: list[Dataset]) -> None:
    for each in series:
        each.preamble = bytes(128)
    session = create_session_from_user_pass("pacs", "a password of the tests")
    client = DICOMwebClient(f"http://127.0.0.1:{server.port}/dicom-web", session=session, chunk_size=50_000)
    answer = client.store_instances(series, study_instance_uid=series[0].StudyInstanceUID)
    assert [i.ReferencedSOPInstanceUID for i in answer.ReferencedSOPSequence] == [
        s.SOPInstanceUID for s in series
    ]
    assert "FailedSOPSequence" not in answer
    assert server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}
    with pytest.raises(HTTPError, match="409"):
        client.store_instances(series[:1], study_instance_uid="1.2.3")
    with pytest.raises(HTTPError, match="401"):
        DICOMwebClient(f"http://127.0.0.1:{server.port}/dicom-web", session=Session()).store_instances(
            series[:1]
        )


def test_orthanc_sends_to_us(server: StowServer, series: list[Dataset], tmp_path: Path) -> None:
    with Orthanc(tmp_path / "orthanc") as pacs:
        for each in series:
            pacs.store(part10(each))

        def call(method: str, path: str, body: Any) -> Any:
            request = urllib.request.Request(
                f"http://127.0.0.1:{pacs.http_port}{path}", json.dumps(body).encode(), method=method
            )
            with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - loopback http
                return json.loads(response.read() or b"null")

        url = f"http://127.0.0.1:{server.port}/dicom-web/"
        access = {"Url": url, "Username": "pacs", "Password": "a password of the tests"}
        call("PUT", "/dicom-web/servers/aigw", access)
        resources = pacs.get("/studies")
        call("POST", "/dicom-web/servers/aigw/stow", {"Resources": resources, "Synchronous": True})
        sent = {
            uid: pacs.file(found["ID"])
            for found in pacs.instances()
            for uid in [found["MainDicomTags"]["SOPInstanceUID"]]
        }
        assert set(server.rows()) == {each.SOPInstanceUID for each in series} == set(sent)
        for uid, data in server.rows().items():
            assert sent[uid].endswith(data)
        call("PUT", "/dicom-web/servers/aigw", {**access, "Password": "wrong"})
        with pytest.raises(urllib.error.HTTPError):
            call("POST", "/dicom-web/servers/aigw/stow", {"Resources": resources, "Synchronous": True})
    assert server.notes[-1][0] == "CREDENTIALS_WRONG"


def test_curl_stores_a_series_of_files(server: StowServer, tmp_path: Path) -> None:
    files = sorted(SHARED.rglob("*.dcm"))[:40]
    if not files:
        pytest.skip(f"{SHARED} has no DICOM files")
    body = tmp_path / "body"
    body.write_bytes(multipart([path.read_bytes() for path in files]))
    fields = {**AUTHORIZATION, "Content-Type": CONTENT_TYPE, "Accept": "application/dicom+json"}
    fields["Transfer-Encoding"] = "chunked"
    headers = [word for name, value in fields.items() for word in ("-H", f"{name}: {value}")]
    url = f"http://127.0.0.1:{server.port}/dicom-web/studies"
    command = ["curl", "-sS", "-w", "%{http_code}", "-o", str(tmp_path / "answer"), *headers]
    command += ["--data-binary", f"@{body}", url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == "200"
    answer = Dataset.from_json((tmp_path / "answer").read_text())
    assert len(answer.ReferencedSOPSequence) == len(files)
    rows = server.rows()
    for path in files:
        uid = dcmread(path, specific_tags=["SOPInstanceUID"]).SOPInstanceUID
        assert path.read_bytes().endswith(rows[uid])


# -- crashes -------------------------------------------------------------------------------------

SERVE = """
import sys
from pathlib import Path
from tests.stow import stow_server
from gateway.receive.admit import AdmissionLimits
free = int(sys.argv[2])
limits = AdmissionLimits(keep_free_bytes=free, refuse_over_fraction=1.0)
with stow_server(Path(sys.argv[1]), admission_limits=limits) as server:
    print("port", server.port, flush=True)
    sys.stdin.read()
"""


@contextmanager
def child(folder: Path, keep_free_bytes: int = 0, **more: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """The server as a process that can be killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(folder), str(keep_free_bytes)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), **more},
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield process, next(int(line.split()[1]) for line in process.stdout if line.startswith("port "))
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


@pytest.mark.crash
@pytest.mark.parametrize("point", ["spool.written", "spool.renamed", "admit.committed"])
def test_killed_in_the_middle_of_a_request_nothing_is_half(
    tmp_path: Path, series: list[Dataset], point: str
) -> None:
    body = multipart([part10(each) for each in series])
    with child(tmp_path, AIGW_TEST_FAILPOINT=f"{point}:5") as (process, port):
        with pytest.raises((ConnectionError, OSError)):
            post(port, body, {**AUTHORIZATION, "Content-Type": CONTENT_TYPE})
        assert process.wait(timeout=20) == -signal.SIGKILL
    with stow_server(tmp_path) as server:
        before = server.rows()
        assert len(before) == (5 if point == "admit.committed" else 4)
        assert server.post(body).status == 200
        assert server.rows() == {each.SOPInstanceUID: encoded(each) for each in series}
        assert before.items() <= server.rows().items()


def test_a_full_disk_asks_to_come_again_and_nothing_is_half(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        series = ct_series((40, 512, 512))
        with stow_server(disk, limits=StowLimits()) as server:
            reply = server.post(slowly(multipart([part10(each) for each in series])))
            assert reply.status == 503
            assert int(reply.headers["retry-after"]) > 0
            stored = [item.ReferencedSOPInstanceUID for item in reply.data_set.ReferencedSOPSequence]
            assert 5 < len(stored) < 40
            assert [item.FailureReason for item in reply.data_set.FailedSOPSequence] == [0xA700]
            assert set(server.rows()) == set(stored)
            assert not [path for path in server.files() if "incoming" in path.parts]
            assert server.notes[-1][0] == "DISK_FULL"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def slowly(body: bytes) -> Iterator[bytes]:
    """In chunks, so that no length is announced that would be refused at once."""
    for at in range(0, len(body), 1 << 18):
        yield body[at : at + (1 << 18)]
        time.sleep(0.001)


def test_the_journal_is_whole_after_all_this(server: StowServer, series: list[Dataset]) -> None:
    import sqlite3

    server.post(multipart([part10(each) for each in series]))
    with closing(sqlite3.connect(f"file:{server.folder / 'journal.db'}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        rows = connection.execute("SELECT path FROM instance").fetchall()
    assert {server.folder / "spool" / path for (path,) in rows} == set(server.files())
