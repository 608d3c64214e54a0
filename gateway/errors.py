"""The exception tree of the gateway.

::

    GatewayError              name (stable, upper case) and reason (a sentence for a person)
    ├── Rejected              the peer's fault: carries the DIMSE status we answer
    ├── OutOfResources        our disk or memory is short: the peer should try again later
    ├── ConfigurationError    the configuration cannot be used; carries every problem found
    ├── IllegalTransition     a state machine was asked for an edge that it does not have
    ├── RefusedByState        a person asked for what the state of a row does not allow
    ├── LostRace              somebody else moved the row first, or the lease is not ours any more
    ├── ModelFault            a model ended its process, hung, or failed without a name
    ├── RunCancelled          nobody wants the result of the run any more
    └── PeerError             a peer did not do what we asked; says whether trying again can help
"""

from __future__ import annotations


class GatewayError(Exception):
    """Root of all errors of the gateway.

    Parameters
    ----------
    name
        Stable upper-case name, shown by ``explain``.
    reason
        One sentence that tells a person what happened and what to do.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class Rejected(GatewayError):
    """An instance that we do not take. ``dimse_status`` is a C-STORE status (PS3.4 B.2.3)."""

    def __init__(self, name: str, reason: str, dimse_status: int = 0xC000) -> None:
        super().__init__(name, reason)
        self.dimse_status = dimse_status


class OutOfResources(Rejected):
    """We cannot keep the instance now (0xA700, PS3.4 Table B.2-1); the sender keeps its queue."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason, 0xA700)


class ConfigurationError(GatewayError):
    """The configuration file has problems; ``problems`` are lines for a person."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("CONFIGURATION_INVALID", "\n".join(problems))
        self.problems = problems


class IllegalTransition(GatewayError):
    """The state machine has no such edge: a programming error."""


class RefusedByState(GatewayError):
    """What a person asks for cannot be done with the row as it is now."""


class LostRace(GatewayError):
    """The row is not in the state (or under the lease) that the caller believed."""


class ModelFault(GatewayError):
    """A model did not answer as a model does: the same run may work another time."""


class RunCancelled(GatewayError):
    """The run was ended because nobody wants its result any more."""


class PeerError(GatewayError):
    """A remote application entity refused, failed or could not be reached.

    ``retryable`` is False when only a person can help (refused object, wrong AE title).
    """

    def __init__(self, name: str, reason: str, *, retryable: bool) -> None:
        super().__init__(name, reason)
        self.retryable = retryable


def breaks_protocol(who: str, what: str) -> PeerError:
    """A peer whose answer cannot be used; ``what`` it did."""
    sentence = f"{who} {what}: ask its administrator; its vendor has to mend that."
    return PeerError("PEER_BREAKS_PROTOCOL", sentence, retryable=True)
