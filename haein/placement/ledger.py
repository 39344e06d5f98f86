"""Law 2 as code: on every device, at each instant, what is held and what is free add up to what there is."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass


class Kind(enum.Enum):
    """Why units are not free. Every unit of a device is free or of exactly one kind."""

    BILLABLE = "billable"
    UNBILLED = "unbilled"  # held by an attempt that is starting, stopped by a fault of the operator's, or draining
    OUTSIDE = "outside"  # held by work that was not submitted here
    RESERVED = "reserved"
    DRAINED = "drained"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Capacity:
    """The units of one device. What nobody holds of a device that is not usable counts as unusable, not as free."""

    device_id: Hashable
    units: int
    usable: bool = True


@dataclass(frozen=True, slots=True)
class Holding:
    """Units of one device that are taken, by whom does not matter here."""

    device_id: Hashable
    units: int
    kind: Kind


@dataclass(frozen=True, slots=True)
class Balance:
    """One device's units by what they are; the parts add up to `capacity`."""

    device_id: Hashable
    capacity: int
    billable: int
    unbilled: int
    outside: int
    reserved: int
    drained: int
    unusable: int
    free: int


class ImbalanceError(Exception):
    """Law 2 is broken. The message names the device and the numbers; `device_id` is the device."""

    def __init__(self, device_id: Hashable, message: str) -> None:
        super().__init__(f"Device {device_id}: {message}")
        self.device_id = device_id


def check(
    capacities: Iterable[Capacity], holdings: Iterable[Holding], free: Mapping[Hashable, int] | None = None
) -> dict[Hashable, Balance]:
    """Balance every device. `free` is what somebody else (a snapshot) claims is free, by device: it must agree.

    Raises ImbalanceError at the first device that does not add up.
    """
    known: dict[Hashable, Capacity] = {}
    held: dict[Hashable, dict[Kind, int]] = {}
    for capacity in capacities:
        if capacity.device_id in known:
            raise ImbalanceError(capacity.device_id, "its capacity is stated twice.")
        _require_units(capacity.device_id, "capacity", capacity.units)
        known[capacity.device_id] = capacity
        held[capacity.device_id] = dict.fromkeys(Kind, 0)
    for holding in holdings:
        _require_units(holding.device_id, f"a {holding.kind.value} holding", holding.units)
        if holding.device_id not in known:
            raise ImbalanceError(
                holding.device_id, f"{holding.units} units of it are held, but there is no such device."
            )
        held[holding.device_id][holding.kind] += holding.units
    balances = {device_id: _balance(capacity, held[device_id]) for device_id, capacity in known.items()}
    _require_agreement(balances, {} if free is None else free)
    return balances


def _require_units(device_id: Hashable, what: str, units: object) -> None:
    if not isinstance(units, int) or isinstance(units, bool) or units < 0:
        raise ImbalanceError(device_id, f"{what} is {units!r}, not a whole number of units of 0 or more.")


def _balance(capacity: Capacity, held: Mapping[Kind, int]) -> Balance:
    rest = capacity.units - sum(held.values())
    if rest < 0:
        parts = ", ".join(f"{units} {kind.value}" for kind, units in held.items() if units)
        raise ImbalanceError(capacity.device_id, f"{parts} are held, {-rest} more than its {capacity.units} units.")
    return Balance(
        device_id=capacity.device_id,
        capacity=capacity.units,
        billable=held[Kind.BILLABLE],
        unbilled=held[Kind.UNBILLED],
        outside=held[Kind.OUTSIDE],
        reserved=held[Kind.RESERVED],
        drained=held[Kind.DRAINED],
        unusable=held[Kind.UNUSABLE] + (0 if capacity.usable else rest),
        free=rest if capacity.usable else 0,
    )


def _require_agreement(balances: Mapping[Hashable, Balance], free: Mapping[Hashable, int]) -> None:
    for device_id, claimed in free.items():
        if device_id not in balances:
            raise ImbalanceError(device_id, f"{claimed} units are said to be free, but there is no such device.")
        if claimed != balances[device_id].free:
            balance = balances[device_id]
            raise ImbalanceError(
                device_id,
                f"{claimed} units are said to be free, but {balance.free} are: its capacity is {balance.capacity}.",
            )
