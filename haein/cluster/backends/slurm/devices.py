"""Slurm's generic resources as devices and slices, and back.

Slurm numbers a node's GPUs through all their types in the order of gres.conf; each MIG instance is a GPU of its own to
it, and which board it is on it does not say. So boards are put together here: instances of the largest profile first,
each at its first legal start. What matters is kept: how many there are of each profile, and that each is one slice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from haein.cluster.backends.base import Cut, DeviceFact, Drain, NodeFact, Place, SliceGrant
from haein.cluster.backends.slurm import names
from haein.cluster.backends.slurm.records import Gres, Held, NodeRecord, ReservationRecord
from haein.placement import mig

WHOLE = 1000
# MiB as nvidia-smi reports them for the boards; other types are known by name alone, and their memory is not counted.
MEMORY_MB = {"B200": 183_359, "H200": 143_771, "H100": 81_559, "A100": 81_920}
# States in which a node takes no new work (man sinfo, "NODE STATE CODES").
OUT = frozenset({"DOWN", "DRAIN", "DRAINED", "DRAINING", "ERROR", "FAIL", "FAILING", "FUTURE", "INVAL", "INVALID_REG"})
AWAY = frozenset({"NOT_RESPONDING", "NO_RESPOND", "POWERED_DOWN", "POWERING_DOWN", "REBOOT", "REBOOT_REQUESTED"})


@dataclass(frozen=True, slots=True)
class Unit:
    """One GPU as Slurm numbers them: a whole device, or an instance on one."""

    device: str
    index: int
    profile: str = ""
    start: int = -1

    def grant(self) -> SliceGrant:
        if not self.profile:
            return SliceGrant(self.device, self.index, WHOLE)
        shape = _shape(self.profile)
        memory = shape.memory * mig.MEMORY_UNITS
        return SliceGrant(self.device, self.index, shape.compute * mig.COMPUTE_UNITS, memory, self.profile, self.start)


@dataclass(frozen=True, slots=True)
class Rig:
    """The devices of a node and, in Slurm's order, its GPUs. `shards` are those of each whole device."""

    devices: tuple[DeviceFact, ...]
    units: tuple[Unit, ...]
    shards: int


def rig_of(node: NodeRecord, *, emulated: bool) -> Rig:
    return _rig(node.name, node.gres, node.features, emulated)


@cache
def _rig(node: str, gres: tuple[Gres, ...], features: tuple[str, ...], emulated: bool) -> Rig:
    whole = [each for each in gres if each.name == "gpu" and each.type not in mig.NAMES]
    carved = [each for each in gres if each.name == "gpu" and each.type in mig.NAMES]
    devices: list[DeviceFact] = []
    units: dict[str, list[Unit]] = {}
    for kind in whole:
        for number in range(kind.count):
            uuid, index = names.whole_device(node, kind.type, number), len(devices)
            model = kind.type or "gpu"
            devices.append(DeviceFact(index, uuid, model, _memory_mb(model), emulated=emulated))
            units.setdefault(kind.type, []).append(Unit(uuid, index))
    model = _carved_model(carved, whole, features)
    for number, layout in enumerate(_boards(carved)):
        uuid, index = names.carved_device(node, number), len(devices)
        devices.append(DeviceFact(index, uuid, model, _memory_mb(model), emulated=emulated, layout=layout))
        for cut in layout:
            units.setdefault(cut.profile, []).append(Unit(uuid, index, cut.profile, cut.start))
    numbered = tuple(unit for each in gres if each.name == "gpu" for unit in units[each.type])
    boards = sum(each.count for each in whole)
    shards = sum(each.count for each in gres if each.name == "shard") // boards if boards else 0
    return Rig(tuple(devices), numbered, shards)


def _boards(carved: Sequence[Gres]) -> list[tuple[Cut, ...]]:
    """Layouts that hold so many instances of each profile."""
    boards: list[tuple[int, list[Cut]]] = []
    for each in sorted(carved, key=lambda each: (-_shape(each.type).memory, -_shape(each.type).compute, each.type)):
        shape = _shape(each.type)
        for _ in range(each.count):
            at = next((n for n, (mask, _) in enumerate(boards) if shape.free_starts(mask)), len(boards))
            if at == len(boards):
                boards.append((0, []))
            mask, cuts = boards[at]
            start = shape.free_starts(mask)[0]
            boards[at] = mask | shape.bits(start), [*cuts, Cut(each.type, start)]
    return [tuple(cuts) for _, cuts in boards]


def _shape(profile: str) -> mig.Profile:
    return next(table[profile] for table in mig.MODELS.values() if profile in table)


def _carved_model(carved: Sequence[Gres], whole: Sequence[Gres], features: Iterable[str]) -> str:
    """The model of the boards: of those that have such profiles the one that the node names, else the first."""
    if not carved:
        return ""
    named = [*features, *(each.type for each in whole)]
    known = [word for word in named if all(each.type in mig.profiles(word) for each in carved)]
    return known[0] if known else next(name for name, table in mig.MODELS.items() if carved[0].type in table)


def _memory_mb(model: str) -> int:
    words = model.upper().replace("-", " ").replace("_", " ").split()
    return next((memory for name, memory in MEMORY_MB.items() if name in words), 0)


def node_fact(node: NodeRecord, *, pool: str, emulated: bool, reserved: str) -> NodeFact:
    """`reserved` names a reservation of Slurm's that keeps the node from us."""
    return NodeFact(
        name=node.name,
        cpus=node.cpus * 1000,
        memory_mb=node.memory_mb,
        emulated=emulated,
        devices=rig_of(node, emulated=emulated).devices,
        pool=pool,
        labels=tuple(sorted(set(node.features))),
        problem=problem_of(node) or (f"Slurm has reserved it ({reserved})." if reserved else ""),
        drain=drain_of(node),
    )


def drain_of(node: NodeRecord) -> Drain | None:
    """Whose drain keeps work from it, by the mark that ours have in their reason."""
    if not any(state.startswith("DRAIN") for state in node.states):
        return None
    return Drain.OURS if node.reason.startswith(names.DRAIN_MARK) else Drain.THEIRS


def problem_of(node: NodeRecord) -> str:
    """Why it takes no work, as a sentence; "" where it does, or where only a drain of ours keeps it from it."""
    why = f": {node.reason}" if node.reason else ""
    by = f" by {node.reason_by}" if node.reason_by else ""
    if drain_of(node) is Drain.THEIRS:
        return f"Drained in Slurm{by}{why}."[:300]
    found = sorted((node.states & (OUT | AWAY)) - {"DRAIN", "DRAINED", "DRAINING"})
    return f"Slurm says that it is {', '.join(found).lower().replace('_', ' ')}{why}."[:300] if found else ""


def reserved_nodes(reservations: Iterable[ReservationRecord], *, now: float, ours: str) -> dict[str, str]:
    """By node the name of a reservation that keeps it from us now."""
    return {
        node: each.name
        for each in reservations
        if each.name != ours and each.starts <= now < each.ends
        for node in each.nodes
    }


def gres_for(slices: Sequence[SliceGrant], shards: int, workers: int = 1) -> str:
    """What `sbatch --gres` must ask for on a node with so many workers of these slices; "" for none.

    Always with the type: an untyped gpu may be any MIG instance.
    """
    if not slices:
        return ""
    first = slices[0]
    if first.units < WHOLE and not first.profile:
        return f"shard:{first.units * shards // WHOLE * workers}"
    kind = names.kind_of(first)
    return f"gpu:{kind}:{len(slices) * workers}" if kind else f"gpu:{len(slices) * workers}"


def place_of(held: Held, rig: Rig) -> Place | None:
    """Where Slurm put the work on a node; None where it does not say which devices, or none that are known."""
    grants = []
    for each in held.gres:
        if each.name == "gpu":
            if len(each.indices) != each.count or any(index >= len(rig.units) for index in each.indices):
                return None
            grants += [rig.units[index].grant() for index in each.indices]
        elif each.name == "shard":
            if len(each.indices) != 1 or not rig.shards or each.indices[0] >= len(rig.units):
                return None
            unit = rig.units[each.indices[0]]
            grants.append(SliceGrant(unit.device, unit.index, each.count * WHOLE // rig.shards))
    return Place(held.node, tuple(sorted(grants, key=lambda grant: (grant.device_index, grant.start))))


def shared_out(place: Place, workers: int) -> list[Place]:
    """The places of workers that share a node, each with as many slices, in the order in which tasks are numbered."""
    each = len(place.slices) // workers
    return [Place(place.node, place.slices[n * each : (n + 1) * each]) for n in range(workers)]


def least_shards(rigs: Collection[Rig]) -> int:
    """Shards of a device where it is shared; 0 where it is nowhere."""
    return min((rig.shards for rig in rigs if rig.shards), default=0)
