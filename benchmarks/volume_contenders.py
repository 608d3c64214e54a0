"""The readers that benchmarks/volume.py compares, each run in a process of its own.

    python benchmarks/volume_contenders.py NAME FOLDER WARM_UP_FOLDER

reads the small folder first, so that imports and first calls do not count, then the other one, and prints
one JSON line: seconds, resident bytes before and at the peak, bytes and SHA-256 of the voxels as int16 in
slice order. The page cache is warm for all.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).parent.parent))

Voxels = npt.NDArray[Any]
_kept: list[object] = []


def gateway(folder: Path) -> Voxels:
    """Ours: identity, headers, geometry and pixels."""
    from ai.volume import read_series

    return read_series(sorted(folder.iterdir())).volume.voxels


def simpleitk(folder: Path) -> Voxels:
    """The usual recipe: GDCM finds and orders the files of the series, then they are read."""
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    _kept.append(image)  # the array is a view that does not keep its image alive
    view: Voxels = SimpleITK.GetArrayViewFromImage(image)
    return view


def monai(folder: Path) -> Voxels:
    """LoadImage with its pydicom reader, which stacks (columns, rows, slices) from the head down here."""
    from monai.transforms import LoadImage

    loaded: Voxels = LoadImage(reader="PydicomReader", image_only=True)(str(folder)).numpy()
    return loaded.transpose(2, 1, 0)[::-1]


def pydicom_float32(folder: Path) -> Voxels:
    """The loop of many tutorials: everything as float32, stacked."""
    from pydicom import dcmread

    datasets = sorted((dcmread(path) for path in folder.iterdir()), key=_height)
    return np.stack(
        [
            d.pixel_array.astype(np.float32) * np.float32(d.RescaleSlope) + np.float32(d.RescaleIntercept)
            for d in datasets
        ]
    )


def pydicom_int16(folder: Path) -> Voxels:
    """The same loop written with care: int16, allocated once."""
    from pydicom import dcmread

    datasets = sorted((dcmread(path) for path in folder.iterdir()), key=_height)
    volume = np.empty((len(datasets), datasets[0].Rows, datasets[0].Columns), np.int16)
    for i, dataset in enumerate(datasets):
        volume[i] = dataset.pixel_array
        volume[i] *= int(dataset.RescaleSlope)
        volume[i] += int(dataset.RescaleIntercept)
    return volume


def _height(dataset: Any) -> float:
    cosines = np.asarray(dataset.ImageOrientationPatient, float)
    return float(np.cross(cosines[:3], cosines[3:]) @ np.asarray(dataset.ImagePositionPatient, float))


OURS = "gateway"
CONTENDERS: dict[str, Callable[[Path], Voxels]] = {
    OURS: gateway,
    "SimpleITK": simpleitk,
    "MONAI LoadImage": monai,
    "pydicom, float32": pydicom_float32,
    "pydicom, int16": pydicom_int16,
}


def _resident_bytes(field: str) -> int:
    """VmRSS (now) or VmHWM (the most since it was reset) of this process, Linux."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")


def main() -> None:
    """Run one contender once."""
    warnings.simplefilter("ignore")
    name, folder, warm_up = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    read = CONTENDERS[name]
    read(warm_up)
    _kept.clear()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # resets VmHWM
    before = _resident_bytes("VmRSS")
    start_s = time.perf_counter()
    voxels = read(folder)
    seconds = time.perf_counter() - start_s
    peak = _resident_bytes("VmHWM")
    exact = np.ascontiguousarray(voxels.astype(np.int16))
    print(
        json.dumps(
            {
                "seconds": seconds,
                "resident_before_bytes": before,
                "resident_peak_bytes": peak,
                "shape": exact.shape,
                "sha256": hashlib.sha256(exact).hexdigest(),
            }
        )
    )


if __name__ == "__main__":
    main()
