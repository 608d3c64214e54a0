"""How the end of the model process is told to those who waited for it."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.modelhost.watchdog import Watchdog


@dataclass(frozen=True)
class Ended:
    """The model process ended before it answered; ``blamed``: it was working on this request then."""

    blamed: bool
    name: str
    reason: str


def account(card: str, ending: str, hung_for_s: float | None, watchdog: Watchdog) -> tuple[str, str]:
    """Name and sentence of what happened; ``hung_for_s``: it was ended because it was silent for so long."""
    doing = "being loaded" if watchdog.loading else "running"
    if hung_for_s is not None:
        sentence = f"The model {card} gave no sign of life for {hung_for_s:.0f} s while it was {doing} "
        limit = f"({watchdog.limit_s():.0f} s are allowed)"
        return "MODEL_HUNG", f"{sentence}{limit} and its process was ended"
    hint = ", which is often the kernel's, for lack of memory," if ending == "signal 9" else ""
    return "MODEL_CRASHED", f"The model process ended with {ending}{hint} while {card} was {doing}"
