"""Compressed pixels: every transfer syntax gives the values that went in, and those of a second decoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.pixels import pixel_array
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from ai.errors import SeriesRefused
from ai.pixels.decoders import decode
from ai.pixels.frames import FramePixels, frame_pixels
from ai.pixels.values import used_bits
from ai.source import read_file
from tests.pixel_images import (
    LOSSLESS,
    Array,
    compressed,
    decoded,
    encoded,
    fragments,
    image,
    smooth,
    with_codestreams,
    with_pixel_data,
    written,
)

FIXTURES = Path(__file__).parents[3] / "shared" / "data" / "fixture"
NEMA = "compressed_nema_wg04"


def stored_values(path: Path) -> Array:
    """What the decoder gives, before the rescale: ``(rows, columns)`` of the first frame."""
    frame = frame_pixels(read_file(path))[0]
    return used_bits(decode(raw(frame), frame.layout).copy(), frame.layout)


def raw(frame: FramePixels) -> bytes:
    whole = frame.path.read_bytes()
    return b"".join(whole[part.offset : part.offset + part.length] for part in frame.ranges)


def real(name: str) -> Path:
    path = FIXTURES / name
    if not path.exists():
        pytest.skip(f"the real image {name} is not on this machine")
    return path


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.keyword)
def test_lossless_values_come_back(tmp_path: Path, syntax: str, signed: bool, bits: int) -> None:
    stored = smooth((33, 21), bits, signed=signed)
    values = decoded(written(compressed(stored, syntax, bits), tmp_path))
    np.testing.assert_array_equal(values[0], stored)


@pytest.mark.parametrize("syntax", LOSSLESS, ids=lambda uid: uid.keyword)
def test_frames_of_a_multi_frame_image_come_back_in_order(tmp_path: Path, syntax: str) -> None:
    stored = smooth((3, 33, 21), 16, signed=True)
    np.testing.assert_array_equal(decoded(written(compressed(stored, syntax), tmp_path)), stored)


def test_rle_of_32_bits_comes_back(tmp_path: Path) -> None:
    stored = smooth((9, 7), 32)
    np.testing.assert_array_equal(
        decoded(written(compressed(stored, RLELossless), tmp_path))[0], stored.astype(np.float32)
    )


@pytest.mark.parametrize(
    ("syntax", "bits", "tolerance"),
    [(JPEGBaseline8Bit, 8, 4), (JPEGExtended12Bit, 12, 40), (JPEGLSNearLossless, 16, 1)],
)
def test_lossy_values_come_back_nearly(tmp_path: Path, syntax: str, bits: int, tolerance: int) -> None:
    stored = smooth((33, 21), bits)
    values = decoded(written(compressed(stored, syntax, bits), tmp_path))
    assert np.abs(values[0] - stored).max() <= tolerance


def test_a_frame_in_several_fragments_is_put_together(tmp_path: Path) -> None:
    stored = smooth((33, 21), 16)
    stream = encoded(stored, JPEGLSLossless)
    value = fragments(stream[:100], stream[100:300], stream[300:])
    path = written(with_pixel_data(image(stored), value, JPEGLSLossless), tmp_path)
    np.testing.assert_array_equal(decoded(path)[0], stored)


def test_frames_in_several_fragments_are_told_apart_by_the_offset_table(tmp_path: Path) -> None:
    stored = smooth((2, 33, 21), 16)
    first, second = (s + b"\0" * (len(s) % 2) for s in (encoded(f, JPEGLSLossless) for f in stored))
    table = [0, len(first) + 16]
    value = fragments(first[:100], first[100:], second[:200], second[200:], table=table)
    path = written(with_pixel_data(image(stored), value, JPEGLSLossless), tmp_path)
    np.testing.assert_array_equal(decoded(path), stored)


def test_a_jp2_file_in_the_place_of_a_codestream_is_read(tmp_path: Path) -> None:
    stored = smooth((33, 21), 16)
    box = b"jp2c" + encoded(stored, JPEG2000Lossless)
    jp2 = b"\0\0\0\x0cjP  \r\n\x87\n" + (len(box) + 4).to_bytes(4, "big") + box
    path = written(with_codestreams(image(stored), [jp2], JPEG2000Lossless), tmp_path)
    np.testing.assert_array_equal(decoded(path)[0], stored)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1])
def test_the_sign_is_that_of_the_header_where_the_codestream_has_as_many_bits(
    tmp_path: Path, syntax: str
) -> None:
    stored = smooth((33, 21), 12, signed=True)
    unsigned = stored.view("<u2") & 0x0FFF
    path = written(with_codestreams(image(stored, 12), [encoded(unsigned, syntax, 12)], syntax), tmp_path)
    np.testing.assert_array_equal(decoded(path)[0], stored)


def test_a_sign_that_nobody_can_tell_is_refused(tmp_path: Path) -> None:
    unsigned = smooth((33, 21), 12)
    stream = encoded(unsigned, JPEGLosslessSV1, 12)
    path = written(with_codestreams(image(unsigned.view("<i2")), [stream], JPEGLosslessSV1), tmp_path)
    with pytest.raises(SeriesRefused, match="unsigned samples of 12 bits") as caught:
        decoded(path)
    assert caught.value.code == "CANNOT_DECODE"


def test_values_below_the_sign_bit_need_no_sign(tmp_path: Path) -> None:
    stored = smooth((33, 21), 11)
    stream = encoded(stored, JPEGLosslessSV1, 12)
    path = written(with_codestreams(image(stored.view("<i2")), [stream], JPEGLosslessSV1), tmp_path)
    np.testing.assert_array_equal(decoded(path)[0], stored)


@pytest.mark.parametrize(
    ("name", "plugin"),
    [
        *((f"{NEMA}/J2KI/{image}_J2KI", "pylibjpeg") for image in ("CT1", "CT2", "MR3")),
        *((f"{NEMA}/J2KR/{image}_J2KR", "gdcm") for image in ("CT1", "CT2", "MR3")),
        *((f"{NEMA}/JLSL/{image}_JLSL", "pyjpegls") for image in ("CT1", "CT2", "MR3")),
        *((f"{NEMA}/JLSN/{image}_JLSN", "gdcm") for image in ("CT1", "CT2", "MR3")),
        *((f"{NEMA}/JPLL/{image}_JPLL", "gdcm") for image in ("CT1", "CT2", "MR3")),
        *((f"{NEMA}/RLE/{image}_RLE", "pylibjpeg") for image in ("CT1", "CT2", "MR3")),
        ("cxr_dicom/Fake_MONOHR1.dcm", "gdcm"),
        ("cxr_dicom/966_fixed.dcm", "pylibjpeg"),
        ("cxr_dicom/RG1_J2KI", "gdcm"),
        ("ct_chest_lidc0314/dicom_j2k/000001.dcm", "pylibjpeg"),
    ],
)
def test_real_images_decode_as_with_a_second_decoder(name: str, plugin: str) -> None:
    path = real(name)
    other = pixel_array(dcmread(path), raw=True, decoding_plugin=plugin)
    np.testing.assert_array_equal(stored_values(path), other)


def test_a_real_jpeg_of_12_bits_is_near_its_lossless_twin() -> None:
    """No decoder of pydicom reads it; DCMTK's dcmdjpeg gives the same values as ours, bit for bit."""
    lossy = stored_values(real(f"{NEMA}/JPLY/MR3_JPLY")).astype(np.float64)
    lossless = stored_values(real(f"{NEMA}/JPLL/MR3_JPLL")).astype(np.float64)
    assert abs((lossy - lossless).mean()) < 1.0
    assert np.corrcoef(lossy.ravel(), lossless.ravel())[0, 1] > 0.999
    assert (int(lossy.sum()), int(lossy.max())) == (86361044, 1478)  # of dcmdjpeg


@pytest.mark.parametrize("syntax", [HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K])
def test_htj2k_decodes_as_with_a_second_decoder(tmp_path: Path, syntax: str) -> None:
    path = written(compressed(smooth((64, 48), 16, signed=True), syntax), tmp_path)
    other = pixel_array(dcmread(path), raw=True, decoding_plugin="pylibjpeg")
    np.testing.assert_array_equal(stored_values(path), other)


@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1, JPEG2000])
def test_made_images_decode_as_with_gdcm(tmp_path: Path, syntax: str) -> None:
    path = written(compressed(smooth((64, 48), 12), syntax, 12), tmp_path)
    other = pixel_array(dcmread(path), raw=True, decoding_plugin="gdcm")
    np.testing.assert_array_equal(stored_values(path), other)
