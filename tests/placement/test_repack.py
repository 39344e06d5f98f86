"""What to move so that one that waits finds room: it pays, everybody fits, and the pass makes of it what was said."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haein.placement import repack, turns
from haein.placement.cluster import Cluster
from haein.placement.mix import Mix
from haein.placement.model import Gang, Near, Placement, Request
from haein.placement.policies import HAEIN
from haein.placement.queueing import Keeping, Kept, Places, Rules, Running, Waiting, units_of
from haein.placement.turns import Scene
from tests.placement.test_turns import ask, cluster

RULES = Rules(min_run_s=120.0, notice_s=60.0, grace_s=10.0)
NOW = 100_000.0
HOUR = 3600.0


def runs(
    cluster: Cluster,
    name: str,
    request: Request | Gang,
    where: Sequence[tuple[Hashable, tuple[Hashable, ...]]],
    *,
    since: float = 1000.0,
    saved: float | None = None,
    left: float = 10 * HOUR,
    **more: object,
) -> Running:
    placed = cluster.start_at(request, where)
    assert placed, name
    return Running(
        id=("attempt", name),
        job=name,
        request=request,
        placements=tuple(replace(each, request_id=name) for each in placed),
        units=units_of(request),
        team="a",
        accounts=(("team", "a"),),
        began=NOW - since,
        ends=NOW + left,
        saved=None if saved is None else NOW - saved,
        guaranteed=False,
        **more,  # type: ignore[arg-type]
    )


def waits(name: str, request: Request | Gang, **more: object) -> Waiting:
    given = {"priority": 0, "queued": NOW - 60, "limit_s": 3600, "team": "b", "accounts": (("team", "b"),)} | more
    return Waiting(id=name, request=request, units=units_of(request), **given)  # type: ignore[arg-type]


def on(node: int, *devices: int) -> list[tuple[Hashable, tuple[Hashable, ...]]]:
    return [(node, tuple((node, index) for index in devices))]


def everyone(scene: Scene) -> frozenset[Hashable]:
    return frozenset(each.id for each in scene.running)


def two_halves() -> Scene:
    """Two nodes of four, each half full: nobody who wants a whole one finds it."""
    stage = Cluster(cluster(2, 4), HAEIN, Mix({}))
    running = (
        runs(stage, "old", ask(2), on(0, 0, 1), since=5000.0, saved=3000.0),
        runs(stage, "young", ask(2), on(1, 0, 1), since=5000.0, saved=100.0),
    )
    return Scene(snapshot=stage.snapshot(), running=running, waiting=[waits("large", ask(4))], now=NOW)


def test_the_one_that_loses_least_is_moved() -> None:
    scene = two_halves()
    found = repack.propose(scene, RULES, everyone(scene))
    assert found
    assert [each.running.job for each in found.moves] == ["young"]
    assert found.places == ((1, ((1, 0), (1, 1), (1, 2), (1, 3))),)
    assert found.moves[0].places == ((0, ((0, 2), (0, 3))),)
    assert found.lost == 2000 * (100 + turns.RESTART_S)
    assert found.gained == 4000 * (10 * HOUR - RULES.notice_s - RULES.grace_s)


def test_who_saves_no_work_or_has_just_begun_or_is_never_preempted_stays() -> None:
    scene = two_halves()
    old, young = scene.running
    found = repack.propose(scene, RULES, frozenset({old.id}))
    assert found
    assert [each.running.job for each in found.moves] == ["old"]
    for change in ({"fixed": True}, {"began": NOW - 60}, {"ending": NOW + 30}):
        staying = replace(scene, running=(old, replace(young, **change)))
        assert repack.propose(staying, RULES, frozenset({young.id})) is None
    assert repack.propose(scene, RULES, frozenset()) is None


def test_nothing_is_proposed_that_is_not_worth_it() -> None:
    scene = two_halves()
    # It would have room by itself before long: less is gained than twice what is lost.
    soon = [replace(each, ends=NOW + RULES.notice_s + RULES.grace_s + 200) for each in scene.running]
    assert repack.propose(replace(scene, running=soon), RULES, everyone(scene)) is None


def test_nobody_is_moved_where_he_may_not_be() -> None:
    stage = Cluster(cluster(2, 4, pools=("east", "west")), HAEIN, Mix({}))
    running = (
        runs(stage, "east", ask(2, pool="east"), on(0, 0, 1)),
        runs(stage, "west", ask(2, pool="west"), on(1, 0, 1)),
    )
    scene = Scene(snapshot=stage.snapshot(), running=running, waiting=[waits("large", ask(4))], now=NOW)
    assert repack.propose(scene, RULES, everyone(scene)) is None


def test_a_gang_that_must_be_near_stays_near() -> None:
    stage = Cluster(cluster(3, 4), HAEIN, Mix({}))
    near = Gang(each=ask(1), members=2, near=Near.NODE, required=True)
    running = (
        runs(stage, "gang", near, [*on(0, 0), *on(0, 1)], saved=10.0),
        runs(stage, "b", ask(3), on(1, 0, 1, 2)),
        runs(stage, "c", ask(3), on(2, 0, 1, 2)),
    )
    scene = Scene(snapshot=stage.snapshot(), running=running, waiting=[waits("large", ask(4))], now=NOW)
    # One device is free on each of two nodes: the gang has no room there, and no other move makes any.
    assert repack.propose(scene, RULES, everyone(scene)) is None
    apart = replace(running[0], request=replace(near, required=False))
    found = repack.propose(replace(scene, running=(apart, *running[1:])), RULES, everyone(scene))
    assert found
    assert {node for node, _ in found.moves[0].places} == {1, 2}


def test_the_first_of_the_queue_is_helped_first() -> None:
    scene = two_halves()
    more = replace(scene, waiting=[*scene.waiting, waits("urgent", ask(3), priority=5)])
    found = repack.propose(more, RULES, everyone(scene))
    assert found
    assert found.job.id == "urgent"


def test_parts_of_devices_are_put_together() -> None:
    stage = Cluster(cluster(1, 2), HAEIN, Mix({}))
    running = (
        runs(stage, "x", ask(1, 500), on(0, 0), saved=10.0),
        runs(stage, "y", ask(1, 500), on(0, 1), saved=500.0),
    )
    scene = Scene(snapshot=stage.snapshot(), running=running, waiting=[waits("whole", ask(1))], now=NOW)
    found = repack.propose(scene, RULES, everyone(scene))
    assert found
    assert found.moves[0].running.job == "x"
    assert found.moves[0].places == tuple(on(0, 1))
    carried_out(scene, found)


def carried_out(scene: Scene, found: repack.Proposal) -> None:
    """The pass itself, once those who move have been told and have left: all of them start where it was said."""
    moved = {each.running.id for each in found.moves}
    kept = [Kept(job=found.job.id, keeping=Keeping.CLEARED, made=NOW, starts=NOW, places=found.places)]
    kept += [
        Kept(job=each.running.job, keeping=Keeping.CLEARED, made=NOW, starts=NOW, places=each.places)
        for each in found.moves
    ]
    told = [replace(each, ending=NOW + 60) if each.id in moved else each for each in scene.running]
    warned = turns.decide(replace(scene, running=told, kept=kept), RULES)
    assert not warned.dropped
    gone = Cluster(scene.snapshot, HAEIN, Mix({}))
    for each in scene.running:
        if each.id in moved:
            gone.end(each.request, each.placements)
    again = [
        Waiting(
            id=each.running.job,
            request=each.running.request,
            units=each.running.units,
            team=each.running.team,
            accounts=each.running.accounts,
            priority=0,
            queued=NOW + 70,
            limit_s=3600,
        )
        for each in found.moves
    ]
    after = replace(
        scene,
        snapshot=gone.snapshot(),
        running=[each for each in scene.running if each.id not in moved],
        waiting=[*scene.waiting, *again],
        kept=kept,
        now=NOW + 70,
    )
    started = {start.job: places(start.placements) for start in turns.decide(after, RULES).starts}
    assert started[found.job.id] == found.places
    for move in found.moves:
        assert started[move.running.job] == move.places


def places(placed: Sequence[Placement]) -> Places:
    return tuple((each.node_id, tuple(grant.device_id for grant in each.grants)) for each in placed)


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    """A few nodes on which jobs were started and some have ended again, and one or two that wait for more."""
    stage = Cluster(cluster(draw(st.integers(2, 4)), 4), HAEIN, Mix({}))
    shapes: list[Request | Gang] = [
        ask(1),
        ask(2),
        ask(3),
        ask(1, 500),
        ask(1, 250),
        Gang(each=ask(1), members=2),
        Gang(each=ask(2), members=2, near=Near.NODE, required=True),
    ]
    running = []
    for number in range(draw(st.integers(6, 24))):
        request = draw(st.sampled_from(shapes))
        placed = stage.start(request)
        if placed:
            at = places(placed)
            stage.end(request, placed)
            since = draw(st.integers(130, 9000))
            saved = draw(st.sampled_from([None, 0.0, 100.0]))
            left = draw(st.integers(100, 90_000))
            running.append(runs(stage, f"r{number}", request, at, since=since, saved=saved, left=left))
    stays = []
    for each in running:
        if draw(st.integers(0, 2)):
            stays.append(each)
        else:
            stage.end(each.request, each.placements)
    wishes: list[Request | Gang] = [ask(4), ask(3), Gang(each=ask(2), members=2)]
    asked = draw(st.lists(st.sampled_from(wishes), min_size=1, max_size=2))
    waiting = [waits(f"w{number}", wish) for number, wish in enumerate(asked)]
    return Scene(snapshot=stage.snapshot(), running=stays, waiting=waiting, now=NOW)


@settings(max_examples=300, deadline=None)
@given(scenes())
def test_after_the_moves_all_who_run_fit_and_so_does_the_one_that_waits(scene: Scene) -> None:
    found = repack.propose(scene, RULES, everyone(scene))
    if found is None:
        return
    assert found.gained > repack.WORTH * found.lost > 0
    after = Cluster(scene.snapshot, HAEIN, Mix({}))
    assert not after.start(found.job.request)
    for move in found.moves:
        after.end(move.running.request, move.running.placements)
    # Cluster itself refuses what would be given twice.
    going = [(found.job.request, found.places), *((move.running.request, move.places) for move in found.moves)]
    for request, where in going:
        assert places(after.start_at(request, where)) == where
    moves = {each.running.id: each.places for each in found.moves}
    assert repack.holds(scene, RULES, found.job.id, found.places, moves)
    carried_out(scene, found)


def test_a_proposal_does_not_hold_when_its_room_is_gone() -> None:
    scene = two_halves()
    found = repack.propose(scene, RULES, everyone(scene))
    assert found
    moves = {each.running.id: each.places for each in found.moves}
    stage = Cluster(scene.snapshot, HAEIN, Mix({}))
    late = runs(stage, "late", ask(1), on(0, 3))
    taken = replace(scene, snapshot=stage.snapshot(), running=[*scene.running, late])
    assert not repack.holds(taken, RULES, "large", found.places, moves)
    gone = replace(scene, running=scene.running[:1])
    assert not repack.holds(gone, RULES, "large", found.places, moves)
    assert not repack.holds(replace(scene, waiting=[]), RULES, "large", found.places, moves)


@pytest.mark.parametrize("free", [0, 1, 3])
def test_a_thousand_devices_take_less_than_a_second(free: int) -> None:
    rng = Random(1)
    stage = Cluster(cluster(129, 8), HAEIN, Mix({}))
    running: list[Running] = []
    for node in range(129):
        left = list(range(8 - free))
        while left:
            size = rng.choice([1, 2, 3])
            mine, left = left[:size], left[size:]
            since, saved = rng.uniform(200, 90_000), rng.uniform(0, 5000)
            request = ask(len(mine))
            running.append(runs(stage, f"r{len(running)}", request, on(node, *mine), since=since, saved=saved))
    wishes: list[Request | Gang] = [ask(8), *(Gang(each=ask(8), members=members) for members in range(2, 13))]
    queue = [waits(f"w{number}", wishes[number % 12], limit_s=3600 + number) for number in range(200)]
    scene = Scene(snapshot=stage.snapshot(), running=running, waiting=queue, now=NOW)
    began = time.process_time()
    found = repack.propose(scene, RULES, everyone(scene))
    took = time.process_time() - began
    # With one free on each node there is nowhere to go for those of two.
    assert bool(found) == (free == 3)
    assert took < 1.0
