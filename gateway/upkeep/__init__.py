"""Upkeep: what a crash left behind is removed, and what is lost or rotten is found before it is needed.

Nothing here keeps an instance waiting: at start only half-written files are removed; all the rest is done by
a thread, folder by folder, while instances are received.
"""

from gateway.upkeep.keeper import Keeper

__all__ = ["Keeper"]
