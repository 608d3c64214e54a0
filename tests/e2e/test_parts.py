"""Series of several volumes through the real node: each part has results of its own, and has them once."""

from __future__ import annotations

import copy
import io
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import UID

from tests.builders import torso_series, with_attributes, with_localizer, write_series
from tests.gateway_process import GatewayProcess
from tests.odd_series import enhanced
from tests.orthanc import Orthanc
from tests.peers import dcmsend
from tests.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

SHAPE, SPACING_MM = (28, 48, 48), (10.0, 8.0, 8.0)
KINDS = ["OT", "SEG", "SR"]


@dataclass(frozen=True)
class Site:
    """The node, its PACS, and a place for what is sent."""

    gateway: GatewayProcess
    pacs: Orthanc
    folder: Path

    def send(self, series: Sequence[Dataset], name: str) -> None:
        """Send like a scanner, over one association."""
        write_series(series, self.folder / name)
        port = self.gateway.dicom_port
        run = dcmsend(port, "+sd", self.folder / name, calling="SCANNER", called="AIGW")
        assert run.returncode == 0, run.stderr

    def results(self, study_instance_uid: str) -> list[Dataset]:
        """Everything that the PACS holds of a study."""
        ids = [
            instance
            for study in self.pacs.get("/studies?expand")
            if study["MainDicomTags"]["StudyInstanceUID"] == study_instance_uid
            for series in study["Series"]
            for instance in self.pacs.get(f"/series/{series}")["Instances"]
        ]
        return [dcmread(io.BytesIO(self.pacs.file(each))) for each in ids]

    def wait_for(self, study_instance_uid: str, count: int) -> list[Dataset]:
        """The results of a study, as soon as the PACS has that many and the node has nothing left to do."""

        def arrived() -> list[Dataset] | None:
            found = self.results(study_instance_uid)
            return found if len(found) >= count and self._is_idle() else None

        results: list[Dataset] = wait_until(arrived, 240, f"{count} results; see {self.gateway.log}")
        return results

    def _is_idle(self) -> bool:
        journal = sqlite3.connect(self.gateway.data / "journal.db")
        unfinished = (
            "SELECT 1 FROM series WHERE state = 'receiving' "
            "UNION ALL SELECT 1 FROM job WHERE state IN ('queued', 'running') "
            "UNION ALL SELECT 1 FROM delivery WHERE state IN ('pending', 'sending')"
        )
        try:
            return journal.execute(unfinished).fetchone() is None
        finally:
            journal.close()

    def stories(self, series_instance_uid: str) -> list[dict[str, Any]]:
        """The revisions of a series, as ``explain`` tells them."""
        run = self.gateway.aigw("study", "explain", series_instance_uid, "--json")
        assert run.returncode == 0, run.stderr
        stories: list[dict[str, Any]] = json.loads(run.stdout)["series"]
        return stories


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("parts")
    with Orthanc(root / "pacs") as pacs, GatewayProcess(root / "node", pacs.dicom_port) as gateway:
        yield Site(gateway, pacs, root)
        assert gateway.terminate() == 0


def two_phases(seed: int) -> tuple[list[Dataset], list[Dataset]]:
    """The same torso twice in one series, told apart by Temporal Position Identifier alone."""
    series, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=seed)
    second = copy.deepcopy(series)
    for dataset in second:
        dataset.SOPInstanceUID = UID(f"{dataset.SOPInstanceUID}.2")
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    first = with_attributes(series, TemporalPositionIdentifier=1)
    return first, with_attributes(second, TemporalPositionIdentifier=2)


def sources(result: Dataset) -> set[str]:
    """SOP Instance UIDs that a segmentation was made from."""
    return {
        str(instance.ReferencedSOPInstanceUID)
        for series in result.ReferencedSeriesSequence
        for instance in series.ReferencedInstanceSequence
    }


def uids(datasets: Sequence[Dataset]) -> set[str]:
    return {str(dataset.SOPInstanceUID) for dataset in datasets}


def test_two_phases_give_two_result_sets_and_a_late_instance_repeats_only_its_own_phase(site: Site) -> None:
    first, second = two_phases(seed=801)
    study, series = str(first[0].StudyInstanceUID), str(first[0].SeriesInstanceUID)
    site.send([*first, *second[:-1]], "phases")
    results = site.wait_for(study, 6)
    assert sorted(str(r.Modality) for r in results) == sorted(KINDS * 2)
    assert len(uids(results)) == len({str(r.SeriesInstanceUID) for r in results}) == 6
    made_from = [sources(r) for r in results if r.Modality == "SEG"]
    assert sorted(made_from, key=len) == [uids(second[:-1]), uids(first)]

    site.send(second[-1:], "late")
    later = site.wait_for(study, 9)
    assert len(later) == len(uids(later)) == 9
    assert uids(results) < uids(later), "what the PACS had is as it was"
    repeated = [r for r in later if str(r.SOPInstanceUID) not in uids(results)]
    assert sorted(str(r.Modality) for r in repeated) == KINDS
    (segmentation,) = [r for r in repeated if r.Modality == "SEG"]
    assert sources(segmentation) == uids(second)

    older, newer = site.stories(series)
    assert [part["images"] for part in older["verdict"]["parts"]] == [28, 27]
    assert [part["images"] for part in newer["verdict"]["parts"]] == [28, 28]
    adopted, run = newer["jobs"]
    assert [event["name"] for event in adopted["events"]] == ["created", "claimed", "succeeded", "adopted"]
    assert [event["name"] for event in run["events"]] == ["created", "claimed", "succeeded"]
    deliveries = [d for job in newer["jobs"] for r in job["results"] for d in r["deliveries"]]
    assert [(d["state"], d["attempts"]) for d in deliveries] == [("sent", 1)] * 6


def test_a_localizer_in_the_series_is_left_out_and_said_so(site: Site) -> None:
    torso, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=802)
    series = with_localizer(torso)
    site.send(series, "with-localizer")
    results = site.wait_for(str(torso[0].StudyInstanceUID), 3)
    assert sorted(str(r.Modality) for r in results) == KINDS
    (segmentation,) = [r for r in results if r.Modality == "SEG"]
    assert sources(segmentation) == uids(torso)
    (story,) = site.stories(str(torso[0].SeriesInstanceUID))
    verdict = story["verdict"]
    assert (verdict["verdict"], verdict["code"]) == ("FIXED", "LOCALIZERS_DROPPED")
    assert [job["part"] for job in story["jobs"]] == [""]


def test_two_stacks_of_one_multi_frame_image_give_two_result_sets(site: Site) -> None:
    torso, _ = torso_series(shape=SHAPE, spacing_mm=SPACING_MM, seed=803)
    image = enhanced([*torso, *torso], stacks=[1] * len(torso) + [2] * len(torso))
    site.send([image], "stacks")
    results = site.wait_for(str(image.StudyInstanceUID), 6)
    assert sorted(str(r.Modality) for r in results) == sorted(KINDS * 2)
    assert len(uids(results)) == len({str(r.SeriesInstanceUID) for r in results}) == 6
    segmentations = [r for r in results if r.Modality == "SEG"]
    assert [sources(segmentation) for segmentation in segmentations] == [uids([image])] * 2
    assert sorted(map(source_frames, segmentations), key=min) == [set(range(1, 29)), set(range(29, 57))]
    (story,) = site.stories(str(image.SeriesInstanceUID))
    assert [part["images"] for part in story["verdict"]["parts"]] == [28, 28]
    assert len({job["part"] for job in story["jobs"]}) == 2


def source_frames(segmentation: Dataset) -> set[int]:
    """Frame numbers of the source that the frames of a segmentation were derived from."""
    return {
        int(source.ReferencedFrameNumber)
        for frame in segmentation.PerFrameFunctionalGroupsSequence
        for derivation in frame.DerivationImageSequence
        for source in derivation.SourceImageSequence
    }
