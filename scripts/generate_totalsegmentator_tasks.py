"""Write ai/loaders/totalsegmentator/tasks.json from a published wheel of TotalSegmentator.

    pip download --no-deps --dest /tmp/ts 'totalsegmentator==2.18.*'
    python -m scripts.generate_totalsegmentator_tasks /tmp/ts/totalsegmentator-2.18.0-py3-none-any.whl

Its tables are plain data: ``map_tasks_config.py`` (which networks, spacing, crop), ``map_to_binary.py`` (the
classes of tasks and of parts, which tasks need a licence) and ``registry.py`` (modality). What is spread over
its code is resolved here, each with its source: the margin of a crop, which localiser crops, the tile step.
"""

from __future__ import annotations

import argparse
import json
import sys
from email import message_from_bytes
from importlib import import_module
from pathlib import Path
from typing import Any
from zipfile import ZipFile

TARGET = Path(__file__).parent.parent / "ai" / "loaders" / "totalsegmentator" / "tasks.json"
LEFT_OUT = {"test": "made for its own tests: it has neither weights nor classes of a network"}
NON_COMMERCIAL = {"brain_aneurysm"}  # README, "Subtasks": CC BY-NC, no commercial licence can be bought
WIDE_STEP = {"total", "total_v3", "total_mr"}  # nnunet.py: step_size 0.8, for these tasks only
USUAL_MARGIN_MM = 20.0  # python_api.py: crop_addon is 20 mm wherever no crop_model is named
PART_MAPS = {
    "total": ("class_map_5_parts", "map_taskid_to_partname_ct"),
    "total_v3": ("class_map_5_parts_total_v3", "map_taskid_to_partname_ct_v3"),
    "total_mr": ("class_map_parts_mr", "map_taskid_to_partname_mr"),
    "headneck_muscles": ("class_map_parts_headneck_muscles", "map_taskid_to_partname_headneck_muscles"),
}
AFTER = {  # nnunet.py: keep_largest_blob_multilabel, remove_small_blobs_multilabel from 50000 mm³
    "body": [
        {"op": "largest", "classes": ["body_trunc"]},
        {"op": "drop_below_ml", "classes": ["body_extremities"], "volume_ml": 50.0},
    ]
}
MODE_SUFFIXES = {"default": "", "fast": "_fast", "fastest": "_fastest"}


def main() -> None:
    """Read the wheel that is named, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    wheel = parser.parse_args().wheel
    table = make_table(wheel)
    TARGET.write_text(_compact(table), encoding="utf-8")
    print(f"{TARGET}: {len(table['tasks'])} tasks of {table['source']}")  # noqa: T201


def make_table(wheel: Path) -> dict[str, Any]:
    """The table as JSON types."""
    with ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        metadata = message_from_bytes(archive.read(name))
    sys.path.insert(0, str(wheel))
    configs, maps, registry = (
        import_module(f"totalsegmentator.{module}")
        for module in ("map_tasks_config", "map_to_binary", "registry")
    )
    tasks = {}
    for task in registry.TASKS:
        if task not in LEFT_OUT:
            tasks.update(_variants(task, configs, maps, registry))
    used = sorted({part["id"] for entry in tasks.values() for part in entry["networks"]})
    return {
        "source": f"TotalSegmentator {metadata['Version']}",
        "licence": "Apache-2.0",
        "attribution": "Tasks, classes and settings from TotalSegmentator (Jakob Wasserthal, University "
        "Hospital Basel), Apache License 2.0, https://github.com/wasserth/TotalSegmentator; changed in form.",
        "left_out": LEFT_OUT,
        "folders": {str(i): configs.TASK_ID_WEIGHTS_CONFIGS[i]["foldername"] for i in used},
        "tasks": tasks,
    }


def _variants(task: str, configs: Any, maps: Any, registry: Any) -> dict[str, Any]:
    """A task in each of its modes."""
    raw = configs.TASK_CONFIGS[task]
    modes = raw.get("sub_modes", {"default": raw})
    found = {}
    for mode, own in modes.items():
        config = {**configs.DEFAULT_CONFIG, **{k: v for k, v in raw.items() if k != "sub_modes"}, **own}
        name = task + MODE_SUFFIXES[mode]
        found[name] = _entry(task, config, maps, registry)
        if task == "total_v3" and mode == "default":  # python_api.py: model_size="small"
            found[f"{name}_small"] = _entry(
                task, {**config, "plans": "nnUNetResEncUNetLPlans_8"}, maps, registry
            )
    return found


def _entry(task: str, config: dict[str, Any], maps: Any, registry: Any) -> dict[str, Any]:
    classes = [maps.class_map[task][number] for number in sorted(maps.class_map[task])]
    identifiers = config["task_id"] if isinstance(config["task_id"], list) else [config["task_id"]]
    needs_licence = bool(config["commercial"]) or registry.requires_license(task)
    entry: dict[str, Any] = {
        "modality": registry.task_modality(task),
        "licence": "non-commercial" if task in NON_COMMERCIAL else "contract" if needs_licence else "open",
        "trainer": config["trainer"],
        "plans": config["plans"] or "nnUNetPlans",
        "configuration": config["model"],
        "folds": config["folds"],
        "step": 0.8 if task in WIDE_STEP else 0.5,
        "networks": [_network(task, i, maps) for i in identifiers],
        "classes": classes,
    }
    if config["resample"] is not None:
        entry["resample_mm"] = config["resample"]
    if config["crop"] is not None:
        entry["crop"] = _crop(task, config)
    if task in AFTER:
        entry["after"] = AFTER[task]
    if task in ("vertebrae_pp", "vertebrae_pp_refined"):
        entry["vertebral_bodies"] = {"clip": "vertebrae_body" if task.endswith("_refined") else None}
    return entry


def _network(task: str, identifier: int, maps: Any) -> dict[str, Any]:
    """A network, and the class of each of its labels from 1 on where they are not those of the task.

    Labels beyond the last one listed are auxiliary classes, which the task leaves out.
    """
    own = maps.class_map[task]
    names = own
    if task in PART_MAPS:
        parts, by_identifier = (getattr(maps, name) for name in PART_MAPS[task])
        if identifier in by_identifier:
            names = parts[by_identifier[identifier]]
    if sorted(names) != list(range(1, len(names) + 1)):
        raise ValueError(f"labels of network {identifier} are not numbered from 1 on: {sorted(names)}")
    if names == own:
        return {"id": identifier}
    return {"id": identifier, "labels": [names[number] for number in sorted(names)]}


def _crop(task: str, config: dict[str, Any]) -> dict[str, Any]:
    """Which task localises: python_api.py, "Generate rough organ segmentation"."""
    classes = config["crop"]
    if config["crop_model"]:
        localiser, margin_mm = config["crop_model"], float(config["crop_addon"][0])
    elif "body_trunc" in classes or "body_extremities" in classes:
        localiser, margin_mm = "body_fast", USUAL_MARGIN_MM
    elif task.endswith("_mr"):
        localiser, margin_mm = "total_mr_fast", USUAL_MARGIN_MM
    else:
        localiser, margin_mm = "total_fast" if config["robust_crop"] else "total_fastest", USUAL_MARGIN_MM
    crop: dict[str, Any] = {"task": localiser, "classes": classes, "margin_mm": margin_mm}
    if config["remove_outside"]:
        crop["within"] = config["remove_outside"]
        crop["within_mm"] = float(config["remove_outside_dilation"])
    return crop


def _compact(table: dict[str, Any]) -> str:
    """JSON with one line for each task."""
    tasks = table["tasks"]
    head = json.dumps({**table, "tasks": None}, indent=1)
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in tasks.items()]
    return head.replace('"tasks": null', '"tasks": {\n' + ",\n".join(lines) + "\n }") + "\n"


if __name__ == "__main__":
    main()
