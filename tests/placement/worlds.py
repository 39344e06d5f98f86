"""Small clusters for placement's tests, and a second, plainer opinion on what fits where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from haein.placement import ledger
from haein.placement.model import DeviceState, NodeState, Placement, Request, Snapshot

MODELS = ("B200", "L4")


def node(
    name: str,
    *free: int,
    cpus: int = 64_000,
    memory_mb: int = 65_536,
    free_cpus: int | None = None,
    free_memory_mb: int | None = None,
    usable: bool = True,
    model: str = "B200",
) -> NodeState:
    """A node whose devices, named n/0, n/1 ..., have these units free."""
    return NodeState(
        id=name,
        name=name,
        cpus=cpus,
        memory_mb=memory_mb,
        free_cpus=cpus if free_cpus is None else free_cpus,
        free_memory_mb=memory_mb if free_memory_mb is None else free_memory_mb,
        usable=usable,
        devices=tuple(
            DeviceState(id=f"{name}/{index}", node=name, model=model, free=units, usable=True)
            for index, units in enumerate(free)
        ),
    )


def ask(
    gpus: int, share: int = 1000, *, cpus: int = 1000, memory_mb: int = 1024, model: str = "", id: str = "job"
) -> Request:
    return Request(id=id, gpus=gpus, share=share, cpus=cpus, memory_mb=memory_mb, model=model)


def fits_somewhere(snapshot: Snapshot, request: Request) -> bool:
    """The definition, said as plainly as it can be, to hold the engine against."""
    for each in snapshot.nodes:
        able = [
            device
            for device in each.devices
            if device.usable and device.free >= request.share and request.model in ("", device.model)
        ]
        enough = each.free_cpus >= request.cpus and each.free_memory_mb >= request.memory_mb
        if each.usable and enough and (request.gpus == 0 or len(able) >= request.gpus):
            return True
    return False


def emptied(snapshot: Snapshot, *, repaired: bool = False) -> Snapshot:
    """The same cluster with nobody on it, and, if asked for, with everything in service."""
    nodes = []
    for each in snapshot.nodes:
        devices = tuple(replace(d, free=d.capacity, usable=d.usable or repaired) for d in each.devices)
        usable = each.usable or repaired
        full = replace(each, free_cpus=each.cpus, free_memory_mb=each.memory_mb, devices=devices, usable=usable)
        nodes.append(full)
    return Snapshot(tuple(nodes))


def after(snapshot: Snapshot, request: Request, placement: Placement) -> Snapshot:
    """The snapshot with the placement taken off; raises where that would take what is not there."""
    units: dict[Hashable, int] = {grant.device_id: grant.units for grant in placement.grants}
    assert len(units) == len(placement.grants) == request.gpus
    assert all(given == request.share for given in units.values())
    nodes = []
    for each in snapshot.nodes:
        if each.id == placement.node_id:
            assert each.usable
            for device in each.devices:
                assert device.id not in units or (device.usable and request.model in ("", device.model))
            devices = tuple(replace(device, free=device.free - units.pop(device.id, 0)) for device in each.devices)
            each = replace(
                each,
                free_cpus=each.free_cpus - request.cpus,
                free_memory_mb=each.free_memory_mb - request.memory_mb,
                devices=devices,
            )
        nodes.append(each)
    assert not units, f"devices of another node were given: {units}"
    return Snapshot(tuple(nodes))


@st.composite
def nodes(draw: st.DrawFn, name: str, *, used: bool) -> NodeState:
    cpus, memory_mb = draw(st.integers(0, 8)) * 1000, draw(st.integers(0, 8)) * 1024
    units = st.one_of(st.sampled_from([0, 250, 500, 1000]), st.integers(0, 1000)) if used else st.just(1000)
    devices = draw(st.lists(st.tuples(st.sampled_from(MODELS), units, st.sampled_from([True, True, True, False]))))
    return NodeState(
        id=name,
        name=name,
        cpus=cpus,
        memory_mb=memory_mb,
        free_cpus=draw(st.integers(0, cpus)) if used else cpus,
        free_memory_mb=draw(st.integers(0, memory_mb)) if used else memory_mb,
        usable=draw(st.sampled_from([True, True, True, False])),
        devices=tuple(
            DeviceState(id=f"{name}/{index}", node=name, model=model, free=free, usable=usable)
            for index, (model, free, usable) in enumerate(devices[:8])
        ),
    )


@st.composite
def snapshots(draw: st.DrawFn, *, used: bool = True) -> Snapshot:
    count = draw(st.integers(0, 4))
    return Snapshot(tuple(draw(nodes(f"n{index}", used=used)) for index in range(count)))


@st.composite
def requests(draw: st.DrawFn, most: int = 12) -> list[Request]:
    """A queue: few shapes, repeated, as queues are; what the engine remembers of a shape must not go stale."""
    shape = st.tuples(
        st.integers(0, 9),
        st.one_of(st.sampled_from([250, 500, 1000]), st.integers(1, 1000)),
        st.integers(0, 9000),
        st.integers(0, 9000),
        st.sampled_from(["", "", *MODELS, "H100"]),
    )
    shapes = draw(st.lists(shape, min_size=1, max_size=4))
    queue = draw(st.lists(st.sampled_from(shapes), max_size=most))
    return [
        Request(id=index, gpus=gpus, share=share, cpus=cpus, memory_mb=memory_mb, model=model)
        for index, (gpus, share, cpus, memory_mb, model) in enumerate(queue)
    ]


@dataclass
class World:
    """A cluster that remembers who holds what, and keeps its books by the ledger."""

    snapshot: Snapshot
    running: dict[Hashable, tuple[Request, Placement]] = field(default_factory=dict)

    def start(self, request: Request, placement: Placement) -> None:
        self.snapshot = after(self.snapshot, request, placement)
        self.running[request.id] = request, placement

    def end(self, request_id: Hashable) -> None:
        request, placement = self.running.pop(request_id)
        units = {grant.device_id: grant.units for grant in placement.grants}
        self.snapshot = Snapshot(
            tuple(
                replace(
                    each,
                    free_cpus=each.free_cpus + request.cpus,
                    free_memory_mb=each.free_memory_mb + request.memory_mb,
                    devices=tuple(replace(d, free=d.free + units.get(d.id, 0)) for d in each.devices),
                )
                if each.id == placement.node_id
                else each
                for each in self.snapshot.nodes
            )
        )

    def flip(self, device_id: Hashable) -> None:
        """Take a device out of service, or put it back; who is on it stays."""
        self.snapshot = Snapshot(
            tuple(
                replace(
                    each,
                    devices=tuple(replace(d, usable=d.usable != (d.id == device_id)) for d in each.devices),
                )
                for each in self.snapshot.nodes
            )
        )

    def balance(self) -> dict[Hashable, ledger.Balance]:
        devices = [device for each in self.snapshot.nodes for device in each.devices]
        return ledger.check(
            [ledger.Capacity(device.id, device.capacity, device.usable) for device in devices],
            [
                ledger.Holding(grant.device_id, grant.units, ledger.Kind.BILLABLE)
                for _, placement in self.running.values()
                for grant in placement.grants
            ],
            free={device.id: device.free if device.usable else 0 for device in devices},
        )

    def used_beside_gpus(self) -> dict[Hashable, tuple[int, int]]:
        """CPUs and memory held on each node."""
        used: dict[Hashable, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for request, placement in self.running.values():
            cpus, memory_mb = used[placement.node_id]
            used[placement.node_id] = cpus + request.cpus, memory_mb + request.memory_mb
        return used
