"""What the Segmentation says: segments, codes, identity, equipment, dates, and its bytes."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from ai import terminology
from ai.results.encode import IMPLEMENTATION_CLASS_UID, encode
from ai.results.seg import content_label
from gateway.receive import part10
from gateway.sweep import OWN_MANUFACTURER
from tests import builders
from tests.runs import CREATED_AT, SMALL_SHAPE, SMALL_SPACING_MM, build_seg, small_labels, small_run


@pytest.fixture(scope="module")
def seg() -> Dataset:
    return dcmread(BytesIO(encode(build_seg(small_run()), "1.2.3")))


def test_every_structure_of_the_card_is_a_segment_even_if_it_was_not_found(seg: Dataset) -> None:
    assert [(s.SegmentNumber, s.SegmentLabel) for s in seg.SegmentSequence] == [
        (s.number, s.label) for s in small_run().spec.structures
    ]
    framed = {
        f.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        for f in seg.PerFrameFunctionalGroupsSequence
    }
    assert framed == {1, 2, 3, 5}, "bone is absent: listed, without frames"


def test_frames_without_voxels_are_left_out(seg: Dataset) -> None:
    labels = small_labels()
    filled = sum(len(set(plane.flat) - {0}) for plane in labels)
    assert seg.NumberOfFrames == filled == 8


def test_frames_come_segment_by_segment_and_each_in_the_order_of_its_index_values(seg: Dataset) -> None:
    frames = list(seg.PerFrameFunctionalGroupsSequence)
    numbers = [int(f.SegmentIdentificationSequence[0].ReferencedSegmentNumber) for f in frames]
    values = [tuple(f.FrameContentSequence[0].DimensionIndexValues) for f in frames]
    assert numbers == sorted(numbers)
    assert values == sorted(set(values))


def test_an_empty_label_map_has_one_empty_frame_for_each_segment() -> None:
    seg = build_seg(small_run(labels=np.zeros(SMALL_SHAPE, np.uint8)))
    assert seg.NumberOfFrames == 5
    assert not any(seg.PixelData)


def test_the_side_is_a_modifier_of_the_type(seg: Dataset) -> None:
    left, right = seg.SegmentSequence[1], seg.SegmentSequence[2]
    for item, code in ((left, "7771000"), (right, "24028007")):
        (kind,) = item.SegmentedPropertyTypeCodeSequence
        assert kind.CodeValue == "39607008"
        assert [m.CodeValue for m in kind.SegmentedPropertyTypeModifierCodeSequence] == [code]


def test_colours_are_those_of_the_terminology_table(seg: Dataset) -> None:
    for item, structure in zip(seg.SegmentSequence, small_run().spec.structures, strict=True):
        rgb = hd.color.CIELabColor.from_dicom_value(item.RecommendedDisplayCIELabValue).to_rgb()
        assert tuple(rgb) == terminology.coded(structure.key).rgb


def test_each_segment_names_its_algorithm_and_what_it_tracks(seg: Dataset) -> None:
    context = small_run()
    for item in seg.SegmentSequence:
        algorithm = item.SegmentationAlgorithmIdentificationSequence[0]
        assert item.SegmentAlgorithmType == "AUTOMATIC"
        assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("CT tissue", context.spec.version)
        family = algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning
        assert family == "Neighborhood Analysis", "a classical method is not called artificial intelligence"
        assert item.TrackingUID == context.identity.tracking_uids[item.SegmentNumber]
        assert item.TrackingID


def test_identity_is_derived_and_patient_and_study_are_those_of_the_source(seg: Dataset) -> None:
    context = small_run()
    source = context.series.datasets[0]
    assert (seg.SOPInstanceUID, seg.SeriesInstanceUID) == (
        context.instance_uid("seg"),
        context.series_uid("seg"),
    )
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "AccessionNumber"):
        assert seg[keyword].value == source[keyword].value
    assert (seg.SeriesNumber, seg.SeriesDescription, seg.ContentLabel) == (
        9001,
        "AI CT tissue SEG (RUO)",
        "CT_TISSUE",
    )


def test_the_loop_guard_knows_the_result_and_the_algorithm_is_contributing_equipment(seg: Dataset) -> None:
    context = small_run()
    assert seg.Manufacturer == OWN_MANUFACTURER
    (own,) = [
        item
        for item in seg.ContributingEquipmentSequence
        if item.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    ]
    assert (own.Manufacturer, own.ManufacturerModelName) == ("DICOM AI Gateway", "CT tissue")
    assert (own.SoftwareVersions, own.DeviceUID) == (context.spec.version, context.identity.device_uid)


def test_every_date_is_that_of_the_run(seg: Dataset) -> None:
    for moment in ("Series", "Content", "InstanceCreation"):
        assert seg[f"{moment}Date"].value == CREATED_AT.strftime("%Y%m%d")
        assert seg[f"{moment}Time"].value == CREATED_AT.strftime("%H%M%S.%f")
    text = str(seg)
    assert text.count("20260304") >= 4
    assert "highdicom" not in text.lower(), "the writer stamps itself with the present time"


def test_the_file_has_a_zero_preamble_and_our_implementation() -> None:
    encoded = encode(build_seg(small_run()), "1.2.3")
    assert encoded[:132] == bytes(128) + b"DICM"
    meta = dcmread(BytesIO(encoded)).file_meta
    assert meta.ImplementationClassUID == IMPLEMENTATION_CLASS_UID == part10.IMPLEMENTATION_CLASS_UID
    assert meta.ImplementationVersionName == "AIGW_1.2.3"
    assert meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"


def test_encoding_leaves_the_data_set_as_it_was() -> None:
    seg = build_seg(small_run())
    before = seg.file_meta.ImplementationVersionName
    encode(seg, "1.2.3")
    assert seg.file_meta.ImplementationVersionName == before


@pytest.mark.parametrize("sex", [None, "X", ""])
def test_a_source_with_gaps_in_its_identity_can_be_cited(sex: str | None) -> None:
    series = builders.with_attributes(
        builders.without(
            builders.ct_series(SMALL_SHAPE, SMALL_SPACING_MM), "StudyID", "AccessionNumber", "StudyTime"
        ),
        PatientSex=sex,
    )
    seg = build_seg(small_run(datasets=series))
    assert (seg.PatientSex or "") == (sex or "")
    assert not seg.StudyID


def test_a_label_map_on_another_grid_is_refused() -> None:
    context = small_run()
    with pytest.raises(ValueError, match=r"label map is \(5, 13, 11\)"):
        build_seg(replace(context, labels=context.labels[:5]))


@pytest.mark.parametrize(
    ("title", "label"),
    [("CT tissue", "CT_TISSUE"), ("Lung & lobes, version two", "LUNG___LOBES__VE"), ("肺", "SEGMENTATION")],
)
def test_a_content_label_is_a_code_string(title: str, label: str) -> None:
    assert content_label(title) == label
