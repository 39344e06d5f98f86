"""Law 2: what is held and what is free add up, whatever happens."""

from __future__ import annotations

import itertools
from collections.abc import Hashable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from haein.placement.engine import plan
from haein.placement.ledger import Balance, Capacity, Holding, ImbalanceError, Kind, check
from haein.placement.model import Request, Snapshot
from haein.placement.policies import BEST_FIT, FGD, FIRST_FIT, HAEIN, PACKED, Policy

from .worlds import World, requests, snapshots


class PlacingAndReleasing(RuleBasedStateMachine):
    """Jobs come and go, devices fail and come back; the books balance after each step."""

    @initialize(snapshot=snapshots(used=False))
    def build(self, snapshot: Snapshot) -> None:
        self.world = World(snapshot)
        self.ids = itertools.count()

    @rule(asked=requests(most=8), policy=st.sampled_from([FIRST_FIT, BEST_FIT, PACKED, FGD, HAEIN]))
    def place(self, asked: list[Request], policy: Policy) -> None:
        fresh = {
            number: Request(
                id=number, gpus=r.gpus, share=r.share, cpus=r.cpus // 4, memory_mb=r.memory_mb // 4, model=r.model
            )
            for number, r in zip(self.ids, asked, strict=False)
        }
        for placement in plan(self.world.snapshot, fresh.values(), policy).placements:
            self.world.start(fresh[placement.request_id], placement)  # type: ignore[index]

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if self.world.running:
            self.world.end(data.draw(st.sampled_from(sorted(self.world.running, key=str))))

    @rule(data=st.data())
    def fail_or_repair(self, data: st.DataObject) -> None:
        devices = [device.id for each in self.world.snapshot.nodes for device in each.devices]
        if devices:
            self.world.flip(data.draw(st.sampled_from(devices)))

    @invariant()
    def the_books_balance(self) -> None:
        for balance in self.world.balance().values():
            assert balance.billable + balance.unusable + balance.free == balance.capacity == 1000
        used = self.world.used_beside_gpus()
        for each in self.world.snapshot.nodes:
            held_cpus, held_mb = used[each.id]
            assert (each.free_cpus + held_cpus, each.free_memory_mb + held_mb) == (each.cpus, each.memory_mb)


TestPlacingAndReleasing = PlacingAndReleasing.TestCase
TestPlacingAndReleasing.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)


def test_it_balances_a_device_by_kind() -> None:
    holdings = [
        Holding("gpu", 300, Kind.BILLABLE),
        Holding("gpu", 200, Kind.BILLABLE),
        Holding("gpu", 100, Kind.UNBILLED),
        Holding("gpu", 50, Kind.RESERVED),
        Holding("gpu", 150, Kind.OUTSIDE),
    ]
    assert check([Capacity("gpu", 1000)], holdings, free={"gpu": 200}) == {
        "gpu": Balance(
            "gpu", 1000, billable=500, unbilled=100, outside=150, reserved=50, drained=0, unusable=0, free=200
        )
    }


def test_the_rest_of_a_device_that_is_not_usable_is_not_free() -> None:
    holdings = [Holding("gpu", 300, Kind.BILLABLE), Holding("gpu", 200, Kind.DRAINED)]
    balance = check([Capacity("gpu", 1000, usable=False)], holdings, free={"gpu": 0})["gpu"]
    assert (balance.billable, balance.drained, balance.unusable, balance.free) == (300, 200, 500, 0)


@pytest.mark.parametrize(
    ("capacities", "holdings", "free", "message"),
    [
        (
            [Capacity("gpu", 1000)],
            [Holding("gpu", 700, Kind.BILLABLE), Holding("gpu", 400, Kind.UNBILLED)],
            {},
            "Device gpu: 700 billable, 400 unbilled are held, 100 more than its 1000 units.",
        ),
        (
            [Capacity("gpu", 1000)],
            [Holding("gpu", 700, Kind.BILLABLE)],
            {"gpu": 400},
            "Device gpu: 400 units are said to be free, but 300 are: its capacity is 1000.",
        ),
        (
            [Capacity("gpu", 1000)],
            [Holding("gpu", -1, Kind.RESERVED)],
            {},
            "Device gpu: a reserved holding is -1, not a whole number of units of 0 or more.",
        ),
        (
            [Capacity("gpu", True)],
            [],
            {},
            "Device gpu: capacity is True, not a whole number of units of 0 or more.",
        ),
        ([], [Holding("gpu", 5, Kind.DRAINED)], {}, "Device gpu: 5 units of it are held, but there is no such device."),
        ([], [], {"gpu": 5}, "Device gpu: 5 units are said to be free, but there is no such device."),
        ([Capacity("gpu", 1), Capacity("gpu", 1)], [], {}, "Device gpu: its capacity is stated twice."),
    ],
)
def test_it_names_the_device_and_the_numbers_that_do_not_add_up(
    capacities: list[Capacity], holdings: list[Holding], free: dict[Hashable, int], message: str
) -> None:
    with pytest.raises(ImbalanceError) as caught:
        check(capacities, holdings, free)
    assert str(caught.value) == message
    assert caught.value.device_id == "gpu"
