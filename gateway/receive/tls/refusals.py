"""Every way in which a TLS handshake fails, with what to do about it at the calling system."""

from __future__ import annotations

import ssl

from gateway.receive.calls import Call, Node, Refusal
from gateway.receive.text import printable

_EXPIRED, _NOT_YET_VALID, _PURPOSE = 10, 9, 26  # X509_V_ERR_*, openssl/x509_vfy.h
_NOT_TRUSTED = {
    18: "it is self-signed",
    19: "its chain ends in an authority that we do not know",
    20: "we do not know the authority that signed it",
    21: "we do not know the authority that signed it",
}
_TOO_WEAK = (66, 67, 68)
_OLD_VERSION = ("UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION", "UNKNOWN_PROTOCOL")
_A_ASSOCIATE_RQ = 0x01


def plain_connection(node: Node, call: Call, first_byte: int) -> Refusal:
    """The first byte is not that of a TLS handshake."""
    what = "an association" if first_byte == _A_ASSOCIATE_RQ else "something that is no TLS"
    plain = f"port {node.port}" if node.port else "the port without TLS"
    return _refusal(
        "TLS_EXPECTED", f"asked for {what} without TLS on the port for DICOM over TLS", node, call,
        "Your system called our port for DICOM over TLS without TLS. Please switch TLS on at your system, "
        f"or, if that was agreed with us, send to {plain}.",
    )  # fmt: skip


def timeout(node: Node, call: Call, timeout_s: float) -> Refusal:
    """The handshake did not end in time."""
    return _refusal(
        "TLS_HANDSHAKE_TIMEOUT", f"did not finish the TLS handshake within {timeout_s:g} s", node, call,
        f"Your system connected and did not finish the TLS handshake within {timeout_s:g} seconds. Please "
        "check that TLS is switched on there, and that no firewall between us inspects the connection.",
    )  # fmt: skip


def failed(node: Node, call: Call, error: OSError) -> Refusal:
    """OpenSSL or the connection ended the handshake."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return _bad_certificate(node, call, error)
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    said = f" (OpenSSL: {printable(reason, 80)})" if reason else ""
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return _refusal(
            "CERTIFICATE_MISSING", f"showed no certificate{said}", node, call,
            "Your system showed no certificate, and we take images over TLS only from systems that do. "
            "Please configure a client certificate of an authority that we trust at your system.",
        )  # fmt: skip
    if reason in _OLD_VERSION:
        return _refusal(
            "TLS_VERSION_TOO_OLD", f"offered no version of TLS that we allow{said}", node, call,
            "Your system offered only versions of TLS that are no longer safe (RFC 8996). "
            "Please switch on TLS 1.2 or 1.3 at your system.",
        )  # fmt: skip
    if reason in ("NO_SHARED_CIPHER", "NO_SUITABLE_SIGNATURE_ALGORITHM", "NO_SUITABLE_KEY_SHARE"):
        return _refusal(
            "TLS_NO_SHARED_CIPHER", f"offered no cipher suite that we allow{said}", node, call,
            "Your system offered no cipher suite of the BCP 195 profile of DICOM (PS3.15 B.12). Please "
            "switch on ECDHE with AES-GCM there, for example TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256.",
        )  # fmt: skip
    if "ALERT" in reason:
        return _refusal(
            "TLS_REFUSED_BY_PEER", f"ended the handshake with an alert{said}", node, call,
            f"Your system ended the TLS handshake{said}. Most often that means that it does not trust our "
            "certificate: please import the authority that signed it; ask us for it.",
        )  # fmt: skip
    if isinstance(error, ssl.SSLEOFError | ConnectionError) or not isinstance(error, ssl.SSLError):
        return _refusal(
            "TLS_HANDSHAKE_BROKEN_OFF", f"closed the connection during the TLS handshake{said}", node, call,
            "Your system closed the connection during the TLS handshake. Please look into its log; it may "
            "not trust our certificate, or a firewall between us inspects the connection.",
        )  # fmt: skip
    return _refusal(
        "TLS_HANDSHAKE_FAILED", f"did not get through the TLS handshake{said}", node, call,
        f"The TLS handshake with your system failed{said}. Please look into the log of your system.",
    )  # fmt: skip


def https_failed(call: Call, error: OSError) -> Refusal:
    """A client of HTTPS did not get through the handshake; it is asked for no certificate."""
    said = (error.reason if isinstance(error, ssl.SSLError) else "") or error.strerror or str(error)
    what = f"did not get through the TLS handshake with our web server ({printable(said, 80)})"
    advice = (
        f"Your system at {call.address} {what}. Most often that means that it does not trust our certificate "
        "(please import the authority that signed it; ask us for it), or that it asks for HTTP instead of "
        "HTTPS, or for a version of TLS before 1.2."
    )
    reason = f"A system at {call.address} {what}: its administrator can find what to do in the advice."
    return Refusal("HTTPS_HANDSHAKE_FAILED", reason, 0, 0, 0, advice=advice)


def _bad_certificate(node: Node, call: Call, error: ssl.SSLCertVerificationError) -> Refusal:
    said, code = f" (OpenSSL: {printable(error.verify_message, 80)})", error.verify_code
    if code == _EXPIRED:
        name, what, do = "CERTIFICATE_EXPIRED", "has expired", "renew the certificate"
    elif code == _NOT_YET_VALID:
        name, what = "CERTIFICATE_NOT_YET_VALID", "is not valid yet"
        do = "check the clock of your system and the dates of the certificate"
    elif code in _NOT_TRUSTED:
        name, what = "CERTIFICATE_NOT_TRUSTED", f"is not trusted: {_NOT_TRUSTED[code]}"
        do = "use a certificate of an authority that we know, with all intermediate certificates"
    elif code == _PURPOSE:
        name, what = "CERTIFICATE_WRONG_PURPOSE", "is not meant for clients"
        do = "have it issued with the extended key usage clientAuth (TLS Web Client Authentication)"
    elif code in _TOO_WEAK:
        name, what = "CERTIFICATE_TOO_WEAK", "has a key or a signature that is too weak"
        do = "have it issued with RSA of 2048 bits or more, or P-256, and signed with SHA-256"
    else:
        name, what, do = "CERTIFICATE_NOT_VALID", "is not valid", "have it looked at by those who issued it"
    advice = f"The certificate that your system showed, or one in its chain, {what}{said}. Please {do}."
    return _refusal(name, f"showed a certificate that {what}{said}", node, call, advice)


def _refusal(name: str, did: str, node: Node, call: Call, advice: str) -> Refusal:
    port = f" (port {node.tls_port})" if node.tls_port else ""
    happened = (
        f"Your system connected to our DICOM node over TLS{port} from {call.address}, and we ended the "
        "connection before an association could be asked for."
    )
    reason = f"A system at {call.address} {did}: its administrator can find what to do in the advice."
    return Refusal(name, reason, 0, 0, 0, advice=f"{happened} {advice}")
