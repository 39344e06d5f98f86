"""What an engine with a queue of its own runs is on record where it runs, whatever was placed where before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext
from hypothesis import given, settings
from hypothesis import strategies as st

from billing import metering
from billing.models import Usage
from haein.cluster.backends.base import Cause, Phase, Place
from haein.cluster.models import Device
from jobs import snapshots, whereabouts, wording
from jobs.models import Allocation, Attempt, Event, Job
from tests.cast import Person
from tests.jobs.engine import Engine, held, instances, share, whole

Submit = Callable[..., Job]
ONE = "1g.23gb"


def said(job: Job, code: str) -> list[str]:
    events = Event.objects.filter(job=job, reason=code).order_by("id")
    return [wording.sentence(event.reason, event.reason_values) for event in events]


def test_it_is_on_record_where_it_runs_and_history_says_both(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, gpus=2)
    (attempt,) = engine.take()
    assert held(attempt) == [(0, "node1", 0, None), (0, "node1", 1, None)]
    engine.runs(attempt.pk, whole("node1", 1, 5))
    engine.look()
    assert held(attempt) == [(0, "node1", 1, None), (0, "node1", 5, None)]
    kept = Allocation.objects.get(attempt=attempt, device__index=1)
    assert kept.pk == Allocation.objects.filter(attempt=attempt).order_by("pk")[1].pk, "what was right stays"
    assert said(job, "placed") == ["Placed on node1/gpu0-1."]
    assert said(job, "found_at") == ["The cluster runs it on node1/gpu1,5, which it chose itself."]
    assert {row.billable_from for row in Allocation.objects.all()} == {Attempt.objects.get().started_at}


def test_what_is_where_it_was_put_is_left_alone(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, gpus=2)
    (attempt,) = engine.take()
    engine.runs(attempt.pk, whole("node1", 1, 0))
    engine.look()
    with CaptureQueriesContext(connection) as seen:
        engine.look()
    assert not [query["sql"] for query in seen if query["sql"].startswith(("UPDATE", "INSERT"))]
    assert said(job, "found_at") == []


def test_two_that_were_found_in_each_others_places_change_them(engine: Engine, alice: Person, submit: Submit) -> None:
    for _ in range(2):
        submit(alice, profile=ONE)
    one, other = engine.take()
    before = held(one), held(other)
    assert [spot[0][1:3] for spot in before] == [("node1", 0), ("node1", 0)]
    engine.runs(one.pk, instances("node1", (0, before[1][0][3] or 0)))
    engine.runs(other.pk, instances("node1", (0, before[0][0][3] or 0)))
    engine.look()
    assert (held(other), held(one)) == before


def test_whoever_has_not_begun_gets_what_was_given_up(engine: Engine, alice: Person, submit: Submit) -> None:
    first, second = submit(alice, gpus=2), submit(alice, gpus=2)
    one, other = engine.take()
    assert [row[2] for row in held(other)] == [2, 3]
    engine.runs(one.pk, whole("node1", 3, 2))
    engine.look()
    assert [row[2] for row in held(one)] == [2, 3]
    assert [row[2] for row in held(other)] == [0, 1]
    assert said(first, "found_at") == ["The cluster runs it on node1/gpu2-3, which it chose itself."]
    assert said(second, "gave_way") == ["The cluster gave its place to another run; it is placed on node1/gpu0-1 now."]
    engine.runs(other.pk, whole("node1", 0, 1))
    engine.look()
    assert said(second, "found_at") == []


def test_a_place_on_another_node_is_no_place_for_who_was_sent_here(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    """The engine was told its node. Until it is seen, two have the device on paper and nothing else is put there."""
    submit(alice, gpus=8)
    submit(alice, gpus=1)
    one, other = engine.take()
    assert (held(one)[0][1], held(other)[0][1]) == ("node1", "node2")
    engine.runs(one.pk, whole("node2", *range(8)))
    engine.look()
    assert {row[1] for row in held(one)} == {"node2"}
    assert Attempt.objects.get(pk=one.pk).node.name == "node2"
    assert held(other)[0][1] == "node2"
    free = {each.node: each.free for node in snapshots.now().nodes for each in node.devices}
    assert free == {"node1": 1000, "node2": 0}


def test_shares_of_one_device_stay_together_as_far_as_it_goes(engine: Engine, alice: Person, submit: Submit) -> None:
    for _ in range(3):
        submit(alice, share=500)
    one, other, third = engine.take()
    assert [held(each)[0][2] for each in (one, other, third)] == [0, 0, 1]
    engine.runs(third.pk, share("node1", 0, 500))
    engine.look()
    assert [held(each)[0][2] for each in (one, other, third)] == [0, 1, 0]


def test_a_device_that_nobody_has_reported_is_waited_for(engine: Engine, alice: Person, submit: Submit) -> None:
    submit(alice)
    (attempt,) = engine.take()
    Device.objects.filter(uuid="GPU-node1-5").delete()
    engine.runs(attempt.pk, whole("node1", 5))
    engine.look()
    assert held(attempt) == [(0, "node1", 0, None)]
    assert Attempt.objects.get().state == "running", "it costs from its first second all the same"
    engine.report()
    engine.look()
    assert held(attempt) == [(0, "node1", 5, None)]


@pytest.mark.parametrize(
    "places",
    [
        (whole("node1", 3),),  # one for two
        (whole("node1", 3, 3),),
        (whole("node1", 3, 4), whole("node1", 5)),
        (instances("node1", (3, 0), (4, 0)),),
        (whole("node9", 3, 4),),
    ],
)
def test_other_slices_than_these_are_not_guessed_at(
    engine: Engine, alice: Person, submit: Submit, places: tuple[Place, ...]
) -> None:
    submit(alice, gpus=2)
    (attempt,) = engine.take()
    engine.runs(attempt.pk, *places)
    engine.look()
    assert [row[2] for row in held(attempt)] == [0, 1]
    assert Attempt.objects.get().state == "running"


def test_a_gang_is_followed_rank_by_rank(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, gpus=8, workers=2)
    (attempt,) = engine.take()
    assert [attempt.node.name, attempt.workers.get().node.name] == ["node1", "node2"]
    engine.runs(attempt.pk, whole("node2", *range(8)), whole("node1", *range(8)))
    engine.look()
    attempt.refresh_from_db()
    assert [attempt.node.name, attempt.workers.get().node.name] == ["node2", "node1"]
    assert {row[:2] for row in held(attempt)} == {(0, "node2"), (1, "node1")}
    assert said(job, "found_at") == ["The cluster runs it on node2/gpu0-7; node1/gpu0-7, which it chose itself."]
    assert said(job, "runs_on_several") == ["Its workers run: the first on node2, and 1 more."]
    with CaptureQueriesContext(connection) as seen:
        engine.look()
    assert not [query["sql"] for query in seen if query["sql"].startswith("UPDATE")]


def test_one_without_gpus_is_followed_to_its_node(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, gpus=0)
    (attempt,) = engine.take()
    engine.runs(attempt.pk, Place("node2", ()))
    engine.look()
    assert Attempt.objects.get().node.name == "node2"
    assert said(job, "found_at") == ["The cluster runs it on node2, which it chose itself."]


def test_a_worker_may_have_several_instances_of_one_device(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, gpus=3, profile=ONE)
    (attempt,) = engine.take()
    assert len({row[2] for row in held(attempt)}) == 3
    engine.runs(attempt.pk, instances("node1", (4, 0), (4, 1), (4, 2)))
    engine.look()
    assert [row[2:] for row in held(attempt)] == [(4, 0), (4, 1), (4, 2)]
    assert said(job, "found_at") == [f"The cluster runs it on node1/gpu4 ({ONE}), which it chose itself."]


def test_another_instance_of_the_same_device_is_no_news(engine: Engine, alice: Person, submit: Submit) -> None:
    job = submit(alice, profile=ONE)
    (attempt,) = engine.take()
    ((*_, device, start),) = held(attempt)
    assert start is not None
    engine.runs(attempt.pk, instances("node1", (device, start + 1)))
    engine.look()
    assert [row[2:] for row in held(attempt)] == [(device, start + 1)]
    assert said(job, "found_at") == []


def test_what_has_ended_before_it_was_seen_is_on_record_where_it_was(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    """And somebody who took its place in the same second is, too."""
    job, next_job = submit(alice, profile=ONE), submit(alice, profile=ONE)
    one, other = engine.take()
    engine.runs(one.pk, instances("node1", (6, 3)))
    engine.ends(one.pk, Cause.EXITED, exit_code=0)
    engine.runs(other.pk, instances("node1", (6, 3)))
    engine.look()
    assert held(one) == held(other) == [(0, "node1", 6, 3)]
    assert [Job.objects.get(pk=each.pk).state for each in (job, next_job)] == ["succeeded", "running"]
    assert said(job, "runs") == ["Its process runs on node1."]
    metering.pull()
    assert Usage.objects.get().seconds == 1
    engine.runs(other.pk, instances("node1", (6, 4)))
    engine.look()
    assert held(one) == [(0, "node1", 6, 3)], "what has ended is never touched again"


def test_an_instance_that_can_not_give_way_keeps_the_other_where_it_is(
    engine: Engine, alice: Person, submit: Submit, caplog: pytest.LogCaptureFixture
) -> None:
    """A contradiction: two that run at one place. Neither pass nor page may stumble over it."""
    for _ in range(2):
        submit(alice, profile=ONE)
    one, other = engine.take()
    engine.runs(one.pk, instances("node1", (0, 0)))
    engine.look()
    before = held(other)
    engine.runs(other.pk, instances("node1", (0, 0)))
    engine.look()
    assert held(other) == before
    snapshots.now()
    engine.ends(one.pk, Cause.EXITED, exit_code=0)
    engine.look()
    assert held(other) == [(0, "node1", 0, 0)]


def queries(engine: Engine, alice: Person, submit: Submit, count: int) -> int:
    for _ in range(count):
        submit(alice, profile=ONE)
    attempts = engine.take()[-count:]
    spots = [(row[0][2], row[0][3] or 0) for row in (held(each) for each in attempts)]
    for attempt, spot in zip(attempts, reversed(spots), strict=True):
        engine.runs(attempt.pk, instances("node1", spot))
    sights = engine.observe([attempt.pk for attempt in attempts])
    with CaptureQueriesContext(connection) as seen:
        whereabouts.follow(whereabouts.elsewhere(list(sights), sights), sights, now=attempts[0].placed_at)
    return len(seen)


def test_many_take_as_many_queries_as_few(engine: Engine, alice: Person, submit: Submit) -> None:
    assert queries(engine, alice, submit, 9) == queries(engine, alice, submit, 30) <= 20


INSTANCES = [(device, start) for device in (6, 7) for start in range(7)]
# What is seen each time: how many instances and how many whole devices run, in which places, and how many have ended.
SIGHTS = st.tuples(
    st.integers(0, 11), st.permutations(INSTANCES), st.integers(0, 4), st.permutations(range(6)), st.integers(0, 3)
)


def test_after_any_row_of_sights_what_runs_is_on_record_where_it_runs(
    engine: Engine, alice: Person, submit: Submit
) -> None:
    """The last two devices are carved, the others whole. Nothing is ever on paper twice."""
    for _ in range(4):
        submit(alice)
    for _ in range(11):
        submit(alice, profile=ONE)
    engine.facts = engine.facts[:1]
    engine.report()
    attempts = engine.take()
    wholes, carved = attempts[:4], attempts[4:]
    Allocation.objects.filter(profile=ONE).update(start=None, profile="")
    for row, (index, start) in zip(Allocation.objects.filter(units=8).order_by("pk"), INSTANCES, strict=False):
        device = Device.objects.get(uuid=f"GPU-node1-{index}")
        Allocation.objects.filter(pk=row.pk).update(device=device, start=start, profile=ONE)

    @given(st.lists(SIGHTS, min_size=1, max_size=4))
    @settings(max_examples=15, deadline=None)
    def check(sights: list[Any]) -> None:
        with transaction.atomic():
            engine.sights.clear()
            engine.sights = dict(engine.observe([attempt.pk for attempt in attempts]))
            for sight in sights:
                see(*sight)
            transaction.set_rollback(True)

    def begun(attempts: list[Attempt], first: int) -> list[Attempt]:
        """The first so many, and those that run already; without those that have ended."""
        phases = [engine.sights[attempt.pk].phase for attempt in attempts]
        started = [phase is not Phase.UNKNOWN or n < first for n, phase in enumerate(phases)]
        return [a for a, on, phase in zip(attempts, started, phases, strict=True) if on and phase is not Phase.ENDED]

    def see(many: int, spots: list[tuple[int, int]], few: int, indexes: list[int], over: int) -> None:
        running = begun(carved, many)
        for attempt, spot in zip(running, spots, strict=False):
            engine.runs(attempt.pk, instances("node1", spot))
        for attempt, index in zip(begun(wholes, few), indexes, strict=False):
            engine.runs(attempt.pk, whole("node1", index))
        for attempt in running[:over]:
            engine.ends(attempt.pk, Cause.EXITED, exit_code=0)
        engine.look()
        for attempt in attempts:
            seen = engine.sights[attempt.pk]
            where = [
                (0, "node1", s.device_index, s.start if s.profile else None) for p in seen.places for s in p.slices
            ]
            assert not where or held(attempt) == where
        free = {each.id: each for node in snapshots.now().nodes for each in node.devices}
        assert sum(1000 - each.free for each in free.values() if not each.slices) == 4000
        assert (
            sum(len(each.slices) for each in free.values())
            == Allocation.objects.filter(ended_at=None, profile=ONE).count()
        )

    check()
