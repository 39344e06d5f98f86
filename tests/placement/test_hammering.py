"""Jobs of every kind come and go on a cluster that fails and heals; after each step the books balance."""

from __future__ import annotations

import itertools
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haein.placement import books
from haein.placement.cluster import Cluster
from haein.placement.ledger import Kind
from haein.placement.mix import Mix, shape_of
from haein.placement.model import DeviceState, Gang, Instance, Near, NodeState, Placement, Request, Snapshot
from haein.placement.policies import POLICIES

from .test_mig import published_layouts

LAYOUTS = published_layouts("B200-180GB")
MEMORY_MB = 180_000
# B200s that somebody else has carved for good, by what they are called here.
CARVED = {
    "sevenths": tuple(Instance("1g.23gb", start) for start in range(7)),
    "halves": (Instance("3g.90gb", 0), Instance("3g.90gb", 4)),
    "mixed": (Instance("1g.45gb", 0), Instance("1g.23gb", 2), Instance("3g.90gb", 4)),
}
KINDS = ["B200", "B200", "L4", *CARVED]


def cluster_of(models: list[list[str]]) -> Snapshot:
    return Snapshot(
        tuple(
            NodeState(
                id=f"n{at}",
                name=f"n{at}",
                cpus=16_000,
                memory_mb=16_384,
                free_cpus=16_000,
                free_memory_mb=16_384,
                usable=True,
                rack=f"r{at % 2}",
                pool="night" if at == 1 else "",
                devices=tuple(device(f"n{at}", index, model) for index, model in enumerate(each)),
            )
            for at, each in enumerate(models)
        )
    )


def device(node: str, index: int, model: str) -> DeviceState:
    layout = CARVED.get(model, ())
    memory_mb = 0 if model == "L4" else MEMORY_MB
    return DeviceState(
        id=f"{node}/{index}",
        node=node,
        model="B200" if layout else model,
        capacity=56 if layout else 1000,
        free=56 if layout else 1000,
        usable=True,
        memory_mb=memory_mb,
        free_memory_mb=0 if layout else memory_mb,
        layout=layout,
    )


WHOLE = st.builds(Request, id=st.none(), gpus=st.integers(0, 3), cpus=st.integers(0, 4000), memory_mb=st.just(512))
SHARE = st.builds(
    Request,
    id=st.none(),
    gpus=st.integers(1, 2),
    share=st.sampled_from([125, 250, 333, 500]),
    cpus=st.integers(0, 2000),
    memory_mb=st.just(256),
    gpu_memory_mb=st.sampled_from([0, 0, 20_000, 90_000]),
    pool=st.sampled_from(["", "", "night"]),
)
INSTANCE = st.builds(
    Request,
    id=st.none(),
    gpus=st.integers(1, 2),
    cpus=st.just(500),
    memory_mb=st.just(256),
    profile=st.sampled_from(["1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb", "4g.90gb", "7g.180gb"]),
)
ASKED = st.one_of(WHOLE, SHARE, INSTANCE)
GANG = st.builds(Gang, each=ASKED, members=st.integers(2, 4), near=st.sampled_from(list(Near)), required=st.booleans())


class Hammering(RuleBasedStateMachine):
    @initialize(
        models=st.lists(st.lists(st.sampled_from(KINDS), max_size=4), min_size=1, max_size=4),
        policy=st.sampled_from(sorted(POLICIES)),
        mix=st.lists(ASKED, max_size=5),
    )
    def build(self, models: list[list[str]], policy: str, mix: list[Request]) -> None:
        self.cluster = Cluster(cluster_of(models), POLICIES[policy], Mix.of(mix))
        self.running: dict[int, tuple[Request | Gang, tuple[Placement, ...]]] = {}
        self.ids = itertools.count()

    def start(self, wanted: Request | Gang) -> None:
        """Carves where an instance is asked for."""
        number = next(self.ids)
        each = replace(wanted.each if isinstance(wanted, Gang) else wanted, id=number)
        wanted = replace(wanted, each=each) if isinstance(wanted, Gang) else each
        room = [node.id for node in self.cluster.snapshot().nodes if self.cluster.has_room(node.id, shape_of(each))]
        made = self.cluster.start(wanted)
        assert {placement.node_id for placement in made} <= set(room)
        if not isinstance(wanted, Gang):
            assert bool(made) == bool(room)
        if made:
            assert len(made) == (wanted.members if isinstance(wanted, Gang) else 1), "a gang was split"
            self.running[number] = wanted, made

    @rule(wanted=st.lists(ASKED, min_size=1, max_size=6))
    def place(self, wanted: list[Request]) -> None:
        for each in wanted:
            self.start(each)

    @rule(wanted=GANG)
    def place_gang(self, wanted: Gang) -> None:
        self.start(wanted)

    def stop(self, number: int) -> Request | Gang:
        wanted, made = self.running.pop(number)
        self.cluster.end(wanted, made)
        return wanted

    @rule(data=st.data())
    def finish(self, data: st.DataObject) -> None:
        if self.running:
            self.stop(data.draw(st.sampled_from(sorted(self.running))))

    @rule()
    def repack(self) -> None:
        """Stop all that run and start them anew, the largest first."""
        wanted = [self.stop(number) for number in sorted(self.running)]
        for each in sorted(wanted, key=lambda each: each.members if isinstance(each, Gang) else 0, reverse=True):
            self.start(each)

    @rule(data=st.data(), usable=st.booleans())
    def fail_or_heal(self, data: st.DataObject, usable: bool) -> None:
        devices = [device.id for node in self.cluster.snapshot().nodes for device in node.devices]
        if devices:
            self.cluster.set_usable(data.draw(st.sampled_from(devices)), usable)

    @rule(data=st.data(), usable=st.booleans())
    def drain_or_return(self, data: st.DataObject, usable: bool) -> None:
        nodes = [node.id for node in self.cluster.snapshot().nodes]
        self.cluster.set_node_usable(data.draw(st.sampled_from(nodes)), usable)

    @invariant()
    def the_books_balance(self) -> None:
        now = self.cluster.snapshot()
        grants = [grant for _, made in self.running.values() for placement in made for grant in placement.grants]
        for balance in books.check(now, [(grant, Kind.BILLABLE) for grant in grants]).values():
            assert balance.billable + balance.unusable + balance.free == balance.capacity
        for node in now.nodes:
            held = [
                (wanted.each if isinstance(wanted, Gang) else wanted)
                for wanted, made in self.running.values()
                for placement in made
                if placement.node_id == node.id
            ]
            assert node.free_cpus + sum(each.cpus for each in held) == node.cpus
            assert node.free_memory_mb + sum(each.memory_mb for each in held) == node.memory_mb

    @invariant()
    def every_layout_is_legal_and_is_what_the_jobs_hold(self) -> None:
        held: dict[object, set[tuple[str, int]]] = {}
        for _, made in self.running.values():
            for grant in (grant for placement in made for grant in placement.grants if grant.profile):
                held.setdefault(grant.device_id, set()).add((grant.profile, grant.start))
        for node in self.cluster.snapshot().nodes:
            for device in node.devices:
                layout = frozenset((each.profile, each.start) for each in device.slices)
                assert layout in LAYOUTS
                assert layout == held.get(device.id, set())

    @invariant()
    def what_is_carved_for_good_gives_its_instances_and_nothing_else(self) -> None:
        shared = {
            grant.device_id
            for _, made in self.running.values()
            for placement in made
            for grant in placement.grants
            if not grant.profile
        }
        for device in (device for node in self.cluster.snapshot().nodes for device in node.devices if device.layout):
            assert device.capacity == 56
            assert set(device.slices) <= set(device.layout)
            assert device.id not in shared


TestHammering = Hammering.TestCase
TestHammering.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
