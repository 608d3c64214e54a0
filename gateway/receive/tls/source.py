"""The TLS context of a listener, made anew when its files change."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from structlog.typing import FilteringBoundLogger

from gateway.clock import Clock
from gateway.errors import GatewayError
from gateway.receive.tls.files import TlsFiles, TlsState, changed_s, make_context, read_state, stamp_of

_SETTLES_S = 5.0
"""Whoever replaces several files needs a moment; what does not fit together then is no mistake yet."""

Alarm = Callable[[str, str], None]


class TlsSource:
    """Safe from threads.

    Parameters
    ----------
    client_certificates
        Without effect where the files name no authorities.
    alarm
        Told the name and the reason when changed files cannot be used, for the journal.

    Raises
    ------
    GatewayError
        TLS_FILES_UNUSABLE.
    """

    def __init__(
        self,
        files: TlsFiles,
        client_certificates: Literal["required", "optional"],
        clock: Clock,
        log: FilteringBoundLogger,
        alarm: Alarm = lambda _name, _reason: None,
    ) -> None:
        self._files = files
        self._required = client_certificates == "required"
        self._clock = clock
        self._log = log
        self._alarm = alarm
        self._loading = threading.Lock()
        self._stamp = stamp_of(files)
        self._context, self._state = self._read()

    def context(self) -> ssl.SSLContext:
        """For the next connection, with the files as they are now."""
        self.refresh()
        return self._context

    def state(self) -> TlsState:
        """Certificates that are in use now."""
        return self._state

    def refresh(self) -> None:
        """Use the files as they are now; if they cannot be used, all stays as it was, with an alarm."""
        stamp = stamp_of(self._files)
        if stamp == self._stamp:
            return
        with self._loading:
            if stamp == self._stamp:
                return
            try:
                context, state = self._read()
            except GatewayError as error:
                if self._clock.now_s() - changed_s(self._files) >= _SETTLES_S:
                    self._stamp = stamp
                    self._cannot_use(error)
                return
            self._stamp = stamp
            self._context, self._state = context, state
            self._log.info("tls_files_read", subject=state.ours.subject, not_after_s=state.ours.not_after_s)

    def _read(self) -> tuple[ssl.SSLContext, TlsState]:
        """From the files as they are; raises nothing but GatewayError, whatever they hold."""
        try:
            return make_context(self._files, self._required), read_state(self._files)
        except GatewayError:
            raise
        except Exception as error:
            what = f"{', '.join(map(str, self._files.all))} cannot be read ({type(error).__name__})"
            raise GatewayError(
                "TLS_FILES_UNUSABLE", f"{what}: correct {self._files.setting} or the files."
            ) from error

    def _cannot_use(self, error: GatewayError) -> None:
        self._state = replace(self._state, problem=error.reason)
        reason = f"{error.reason} The files that were read before stay in use until then."
        self._log.critical(error.name, reason=reason)
        self._alarm(error.name, reason)
