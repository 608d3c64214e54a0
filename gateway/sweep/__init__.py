"""The sweeper: series that have come to rest → geometry of their parts → routes → jobs, in one transaction.

Only series revisions that are still receiving are looked at. Everything that was considered is
stored with the decision, so that ``explain`` reads records and recomputes nothing. ``sweeper``
has the effects, ``decide`` is pure, ``records`` is what is stored; ``facts`` completes old records.
"""

from gateway.sweep.decide import OWN_MANUFACTURER, SweepRules, consider
from gateway.sweep.sweeper import Sweeper

__all__ = ["OWN_MANUFACTURER", "SweepRules", "Sweeper", "consider"]
