"""Two destinations with profiles of their own, through the real worker: each gets its own objects."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom import Dataset, dcmread

from tests.builders import torso_series, with_attributes, write_series
from tests.crash.test_node_kill import send
from tests.gateway_process import CONFIGURATION, GatewayProcess
from tests.orthanc import Orthanc
from tests.waiting import wait_until

pytestmark = pytest.mark.timeout(600)

PEERS = """\
  pacs:
    ae_title: ORTHANC
    host: 127.0.0.1
    port: "${GW_PACS_PORT}"
    roles: [source, destination]
    results: {overview: false}
  therapy:
    ae_title: THERAPY
    host: 127.0.0.1
    port: "${GW_THERAPY_PORT}"
    roles: [destination]
    results: {segmentation: label_map, compression: rle, rtstruct: true, report: false}
"""
SHAPE, SPACING_MM = (24, 48, 48), (9.0, 8.0, 8.0)
SEG, LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7"
EXPLICIT, RLE = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.5"


@dataclass(frozen=True)
class Sent:
    """What both destinations hold in the end, and how the gateway tells it."""

    pacs: list[Dataset]
    therapy: list[Dataset]
    gateway: GatewayProcess
    series: tuple[str, ...]


def datasets(archive: Orthanc) -> list[Dataset]:
    return [dcmread(io.BytesIO(archive.file(each["ID"]))) for each in archive.instances()]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sent]:
    """Two CT series of one study went through the gateway."""
    root = tmp_path_factory.mktemp("profiles")
    first, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=71)
    second, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=72)
    second = with_attributes(second, StudyInstanceUID=first[0].StudyInstanceUID)
    files = [*write_series(first, root / "first"), *write_series(second, root / "second")]
    (was,) = (line for line in CONFIGURATION.splitlines(keepends=True) if line.startswith("  pacs:"))
    text = CONFIGURATION.replace(was, PEERS).replace("send: [pacs]", "send: [pacs, therapy]")
    with Orthanc(root / "pacs") as pacs, Orthanc(root / "therapy", "THERAPY") as therapy:
        gateway = GatewayProcess(root / "node", pacs.dicom_port, text)
        gateway.environment["GW_THERAPY_PORT"] = str(therapy.dicom_port)
        with gateway:
            assert len(send(gateway.dicom_port, files)) == 2 * SHAPE[0]
            wait_until(lambda: len(pacs.instances()) >= 4 and len(therapy.instances()) >= 6, 240, gateway.log)
            series = (str(first[0].SeriesInstanceUID), str(second[0].SeriesInstanceUID))
            yield Sent(datasets(pacs), datasets(therapy), gateway, series)
            assert gateway.terminate() == 0


def kinds(found: list[Dataset]) -> Counter[tuple[str, str]]:
    return Counter((d.Modality, str(d.file_meta.TransferSyntaxUID)) for d in found)


def test_each_destination_has_what_its_profile_says_and_nothing_else(sent: Sent) -> None:
    assert kinds(sent.pacs) == {("SEG", EXPLICIT): 2, ("SR", EXPLICIT): 2}
    assert kinds(sent.therapy) == {("SEG", RLE): 2, ("RTSTRUCT", EXPLICIT): 2, ("OT", EXPLICIT): 2}
    assert {str(d.SOPClassUID) for d in sent.pacs if d.Modality == "SEG"} == {SEG}
    assert {str(d.SOPClassUID) for d in sent.therapy if d.Modality == "SEG"} == {LABEL_MAP}


def test_no_two_series_of_the_study_have_the_same_number(sent: Sent) -> None:
    numbers = {d.SeriesInstanceUID: int(d.SeriesNumber) for d in sent.pacs}
    assert sorted(numbers.values()) == [9001, 9002, 9011, 9012]
    numbers = {d.SeriesInstanceUID: int(d.SeriesNumber) for d in sent.therapy}
    assert sorted(numbers.values()) == [9001, 9003, 9004, 9011, 9013, 9014]


def test_objects_of_different_profiles_are_different_objects_of_the_same_finding(sent: Sent) -> None:
    ours, theirs = ({str(d.SOPInstanceUID) for d in found} for found in (sent.pacs, sent.therapy))
    assert not ours & theirs
    tracked = [
        {
            item.TrackingUID
            for d in found
            if d.Modality == "SEG"
            for item in d.SegmentSequence
            if "TrackingUID" in item
        }
        for found in (sent.pacs, sent.therapy)
    ]
    assert tracked[0] == tracked[1] != set()


def test_explain_tells_which_object_went_where(sent: Sent) -> None:
    story: Any = sent.gateway.aigw("study", "explain", sent.series[0])
    assert story.returncode == 0, story.stderr
    assert "profile segmentation label_map, compression rle, report False, rtstruct True" in story.stdout
    assert story.stdout.count("to therapy: sent") == 3
    assert story.stdout.count("to pacs: sent") == 2
