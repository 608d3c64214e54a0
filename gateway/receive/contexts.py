"""The one table of what we accept: storage SOP classes × transfer syntaxes.

pynetdicom takes the first syntax of *our* list that the peer proposes (PS3.8 9.3.3.2 leaves the
choice to the acceptor). Explicit VR Little Endian comes first, so that a scanner's data set is
not re-encoded by its sender; Implicit VR, which loses the value representations, comes last.
Deflated is not offered: 1 MiB can become 1 GiB.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from pynetdicom import AllStoragePresentationContexts, VerificationPresentationContexts, register_uid
from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.service_class import StorageServiceClass
from pynetdicom.sop_class import uid_to_service_class

from gateway.errors import ConfigurationError
from gateway.uids import is_uid

COMPRESSED_TRANSFER_SYNTAXES: tuple[UID, ...] = (
    JPEGLosslessSV1,
    JPEGLossless,
    JPEGLSLossless,
    JPEG2000Lossless,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    RLELossless,
    JPEGLSNearLossless,
    JPEG2000,
    HTJ2K,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)
TRANSFER_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    *COMPRESSED_TRANSFER_SYNTAXES,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
)

_VERIFICATION = str(VerificationPresentationContexts[0].abstract_syntax)
_NEWER_CLASSES = (
    # (PS3.6 A, keyword): in the standard since 2024c, not in the tables of pynetdicom 3.0.
    ("1.2.840.10008.5.1.4.1.1.66.7", "LabelMapSegmentationStorage"),
    ("1.2.840.10008.5.1.4.1.1.66.8", "HeightMapSegmentationStorage"),
)


def storage_class_uids(further: Sequence[str] = (), only: Sequence[str] = ()) -> tuple[str, ...]:
    """Storage SOP classes that we accept: those of the standard and ``further``, or ``only`` some.

    Each may be given by UID or keyword. Raises ConfigurationError for one that is neither.
    """
    standard = [str(context.abstract_syntax) for context in AllStoragePresentationContexts]
    standard += [uid for uid, _ in _NEWER_CLASSES]
    chosen = only or (*standard, *further)
    return tuple(dict.fromkeys(_uid_of(name) for name in chosen))


def storage_contexts(further: Sequence[str] = (), only: Sequence[str] = ()) -> list[PresentationContext]:
    """The presentation contexts of the receiver: Verification and the storage classes."""
    contexts = [build_context(_VERIFICATION, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    for uid in storage_class_uids(further, only):
        if uid_to_service_class(uid) is not StorageServiceClass:
            register_uid(uid, f"Storage_{uid.replace('.', '_')}", StorageServiceClass)
        contexts.append(build_context(uid, list(TRANSFER_SYNTAXES)))
    return contexts


def _uid_of(name: str) -> str:
    if is_uid(name):
        return name
    newer = {keyword: uid for uid, keyword in _NEWER_CLASSES}
    if name in newer:
        return newer[name]
    for context in AllStoragePresentationContexts:
        uid = UID(str(context.abstract_syntax))
        if uid.keyword == name:
            return str(uid)
    raise ConfigurationError(
        (f"dicom.storage_classes: '{name}' is neither a UID nor the keyword of a storage SOP class.",)
    )
