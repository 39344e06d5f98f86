"""The part of a device's price that a slice of it costs, in thousandths: apart from the units, in which it is counted.

The instances on one device never add up to more than 1,000, nor do shares with their own part of its memory. Beside
shares that asked for more or less, the roundings (of memory to whole MiB, of a cost to no less than one thousandth) may
add a thousandth or so.
"""

from __future__ import annotations

from haein.placement import mig
from haein.placement.devices import State, ask_of, outcomes
from haein.placement.model import WHOLE, Grant, Request


def asked(request: Request, model: str, memory_mb: int) -> int | None:
    """Of a slice as asked for, on a device of this model with so much memory; None where it can't be on one."""
    ask, free = ask_of(request), State(model, memory_mb, free_mb=memory_mb)
    if not outcomes(free, ask):
        return None
    if ask.profile:
        return of_instance(mig.profiles(model)[ask.profile])
    return of_share(ask.share, ask.memory_of(free), memory_mb)


def of_grant(grant: Grant, model: str, memory_mb: int) -> int:
    """Of what was granted of a device of this model, which has so much memory (MiB; 0 where nobody counts it)."""
    if grant.profile:
        return of_instance(mig.profiles(model)[grant.profile])
    return of_share(grant.units, grant.memory, memory_mb)


def of_instance(profile: mig.Profile) -> int:
    """An instance costs its memory slices of the device's eight."""
    return profile.memory * WHOLE // mig.MEMORY_SLICES


def of_share(units: int, memory_mb: int, of_mb: int) -> int:
    """A share costs the mean of its thousandths and its thousandths of the memory.

    That is the share itself, unless more or less memory than its part was asked for; rounded down, but never nothing.
    """
    if not of_mb or memory_mb == of_mb * units // WHOLE:
        return units
    return max(1, (units + memory_mb * WHOLE // of_mb) // 2)
