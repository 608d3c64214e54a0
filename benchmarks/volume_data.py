"""The series that benchmarks/volume.py reads: the drawn chest, 512 × 512, in several transfer syntaxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imagecodecs
import numpy as np
import numpy.typing as npt
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_encoder
from pydicom.uid import (
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from ai.sample import write_sample_series

Stored = npt.NDArray[np.uint16]


@dataclass(frozen=True)
class Syntax:
    """A transfer syntax, and how one slice is encoded in it; None: as it is."""

    name: str
    uid: str
    encode: Callable[[Stored], bytes] | None = None


def _rle(image: Stored) -> bytes:
    return get_encoder(RLELossless).encode(
        image,
        rows=image.shape[0],
        columns=image.shape[1],
        bits_allocated=16,
        bits_stored=12,
        pixel_representation=0,
        samples_per_pixel=1,
        photometric_interpretation="MONOCHROME2",
        number_of_frames=1,
    )


SYNTAXES = (
    Syntax("uncompressed", ImplicitVRLittleEndian),
    Syntax(
        "JPEG lossless",
        JPEGLosslessSV1,
        lambda image: imagecodecs.jpeg8_encode(image, lossless=True, predictor=1, bitspersample=12),
    ),
    Syntax("JPEG-LS", JPEGLSLossless, imagecodecs.jpegls_encode),
    Syntax(
        "JPEG 2000",
        JPEG2000Lossless,
        lambda image: imagecodecs.jpeg2k_encode(
            image, level=0, reversible=True, codecformat="j2k", bitspersample=12
        ),
    ),
    Syntax("HTJ2K", HTJ2KLossless, imagecodecs.htj2k_encode),
    Syntax("RLE", RLELossless, _rle),
)


def draw(folder: Path, slices: int) -> list[Path]:
    """Write the drawn chest with noise and about 100 header elements a slice, explicit VR, in slice order."""
    written = write_sample_series(folder, shape=(slices, 512, 512), spacing_mm=(320.0 / slices, 0.75, 0.75))
    for path in written.files:
        dataset = dcmread(path)
        _add_scanner_elements(dataset)
        dataset.save_as(path)
    return list(written.files)


def _add_scanner_elements(dataset: Dataset) -> None:
    """What a CT scanner writes beside the sample's own elements, private blocks and sequences included."""
    for keyword, value in {
        "InstitutionName": "Example hospital",
        "StationName": "CT01",
        "SoftwareVersions": "syngo CT 2014A",
        "DeviceSerialNumber": "12345",
        "ProtocolName": "Thorax routine",
        "DataCollectionDiameter": "500",
        "ReconstructionDiameter": "384",
        "DistanceSourceToDetector": "1085.6",
        "DistanceSourceToPatient": "595",
        "GantryDetectorTilt": "0",
        "TableHeight": "143",
        "RotationDirection": "CW",
        "ExposureTime": "500",
        "XRayTubeCurrent": "210",
        "Exposure": "105",
        "FilterType": "FLAT",
        "GeneratorPower": "25",
        "FocalSpots": "1.2",
        "ConvolutionKernel": ["I30f", "3"],
        "SingleCollimationWidth": 0.6,
        "TotalCollimationWidth": 38.4,
        "TableSpeed": 46.0,
        "SpiralPitchFactor": 0.6,
        "CTDIvol": 7.1,
        "RequestedProcedureDescription": "CT thorax",
    }.items():
        setattr(dataset, keyword, value)
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "113691", "DCM", "IEC Body Dosimetry"
    dataset.CTDIPhantomTypeCodeSequence = [code]
    block = dataset.private_block(0x0019, "EXAMPLE CT HEADER", create=True)
    for offset in range(20):
        block.add_new(offset, "LO", f"private value {offset}")


def encoded(files: Sequence[Path], folder: Path, syntax: Syntax) -> list[Path]:
    """The files in another transfer syntax, in the same order."""
    folder.mkdir(parents=True)

    def convert(path: Path) -> Path:
        dataset = dcmread(path)
        if syntax.encode is not None:
            image = np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns)
            dataset.PixelData = encapsulate([syntax.encode(image)])
            dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = syntax.uid
        target = folder / path.name
        dataset.save_as(target, implicit_vr=syntax.encode is None, little_endian=True)
        return target

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(convert, files))
