"""The writers that benchmarks/results.py compares, each run in a process of its own.

    python -m benchmarks.results_contenders NAME LABELS.npy STRUCTURES KIND COMPRESSION OUT.dcm

writes a small segmentation first, so that imports and first calls do not count, then that of the label map,
and prints one JSON line: seconds from the label map to the file on the disk, those of the CPU, resident bytes
before and at the peak, size of the file, number of frames, and SHA-256 of all frames. That is over their
functional groups and pixels as they stand in the file; of pixels in RLE, which has several codings of one
image, over the image.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
from pydicom import dcmread

from ai.profile import Compression, Profile, SegmentationKind
from ai.results.context import ResultContext
from ai.results.seg import build_segs
from benchmarks.results_data import draw, run_on

OURS, THEIRS = "gateway", "highdicom"
_GROUPS, _PIXELS = b"\x00\x52\x30\x92SQ", b"\xe0\x7f\x10\x00OB"
_TYPES = {"binary": "BINARY", "label_map": "LABELMAP", "fractional": "FRACTIONAL"}


def gateway(context: ResultContext, out: Path) -> int:
    """Ours, as a job does it."""
    (seg,) = build_segs(context)
    out.write_bytes(seg.content)
    return int(seg.header.NumberOfFrames)


def highdicom(context: ResultContext, out: Path) -> int:
    """The constructor of the library and its ``save_as``, with the same source images and segments."""
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

    from ai.results.seg.describe import segments

    syntaxes = {"none": ExplicitVRLittleEndian, "rle": RLELossless, "jpeg_ls": JPEGLSLossless}
    seg = hd.seg.Segmentation(
        source_images=context.series.datasets,
        pixel_array=context.labels,
        segmentation_type=_TYPES[context.profile.segmentation],
        segment_descriptions=segments(context, context.spec.structures),
        series_instance_uid=context.series_uid("seg"),
        series_number=9001,
        sop_instance_uid=context.instance_uid("seg"),
        instance_number=1,
        manufacturer="Benchmark",
        manufacturer_model_name="Benchmark",
        software_versions="1",
        device_serial_number="1",
        fractional_type="OCCUPANCY",
        transfer_syntax_uid=syntaxes[context.profile.compression],
    )
    seg.save_as(out)
    return int(seg.NumberOfFrames)


CONTENDERS: dict[str, Callable[[ResultContext, Path], int]] = {OURS: gateway, THEIRS: highdicom}


def _frames_digest(file: Path, compression: str) -> str:
    """Everything from the functional groups of frames on, but for the byte that pads the pixels."""
    content = file.read_bytes()
    start = content.index(_GROUPS)
    pixels = content.index(_PIXELS, start) + len(_PIXELS)
    if compression == "rle":
        content = content[start:pixels] + dcmread(file).pixel_array.tobytes()
        start = 0
    is_padded = compression == "none"
    return hashlib.sha256(content[start:-1] if is_padded else content[start:]).hexdigest()


def _resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the most since it was reset) of this process, Linux."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    """Run one contender once."""
    warnings.simplefilter("ignore")
    name, file, count, kind, compression, target = sys.argv[1:]
    if kind not in get_args(SegmentationKind) or compression not in get_args(Compression):
        raise SystemExit(f"no such kind or compression: {kind} {compression}")
    settings: dict[str, Any] = {"segmentation": kind, "compression": compression}
    profile, out = Profile(**settings), Path(target)
    write = CONTENDERS[name]
    write(run_on(draw(2, (8, 64, 64)), 2, profile), out)
    context = run_on(np.load(file), int(count), profile)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = _resident_bytes("VmRSS")
    start_s, cpu_start_s = time.perf_counter(), time.process_time()
    frames = write(context, out)
    seconds, cpu_seconds = time.perf_counter() - start_s, time.process_time() - cpu_start_s
    peak = _resident_bytes("VmHWM")
    measured: dict[str, object] = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    measured |= {"resident_before_bytes": before, "resident_peak_bytes": peak}
    measured |= {"bytes": out.stat().st_size, "frames": frames, "sha256": _frames_digest(out, compression)}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
