"""Three independent senders against the running node: what is stored is what they sent, byte for byte."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from tests.builders import compressed, ct_series, write_series
from tests.senders.clients import Send, by_dcmjs, by_dcmsend, by_orthanc, by_storescu, storescu_tls
from tests.senders.site import PEER_OF, Site, StoredInstance, data_set_of
from tests.senders.tap import Tap

SLICES = 6
SENDERS = tuple(PEER_OF)
RE_ENCODE_NOTHING = ("dcmsend", "storescu", "Orthanc")  # dcmjs-dimse always writes data sets anew
_seeds = itertools.count(6000)

pytestmark = pytest.mark.skipif(
    not all(map(shutil.which, ("node", "dcmsend", "storescu"))), reason="run `make test-tools`"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site")) as running:
        yield running


def series(folder: Path, syntax: UID = ExplicitVRLittleEndian, slices: int = SLICES) -> list[Path]:
    """The files of a new CT series in a transfer syntax."""
    datasets = ct_series((slices, 48, 64), seed=next(_seeds))
    if syntax.is_compressed:
        datasets = compressed(datasets, syntax)
    for dataset in datasets:
        dataset.file_meta.TransferSyntaxUID = syntax
    return write_series(datasets, folder)


def sender(name: str, site: Site) -> Send:
    if name == "Orthanc":
        return partial(by_orthanc, site.orthanc)
    return {"dcmsend": by_dcmsend, "storescu": by_storescu, "dcmjs-dimse": by_dcmjs}[name]


def uids(files: Sequence[Path]) -> list[str]:
    return [str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files]


def stored_of(site: Site, files: Sequence[Path]) -> list[StoredInstance]:
    """What is stored of these files, in their order."""
    stored = site.stored()
    return [stored[uid] for uid in uids(files)]


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("name", SENDERS)
def test_what_is_stored_is_what_went_over_the_wire(
    site: Site, name: str, syntax: UID, tmp_path: Path
) -> None:
    files = series(tmp_path, syntax)
    with Tap(site.node.dicom_port) as tap:
        sender(name, site)(tap.port, files)
        sent = tap.sent()
    stored = stored_of(site, files)
    assert sorted(each.data_set for each in stored) == sorted(each.data_set for each in sent)
    assert {each.source for each in stored} == {PEER_OF[name]}
    (agreed,) = {each.transfer_syntax_uid for each in sent}
    assert {each.transfer_syntax_uid for each in stored} == {agreed}
    if syntax.is_compressed:
        assert agreed == syntax, "a compressed instance is taken as it is"
    if agreed == syntax and name in RE_ENCODE_NOTHING:
        assert [each.data_set for each in stored] == [data_set_of(path) for path in files]


@pytest.mark.parametrize("name", SENDERS)
def test_an_explicit_series_comes_as_it_is(site: Site, name: str, tmp_path: Path) -> None:
    """Three get the syntax that they name first; dcmjs-dimse names Implicit VR first: our order decides."""
    files = series(tmp_path)
    with Tap(site.node.dicom_port) as tap:
        sender(name, site)(tap.port, files)
        sent = tap.sent()
    assert {each.transfer_syntax_uid for each in sent} == {str(ExplicitVRLittleEndian)}
    (proposed,) = {each.proposed for each in sent}
    if name in RE_ENCODE_NOTHING:
        assert proposed[0] == ExplicitVRLittleEndian
    else:
        assert proposed == (ImplicitVRLittleEndian, ExplicitVRLittleEndian)


def test_many_associations_of_three_senders_at_once(site: Site, tmp_path: Path) -> None:
    """Twelve at a time; each series is stored whole, and none gets instances of another."""
    jobs = [(name, series(tmp_path / f"{name}-{n}")) for n in range(3) for name in SENDERS]
    with Tap(site.node.dicom_port) as tap, ThreadPoolExecutor(len(jobs)) as pool:
        waiting = [
            pool.submit(sender(name, site), tap.port, files) for name, files in jobs if name != "Orthanc"
        ]
        waiting.append(pool.submit(_by_orthanc_in_turn, site, tap, jobs))
        for each in waiting:
            each.result()
        sent = tap.sent()
        assert tap.associations() >= len(jobs)
    stored = site.stored()
    for _, files in jobs:
        members = [stored[uid] for uid in uids(files)]
        assert len({each.series_instance_uid for each in members}) == 1
    everything = [stored[uid].data_set for _, files in jobs for uid in uids(files)]
    assert sorted(everything) == sorted(each.data_set for each in sent)


def _by_orthanc_in_turn(site: Site, tap: Tap, jobs: Sequence[tuple[str, list[Path]]]) -> None:
    """What is new in an Orthanc is told by comparing its list: one series after another."""
    for name, files in jobs:
        if name == "Orthanc":
            by_orthanc(site.orthanc, tap.port, files)


def test_a_series_in_halves_from_two_senders_at_once_is_one_series(site: Site, tmp_path: Path) -> None:
    files = series(tmp_path, slices=12)
    with ThreadPoolExecutor(2) as pool:
        halves = [
            pool.submit(by_dcmsend, site.node.dicom_port, files[::2]),
            pool.submit(by_dcmjs, site.node.dicom_port, files[1::2]),
        ]
        for half in halves:
            half.result()
    stored = stored_of(site, files)
    assert {each.source for each in stored} == {"scanner", "workstation"}
    (series_uid,) = {each.series_instance_uid for each in stored}
    (listed,) = [s for s in site.node.studies()["series"] if s["series_instance_uid"] == series_uid]
    assert (listed["revision"], listed["instances"]) == (1, 12)


@pytest.mark.parametrize("name", ["storescu", "dcmjs-dimse", "Orthanc"])
def test_over_tls_too(site: Site, name: str, tmp_path: Path) -> None:
    """dcmsend has no TLS. What is stored are the bytes of the files, or those that come over plain DICOM."""
    files = series(tmp_path)
    if name == "storescu":
        storescu_tls(site.tls_port, files, site.leaf, site.authority.certificate)
    elif name == "dcmjs-dimse":
        by_dcmjs(site.tls_port, files, site.leaf, site.authority.certificate)
    else:
        by_orthanc(site.orthanc, site.tls_port, files, tls=True)
    stored = stored_of(site, files)
    assert {each.source for each in stored} == {PEER_OF[name]}
    if name in RE_ENCODE_NOTHING:
        assert [each.data_set for each in stored] == [data_set_of(path) for path in files]
        return
    with Tap(site.node.dicom_port) as tap:
        sender(name, site)(tap.port, files)
        plainly = tap.sent()
    assert sorted(each.data_set for each in stored) == sorted(each.data_set for each in plainly)
    assert stored_of(site, files) == stored, "the same again, over plain DICOM, is only counted"
