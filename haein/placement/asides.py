"""What is set apart while a pass goes on: windows, and room kept for those who wait. Each keeps some out, not all."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from haein.placement.cluster import Cluster
from haein.placement.model import Gang, NodeState, Request
from haein.placement.queueing import Aside, Keeping, Kept

NEVER = float("-inf")

# A node, devices on it, CPUs and memory.
Part = tuple[Hashable, tuple[Hashable, ...], int, int]


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for room: a job of a team, gone by `ends`, of a tier; `firm` where nobody may take it away again."""

    job: Hashable
    team: Hashable
    ends: float
    tier: int
    firm: bool


@dataclass(slots=True)
class Block:
    """Parts of nodes, and who may have them: `job`, `team`, whoever is gone by `at`, or is above `tier` (None: no one).

    `firm` ones keep out only whoever nobody may reclaim. `code` says why the others may not.
    """

    parts: Sequence[Part]
    at: float
    code: str
    job: Hashable = None
    team: Hashable = None
    tier: int | None = None
    firm: bool = False
    on: bool = False
    taken: list[tuple[int, int]] = field(default_factory=list)

    def keeps_out(self, asker: Asker) -> bool:
        if self.job is not None and asker.job == self.job:
            return False
        if self.team is not None and asker.team == self.team:
            return False
        if self.firm and not asker.firm:
            return False
        if self.tier is not None and asker.tier > self.tier:
            return False
        return asker.ends > self.at


class Blocks:
    """Withholds from the cluster what the asker may not have, and gives it back for the next one who may."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._blocks: list[Block] = []

    def add(self, block: Block) -> None:
        self._blocks.append(block)

    def drop(self, job: Hashable) -> None:
        """Nothing is kept for the job any more."""
        for block in self._blocks:
            if block.job == job and block.on:
                self._turn(block, on=False)
        self._blocks = [block for block in self._blocks if block.job != job]

    def mode(self, asker: Asker) -> tuple[bool, ...]:
        """Which of the blocks keep the asker out; two with the same answer see the same cluster."""
        return tuple([block.keeps_out(asker) for block in self._blocks])

    def bare(self) -> None:
        """Show all of the cluster, to find out whether it is what is set apart that is missing."""
        self.show((False,) * len(self._blocks))

    def codes(self, mode: Sequence[bool]) -> list[str]:
        return [block.code for block, on in zip(self._blocks, mode, strict=True) if on]

    def show(self, mode: Sequence[bool]) -> None:
        """Show the cluster without the blocks of this mode."""
        # First back, then away: a block may only withhold what is free.
        for on in (False, True):
            for block, wanted in zip(self._blocks, mode, strict=True):
                if wanted is on and block.on is not on:
                    self._turn(block, on=on)

    def _turn(self, block: Block, *, on: bool) -> None:
        block.on = on
        if on:
            block.taken = [self._cluster.withhold(*part) for part in block.parts]
            return
        for (node_id, device_ids, _, _), taken in zip(block.parts, block.taken, strict=True):
            self._cluster.give_back(node_id, device_ids, taken)


def of_window(aside: Aside, nodes: Iterable[NodeState]) -> Block:
    parts: list[Part] = []
    for node in nodes:
        if node.id in aside.nodes:
            parts.append((node.id, tuple(device.id for device in node.devices), node.cpus, node.memory_mb))
        else:
            devices = tuple(device.id for device in node.devices if device.id in aside.devices)
            if devices:
                parts.append((node.id, devices, 0, 0))
    return Block(parts, aside.at, "window", team=aside.team)


def of_pool(pool: str, nodes: Iterable[NodeState]) -> Block:
    """Who can't be sent away again stays out of what a pool's owners may want back."""
    parts = [
        (node.id, tuple(device.id for device in node.devices), node.cpus, node.memory_mb)
        for node in nodes
        if node.pool == pool
    ]
    return Block(parts, NEVER, "promised", firm=True)


def of_kept(kept: Kept, request: Request | Gang, tier: int, known: Mapping[Hashable, NodeState]) -> Block | None:
    """None where one of its places is gone, or out of service."""
    each = request.each if isinstance(request, Gang) else request
    parts: list[Part] = []
    for node_id, device_ids in kept.places:
        node = known.get(node_id)
        if node is None or not node.usable:
            return None
        usable = {device.id for device in node.devices if device.usable}
        if not usable.issuperset(device_ids):
            return None
        parts.append((node_id, device_ids, each.cpus, each.memory_mb))
    if kept.keeping is Keeping.CLEARED:
        return Block(parts, NEVER, "kept", job=kept.job)
    return Block(parts, kept.starts, "kept", job=kept.job, tier=tier)
