"""What reading segmentations back costs, against the time in which they were encoded.

``python -m benchmarks.results_verify [--quick]``: 512 × 512 × 400 voxels with 1, 24 and 104 structures, as
binary segmentation and as label map. Encoding and check alternate in one process; each number is the median.
"""

from __future__ import annotations

import argparse
import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from ai.geometry import FrameRef, Part
from ai.model import Structure, find_card
from ai.profile import Profile
from ai.results.context import ResultContext, derive_identity
from ai.results.seg import build_segs
from ai.results.verify import verify_segmentations
from ai.terminology import structures as coded_structures
from ai.volume import ImageSeries, LabelArray, Volume
from tests import builders
from tests.runs import CREATED_AT, even_geometry

SHAPE = (400, 512, 512)
QUICK_SHAPE = (60, 256, 256)
SPACING_MM = (1.5, 0.8, 0.8)
_SLICES_OF_A_STRUCTURE = 55  # on average: 104 structures have 5,747 frames, as those of a whole-body model do


def labels_of(shape: tuple[int, int, int], structures: int, seed: int = 1) -> LabelArray:
    """A label map with one large structure (skin, muscles) around many of the sizes of organs and bones."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    slices, rows, columns = shape
    y, x = np.ogrid[:rows, :columns]
    body = ((y - rows / 2) / (0.32 * rows)) ** 2 + ((x - columns / 2) / (0.42 * columns)) ** 2 < 1.0
    labels[:, body] = 1
    for number in range(2, structures + 1):
        height = int(rng.uniform(0.3, 1.7) * _SLICES_OF_A_STRUCTURE * slices / SHAPE[0]) + 2
        top = int(rng.uniform(0, slices - height))
        centre = rng.uniform((0.3 * rows, 0.2 * columns), (0.7 * rows, 0.8 * columns))
        radius = rng.uniform(0.015, 0.11, 2) * rows
        drift = rng.uniform(-0.3, 0.3, 2)  # most organs are oblique
        for k in range(height):
            share = np.sqrt(max(1.0 - (2.0 * k / height - 1.0) ** 2, 0.02))
            (cy, cx), (ry, rx) = centre + drift * k, np.maximum(radius * share, 1.0)
            box = slice(int(cy - ry), int(cy + ry) + 2), slice(int(cx - rx), int(cx + rx) + 2)
            found = ((y[box[0]] - cy) / ry) ** 2 + ((x[:, box[1]] - cx) / rx) ** 2 < 1.0
            labels[top + k][box][found] = number
    return labels


def run_of(labels: LabelArray, structures: int, profile: Profile) -> ResultContext:
    """The run of a model with that many structures on a CT of that grid, whose voxels nobody asks for."""
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    datasets = builders.ct_series((shape[0], 2, 2), SPACING_MM)
    for dataset in datasets:
        dataset.Rows, dataset.Columns = shape[1:]
    geometry = replace(
        even_geometry(builders.affine((shape[0], 2, 2), SPACING_MM), shape),
        frames=tuple(FrameRef(str(d.SOPInstanceUID)) for d in datasets),
        frame_of_reference_uid=str(datasets[0].FrameOfReferenceUID),
        slice_thickness_mm=SPACING_MM[0],
    )
    series = ImageSeries(
        Volume(np.broadcast_to(np.int16(0), shape), geometry), Part("", "", geometry.frames, geometry)
    )
    series.__dict__["datasets"] = tuple(builders.without(datasets, "PixelData"))
    series.__dict__["input_digest"] = "0" * 64
    card = find_card("ct-tissue")
    keys = sorted(coded_structures())[:structures]
    named = tuple(Structure(number=n, key=key, label=key[:64]) for n, key in enumerate(keys, start=1))
    card = card.model_copy(update={"structures": named})
    identity = derive_identity(str(datasets[0].SeriesInstanceUID), series.input_digest, card, "1.2.3")
    return ResultContext(series, card, labels, (), identity, CREATED_AT, 9000, "1.2.3", profile=profile)


def timed(function: Callable[[], object]) -> float:
    """Seconds of one call."""
    gc.collect()
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print a table: structures, kind, frames, size, seconds to encode and to check, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a small volume, one round")
    parser.add_argument("--structures", type=int, nargs="*", default=[1, 24, 104])
    parser.add_argument("--kinds", nargs="*", default=["binary none", "label_map none", "label_map jpeg_ls"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    print("structures  kind                 MB   encode s  check s  check / encode")
    for count in options.structures:
        labels = labels_of(QUICK_SHAPE if options.quick else SHAPE, count)
        for kind in options.kinds:
            segmentation, compression = kind.split()
            profile = Profile(segmentation=segmentation, compression=compression)
            context = run_of(labels, count, profile)
            encode_s, check_s = [], []
            for _ in range(1 if options.quick else options.rounds):
                encode_s.append(timed(partial(build_segs, context)))
                objects = [(seg.plan, seg.content) for seg in build_segs(context)]
                check_s.append(timed(partial(verify_segmentations, objects, context)))
            size = sum(len(content) for _, content in objects) / 1e6
            encode, check = statistics.median(encode_s), statistics.median(check_s)
            print(f"{count:10d}  {kind:18s} {size:6.1f} {encode:9.3f} {check:8.3f} {check / encode:12.1%}")


if __name__ == "__main__":
    main()
