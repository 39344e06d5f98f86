"""Where requests go, and that nothing is ever given twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from haein.placement.engine import plan
from haein.placement.model import Grant, Placement, Request, Snapshot
from haein.placement.policies import BEST_FIT, FGD, FIRST_FIT, HAEIN, PACKED, Policy

from .worlds import after, ask, fits_somewhere, node, requests, snapshots

POLICIES = st.sampled_from([FIRST_FIT, BEST_FIT, PACKED, FGD, HAEIN])


def placed(snapshot: Snapshot, *asked: Request, policy: Policy = PACKED) -> list[tuple[str, ...]]:
    """The devices given to each request, by name, a CPU-only job as the name of its node."""
    numbered = [replace(request, id=number) for number, request in enumerate(asked)]
    made = plan(snapshot, numbered, policy)
    assert not made.refusals
    return [tuple(str(g.device_id) for g in p.grants) or (str(p.node_id),) for p in made.placements]


def test_it_gives_whole_devices_of_one_node_with_their_units() -> None:
    made = plan(Snapshot((node("a", 1000, 500), node("b", 1000, 1000))), [ask(2)])
    assert made.placements == (Placement("job", "b", (Grant("b/0", 1000), Grant("b/1", 1000))),)
    assert made.refusals == ()


def test_packed_puts_a_fraction_on_the_used_device_with_the_least_room_that_fits() -> None:
    assert placed(Snapshot((node("a", 1000, 700), node("b", 400, 500))), ask(1, 450)) == [("b/1",)]


def test_packed_opens_a_whole_device_for_a_fraction_only_when_no_used_one_has_room() -> None:
    assert placed(Snapshot((node("a", 1000, 300),)), ask(1, 400)) == [("a/0",)]


def test_packed_fills_one_device_with_fractions_before_it_opens_the_next() -> None:
    snapshot = Snapshot((node("a", 1000, 1000), node("b", 1000, 1000)))
    assert placed(snapshot, *[ask(1, 250)] * 5) == [("a/0",)] * 4 + [("a/1",)]


def test_packed_puts_whole_devices_on_the_node_with_the_fewest_left() -> None:
    assert placed(Snapshot((node("a", 1000, 1000, 1000), node("b", 1000, 0, 0))), ask(1)) == [("b/0",)]


def test_packed_opens_few_whole_devices_even_where_that_leaves_more_on_the_used_ones() -> None:
    assert placed(Snapshot((node("a", 1000, 500), node("b", 900, 900))), ask(2, 500)) == [("b/0", "b/1")]


def test_packed_counts_whole_devices_left_before_units_left() -> None:
    assert placed(Snapshot((node("a", 1000, 1000, 100), node("b", 1000, 500, 900))), ask(1)) == [("b/0",)]
    assert placed(Snapshot((node("a", 1000, 500), node("b", 1000, 100))), ask(1)) == [("b/0",)]


def test_packed_keeps_nodes_with_free_gpus_clear_of_jobs_without_any() -> None:
    assert placed(Snapshot((node("a", 1000), node("b", 0), node("c", 200))), ask(0)) == [("b",)]


def test_packed_breaks_ties_by_the_cpus_and_memory_left_and_then_by_order() -> None:
    for tight in (node("b", 1000, free_cpus=2000), node("b", 1000, free_memory_mb=2048)):
        assert placed(Snapshot((node("a", 1000), tight)), ask(1)) == [("b/0",)]
    assert placed(Snapshot((node("a", 1000), node("b", 1000))), ask(1)) == [("a/0",)]


@pytest.mark.parametrize("policy", [FIRST_FIT, BEST_FIT, PACKED, FGD, HAEIN])
def test_a_long_queue_of_one_shape_fills_the_cluster_and_no_more(policy: Policy) -> None:
    snapshot = Snapshot((node("a", 1000, 500), node("b", 1000)))
    made = plan(snapshot, [ask(1, 250, id=str(number)) for number in range(12)], policy)
    assert [p.request_id for p in made.placements] == [str(number) for number in range(10)]
    assert [r.request_id for r in made.refusals] == ["10", "11"]


def test_first_fit_takes_the_first_node_and_device_that_fit() -> None:
    snapshot = Snapshot((node("a", 100, 1000, 500), node("b", 500)))
    assert placed(snapshot, ask(1, 500), policy=FIRST_FIT) == [("a/1",)]


def test_several_fractions_each_get_a_device_of_their_own() -> None:
    assert placed(Snapshot((node("a", 1000), node("b", 600, 1000, 700))), ask(2, 500)) == [("b/0", "b/2")]


def test_it_gives_only_the_model_asked_for() -> None:
    mixed = Snapshot((node("a", 1000, model="L4"), node("b", 1000, 1000)))
    assert placed(mixed, ask(1, model="B200")) == [("b/0",)]


def test_it_gives_nothing_that_is_out_of_service() -> None:
    broken = node("b", 1000, 1000)
    broken = replace(broken, devices=(replace(broken.devices[0], usable=False), broken.devices[1]))
    assert placed(Snapshot((node("a", 1000, usable=False), broken)), ask(1)) == [("b/1",)]


def test_a_later_request_may_be_placed_when_an_earlier_one_does_not_fit() -> None:
    made = plan(Snapshot((node("a", 1000, 500),)), [ask(2, id="alice"), ask(1, id="bob")])
    assert [p.request_id for p in made.placements] == ["bob"]
    assert [r.request_id for r in made.refusals] == ["alice"]


def test_it_refuses_two_requests_with_one_id() -> None:
    with pytest.raises(ValueError, match=r"^requests: 'job' is there twice"):
        plan(Snapshot(()), [ask(1), ask(2)])


@pytest.mark.parametrize("each", [ask(0, cpus=1000, memory_mb=0), ask(0, cpus=0, memory_mb=1024)])
def test_jobs_without_gpus_use_up_cpus_and_memory(each: Request) -> None:
    snapshot = Snapshot((node("a", 1000, free_cpus=3000, free_memory_mb=3072),))
    made = plan(snapshot, [replace(each, id=number) for number in range(5)])
    assert [placement.request_id for placement in made.placements] == [0, 1, 2]


@given(snapshots(), requests(), POLICIES)
def test_every_request_is_answered_once_and_nothing_is_given_twice(
    snapshot: Snapshot, asked: list[Request], policy: Policy
) -> None:
    made = plan(snapshot, asked, policy)
    placements = {placement.request_id: placement for placement in made.placements}
    refused = {refusal.request_id for refusal in made.refusals}
    assert len(placements) + len(refused) == len(made.placements) + len(made.refusals) == len(asked)
    assert placements.keys() | refused == {request.id for request in asked}
    for request in asked:  # taking more than there is makes DeviceState or NodeState raise
        if request.id in placements:
            snapshot = after(snapshot, request, placements[request.id])
        else:
            assert not fits_somewhere(snapshot, request)


@given(snapshots(), requests(), POLICIES)
def test_the_same_question_has_the_same_answer(snapshot: Snapshot, asked: list[Request], policy: Policy) -> None:
    assert plan(snapshot, asked, policy) == plan(snapshot, iter(asked), policy)


@given(snapshots(), requests(), POLICIES, st.integers(0, 12))
def test_a_plan_made_in_two_steps_is_the_plan_made_in_one(
    snapshot: Snapshot, asked: list[Request], policy: Policy, cut: int
) -> None:
    first = plan(snapshot, asked[:cut], policy)
    by_id = {request.id: request for request in asked}
    between = snapshot
    for placement in first.placements:
        between = after(between, by_id[placement.request_id], placement)
    second = plan(between, asked[cut:], policy)
    whole = plan(snapshot, asked, policy)
    assert whole.placements == first.placements + second.placements
    assert whole.refusals == first.refusals + second.refusals


@given(st.data(), snapshots(), requests(most=1), POLICIES)
def test_the_order_of_nodes_decides_only_between_equals(
    data: st.DataObject, snapshot: Snapshot, asked: list[Request], policy: Policy
) -> None:
    shuffled = Snapshot(tuple(data.draw(st.permutations(snapshot.nodes))))
    assert len(plan(snapshot, asked, policy).placements) == len(plan(shuffled, asked, policy).placements)
    assert score(snapshot, asked) == score(shuffled, asked)


def score(snapshot: Snapshot, asked: list[Request]) -> list[tuple[int, ...]]:
    """What packing promises of a node, counted from outside: whole devices opened, then room left on those taken."""
    by_id = {request.id: request for request in asked}
    free = {device.id: device.free for each in snapshot.nodes for device in each.devices}
    scores: list[tuple[int, ...]] = []
    for placement in plan(snapshot, asked, PACKED).placements:
        units = [free[grant.device_id] for grant in placement.grants]
        scores.append((units.count(1000), sum(units) - len(units) * by_id[placement.request_id].share))
    return scores
