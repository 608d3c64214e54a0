"""nnU-Net v2 results folders with random weights of the exact architectures, and images to run them on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from ai.geometry import VolumeGeometry
from ai.volume import Volume

UNET = "dynamic_network_architectures.architectures.unet."
RESAMPLING = "resample_data_or_seg_to_shape"
CT = {"mean": 40.0, "std": 180.0, "percentile_00_5": -300.0, "percentile_99_5": 500.0}


def new_architecture(
    patch: Sequence[int], class_name: str = "PlainConvUNet", features: Sequence[int] = (6, 8, 10)
) -> dict[str, Any]:
    """The block ``architecture`` of plans from nnU-Net 2.2 on: three stages."""
    n, stages = len(patch), len(features)
    blocks = "n_conv_per_stage" if class_name == "PlainConvUNet" else "n_blocks_per_stage"
    arguments = {
        "n_stages": stages,
        "features_per_stage": list(features),
        "conv_op": f"torch.nn.modules.conv.Conv{n}d",
        "kernel_sizes": [[3] * n] * stages,
        "strides": [[1] * n, *[[2] * n] * (stages - 1)],
        blocks: [1] * stages,
        "n_conv_per_stage_decoder": [1] * (stages - 1),
        "conv_bias": True,
        "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{n}d",
        "norm_op_kwargs": {"eps": 1e-05, "affine": True},
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.LeakyReLU",
        "nonlin_kwargs": {"inplace": True},
    }
    return {
        "network_class_name": UNET + class_name,
        "arch_kwargs": arguments,
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def old_architecture(patch: Sequence[int], class_name: str = "PlainConvUNet") -> dict[str, Any]:
    """The same in plans of nnU-Net 2.1 and before."""
    n = len(patch)
    return {
        "UNet_class_name": class_name,
        "UNet_base_num_features": 6,
        "unet_max_num_features": 10,
        "n_conv_per_stage_encoder": [1, 1, 1],
        "n_conv_per_stage_decoder": [1, 1],
        "num_pool_per_axis": [2] * n,
        "pool_op_kernel_sizes": [[1] * n, [2] * n, [2] * n],
        "conv_kernel_sizes": [[3] * n] * 3,
    }


def configuration(
    patch: Sequence[int],
    spacing: Sequence[float],
    schemes: Sequence[str] = ("CTNormalization",),
    masked: bool = False,
    **other: Any,
) -> dict[str, Any]:
    """One entry under ``configurations``; without ``architecture`` or old fields in ``other`` a new U-Net."""
    fields: dict[str, Any] = {
        "data_identifier": "nnUNetPlans_x",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(patch),
        "median_image_size_in_voxels": [64.0] * len(patch),
        "spacing": list(spacing),
        "normalization_schemes": list(schemes),
        "use_mask_for_norm": [masked] * len(schemes),
        "resampling_fn_data": RESAMPLING,
        "resampling_fn_seg": RESAMPLING,
        "resampling_fn_data_kwargs": {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None},
        "resampling_fn_seg_kwargs": {"is_seg": True, "order": 1, "order_z": 0, "force_separate_z": None},
        "resampling_fn_probabilities": RESAMPLING,
        "resampling_fn_probabilities_kwargs": {
            "is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None,
        },
        "batch_dice": False,
    }  # fmt: skip
    if not {"architecture", "UNet_class_name"} & set(other):
        fields["architecture"] = new_architecture(patch)
    return {**fields, **other}


def plans(configurations: Mapping[str, Any], transpose: Sequence[int] = (0, 1, 2)) -> dict[str, Any]:
    """A whole ``plans.json``."""
    return {
        "dataset_name": "Dataset999_Random",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [1.0, 1.0, 1.0],
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": list(transpose),
        "transpose_backward": [int(axis) for axis in np.argsort(transpose)],
        "configurations": dict(configurations),
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {str(channel): CT for channel in range(4)},
    }


def dataset(labels: Mapping[str, Any], channels: Sequence[str] = ("CT",), **other: Any) -> dict[str, Any]:
    """A whole ``dataset.json``."""
    names = {str(index): name for index, name in enumerate(channels)}
    return {
        "channel_names": names,
        "labels": dict(labels),
        "numTraining": 1,
        "file_ending": ".nii.gz",
        **other,
    }


def classes(count: int) -> dict[str, int]:
    """Background and so many classes."""
    return {"background": 0, **{f"class_{index}": index for index in range(1, count + 1)}}


def write_results(
    folder: Path,
    plan: Mapping[str, Any],
    data: Mapping[str, Any],
    name: str,
    folds: Sequence[int] = (0,),
    mirror_axes: Sequence[int] | None = None,
    seed: int = 1,
) -> Path:
    """Write a results folder as nnU-Net's trainer leaves it, its networks built by nnunetv2 itself."""
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plans.json").write_text(json.dumps(plan))
    (folder / "dataset.json").write_text(json.dumps(data))
    manager = PlansManager(json.loads(json.dumps(plan)))
    config = manager.get_configuration(name)
    for fold in folds:
        torch.manual_seed(seed + fold)
        network = get_network_from_plans(
            config.network_arch_class_name,
            config.network_arch_init_kwargs,
            config.network_arch_init_kwargs_req_import,
            determine_num_input_channels(manager, config, dict(data)),
            manager.get_label_manager(dict(data)).num_segmentation_heads,
            deep_supervision=False,
        )
        fit_last_layer(network, config.patch_size, manager.get_label_manager(dict(data)).has_regions)
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {},
            "grad_scaler_state": None,
            "logging": {"ema_fg_dice": [np.float32(0.5)], "epoch_end_timestamps": [1.5]},
            "_best_ema": np.float64(0.9),
            "current_epoch": 1000,
            "init_args": {
                "configuration": name,
                "fold": fold,
                "plans": dict(plan),
                "dataset_json": dict(data),
            },
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": None if mirror_axes is None else tuple(mirror_axes),
        }
        (folder / f"fold_{fold}").mkdir(exist_ok=True)
        torch.save(checkpoint, folder / f"fold_{fold}" / "checkpoint_final.pth")
    return folder


def fit_last_layer(network: Any, patch: Sequence[int], regions: bool) -> None:
    """Fit the last layer of random features by least squares: classes are bands of the blurred input.

    Scores are linear in it (the nearest centre wins), regions are what lies above a threshold. Answers
    become coherent pieces as those of a trained network are, where those of a random one are noise in which
    every rounding flips labels.
    """
    layer = network.decoder.seg_layers[-1]
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _layer, given: seen.append(given[0]))
    channels, heads = layer.in_channels, layer.out_channels
    inputs = next(network.parameters()).shape[1]
    random = np.random.default_rng(5)
    rows, wanted = [], []
    for _ in range(4):
        noise = random.standard_normal((inputs, *patch))
        image = np.stack([ndimage.gaussian_filter(one, 3.0) for one in noise])
        image /= image.std()
        with torch.no_grad():
            network.eval()(torch.from_numpy(image[None]).float())
        rows.append(seen.pop()[0].reshape(channels, -1).T.double())
        blurred = ndimage.gaussian_filter(image.mean(0), 1.0).ravel()
        centres = np.quantile(blurred, (np.arange(heads) + 0.5 + regions * 0.5) / (heads + regions))
        slopes = np.ones(heads) if regions else centres
        offsets = -centres if regions else -(centres**2) / 2.0
        wanted.append(torch.from_numpy(10.0 * (blurred[:, None] * slopes + offsets)))
    handle.remove()
    features = torch.cat(rows)
    features = torch.cat([features, torch.ones(len(features), 1, dtype=torch.double)], 1)
    square = features.T @ features + 1e-3 * torch.eye(channels + 1, dtype=torch.double)
    solved = torch.linalg.solve(square, features.T @ torch.cat(wanted))
    with torch.no_grad():
        layer.weight.copy_(solved[:-1].T.reshape(layer.weight.shape))
        layer.bias.copy_(solved[-1])


def smooth_image(shape: Sequence[int], seed: int = 0, sigma: float = 5.0) -> npt.NDArray[np.float32]:
    """Smooth random blobs in Hounsfield-like values, with an empty border."""
    random = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(random.standard_normal(shape), sigma)
    image = (field / field.std() * 150.0 + 60.0).astype(np.float32)
    image[:2] = image[:, :3] = image[:, :, -4:] = 0.0
    return image


def axial_volume(voxels: npt.NDArray[Any], spacing_mm: Sequence[float], unit: str = "HU") -> Volume:
    """A stack as CT has it: slices upwards, rows to the back, columns to the patient's left."""
    matrix = np.eye(4)
    matrix[:3, 0] = (0.0, 0.0, spacing_mm[0])
    matrix[:3, 1] = (0.0, spacing_mm[1], 0.0)
    matrix[:3, 2] = (spacing_mm[2], 0.0, 0.0)
    matrix[:3, 3] = (-40.0, -60.0, 100.0)
    count = voxels.shape[0]
    origins = matrix[:3, 3] + np.arange(count)[:, None] * matrix[:3, 0]
    shape = (voxels.shape[0], voxels.shape[1], voxels.shape[2])
    return Volume(voxels, VolumeGeometry(matrix, shape, (), origins, None), unit)


def as_nnunet_reads(voxels: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array of an :func:`axial_volume` as NibabelIOWithReorient gives it: S, A, R; and back."""
    return voxels[:, ::-1, ::-1]


def oracle(
    folder: Path,
    images: Sequence[npt.NDArray[Any]],
    spacing_mm: Sequence[float],
    folds: Sequence[int] = (0,),
    mirror: bool = False,
    step: float = 0.5,
    previous: npt.NDArray[Any] | None = None,
    exact: bool = False,
) -> npt.NDArray[np.uint8]:
    """What nnUNetPredictor answers, on the grid of the images.

    It sums the answers of tiles in float16, whose rounding flips labels where two are nearly equal; with
    ``exact`` it sums in float32.
    """
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(step, True, mirror, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(folder), tuple(folds))
    stacked = np.stack([as_nnunet_reads(image) for image in images]).astype(np.float32)
    before = None if previous is None else as_nnunet_reads(previous)[None].astype(np.int16)
    with mock.patch.object(torch, "half", torch.float32 if exact else torch.half):
        answer = predictor.predict_single_npy_array(stacked, {"spacing": list(spacing_mm)}, before)
    return np.ascontiguousarray(as_nnunet_reads(answer)).astype(np.uint8)


def dice(found: npt.NDArray[Any], truth: npt.NDArray[Any]) -> dict[int, float]:
    """Dice of each label that either has."""
    labels = sorted((set(np.unique(found)) | set(np.unique(truth))) - {0})
    return {
        int(n): 2.0
        * float(((found == n) & (truth == n)).sum())
        / float((found == n).sum() + (truth == n).sum())
        for n in labels
    }


def card(root: Path, section: Mapping[str, Any], structures: int, channels: Sequence[str] = ("CT",)) -> Any:
    """A card that pins every file below a folder, with structures that have private codes."""
    from ai.model import ModelSpec, pin

    code = {"value": "X", "scheme": "99TEST", "meaning": "Test"}
    coding = {"category": code, "type": code, "rgb": [200, 100, 50]}
    names = tuple(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    spec = ModelSpec.model_validate(
        {
            "id": "random",
            "version": "1",
            "title": "Random",
            "loader": "nnunet",
            "algorithm": "nnU-Net",
            "manufacturer": "test",
            "intended_use": "test",
            "limits": [],
            "references": [],
            "licence": {"spdx": "Apache-2.0", "commercial": "yes"},
            "accepts": {"modalities": ["CT"], "channels": list(channels)},
            "nnunet": dict(section),
            "files": pin(root, names),
            "structures": [
                {"number": n, "key": f"s{n}", "label": f"S{n}", "coding": coding}
                for n in range(1, structures + 1)
            ],
        }
    )
    spec._folder = root
    return spec
