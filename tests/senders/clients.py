"""Three senders that share no code: DCMTK, Orthanc and dcmjs-dimse. Each sends files to a port."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.certificates import Leaf
from tests.orthanc import Orthanc
from tests.peers import OUR_AE_TITLE, dcmsend, storescu

Send = Callable[[int, Sequence[Path]], None]
"""Send files to a port; fails if one was not stored."""

_TOOLS = Path(__file__).parents[2] / ".tools"
_HERE = Path(__file__).parent
_STORESCU_PROPOSES = {
    ImplicitVRLittleEndian: ("-xi",),
    RLELossless: ("-xr",),
    JPEGLSLossless: ("-xt",),
    JPEG2000Lossless: ("-xv",),
}
DCMJS_AE_TITLE, ORTHANC_AE_TITLE = "DCMJS", "ORTHANC"


def by_dcmsend(port: int, files: Sequence[Path]) -> None:
    """DCMTK's dcmsend, nothing decompressed."""
    done = dcmsend(port, "-dn", *files)
    assert done.returncode == 0, done.stderr


def by_storescu(port: int, files: Sequence[Path]) -> None:
    """DCMTK's storescu, told to propose the transfer syntax of the files."""
    syntax = pydicom.filereader.read_file_meta_info(files[0]).TransferSyntaxUID
    done = storescu(port, "-R", *_STORESCU_PROPOSES.get(syntax, ()), *files)
    assert done.returncode == 0, done.stderr


def storescu_tls(port: int, files: Sequence[Path], leaf: Leaf, authority: Path) -> None:
    """DCMTK's storescu over TLS; its options take a value each, therefore not through tests.peers."""
    options = ["+tls", leaf.key, leaf.certificate, "+cf", authority, "-aet", "SCANNER", "-aec", OUR_AE_TITLE]
    command = ["storescu", "-v", "-R", *map(str, options), "127.0.0.1", str(port), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def by_dcmjs(
    port: int, files: Sequence[Path], leaf: Leaf | None = None, authority: Path | None = None
) -> None:
    """dcmjs-dimse in Node.js; over TLS with a certificate."""
    homes = sorted(_TOOLS.glob("dcmjs-dimse-*/node_modules"))
    if not homes:
        pytest.fail("dcmjs-dimse is missing: run `make test-tools`")
    task: dict[str, object] = {
        "port": port,
        "calling": DCMJS_AE_TITLE,
        "called": OUR_AE_TITLE,
        "files": [str(path) for path in files],
    }
    if leaf is not None:
        task["tls"] = {
            "key": str(leaf.key),
            "certificate": str(leaf.certificate),
            "authority": str(authority),
        }
    command = ["node", str(_HERE / "send.js"), json.dumps(task)]
    environment = {**os.environ, "NODE_PATH": str(homes[-1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.strip().splitlines()[-1])
    assert told["failed"] is None, told
    assert len(told["statuses"]) == len(files), told
    assert set(told["statuses"].values()) == {0}, told


def by_orthanc(orthanc: Orthanc, node_port: int, files: Sequence[Path], *, tls: bool = False) -> None:
    """Put the files into an Orthanc, then let it send them to the node over one association."""
    node = {"AET": OUR_AE_TITLE, "Host": "127.0.0.1", "Port": node_port, "UseDicomTls": tls}
    _request(orthanc, "PUT", "/modalities/node", node)
    known = {instance["ID"] for instance in orthanc.instances()}
    for path in files:
        orthanc.store(path.read_bytes())
    new = [instance["ID"] for instance in orthanc.instances() if instance["ID"] not in known]
    told = json.loads(
        _request(orthanc, "POST", "/modalities/node/store", {"Resources": new, "Synchronous": True})
    )
    assert (told["InstancesCount"], told["FailedInstancesCount"]) == (len(files), 0), told


def _request(orthanc: Orthanc, method: str, path: str, body: object) -> bytes:
    url = f"http://127.0.0.1:{orthanc.http_port}{path}"
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310 - loopback http
        content: bytes = response.read()
        return content
