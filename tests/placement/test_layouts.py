"""Devices that somebody else has carved for good: each gives its instances, and nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haein.placement import books, engine
from haein.placement.clearing import Clearing
from haein.placement.cluster import Cluster
from haein.placement.engine import ever_fits, plan
from haein.placement.ledger import Kind
from haein.placement.mix import Mix
from haein.placement.model import DeviceState, Grant, Instance, NodeState, Placement, Reason, Request, Snapshot
from haein.placement.policies import HAEIN, POLICIES
from haein.placement.queueing import Account, Rules, Running
from haein.placement.turns import Decision, Scene
from haein.placement.weeks import Job, Week

from .test_slices import b200, slice_
from .worlds import ask, node

Instances = tuple[tuple[str, int], ...]
SEVENTHS: Instances = tuple(("1g.23gb", start) for start in range(7))
HALVES: Instances = (("3g.90gb", 0), ("3g.90gb", 4))
MIXED: Instances = (("1g.45gb", 0), ("1g.23gb", 2), ("1g.23gb", 3), ("3g.90gb", 4))


def fixed(name: str, *layouts: Instances, held: Instances = ()) -> NodeState:
    """A node of B200s that are carved so; of the first these instances are held."""
    empty = DeviceState(
        id=None, node=name, model="B200", capacity=56, free=56, usable=True,
        layout=tuple(Instance(*each) for each in layouts[0]),
    )  # fmt: skip
    devices = tuple(
        replace(empty, id=f"{name}/{index}", layout=tuple(Instance(*each) for each in layout))
        for index, layout in enumerate(layouts)
    )
    first = devices[0].carved([Instance(*each) for each in held])
    return replace(node(name), devices=(first, *devices[1:]))


@pytest.mark.parametrize("policy", sorted(POLICIES))
@given(
    layouts=st.lists(st.sampled_from([SEVENTHS, HALVES, MIXED]), min_size=1, max_size=3),
    profiles=st.lists(st.sampled_from(["1g.23gb", "1g.45gb", "2g.45gb", "3g.90gb"]), max_size=25),
)
def test_as_many_are_placed_as_there_are_instances(policy: str, layouts: list[Instances], profiles: list[str]) -> None:
    asked = [slice_(profile, str(number)) for number, profile in enumerate(profiles)]
    snapshot = Snapshot((replace(fixed("a", *layouts), cpus=64_000, free_cpus=64_000),))
    made = plan(snapshot, asked, POLICIES[policy])
    there = Counter(profile for layout in layouts for profile, _ in layout)
    given_ = [grant for placement in made.placements for grant in placement.grants]
    assert Counter(grant.profile for grant in given_) == {
        profile: min(count, there[profile]) for profile, count in Counter(profiles).items() if there[profile]
    }
    assert len({(grant.device_id, grant.start) for grant in given_}) == len(given_)
    for grant in given_:
        assert (grant.profile, grant.start) in layouts[int(str(grant.device_id).removeprefix("a/"))]
    assert not made.carvings


@pytest.mark.parametrize("asked", [ask(1), ask(1, 100), slice_("3g.90gb"), slice_("1g.45gb")])
def test_nothing_else_is_ever_given(asked: Request) -> None:
    cluster = Cluster(Snapshot((fixed("a", SEVENTHS),)), HAEIN, Mix({}))
    placed = [cluster.place(slice_("1g.23gb")) for _ in range(7)]
    for placement in placed:
        assert placement
        assert not cluster.place(asked)
        cluster.finish(slice_("1g.23gb"), placement)
    assert cluster.snapshot() == Snapshot((fixed("a", SEVENTHS),))
    assert not cluster.place(asked)


def test_what_is_carved_anyway_is_filled_before_a_whole_device_is_broken_up() -> None:
    for policy in ("haein", "packed", "bestfit"):
        made = plan(Snapshot((b200("a", None), fixed("b", SEVENTHS))), [slice_("1g.23gb")], POLICIES[policy])
        assert made.placements[0].node_id == "b", policy


def test_only_an_open_device_is_carved_and_said_to_be() -> None:
    open_ = replace(b200("b", None).devices[0], node="a", id="open")
    both = replace(fixed("a", HALVES), devices=(*fixed("a", HALVES).devices, open_))
    made = plan(Snapshot((both,)), [slice_("3g.90gb", str(number)) for number in range(3)])
    assert [carving.device_id for carving in made.carvings] == ["open"]


def test_held_instances_are_said_to_be_held_and_the_next_smaller_one_is_offered() -> None:
    full = fixed("a", (("3g.90gb", 0), ("1g.23gb", 4), ("1g.23gb", 5)), held=(("3g.90gb", 0),))
    (refusal,) = plan(Snapshot((full,)), [slice_("3g.90gb")]).refusals
    assert refusal.reason is Reason.NO_CAPACITY_NOW
    assert refusal.sentence == "The instances of 3g.90gb here are all held."
    assert refusal.nearest == slice_("1g.23gb")


def test_an_instance_that_none_of_them_has_is_refused_for_good() -> None:
    refusal = ever_fits(Snapshot((fixed("a", SEVENTHS, HALVES),)), slice_("2g.45gb"))
    assert refusal
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.sentence == (
        "No GPU of the cluster has an instance of 2g.45gb, and none can be carved anew; "
        "the instances there are: 1g.23gb, 3g.90gb."
    )
    assert refusal.nearest == slice_("1g.23gb")


def test_where_all_are_carved_a_whole_one_is_refused_for_good_and_the_largest_instance_offered() -> None:
    carved = Snapshot((fixed("a", SEVENTHS, HALVES),))
    refusal = ever_fits(carved, ask(1))
    assert refusal
    assert refusal.reason is Reason.NEVER_FITS
    assert refusal.sentence == (
        "Each GPU of the cluster is carved for good and gives only its instances: 1g.23gb, 3g.90gb."
    )
    assert refusal.nearest == slice_("3g.90gb")
    share = ever_fits(carved, ask(1, 450))
    assert share
    assert share.nearest == slice_("1g.23gb"), "3g.90gb has half of the memory, which is more than was asked for"
    tiny = ever_fits(carved, ask(1, 100))
    assert tiny
    assert tiny.nearest is None


def test_more_whole_devices_than_there_are_is_told_by_those_that_are_whole() -> None:
    devices = (*fixed("a", SEVENTHS, SEVENTHS).devices, replace(b200("a", None).devices[0], id="open"))
    refusal = ever_fits(Snapshot((replace(fixed("a", SEVENTHS), devices=devices),)), ask(2))
    assert refusal
    assert refusal.sentence == "2 GPUs on one node were asked for; the largest node has 1. Ask for 1 or fewer."
    assert refusal.nearest == ask(1)


def test_who_has_to_leave_is_whoever_holds_such_an_instance() -> None:
    holds = (
        Placement("small", "a", (Grant("a/0", 8, 14, "1g.45gb", 0),)),
        Placement("large", "a", (Grant("a/0", 24, 28, "3g.90gb", 4),)),
    )
    full = fixed("a", MIXED, held=(("1g.45gb", 0), ("3g.90gb", 4)))
    running = [
        Running(
            id=placement.request_id, job=placement.request_id, request=slice_(placement.grants[0].profile),
            placements=(placement,), units=100, team="t", accounts=(), began=0.0, ends=100.0, saved=None, saves=False,
            guaranteed=False, fixed=False, spot=False, ending=None, yields_to=None,
        )
        for placement in holds
    ]  # fmt: skip
    cluster = Cluster(Snapshot((full,)), HAEIN, Mix({}))
    clearing = Clearing((full,), cluster, running)
    cleared = clearing.clear(slice_("3g.90gb"), lambda each: 1.0 if each.id == "large" else 2.0, sum)
    assert cleared
    assert [each.id for each in cleared.leaving] == ["large"]
    assert clearing.clear(ask(1), lambda each: 1.0, sum) is None
    assert clearing.clear(slice_("2g.45gb"), lambda each: 1.0, sum) is None


@pytest.mark.parametrize(
    ("capacity", "layout", "held", "message"),
    [
        (1000, SEVENTHS, (), "layout: a device of 1000 units is not in MIG mode and has no instances."),
        (56, (("3g.90gb", 1),), (), "layout: B200 has no 3g.90gb that starts at 1."),
        (56, (("3g.40gb", 0),), (), "layout: B200 has no 3g.40gb that starts at 0."),
        (56, (("3g.90gb", 0), ("1g.23gb", 3)), (), "layout: 1g.23gb at 3 overlaps another."),
        (56, HALVES, (("1g.23gb", 0),), "slices: 1g.23gb at 0 is none of the device's layout."),
    ],
)
def test_it_refuses_what_no_device_is(capacity: int, layout: Instances, held: Instances, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        DeviceState(
            id=0, node="a", model="B200", capacity=capacity, free=capacity - 8 * len(held), usable=True,
            slices=tuple(Instance(*each) for each in held), layout=tuple(Instance(*each) for each in layout),
        )  # fmt: skip


def test_emptied_it_is_what_it_was_carved_into() -> None:
    full = fixed("a", HALVES, held=HALVES)
    assert full.devices[0].emptied(usable=True) == fixed("a", HALVES).devices[0]
    could = engine.Possible(Snapshot((full,)), HAEIN)
    assert could.refusal(slice_("3g.90gb")) is None
    assert could.refusal(ask(1)) is not None


@settings(max_examples=20)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.sampled_from(["1g.23gb", "1g.23gb", "3g.90gb", "1g.45gb"]),
            st.integers(0, 1200),
            st.integers(60, 1500),
        ),
        min_size=1,
        max_size=25,
    )
)
def test_a_queue_with_a_guarantee_runs_to_its_end_on_them(drawn: list[tuple[str, str, int, int]]) -> None:
    """Turns, room that is kept and jobs that have to leave: each pass gives what there is, and nothing twice."""
    jobs = [
        Job(
            id=number,
            team=team,
            request=replace(slice_(profile), id=None),
            submitted=float(at),
            work_s=float(work_s),
            limit_s=work_s,
            accounts=(team,),
        )
        for number, (team, profile, at, work_s) in enumerate(drawn)
    ]

    def watch(scene: Scene, _decision: Decision) -> None:
        grants = [grant for each in scene.running for placement in each.placements for grant in placement.grants]
        balances = books.check(scene.snapshot, [(grant, Kind.BILLABLE) for grant in grants])
        assert all(balance.capacity == 56 for balance in balances.values())

    accounts: dict[Hashable, Account] = {"a": Account(id="a", guaranteed=600), "b": Account(id="b")}
    week = Week(
        snapshot=Snapshot((fixed("n", SEVENTHS, MIXED),)),
        rules=Rules(min_run_s=120.0, notice_s=60.0, grace_s=10.0),
        accounts=accounts,
        step_s=10.0,
    )
    outcome = week.run(jobs, watch)
    assert outcome.ended.keys() == {job.id for job in jobs}
