"""Every reason why an association is refused, with what to do about it here and at the calling system."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.receive.calls import APPLICATION_CONTEXT, Call, KnownPeer, Node, Refusal
from gateway.receive.text import printable
from gateway.receive.tls.certificates import PeerCertificate

# (result, source, reason/diagnostic) of an A-ASSOCIATE-RJ, PS3.8 Table 9-21.
_NO_REASON = (1, 1, 1)
_APPLICATION_CONTEXT_NOT_SUPPORTED = (1, 1, 2)
_CALLING_NOT_RECOGNISED = (1, 1, 3)
_CALLED_NOT_RECOGNISED = (1, 1, 7)
_CONGESTION = (2, 3, 1)
_LOCAL_LIMIT = (2, 3, 2)
_ACCEPTED = (0, 0, 0)

_REFUSED = "which we refused"


def other_application_context(node: Node, call: Call) -> Refusal:
    """The caller proposed something else than DICOM."""
    proposed = printable(call.application_context)
    reason = (
        f"'{printable(call.calling_ae_title)}' at {call.address} proposed the application context "
        f"'{proposed}' instead of that of DICOM ({APPLICATION_CONTEXT}): find out what calls there."
    )
    advice = (
        f"It proposed the application context '{proposed}'. Our node takes only that of DICOM, "
        f"{APPLICATION_CONTEXT} (PS3.7 A.2.1). Please check what is set to call our node."
    )
    name = "APPLICATION_CONTEXT_NOT_SUPPORTED"
    return _refusal(name, reason, _APPLICATION_CONTEXT_NOT_SUPPORTED, node, call, advice)


def nothing_accepted(node: Node, call: Call, peer: KnownPeer, refused: Sequence[str]) -> Refusal:
    """The association is accepted without presentation contexts; ``refused``: why, one by one."""
    first = f" The first: {refused[0]}." if refused else ""
    reason = (
        f"{peer.name} proposed presentation contexts of which we take none: compare the SOP classes and "
        f"transfer syntaxes with {_classes_settings(peer)}.{first}"
    )
    advice = (
        f"Nothing can be sent on it, for we take none of what your system proposed: {'; '.join(refused)}. "
        "Please let it send other SOP classes or transfer syntaxes (Explicit or Implicit VR Little Endian "
        "will do), or ask us to take these."
    )
    happened = "which we accepted without any presentation context"
    concerned = peer.name if peer.is_configured else ""
    name = "NO_PRESENTATION_CONTEXT_ACCEPTED"
    return _refusal(name, reason, _ACCEPTED, node, call, advice, concerned, happened)


def partly_accepted(node: Node, call: Call, peer: KnownPeer, refused: Sequence[str]) -> Refusal:
    """The association is accepted with some of the presentation contexts; ``refused``: why not the others."""
    reason = (
        f"{peer.name} proposed presentation contexts that we do not take, and can send nothing in them: "
        f"compare their SOP classes and transfer syntaxes with {_classes_settings(peer)}. "
        f"The first: {refused[0]}."
    )
    advice = (
        f"Nothing can be sent in these presentation contexts: {'; '.join(refused)}. If your system has to "
        "send such objects, please let it use other transfer syntaxes (Explicit or Implicit VR Little "
        "Endian will do), or ask us to take these."
    )
    happened = "which we accepted with a part of its presentation contexts"
    concerned = peer.name if peer.is_configured else ""
    name = "PRESENTATION_CONTEXTS_REFUSED"
    return _refusal(name, reason, _ACCEPTED, node, call, advice, concerned, happened)


def internal_error(node: Node, call: Call) -> Refusal:
    """We made a mistake: nobody gets in by it."""
    reason = (
        f"'{printable(call.calling_ae_title)}' called from {call.address}, and the gateway could not decide: "
        "look for association_failed in its log, and report it."
    )
    advice = (
        "The fault is on our side. Please let your system try again later, and tell us if that does not help."
    )
    return _refusal("INTERNAL_ERROR", reason, _CONGESTION, node, call, advice)


def wrong_called_title(node: Node, call: Call) -> Refusal:
    """The peer wants somebody else."""
    title, called, ours = printable(call.calling_ae_title), printable(call.called_ae_title), node.ae_title
    reason = (
        f"'{title}' at {call.address} called '{called}' and this is '{ours}': "
        f"set our AE title to {ours} at the calling system."
    )
    advice = (
        f"Our node has the AE title '{ours}' and answers to no other. "
        f"Please set the called (remote) AE title of our node to '{ours}' at your system."
    )
    return _refusal("CALLED_AE_TITLE_NOT_RECOGNISED", reason, _CALLED_NOT_RECOGNISED, node, call, advice)


def unknown_title(node: Node, call: Call) -> Refusal:
    """No configured source has the calling AE title."""
    title = printable(call.calling_ae_title)
    reason = (
        f"'{title}' at {call.address} is no configured source: add a peer with this AE title, "
        f"host {call.address} and role source, or correct the AE title at the calling system."
    )
    advice = (
        f"We do not know the AE title '{title}'. Please check the AE title of your system (upper and lower "
        "case matter). If it is right, ask us to add it, with the address that your system calls from."
    )
    return _refusal("CALLING_AE_TITLE_NOT_RECOGNISED", reason, _CALLING_NOT_RECOGNISED, node, call, advice)


def wrong_address(node: Node, call: Call, titled: Sequence[KnownPeer]) -> Refusal:
    """Sources with this AE title are configured elsewhere."""
    title, names = printable(call.calling_ae_title), ", ".join(peer.name for peer in titled)
    places = ", ".join(place for peer in titled for place in (peer.host, *peer.addresses))
    reason = (
        f"'{title}' called from {call.address} and is configured at {places}: "
        f"correct host or addresses of {names} under peers, or call from there."
    )
    advice = (
        f"We expect the AE title '{title}' only from {places}. Please send from there, "
        f"or tell us that your system now has the address {call.address}."
    )
    return _refusal("ADDRESS_NOT_ALLOWED", reason, _CALLING_NOT_RECOGNISED, node, call, advice, names)


def unresolved_name(node: Node, call: Call, titled: Sequence[KnownPeer], hosts: Sequence[str]) -> Refusal:
    """It may be the right one: the names that are configured for it cannot be resolved now."""
    title, names, wanted = printable(call.calling_ae_title), _names(titled), ", ".join(hosts)
    reason = (
        f"'{title}' called from {call.address}, and {wanted} (host or addresses of {names} under peers) "
        "cannot be resolved now: look at the name server, or configure addresses."
    )
    advice = (
        f"We cannot resolve the host name {wanted} at the moment. The fault is on our side; "
        "please let your system try again later."
    )
    return _refusal("HOST_NAME_NOT_RESOLVED", reason, _CONGESTION, node, call, advice, names)


def tls_required(node: Node, call: Call, peer: KnownPeer) -> Refusal:
    """A source that must use TLS called without."""
    port = f"port {node.tls_port}" if node.tls_port else "the port for DICOM over TLS"
    shown = f"with the certificate {peer.certificate}" if peer.certificate else "with a certificate"
    reason = (
        f"{peer.name} called without TLS from {call.address}, and it must use TLS (tls or certificate of "
        f"{peer.name} under peers): set the calling system to {port}, {shown}."
    )
    trusted = "" if peer.certificate else " of an authority that we trust"
    advice = (
        "We take images of your system only over TLS (version 1.2 or newer). "
        f"Please send to {port}, {shown}{trusted}."
    )
    return _refusal("TLS_REQUIRED", reason, _NO_REASON, node, call, advice, peer.name)


def no_certificate(node: Node, call: Call, peer: KnownPeer) -> Refusal:
    """A source with a certificate of its own showed none."""
    reason = f"{peer.name} called from {call.address} without a certificate; it must show {peer.certificate}."
    advice = f"Your system showed no certificate. Please let it show the certificate {peer.certificate}."
    return _refusal("CERTIFICATE_MISSING", reason, _CALLING_NOT_RECOGNISED, node, call, advice, peer.name)


def wrong_certificate(node: Node, call: Call, peer: KnownPeer) -> Refusal:
    """The certificate is signed by an authority of ours, but is not the configured one."""
    shown = describe(call.certificate)
    reason = (
        f"{peer.name} called from {call.address} with the certificate {shown}, and {peer.certificate} is "
        f"expected: correct certificate of {peer.name} under peers if the new one is right."
    )
    advice = (
        f"For the AE title '{peer.ae_title}' we expect the certificate {peer.certificate}. "
        "Please let your system show that one, or tell us that the certificate was replaced."
    )
    return _refusal(
        "CERTIFICATE_NOT_EXPECTED", reason, _CALLING_NOT_RECOGNISED, node, call, advice, peer.name
    )


def other_certificate(node: Node, call: Call, owner: KnownPeer) -> Refusal:
    """The certificate is bound to the AE title of another peer."""
    title, shown = printable(call.calling_ae_title), describe(call.certificate)
    reason = (
        f"'{title}' called from {call.address} with the certificate {shown}, which belongs to {owner.name} "
        f"('{owner.ae_title}'): find out who uses it there."
    )
    advice = (
        f"This certificate belongs to the AE title '{owner.ae_title}', and your system called itself "
        f"'{title}'. Please use the certificate that was issued for '{title}', or correct the AE title."
    )
    return _refusal(
        "CERTIFICATE_OF_ANOTHER_PEER", reason, _CALLING_NOT_RECOGNISED, node, call, advice, owner.name
    )


def too_many(node: Node, call: Call, peer: KnownPeer, opened: int, limit: int) -> Refusal:
    """All places are taken."""
    reason = (
        f"{peer.name} called while {opened} associations were open and dicom.max_associations is {limit}: "
        "the calling system should try again."
    )
    return _no_room("TOO_MANY_ASSOCIATIONS", reason, node, call, peer)


def too_many_of_peer(
    node: Node, call: Call, peer: KnownPeer, opened: int, limit: int, of_all: int
) -> Refusal:
    """The peer has as many places as it may have; the others are for others."""
    if peer.max_associations:
        why = f"peers.{peer.name}.max_associations is {limit}"
    else:
        why = (
            f"one peer without max_associations of its own takes at most {limit} of the {of_all} places "
            "(dicom.max_associations), so that others find room"
        )
    reason = (
        f"{peer.name} called while {opened} associations of it were open and {why}: "
        "the calling system should try again."
    )
    return _no_room("TOO_MANY_ASSOCIATIONS_OF_PEER", reason, node, call, peer)


def _classes_settings(peer: KnownPeer) -> str:
    own = f" and peers.{peer.name}.storage_classes" if peer.storage_classes else ""
    return f"dicom.storage_classes{own}"


def describe(certificate: PeerCertificate | None) -> str:
    """Subject and fingerprint of a certificate, safe to log."""
    if certificate is None:
        return "none"
    return f"{printable(certificate.subject, 256)} (sha256:{certificate.sha256})"


def _no_room(name: str, reason: str, node: Node, call: Call, peer: KnownPeer) -> Refusal:
    advice = (
        "As many associations as we allow were open at that moment. Please let your system use fewer "
        "associations in parallel, and let it try again when one was refused."
    )
    concerned = peer.name if peer.is_configured else ""
    return _refusal(name, reason, _LOCAL_LIMIT, node, call, advice, concerned)


def _refusal(
    name: str,
    reason: str,
    numbers: tuple[int, int, int],
    node: Node,
    call: Call,
    advice: str,
    peer: str = "",
    answered: str = _REFUSED,
) -> Refusal:
    happened = _what_happened(node, call, answered)
    return Refusal(name, reason, *numbers, advice=f"{happened} {advice}", peer=peer)


def _what_happened(node: Node, call: Call, answered: str) -> str:
    """What the administrator of the calling system finds in its own log."""
    number = node.tls_port if call.secure else node.port
    port = f" (port {number})" if number else ""
    shown = f", its certificate {describe(call.certificate)}" if call.certificate else ""
    return (
        f"Your system asked our DICOM node for an association, {answered}. It called from "
        f"{call.address} {'with' if call.secure else 'without'} TLS{port}; its calling AE title was "
        f"'{printable(call.calling_ae_title)}', "
        f"the called AE title '{printable(call.called_ae_title)}'{shown}."
    )


def _names(peers: Sequence[KnownPeer]) -> str:
    return ", ".join(peer.name for peer in peers)
