"""One series, several volumes: split by what makes them different, and never otherwise."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from pydicom.dataset import Dataset

from ai.geometry import NotAVolume, Part, SliceHeader, VolumeGeometry, assess
from tests import builders
from tests.headers import headers_of


def copies(
    count: int, shape: tuple[int, int, int] = (6, 16, 16), **attributes: object
) -> list[list[Dataset]]:
    """The same slices several times, with other SOP Instance UIDs, in one series."""
    first = builders.ct_series(shape, seed=1, **attributes)
    series = [first]
    for seed in range(2, count + 1):
        others = builders.ct_series(shape, seed=seed)
        for dataset in others:
            dataset.FrameOfReferenceUID = first[0].FrameOfReferenceUID
            dataset.SeriesInstanceUID = first[0].SeriesInstanceUID
        series.append(others)
    return series


def parts_of(series: Sequence[Dataset]) -> tuple[Part, ...]:
    return assess(headers_of(series))


def volumes(series: Sequence[Dataset]) -> dict[str, VolumeGeometry]:
    found = {part.key: part.geometry for part in parts_of(series)}
    assert all(isinstance(geometry, VolumeGeometry) for geometry in found.values()), found
    return found  # type: ignore[return-value]


def set_in(phases: Sequence[Sequence[Dataset]], keyword: str, values: Sequence[object]) -> list[Dataset]:
    for phase, value in zip(phases, values, strict=True):
        for dataset in phase:
            setattr(dataset, keyword, value)
    return [dataset for phase in phases for dataset in phase]


@pytest.mark.parametrize(
    ("keyword", "values", "keys"),
    [
        ("TemporalPositionIdentifier", ["1", "2"], ["1", "2"]),
        ("EchoTime", ["4.6", "2.3"], ["2.3", "4.6"]),
        ("EchoNumbers", ["1", "2"], ["1", "2"]),
        ("InversionTime", ["500", "2200"], ["500", "2200"]),
        ("DiffusionBValue", [0.0, 1000.0], ["0", "1000"]),
        ("ConvolutionKernel", ["B30f", "B70f"], ["B30f", "B70f"]),
        ("AcquisitionNumber", ["1", "2"], ["1", "2"]),
        ("KVP", ["80", "140"], ["80", "140"]),
        ("AcquisitionTime", ["101500", "101600"], ["101500", "101600"]),
    ],
)
def test_two_images_at_each_position_are_split_by_what_tells_them_apart(
    keyword: str, values: list[object], keys: list[str]
) -> None:
    found = volumes(set_in(copies(2), keyword, values))
    assert [key.partition("=")[0] for key in found] == [keyword, keyword]
    assert [key.partition("=")[2] for key in found] == keys
    assert {geometry.shape for geometry in found.values()} == {(6, 16, 16)}


def test_magnitude_and_phase_images_of_two_echoes_are_four_volumes() -> None:
    series = copies(4)
    set_in(series, "ImageType", [["ORIGINAL", "PRIMARY", kind] for kind in ("M", "P", "M", "P")])
    found = volumes(set_in(series, "EchoTime", ["4", "4", "8", "8"]))
    assert sorted(found) == [f"EchoTime={time};ImageType={kind}" for time in "48" for kind in "MP"]


def test_phases_that_only_time_tells_apart_are_ranked_by_time() -> None:
    series = copies(2)
    for start, phase in zip((101500, 101630), series, strict=True):
        for k, dataset in enumerate(phase):
            dataset.AcquisitionTime = f"{start + k}"
    found = volumes([d for phase in series for d in phase])
    assert list(found) == ["phase=1 of 2", "phase=2 of 2"]
    assert set(found["phase=1 of 2"].sop_instance_uids) == {d.SOPInstanceUID for d in series[0]}


def test_images_at_one_position_that_nothing_tells_apart_are_refused_and_not_guessed() -> None:
    series = copies(2)
    for number, dataset in enumerate([d for phase in series for d in phase], start=1):
        dataset.InstanceNumber = number
    (part,) = parts_of([d for phase in series for d in phase])
    assert isinstance(part.geometry, NotAVolume)
    assert part.geometry.code == "DUPLICATE_POSITION"
    assert "2 at each" in part.geometry.reason


def test_times_that_overlap_do_not_make_phases() -> None:
    series = copies(2)
    for start, phase in zip((101500, 101502), series, strict=True):
        for k, dataset in enumerate(phase):
            dataset.AcquisitionTime = f"{start + k}"
    (part,) = parts_of([d for phase in series for d in phase])
    assert part.geometry.code == "DUPLICATE_POSITION"


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("AcquisitionNumber", lambda k: str(k + 1)),
        ("AcquisitionNumber", lambda k: str(k // 4 + 1)),
        ("AcquisitionTime", lambda k: f"{101500 + k}"),
        ("ContentTime", lambda k: f"{101500 + k // 2}"),
        ("TriggerTime", lambda k: str(13 * k % 7)),
        ("KVP", lambda k: "120" if k < 6 else "100"),
        ("EchoTime", lambda k: f"{4.6 + 1e-5 * (k % 2):.5f}"),
        ("ImageType", lambda k: ["ORIGINAL", "PRIMARY", "AXIAL", f"S{k}"]),
        ("ImageType", lambda k: ["ORIGINAL", "PRIMARY", "AXIAL", "ADD" if k < 5 else "CT"]),
        ("ConvolutionKernel", lambda k: "SOFT" if k < 6 else "STANDARD"),
        ("TemporalPositionIdentifier", lambda k: str(k + 1)),
        ("EchoTime", lambda k: ("4.6", "4.7")[(0b101100111010 >> k) & 1]),
        ("AcquisitionNumber", lambda k: ("1", "2")[(0b101100111010 >> k) & 1]),
        ("ImageType", lambda k: [("ORIGINAL", "DERIVED")[k % 2], "PRIMARY", "AXIAL"]),
        ("StackID", lambda k: str(k + 1)),
    ],
)
def test_an_attribute_that_varies_along_one_volume_does_not_split_it(
    keyword: str, value: Callable[[int], object]
) -> None:
    series = builders.ct_series()
    for k, dataset in enumerate(series):
        setattr(dataset, keyword, value(k))
    assert list(volumes(series)) == [""]


def test_steps_of_a_scan_repeated_in_a_second_phase_are_not_taken_for_slabs() -> None:
    series = copies(2, (12, 16, 16))
    for phase in range(2):
        for k, dataset in enumerate(series[phase]):
            dataset.AcquisitionNumber = str(12 * phase + k // 4 + 1)
            dataset.AcquisitionTime = f"{101500 + 100 * phase + k // 4}"
    assert list(volumes([d for phase in series for d in phase])) == ["phase=1 of 2", "phase=2 of 2"]


def test_images_of_one_direction_that_differ_by_rounding_are_one_volume() -> None:
    first, second, third, fourth = copies(4)
    set_in([first, second, third, fourth], "DiffusionBValue", [0.0, 1000.0, 1000.0, 1000.0])
    for k in range(6):
        second[k].DiffusionGradientOrientation = [1.0, 0.0, 1e-5 * k]
        third[k].DiffusionGradientOrientation = [0.0, 1.0 - 1e-5 * k, 0.0]
        fourth[k].DiffusionGradientOrientation = [0.0, 1e-6 * k, 1.0]
    parts = parts_of([*first, *second, *third, *fourth])
    assert [part.label for part in parts] == [
        "b-value 0 s/mm²",
        "b-value 1000 s/mm², Gradient direction 0 0 1",
        "b-value 1000 s/mm², Gradient direction 0 1 0",
        "b-value 1000 s/mm², Gradient direction 1 0 0",
    ]


def test_numbers_that_count_are_not_rounded() -> None:
    series = set_in(copies(2), "TemporalPositionIdentifier", ["1000", "1001"])
    assert len(volumes(series)) == 2


def test_parts_are_in_the_order_of_their_numbers() -> None:
    series = set_in(copies(3), "EchoTime", ["12", "4.6", "8"])
    assert [part.label for part in parts_of(series)] == [f"Echo Time {t} ms" for t in ("4.6", "8", "12")]


def test_heart_phases_whose_trigger_times_differ_from_slice_to_slice_are_ranked() -> None:
    phases = copies(3)
    for number, phase in enumerate(phases):
        for k, dataset in enumerate(phase):
            dataset.TriggerTime = f"{number * (30.0 + 0.3 * k):.1f}"
            dataset.AcquisitionTime = f"{101500 + 10 * k}"  # one breath hold for each slice
    found = volumes([d for phase in phases for d in phase])
    assert list(found) == ["phase=1 of 3", "phase=2 of 3", "phase=3 of 3"]
    assert set(found["phase=2 of 3"].sop_instance_uids) == {d.SOPInstanceUID for d in phases[1]}


def test_original_and_derived_images_at_one_position_are_told_apart() -> None:
    kinds = [["ORIGINAL", "PRIMARY", "M"], ["DERIVED", "SECONDARY", "M"]]
    found = volumes(set_in(copies(2), "ImageType", kinds))
    assert list(found) == ["ImageType=DERIVED\\SECONDARY\\M", "ImageType=ORIGINAL\\PRIMARY\\M"]


@pytest.mark.parametrize("keyword", ["KVP", "ContentTime", "AcquisitionNumber", "EchoTime"])
@pytest.mark.parametrize("repeated", range(12))
def test_a_slice_sent_twice_does_not_tear_a_volume_where_an_attribute_changes(
    keyword: str, repeated: int
) -> None:
    series = builders.ct_series()
    for k, dataset in enumerate(series):
        setattr(dataset, keyword, "101500" if k < 6 else "202500")
    twice = builders.with_duplicate_position(series, repeated)
    for dataset in twice:
        if dataset.SOPInstanceUID not in {d.SOPInstanceUID for d in series}:
            setattr(dataset, keyword, "202500" if repeated < 6 else "101500")
    (part,) = parts_of(twice)
    assert part.geometry.code == "DUPLICATE_POSITION"


@pytest.mark.parametrize("kept", [[0], [5], [0, 5, 9], [3, 4, 5, 6, 7]])
def test_a_phase_of_which_few_slices_came_does_not_cost_the_complete_one(kept: list[int]) -> None:
    first, second = copies(2, (12, 16, 16))
    set_in([first, second], "TemporalPositionIdentifier", ["1", "2"])
    parts = parts_of([*first, *(second[k] for k in kept)])
    assert [len(part.frames) for part in parts] == [12, len(kept)]
    assert isinstance(parts[0].geometry, VolumeGeometry)
    assert parts[0].geometry.needs == ()


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("shift_mm", [0.05, 0.2, 0.9, 1.3])
def test_a_second_scan_that_does_not_meet_the_slices_of_the_first_is_not_mixed_with_it(
    modality: str, shift_mm: float
) -> None:
    first, second = copies(2, (12, 16, 16))
    second = builders.moved(second, np.tile([0.0, 0.0, shift_mm], (12, 1)))
    series = set_in([first, second], "AcquisitionTime", ["101500", "101630"])
    found = volumes(builders.with_attributes(series, Modality=modality))
    assert [(geometry.shape, geometry.needs) for geometry in found.values()] == [((12, 16, 16), ())] * 2


def test_two_ct_scans_half_a_slice_apart_are_told_by_their_times_alone() -> None:
    series = builders.ct_series()
    for k, dataset in enumerate(series):
        dataset.AcquisitionTime = ("101500", "101630")[k % 2]
    assert {key: geometry.spacing_mm[0] for key, geometry in volumes(series).items()} == pytest.approx(
        {"AcquisitionTime=101500": 6.0, "AcquisitionTime=101630": 6.0}
    )


def test_two_kernels_of_which_one_has_thicker_slices_are_two_volumes() -> None:
    thin, thick = copies(2, (21, 16, 16))
    series = [*set_in([thin], "ConvolutionKernel", ["B70f"]), *set_in([thick], "ConvolutionKernel", ["B30f"])]
    found = volumes(series[:21] + series[21::5])
    assert {key: geometry.spacing_mm[0] for key, geometry in found.items()} == pytest.approx(
        {"ConvolutionKernel=B30f": 15.0, "ConvolutionKernel=B70f": 3.0}
    )


def _interleaved(modality: str) -> list[Dataset]:
    series = builders.ct_series(Modality=modality)
    for k, dataset in enumerate(series):
        dataset.AcquisitionNumber = str(k % 2 + 1)
    return series


def test_two_sweeps_of_a_ct_that_interleave_are_two_volumes() -> None:
    found = volumes(_interleaved("CT"))
    assert {key: geometry.spacing_mm[0] for key, geometry in found.items()} == pytest.approx(
        {"AcquisitionNumber=1": 6.0, "AcquisitionNumber=2": 6.0}
    )


def test_interleaved_passes_of_an_mr_are_one_volume() -> None:
    assert list(volumes(_interleaved("MR"))) == [""]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"PixelSpacing": [0.9, 0.9]}, "spacing=0.9x0.9"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, "orientation=coronal"),
        ({"FrameOfReferenceUID": "1.2.3"}, "frame_of_reference=1.2.3"),
    ],
)
def test_slices_on_another_grid_are_a_part_of_their_own(changes: dict[str, object], key: str) -> None:
    main = builders.ct_series((6, 16, 16))
    origin = (0.0, 0.0, 500.0)
    other = builders.ct_series(
        (1, 16, 16), seed=2, origin_mm=origin, FrameOfReferenceUID=main[0].FrameOfReferenceUID
    )
    found = volumes([*main, *builders.with_attributes(other, **changes)])
    assert len(found) == 2
    assert found.pop(key).shape == (1, 16, 16)
    assert [geometry.shape for geometry in found.values()] == [(6, 16, 16)]


def test_slices_of_another_size_are_a_part_of_their_own() -> None:
    main = builders.ct_series((6, 16, 16))
    other = builders.ct_series((4, 8, 8), seed=2, FrameOfReferenceUID=main[0].FrameOfReferenceUID)
    assert {k: g.shape for k, g in volumes([*main, *other]).items()} == {
        "size=16x16": (6, 16, 16),
        "size=8x8": (4, 8, 8),
    }


def test_each_part_says_which_one_it_is() -> None:
    first, second = parts_of(set_in(copies(2), "EchoTime", ["2.3", "4.6"]))
    assert (first.label, second.label) == ("Echo Time 2.3 ms", "Echo Time 4.6 ms")
    assert isinstance(second.geometry, VolumeGeometry)
    assert "Part 2 of 2 of the series: Echo Time 4.6 ms." in second.geometry.reason


def test_a_phase_with_a_missing_slice_is_refused_and_the_other_is_not() -> None:
    series = copies(2, (12, 16, 16))
    set_in(series, "TemporalPositionIdentifier", ["1", "2"])
    first, second = parts_of([*series[0], *builders.without_slice(series[1], 4)])
    assert isinstance(first.geometry, VolumeGeometry)
    assert second.geometry.code == "MISSING_SLICE"


def test_images_of_which_each_has_its_own_frame_of_reference_are_one_volume() -> None:
    series = builders.ct_series()
    for k, dataset in enumerate(series):
        dataset.FrameOfReferenceUID = f"1.2.{k}"
    assert volumes(series)[""].code == "FRAME_OF_REFERENCE_DERIVED"
    (part,) = parts_of(builders.with_duplicate_position(series, 3))
    assert part.geometry.code == "DUPLICATE_POSITION"


def test_a_series_of_very_many_sub_volumes_is_refused_as_a_whole() -> None:
    series = copies(70, (2, 8, 8))
    set_in(series, "TemporalPositionIdentifier", [str(k) for k in range(70)])
    (part,) = parts_of([d for phase in series for d in phase])
    assert part.geometry.code == "TOO_MANY_PARTS"
    assert "70 sub-volumes" in part.geometry.reason


def test_stacks_of_an_enhanced_image_are_parts_even_when_they_are_parallel() -> None:
    headers = headers_of(builders.ct_series((8, 16, 16)))
    stacked = [
        SliceHeader(**{**vars(h), "attributes": {"StackID": "1" if k < 4 else "2"}})
        for k, h in enumerate(headers)
    ]
    assert [part.key for part in assess(stacked)] == ["StackID=1", "StackID=2"]


def test_multi_frame_instances_that_nothing_else_tells_apart_are_a_volume_each() -> None:
    headers = headers_of(builders.ct_series((6, 16, 16)))
    frames = [
        replace(h, sop_instance_uid=f"1.2.{instance}", frame_number=k + 1)
        for instance in (3, 4)
        for k, h in enumerate(headers)
    ]
    assert [part.key for part in assess(frames)] == ["instance=1.2.3", "instance=1.2.4"]


def test_the_order_of_files_changes_neither_parts_nor_geometry() -> None:
    headers = headers_of(set_in(copies(3), "EchoTime", ["2.3", "4.6", "6.9"]))
    shuffled = random.Random(5).sample(headers, len(headers))
    for one, other in zip(assess(headers), assess(shuffled), strict=True):
        assert (one.key, one.label, one.frames) == (other.key, other.label, other.frames)
        assert isinstance(one.geometry, VolumeGeometry)
        assert isinstance(other.geometry, VolumeGeometry)
        np.testing.assert_array_equal(one.geometry.index_to_lps, other.geometry.index_to_lps)


def test_projection_images_are_volumes_of_one_slice_on_the_detector() -> None:
    image = SliceHeader(
        "1.2.3",
        20,
        30,
        None,
        None,
        None,
        modality="DX",
        detector_spacing_mm=(0.2, 0.1),
        is_projection=True,
        attributes={"Laterality": "L", "ViewPosition": "MLO"},
    )
    (part,) = assess([image])
    geometry = part.geometry
    assert isinstance(geometry, VolumeGeometry)
    assert geometry.is_projection
    assert geometry.shape == (1, 20, 30)
    np.testing.assert_allclose((geometry.index_to_lps @ (0, 10, 20, 1))[:3], (2.0, 2.0, 0.0))
    first, second = assess([image, replace(image, sop_instance_uid="1.2.4")])
    assert first.label == second.label == "projection image L MLO"
    assert first.key != second.key


def test_a_projection_image_without_any_spacing_is_refused() -> None:
    image = SliceHeader("1.2.3", 20, 30, None, None, None, modality="CR", is_projection=True)
    (part,) = assess([image])
    assert part.geometry.code == "NO_POSITION"
    assert "Imager Pixel Spacing" in part.geometry.reason


def test_a_report_in_the_series_changes_neither_the_key_nor_the_label_of_the_volume() -> None:
    volume = headers_of(builders.ct_series())
    report = replace(volume[0], sop_instance_uid="1.2.3", position_mm=None, orientation=None, rows=600)
    with_report = {part.key: part for part in assess([report, *volume])}
    (alone,) = assess(volume)
    assert set(with_report) == {alone.key, "position=none"} == {"", "position=none"}
    assert with_report[""].frames == alone.frames
    assert with_report[""].label == alone.label
    assert with_report[""].geometry.reason.endswith("Part 1 of 2 of the series.")


def test_a_part_is_named_by_the_value_and_not_by_the_index_of_a_dimension() -> None:
    (plane,) = headers_of(builders.ct_series((1, 16, 16)))
    frames = [
        replace(
            plane,
            frame_number=4 * z + 2 * echo + phase + 1,
            position_mm=(0.0, 0.0, float(z)),
            attributes={
                "DimensionIndexValues": f"{phase + 1}\\{echo + 1}",
                "EchoTime": ("4.6", "9.2")[echo],
                "ComplexImageComponent": ("MAGNITUDE", "PHASE")[phase],
            },
        )
        for z in range(5)
        for echo in range(2)
        for phase in range(2)
    ]
    assert [part.key for part in assess(frames)] == [
        f"EchoTime={time};ComplexImageComponent={component}"
        for time in ("4.6", "9.2")
        for component in ("MAGNITUDE", "PHASE")
    ]


def test_twenty_thousand_slices_are_assessed_without_quadratic_time() -> None:
    (first, *_) = headers_of(builders.ct_series((1, 16, 16)))
    many = [
        replace(
            first,
            sop_instance_uid=f"1.2.{k}",
            position_mm=(0.0, 0.0, float(k // 10)),
            attributes={"TemporalPositionIdentifier": str(k % 10), "AcquisitionTime": str(k)},
        )
        for k in range(20_000)
    ]
    started_s = time.process_time()
    assert len(assess(many)) == 10
    assert time.process_time() - started_s < 10.0  # about one second, on a machine that does other things
