"""What every connection of a listener is given, and who is told about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from pynetdicom import AE, evt

from gateway.receive.association.commands import Command
from gateway.receive.association.messages import Context, MessageLimits, StoreReceiver
from gateway.receive.association.violations import Violation
from gateway.receive.tls.context import TlsContext

if TYPE_CHECKING:
    from gateway.receive.association.acceptor import GuardedAssociation


@dataclass(frozen=True)
class Watcher:
    """Who is told about associations. None of these may raise.

    Attributes
    ----------
    begin_store
        A C-STORE has begun: gives the receiver of its data set.
    ended
        Called once for every connection when its association is over, also one that never was; the
        connection may linger a little, until the peer has closed it.
    closed
        Called once when the connection is closed.
    violated
        The peer broke the protocol: its association is being aborted, or its message answered with a status.
    failed
        We made a mistake.
    """

    begin_store: Callable[[GuardedAssociation, Context, Command], StoreReceiver]
    ended: Callable[[GuardedAssociation], None]
    closed: Callable[[GuardedAssociation], None]
    violated: Callable[[GuardedAssociation, Violation], None]
    failed: Callable[[BaseException], None]


@dataclass(frozen=True)
class Acceptance:
    """What every connection of a listener gets.

    Attributes
    ----------
    handlers
        pynetdicom's events; a DIMSE-N service or C-ECHO is served where one is bound to its event.
    association_timeout_s
        For the TLS handshake, and then for the A-ASSOCIATE-RQ (ARTIM, PS3.8 9.1.5).
    """

    ae: AE
    handlers: list[evt.EventHandlerType]
    watcher: Watcher
    limits: MessageLimits
    association_timeout_s: float
    storage_classes: frozenset[str]
    tls: TlsContext | None = None


class Host(Protocol):
    """What the upper layer needs to know from its association."""

    def begin_store(self, context: Context, request: Command) -> StoreReceiver:
        """A C-STORE has begun."""

    def takes(self, context: Context, request: Command) -> bool:
        """Whether pynetdicom shall see a message that is no C-STORE."""

    def refused(self, violation: Violation) -> None:
        """A message that is no C-STORE is being answered with a status."""

    def violated(self, violation: Violation) -> None:
        """The peer broke the protocol; its association is being aborted."""

    def failed(self, error: Exception) -> None:
        """We made a mistake; the association is being aborted."""

    def wake(self) -> None:
        """Something has changed that the association's own thread waits for."""
