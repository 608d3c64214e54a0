"""Whether what is stored is what was sent: byte for byte, in the transfer syntax that the sender prefers."""

from __future__ import annotations

from pathlib import Path

from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from benchmarks.receive_files import digests, read
from benchmarks.receive_peers import Server
from benchmarks.receive_rates import send, stock_client
from benchmarks.receive_report import Report, Verdict
from tests.builders import compressed, ct_series, write_series

SYNTAXES = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLSLossless,
    JPEG2000Lossless,
)
_KEPT_BY_DCMSEND = (ExplicitVRLittleEndian, RLELossless, JPEGLSLossless, JPEG2000Lossless)
_SLICES, _SIDE = 12, 64


def fidelity(report: Report, server: Server, scratch: Path) -> None:
    """Send a short series in every syntax, and count what is stored as it was sent.

    By dcmsend, or by our own sender where dcmsend would turn implicit VR into explicit. Deflated
    is not offered, see gateway/receive/contexts.py.
    """
    equal = sent = 0
    for number, syntax in enumerate(SYNTAXES):
        folder = scratch / f"fidelity-{number}"
        write_in(syntax, folder, seed=7000 + number)
        by_dcmsend = syntax in _KEPT_BY_DCMSEND
        if by_dcmsend:
            stock_client("dcmsend", server.port, sorted(folder.glob("*.dcm")), "-dn")
        else:
            send(server, [folder])
        found = len(server.stored(digests([folder])))
        sender = "dcmsend" if by_dcmsend else "our sender"
        report.note(f"stored as sent, {syntax.name}, {sender}", f"{found} of {_SLICES}")
        equal, sent = equal + found, sent + _SLICES
    report.judge(Verdict("(d) stored equals sent, byte for byte", 100.0 * equal / sent, 100.0, "%"))


def write_in(syntax: UID, folder: Path, seed: int) -> list[Path]:
    """A short CT series as files in this transfer syntax."""
    series = ct_series((_SLICES, _SIDE, _SIDE), seed=seed)
    if syntax.is_compressed:
        series = compressed(series, syntax)
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = syntax
    paths = write_series(series, folder)
    assert {read(path).transfer_syntax_uid.decode() for path in paths} == {str(syntax)}
    return paths
