"""Law 2 for a whole cluster: every device balanced in both of its dimensions, compute and memory."""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterable

from haein.placement import ledger, mig
from haein.placement.devices import UNMASKED, state_of
from haein.placement.ledger import Balance, Capacity, Holding, Kind
from haein.placement.model import WHOLE, DeviceState, Grant, Snapshot

Account = tuple[Hashable, "Dimension"]


class Dimension(enum.Enum):
    """Compute is in thousandths, memory in MiB; of a carved device both are in 56ths."""

    COMPUTE = "compute"
    MEMORY = "memory"


def check(snapshot: Snapshot, held: Iterable[tuple[Grant, Kind]]) -> dict[Account, Balance]:
    """Balance what the snapshot says is free against what is held.

    Raises ledger.ImbalanceError, naming device and dimension, at the first that does not add up.
    """
    devices = [(device, node.usable and device.usable) for node in snapshot.nodes for device in node.devices]
    capacities: list[Capacity] = []
    holdings: list[Holding] = []
    free: dict[Hashable, int] = {}
    for device, usable in devices:
        for dimension, capacity, rest, reach in _measures(device):
            account = (device.id, dimension)
            capacities.append(Capacity(account, capacity, usable))
            holdings.append(Holding(account, rest - reach, Kind.UNUSABLE))
            free[account] = reach if usable else 0
    for grant, kind in held:
        holdings.append(Holding((grant.device_id, Dimension.COMPUTE), grant.units, kind))
        holdings.append(Holding((grant.device_id, Dimension.MEMORY), grant.memory, kind))
    return ledger.check(capacities, holdings, free)  # type: ignore[return-value]


def _measures(device: DeviceState) -> list[tuple[Dimension, int, int, int]]:
    """For each dimension the capacity, what nobody holds of it, and how much of that a slice could still take."""
    state = state_of(device)
    if state.mask != UNMASKED:
        compute, memory = state.reachable
        slots = mig.MEMORY_SLICES - state.mask.bit_count()
        return [
            (Dimension.COMPUTE, mig.UNITS, device.free, compute * mig.COMPUTE_UNITS),
            (Dimension.MEMORY, mig.UNITS, slots * mig.MEMORY_UNITS, memory * mig.MEMORY_UNITS),
        ]
    counted = bool(state.memory_mb)
    return [
        (Dimension.COMPUTE, WHOLE, state.units, state.units if state.free_mb or not counted else 0),
        (Dimension.MEMORY, state.memory_mb, state.free_mb, state.free_mb if state.units else 0),
    ]
