"""What a peer made of our association request (PS3.8 7.1): each trouble with its name."""

from __future__ import annotations

from typing import Any

from pynetdicom.association import Association

from gateway.errors import PeerError, breaks_protocol

LEAST_PDU_BYTES = 4096
"""A peer that takes only shorter ones (DCMTK allows none) would have an object in millions of fragments."""


def check_acceptance(association: Association, who: str) -> None:
    """Raise PeerError unless objects can be sent by what the peer has accepted.

    MAXIMUM_LENGTH_TOO_SMALL, PEER_BREAKS_PROTOCOL.
    """
    most_bytes = association.acceptor.maximum_length  # 0 is no limit
    if most_bytes is None:
        raise breaks_protocol(who, "accepted the association without a Maximum Length (PS3.8 D.1)")
    if 0 < most_bytes < LEAST_PDU_BYTES:
        raise PeerError(
            "MAXIMUM_LENGTH_TOO_SMALL",
            f"{who} takes PDUs of {most_bytes} bytes at most, and an object needs {LEAST_PDU_BYTES}: ask its "
            "administrator to raise its maximum PDU length.",
            retryable=True,
        )
    if not all(context.transfer_syntax for context in association.accepted_contexts):
        raise breaks_protocol(who, "accepted a presentation context without transfer syntax (PS3.8 9.3.3.2)")


def not_listening(who: str) -> PeerError:
    """No connection came about."""
    sentence = (
        f"Nobody listens at {who}, or the network does not lead there: "
        "check host and port, and that the system runs."
    )
    return PeerError("PEER_UNREACHABLE", sentence, retryable=True)


def not_established(association: Association, who: str, called: str, calling: str) -> PeerError:
    """Why there is a connection, but no association; with the AE titles of the request."""
    if association.is_rejected:
        return _rejected(association.acceptor.primitive, who, called, calling)
    if association.rejected_contexts:
        sentence = (
            f"{who} accepts none of the presentation contexts: ask its administrator to allow "
            f"{', '.join(sorted({str(c.abstract_syntax) for c in association.rejected_contexts}))}."
        )
        return PeerError("NO_PRESENTATION_CONTEXT", sentence, retryable=True)
    sentence = f"{who} took the connection but did not answer as a DICOM node: check the port."
    return PeerError("ASSOCIATION_ABORTED", sentence, retryable=True)


def _rejected(answer: Any, who: str, called: str, calling: str) -> PeerError:
    """PS3.8 Table 9-21: result, source, reason."""
    asks = {
        (1, 3): f"ask its administrator to register our AE title {calling}",
        (1, 7): f"check the AE title {called} in our configuration",
    }.get((answer.result_source, answer.diagnostic), "it is tried again later")
    kind = "transient" if answer.result == 2 else "permanent"
    sentence = f"{who} rejected the association ({kind}: {answer.reason_str}): {asks}."
    return PeerError("ASSOCIATION_REJECTED", sentence, retryable=True)
