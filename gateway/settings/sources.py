"""Checks of those who send to us: addresses, certificates, limits and web access that make sense together."""

from __future__ import annotations

import ipaddress
import itertools
import re

from gateway.receive.names import is_loopback
from gateway.receive.tally import UNKNOWN
from gateway.settings.dicom import Peer
from gateway.settings.document import Document
from gateway.settings.model import Settings
from gateway.settings.problems import Location
from gateway.settings.references import Check, is_broken

_HOST_NAME = re.compile(r"(?=.{1,253}\.?$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?(\.[A-Za-z0-9_-]{1,63})*\.?")
_ONLY_DIGITS = re.compile(r"[0-9.]+|.*:.*")  # meant as an address, so no name
_SPAN = re.compile(r"[0-9]{1,3}\.[0-9.xX*\s-]*[xX*-][0-9.xX*\s-]*")  # 10.1.0.1-10.1.0.9, 10.1.0.x
_OF_SOURCES = ("addresses", "max_associations", "storage_classes", "tls", "certificate", "web")
_SHORTEST_SECRET = 16


def check_addresses(settings: Settings, document: Document) -> None:
    """Hosts and addresses are addresses, names, or (addresses only) ranges."""
    for name, peer in settings.peers.items():
        here = ("peers", name)
        if "/" in peer.host:
            document.add((*here, "host"), "is one address or name; ranges go into addresses")
        elif message := _place_problem(peer.host):
            document.add((*here, "host"), message)
        for index, place in enumerate(peer.addresses):
            if message := _place_problem(place):
                document.add((*here, "addresses", index), message)


def _place_problem(text: str) -> str:
    if "/" in text:
        try:
            ipaddress.ip_network(text)
        except ValueError:
            try:
                meant = ipaddress.ip_network(text, strict=False)
            except ValueError:
                return f'"{text}" is no range of addresses; write it like 10.1.0.0/16'
            return f'"{text}" is an address inside of a range; the range is {meant}'
        return ""
    if _SPAN.fullmatch(text):
        return f'"{text}" is no address; ranges go into addresses, with a prefix length, like 10.1.0.0/16'
    try:
        ipaddress.ip_address(text)
    except ValueError:
        if _ONLY_DIGITS.fullmatch(text) or not _HOST_NAME.fullmatch(text):
            return f'"{text}" is neither an IP address nor a host name'
    return ""


def check_names(settings: Settings, document: Document) -> None:
    """No peer has the name that stands for strangers."""
    if UNKNOWN in settings.peers:
        message = f"{UNKNOWN} is what callers that are no peer are counted under; give this one another name"
        document.add(("peers", UNKNOWN), message)


def check_roles(settings: Settings, document: Document) -> None:
    """What only makes sense of somebody who sends to us."""
    for name, peer in settings.peers.items():
        here: Location = ("peers", name)
        if "source" not in peer.roles and (*here, "roles") not in document.broken:
            for setting in _OF_SOURCES:
                if (*here, setting) in document.marks:
                    message = f'peer "{name}" does not have the role source, so this has no effect'
                    document.add((*here, setting), message)
        if peer.max_associations > settings.dicom.max_associations and not is_broken(document, "dicom"):
            message = f"is more than dicom.max_associations ({settings.dicom.max_associations})"
            document.add((*here, "max_associations"), message)


def check_certificates(settings: Settings, document: Document) -> None:
    """Certificates can be understood, and there is a listener that can ask for them."""
    for name, peer in settings.peers.items():
        here: Location = ("peers", name)
        if settings.dicom.tls is None and not is_broken(document, "dicom"):
            if peer.tls == "required":
                document.add(
                    (*here, "tls"), "needs dicom.tls, the listener for TLS: without it nothing comes in"
                )
            if peer.certificate is not None:
                document.add((*here, "certificate"), "needs dicom.tls, the listener that asks for it")
        if peer.certificate is not None:
            try:
                _expected(peer)
            except ValueError as error:
                document.add((*here, "certificate"), str(error))


def check_told_apart(settings: Settings, document: Document) -> None:
    """Sources of one AE title differ in address or certificate."""
    sources = [(name, peer) for name, peer in settings.peers.items() if "source" in peer.roles]
    for (other, first), (name, second) in itertools.combinations(sources, 2):
        if first.ae_title != second.ae_title or _is_broken(document, other) or _is_broken(document, name):
            continue
        if _expected(first) != _expected(second):
            continue
        if shared := _shared_place(first, second):
            message = (
                f'cannot be told from source "{other}": same AE title, and both may call from {shared}; '
                "give them different addresses or certificates, or one of them both roles"
            )
            document.add(("peers", name), message)


def _expected(peer: Peer) -> object:
    """The certificate of a peer in comparable form; raises ValueError."""
    if peer.certificate is None:
        return None
    from gateway.receive.tls.certificates import ExpectedCertificate  # slow to import, seldom needed

    expected = ExpectedCertificate.parse(peer.certificate)
    return (expected.sha256, expected.attributes)


def _shared_place(first: Peer, second: Peer) -> str:
    places = itertools.product((first.host, *first.addresses), (second.host, *second.addresses))
    for one, two in places:
        try:
            networks = ipaddress.ip_network(one), ipaddress.ip_network(two)
        except ValueError:
            if one.casefold() == two.casefold():
                return one
            continue
        if networks[0].version == networks[1].version and networks[0].overlaps(networks[1]):
            return min(one, two, key=lambda text: ("/" in text, text))
    return ""


def check_web_access(settings: Settings, document: Document) -> None:
    """Credentials are complete, of one peer only, and not written into the file."""
    seen: dict[tuple[str, ...], str] = {}
    for name, peer in settings.peers.items():
        web, here = peer.web, ("peers", name, "web")
        if web is None or any(location[:3] == here for location in document.broken):
            continue
        if (web.user is None) != (web.password is None):
            document.add(here, "user and password belong together; one is missing")
        elif web.token is None and web.user is None:
            document.add(here, "needs a token, or user and password")
        if web.user is not None and ":" in web.user:
            document.add((*here, "user"), "a user has no colon (RFC 7617)")
        if web.token is not None and not re.fullmatch(r"[A-Za-z0-9._~+/-]+=*", web.token):
            message = "a token has letters, digits and -._~+/ only (RFC 6750)"
            document.add((*here, "token"), message)
        for setting, secret in (("token", web.token), ("password", web.password)):
            if secret is None:
                continue
            credentials = ("token", secret) if setting == "token" else ("user", web.user or "", secret)
            other = seen.setdefault(credentials, name)
            if other != name:
                document.add((*here, setting), f'peer "{other}" has the same; nobody could tell them apart')
            _secret_warnings(document, (*here, setting), secret)
    _check_plain_http(settings, document)


def _secret_warnings(document: Document, location: Location, secret: str) -> None:
    if location not in document.from_environment:
        message = "stands in the file, where every reader of it sees it; write ${NAME} and set it outside"
        document.warn(location, message)
    if len(secret) < _SHORTEST_SECRET:
        document.warn(location, f"is shorter than {_SHORTEST_SECRET} characters, so it can be guessed")


def _check_plain_http(settings: Settings, document: Document) -> None:
    """Credentials and images in the clear are warned of; of who must use TLS they are a mistake."""
    web, users = settings.web, {name: peer for name, peer in settings.peers.items() if peer.web}
    if web.tls is not None or is_loopback(web.listen.host) or ("web", "tls") in document.broken:
        return
    for name, peer in users.items():
        if peer.tls == "required" or peer.certificate is not None:
            message = (
                f"{name} must use TLS (tls or certificate), and this lets it store over plain HTTP: set "
                f"web.tls, or let web.listen.host be 127.0.0.1 with a proxy before it that has TLS"
            )
            document.add(("peers", name, "web"), message)
    if users:
        message = (
            f"{', '.join(users)} send images and credentials to {web.listen.host} over HTTP without "
            "encryption: set web.tls, or listen on 127.0.0.1 and put a proxy with TLS before it"
        )
        document.warn(("web",), message)


def _is_broken(document: Document, peer: str) -> bool:
    return any(location[:2] == ("peers", peer) for location in document.broken)


SOURCE_CHECKS: tuple[Check, ...] = (
    check_names,
    check_addresses,
    check_roles,
    check_certificates,
    check_told_apart,
    check_web_access,
)
