"""A result data set as a DICOM file (PS3.10): the bytes that are stored, sent and sent again."""

from __future__ import annotations

from io import BytesIO

from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

IMPLEMENTATION_CLASS_UID = UID("2.25.243268069127379831809711784615966381033")
"""The gateway's, for its files and associations alike (PS3.7 D.3.3.2)."""

_SHORT_STRING = 16  # PS3.5 6.2, VR SH


def encode(
    dataset: Dataset, software_version: str, transfer_syntax_uid: UID = ExplicitVRLittleEndian
) -> bytes:
    """Encode in Explicit VR Little Endian with our own file meta information.

    Another transfer syntax only names how pixels are coded: they are so already, or the caller adds them.

    The preamble is zeros. The version name is ``AIGW_`` and the software version. The data set given is
    not changed; the same data set gives the same bytes.
    """
    meta = FileMetaDataset()
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    meta.TransferSyntaxUID = transfer_syntax_uid
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    meta.ImplementationVersionName = f"AIGW_{software_version}"[:_SHORT_STRING]
    file = Dataset()
    file.update(dataset)
    file.file_meta = meta
    file.preamble = bytes(128)
    buffer = BytesIO()
    dcmwrite(buffer, file, enforce_file_format=True)
    return buffer.getvalue()
