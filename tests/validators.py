"""Validators of others: dicom3tools, DCMTK and dcmqi as programs, dicom-validator as a library.

dicom-validator reads the text of the standard from the network. Here its tables come from those inside
highdicom (PS3.3 by module: attributes, types) and from pydicom's dictionary. They say no conditions (types
1C and 2C, usage C), so those are optional but where one is said below: which functional groups a Segmentation
must have, and which attributes a content item of each value type has.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from html import unescape
from importlib.resources import files
from pathlib import Path
from re import sub
from typing import Any

from dicom_validator.validator.dicom_info import DicomInfo
from dicom_validator.validator.error_handler import NullValidationResultHandler
from dicom_validator.validator.iod_validator import IODValidator
from dicom_validator.validator.validation_result import Status
from pydicom import dcmread
from pydicom.datadict import DicomDictionary, keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset

Attributes = dict[str, dict[str, Any]]
Condition = dict[str, Any]

_OPTIONAL: Condition = {"type": "U"}
_SHARED, _PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
_CONTENT_ITEM = "sr-document-content"
_VALUE_TYPES = {  # of content items, by the attribute that the value is in (PS3.3 C.17.3)
    "TextValue": ("TEXT",),
    "ConceptCodeSequence": ("CODE",),
    "MeasuredValueSequence": ("NUM",),
    "UID": ("UIDREF",),
    "DateTime": ("DATETIME",),
    "Date": ("DATE",),
    "Time": ("TIME",),
    "PersonName": ("PNAME",),
    "ContinuityOfContent": ("CONTAINER",),
    "ReferencedSOPSequence": ("COMPOSITE", "IMAGE", "WAVEFORM"),
    "GraphicData": ("SCOORD", "SCOORD3D"),
    "GraphicType": ("SCOORD", "SCOORD3D"),
    "ReferencedFrameOfReferenceUID": ("SCOORD3D",),
    "TemporalRangeType": ("TCOORD",),
    "TabulatedValuesSequence": ("TABLE",),
}
_MANY = 24  # at least that many items are left, if there are more
_REMARKS = (
    "Different information entities for attribute",
    "Unrecognized SOP Class - 1.2.840.10008.5.1.4.1.1.66.7 ",
)


def tool(program: str, *arguments: str | Path) -> str:
    """Run a tool; give back what it says. dicom3tools end with 1 on a warning, so output decides."""
    path = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if path is None:
        raise AssertionError(f"{program} is missing: run `make setup test-tools`")
    command = [path, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    accepted = (0, 1) if program in ("dciodvfy", "dcentvfy") else (0,)
    assert done.returncode in accepted, done.stderr
    return done.stdout + done.stderr


def dciodvfy_errors(path: Path) -> set[str]:
    """Errors that dicom3tools find; an object that they do not know is one, too."""
    return {line.strip() for line in tool("dciodvfy", path).splitlines() if line.startswith("Error")}


def inconsistencies(paths: Sequence[Path]) -> set[str]:
    """What dcentvfy finds: values that differ, attributes of the patient or study that only some have.

    Left out are its remarks that its own tables put an attribute (Accession Number) at another entity
    for another IOD, and that a label map is no object that it knows.
    """
    lines = tool("dcentvfy", *paths).splitlines()
    findings = {line for line in lines if line.startswith(("Error", "Warning"))}
    return {line for line in findings if not any(words in line for words in _REMARKS)}


def page_of(report: Path, *options: str) -> str:
    """The words of the page that dsr2html makes of a report, one space between them."""
    return " ".join(unescape(sub(r"<[^>]*>", " ", tool("dsr2html", *options, report))).split())


def dicom_validator_errors(path: Path) -> set[str]:
    """``module: path of keywords: what is wrong``, as dicom-validator has it; of many alike items, some."""
    dataset = _shortened(dcmread(path, stop_before_pixels=True))
    validator = IODValidator(
        dataset, standard(), error_handler=NullValidationResultHandler(), file_path=str(path)
    )
    result = validator.validate()
    if result.status in (Status.MissingSOPClassUID, Status.UnknownSOPClassUID):
        return {f"{result.status.name} {result.sop_class_uid}"}
    return {
        f"{module}: {'/'.join(map(_keyword, [*(tag.parents or []), tag.tag]))}: {error.code.name}"
        for module, errors in result.module_errors.items()
        for tag, error in errors.items()
    }


def _shortened(dataset: Dataset) -> Dataset:
    """The data set with some items of its long sequences, and some points of its contours.

    A chest has a thousand frames or contours, each written by the same line; the tool takes an hour for all.
    """
    for element in dataset:
        if element.VR == "SQ":
            items = element.value
            step = -(-len(items) // _MANY)
            element.value = [_shortened(item) for item in items[::step]] if items else items
        elif element.keyword == "ContourData":
            element.value = list(element.value[: 3 * _MANY])
    return dataset


@functools.cache
def standard() -> DicomInfo:
    """The tables of the standard, as far as highdicom and pydicom carry them."""
    modules = {key: _attributes(rows) for key, rows in _table("module_attribute_map").items()}
    _set_value_types(modules[_CONTENT_ITEM])
    macros = _take_functional_groups(modules)
    iods = {}
    for uid, name in _table("sop_class_iod_map").items():
        rows = [row for row in _table("iod_module_map").get(name, ()) if row["key"] in modules]
        iods[uid] = {
            "title": name,
            "modules": {row["key"]: _usage(row["key"], row["usage"]) for row in rows},
            "group_macros": macros if name == "segmentation" else {},
        }
    dictionary = {
        f"({tag >> 16:04X},{tag & 0xFFFF:04X})": {
            "name": entry[2],
            "vr": entry[0],
            "vm": entry[1],
            "prop": "",
        }
        for tag, entry in DicomDictionary.items()
    }
    return DicomInfo(dictionary, iods, modules)


@functools.cache
def _table(name: str) -> Any:
    return json.loads((files("highdicom") / "_standard" / f"{name}.json").read_text(encoding="utf-8"))


def _usage(key: str, usage: str) -> dict[str, Any]:
    return {"ref": key, "use": usage, **({"cond": _OPTIONAL} if usage == "C" else {})}


def _attributes(rows: Iterable[dict[str, Any]]) -> Attributes:
    """The attributes of a module by tag, those of sequences nested as ``items``."""
    root: Attributes = {}
    for row in sorted(rows, key=lambda row: len(row["path"])):
        path = [_tag(keyword) for keyword in (*row["path"], row["keyword"])]
        if None in path:  # newer than the dictionary
            continue
        *parents, own = path
        node = root
        for parent in parents:
            node = node.setdefault(parent, {"type": "3"}).setdefault("items", {})
        entry = node.setdefault(own, {})
        entry |= {"name": row["keyword"], "type": row["type"]}
        if row["type"] in ("1C", "2C"):
            entry["cond"] = _OPTIONAL
    return root


def _set_value_types(document: Attributes) -> None:
    """Content items: their tree is as deep as it will, and each value type has its own attributes."""
    item = document[_tag("ContentSequence")]["items"]
    nested = dict(item)
    item[_tag("ContentSequence")] = {
        "name": "ContentSequence",
        "type": "1C",
        "cond": _OPTIONAL,
        "items": item,
    }
    for level in (document, item, nested):
        for keyword, value_types in _VALUE_TYPES.items():
            if (entry := level.get(_tag(keyword))) is not None:
                condition = {
                    "type": "MN",
                    "tag": _tag("ValueType"),
                    "index": 0,
                    "op": "=",
                    "values": value_types,
                }
                entry |= {"type": f"{entry['type'][0]}C", "cond": condition}


def _take_functional_groups(modules: dict[str, Attributes]) -> dict[str, dict[str, Any]]:
    """Make a macro of each functional group of a Segmentation, and say which it must have (PS3.3 A.51.5).

    A Segmentation of a series with a frame of reference has places; one of a radiograph has none.
    """
    groups = modules["segmentation-multi-frame-functional-groups"]
    placed = {"type": "MU", "tag": _tag("FrameOfReferenceUID"), "index": 0, "op": "+"}
    by_segment = {
        "type": "MN",
        "tag": _tag("SegmentationType"),
        "index": 0,
        "op": "=",
        "values": ("BINARY", "FRACTIONAL"),
    }
    usages: dict[str, dict[str, Any]] = {
        "DerivationImageSequence": {"use": "M"},
        "FrameContentSequence": {"use": "M", "cond": {"type": "MF"}},
        "PixelMeasuresSequence": {"use": "C", "cond": placed},
        "PlanePositionSequence": {"use": "C", "cond": placed},
        "PlaneOrientationSequence": {"use": "C", "cond": placed},
        "SegmentIdentificationSequence": {"use": "C", "cond": by_segment},
        "PlanePositionSlideSequence": {"use": "U"},
    }
    for keyword, usage in usages.items():
        modules[keyword] = {_tag(keyword): groups[_tag(_PER_FRAME)]["items"][_tag(keyword)]}
        usage["ref"] = keyword
    for keyword in (_SHARED, _PER_FRAME):
        groups[_tag(keyword)] = {
            "name": keyword,
            "type": "1",
            "items": {"include": [{"ref": "FuncGroup"}]},
        }
    return usages


def _tag(keyword: str) -> Any:
    number = tag_for_keyword(keyword)
    return None if number is None else f"({number >> 16:04X},{number & 0xFFFF:04X})"


def _keyword(tag: int) -> str:
    return keyword_for_tag(tag) or f"{tag:08X}"
