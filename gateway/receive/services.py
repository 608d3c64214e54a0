"""What else the receiver can do besides C-ECHO and C-STORE."""

from __future__ import annotations

from typing import Protocol

from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext


class Service(Protocol):
    """A DIMSE-N service as SCP, such as storage commitment.

    Its messages go pynetdicom's way: a request is served if a handler is bound to its event.
    """

    def contexts(self) -> list[PresentationContext]:
        """The presentation contexts to accept, with their roles."""
        ...

    def handlers(self) -> list[evt.EventHandlerType]:
        """What pynetdicom calls on associations."""
        ...

    def ended(self, association: Association) -> None:
        """An association, or a connection that never became one, is over."""
        ...
