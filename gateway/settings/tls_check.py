"""Checks of the files of TLS listeners; imports what reads certificates, so only where it is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.clock import SystemClock
from gateway.errors import GatewayError
from gateway.receive.tls.files import TlsFiles, file_problems, file_warnings, make_context
from gateway.settings.dicom import Tls
from gateway.settings.document import Document
from gateway.settings.model import Settings
from gateway.settings.problems import Location
from gateway.settings.web import WebTls

WARN_BEFORE_S = 30 * 24 * 3600.0
"""Where there is no dicom.tls, whose warn_before counts for every certificate."""


def check_tls_files(settings: Settings, document: Document) -> None:
    """The files are there, can be read, belong together, and a listener can be made of them."""
    warn_before_s, now_s = warn_before(settings), SystemClock().now_s()
    for here, files in _listeners(settings):
        problems = file_problems(files)
        for name, message in problems:
            document.add((*here, name), message)
        if not problems:
            try:
                make_context(files, required=True)
            except GatewayError as error:
                document.add((*here, "certificate"), error.reason)
                continue
            for name, message in file_warnings(files, now_s, warn_before_s):
                document.warn((*here, name), message)


def dicom_files(tls: Tls) -> TlsFiles:
    """The files of DICOM over TLS as the listener wants them."""
    return TlsFiles(tls.certificate, tls.key, tls.authorities)


def web_files(tls: WebTls) -> TlsFiles:
    """The files of HTTPS; nobody is asked for a certificate."""
    return TlsFiles(tls.certificate, tls.key, setting="web.tls")


def warn_before(settings: Settings) -> float:
    """How many seconds before a certificate ends it is spoken of."""
    return settings.dicom.tls.warn_before if settings.dicom.tls else WARN_BEFORE_S


def _listeners(settings: Settings) -> Iterator[tuple[Location, TlsFiles]]:
    if settings.dicom.tls is not None:
        yield ("dicom", "tls"), dicom_files(settings.dicom.tls)
    if settings.web.tls is not None:
        yield ("web", "tls"), web_files(settings.web.tls)
