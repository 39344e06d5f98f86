"""Replays survive their workers: one at a time, taken over when a worker dies, stopped when cancelled, given back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from haein.cluster.models import Node
from haein.lib import clock
from haein.lib.errors import Forbidden, NotFound, Problem
from haein.placement.model import Gang, Near
from jobs import replaying, replays, tasks
from jobs.models import Attempt, Job, Replay
from jobs.replays import Asked, NodeKind
from tests.cast import Person, together

pytestmark = pytest.mark.usefixtures("big")
MURI = b"job_id,num_gpu,submit_time,duration\n" + b"".join(b"%d,1,%d,5000\n" % (n, n * 1000) for n in range(50))
ASKED = Asked(policies=("packed",), own=True)
Submit = Callable[..., Job]


def never() -> bool:
    return False


def start(oda: Person, asked: Asked = ASKED, content: bytes = MURI) -> Replay:
    return replays.start(by=oda.user, asked=asked, file_name="muri.csv", content=content)


def test_the_worker_s_task_runs_all_that_wait_in_their_order(oda: Person) -> None:
    first, second = start(oda), start(oda)
    tasks.replay()
    first.refresh_from_db()
    second.refresh_from_db()
    assert {first.state, second.state} == {"done"}
    assert first.ended_at < second.ended_at  # type: ignore[operator]
    assert (first.progress, bytes(first.trace)) == (1000, b"")
    assert first.result is not None
    assert first.result == second.result


def test_one_that_lost_its_worker_is_run_again_and_the_first_may_write_no_more(oda: Person) -> None:
    replay, now = start(oda), clock.now()
    lost = replays.take(now=now)
    assert lost
    assert replays.take(now=now + timedelta(seconds=19)) is None
    again = replays.take(now=now + replays.LEASE + timedelta(seconds=1))
    assert again == replay
    assert not replays.go_on(lost, progress=500, now=now)
    replays.finish(lost, {"runs": ["stale"]}, now=now)
    replay.refresh_from_db()
    assert (replay.state, replay.result) == ("running", None)
    assert replays.go_on(again, progress=500, now=now)


def test_one_that_kills_its_worker_each_time_is_given_up(oda: Person) -> None:
    replay, now = start(oda), clock.now()
    for turn in range(replays.MOST_TRIES):
        assert replays.take(now=now + turn * 2 * replays.LEASE)
    assert replays.take(now=now + 10 * replays.LEASE) is None
    replay.refresh_from_db()
    assert replay.state == "failed"
    assert "died 3 times" in replay.problem


def test_a_worker_that_is_asked_to_end_gives_it_back_and_that_is_no_try(
    oda: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replaying, "REPORT_S", 0)
    replay = start(oda)
    assert not replaying.run_next(ending=lambda: True)
    replay.refresh_from_db()
    assert (replay.state, replay.tries, bytes(replay.trace)) == ("queued", 0, MURI)
    tasks.replay()
    replay.refresh_from_db()
    assert replay.state == "done"


@pytest.mark.parametrize("end", [replays.cancel, replays.delete])
def test_one_that_is_cancelled_or_deleted_in_the_middle_stops(
    oda: Person, monkeypatch: pytest.MonkeyPatch, end: Callable[..., None]
) -> None:
    monkeypatch.setattr(replaying, "REPORT_S", 0)
    replay = start(oda)
    looks = []

    def ending() -> bool:
        looks.append(True)
        if len(looks) == 5:
            end(replay.pk, by=oda.user)
        return False

    assert replaying.run_next(ending=ending)
    assert len(looks) == 5
    assert not Replay.objects.exclude(state="cancelled").exists()


@pytest.mark.django_db(transaction=True)
def test_of_several_workers_one_has_it(oda: Person) -> None:
    start(oda)
    taken = together(lambda _: replays.take(now=clock.now()), 4)
    assert len([replay for replay in taken if replay]) == 1


def test_only_an_operator_replays(alice: Person, oda: Person) -> None:
    replay = start(oda)
    with pytest.raises(Forbidden):
        start(alice)
    for verb in (replays.get, replays.cancel, replays.delete):
        with pytest.raises(NotFound):
            verb(replay.pk, by=alice.user)
    assert not replays.newest(by=alice.user).exists()
    assert Replay.objects.get().state == "queued"


def test_too_many_at_once_are_refused(oda: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replays, "MOST_OPEN", 1)
    start(oda)
    with pytest.raises(Problem, match="1 replays wait already"):
        start(oda)


def test_more_jobs_than_fit_into_memory_are_refused(
    oda: Person, alice: Person, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replays, "MOST_JOBS", 2)
    file = start(oda)
    for _ in range(3):
        ran(submit(alice), 1, 0, 10)
    now = clock.now()
    own = start(oda, replace(ASKED, since=now - timedelta(days=1), until=now), b"")
    tasks.replay()
    for replay in (file, own):
        replay.refresh_from_db()
        assert (replay.state, replay.problem[:33]) == ("failed", "There are more than 2 jobs: take ")


def test_what_was_asked_is_read_back_as_it_was() -> None:
    now = clock.now()
    asked = Asked(policies=("fgd",), own=False, nodes=(3,), kind=NodeKind(8, "B200", 1, 2), since=now, until=now)
    assert Asked.from_json(asked.as_json()) == asked
    assert Asked.from_json(ASKED.as_json()) == ASKED


def ran(job: Job, number: int, begun: int | None, ended: int | None) -> None:
    """An attempt from second to second after the submit."""
    at = [job.created_at + timedelta(seconds=second) if second is not None else None for second in (begun, ended)]
    Attempt.objects.create(
        job=job,
        number=number,
        node=Node.objects.get(),
        cpus=job.cpus,
        memory_mb=job.memory_mb,
        placed_at=job.created_at,
        started_at=at[0],
        ended_at=at[1],
        state="ended" if ended else "running",
    )


def test_our_own_jobs_are_read_with_what_they_asked_for_and_how_long_they_ran(alice: Person, submit: Submit) -> None:
    retried, gang, waits, never_began = (
        submit(alice, gpus=2, retries=1, priority=7),
        submit(alice, gpus=4),
        submit(alice),
        submit(alice),
    )
    # As a cluster that starts gangs would have taken it.
    Job.objects.filter(pk=gang.pk).update(workers=2, near="rack", near_required=True)
    ran(retried, 1, 10, 30)
    ran(retried, 2, 40, 100)
    ran(gang, 1, 5, None)
    ran(never_began, 1, None, 20)
    now = gang.created_at + timedelta(seconds=65)
    found = replaying.own_jobs(retried.created_at, now, now=now)
    assert (len(found.jobs), found.never_ran, found.running) == (2, 2, 1)
    one, many = found.jobs
    assert (one.duration, one.priority, one.units) == (80, 7, 2000)
    assert many.duration == 60
    assert isinstance(many.request, Gang)
    assert (many.request.members, many.request.each.gpus) == (2, 4)
    assert (many.request.near, many.request.required) == (Near.RACK, True)
    assert waits.created_at < now


def test_a_month_of_own_jobs_is_one_query(
    alice: Person, submit: Submit, django_assert_num_queries: Callable[..., Any]
) -> None:
    for _ in range(10):
        ran(submit(alice), 1, 0, 10)
    now = clock.now()
    with django_assert_num_queries(1):
        found = replaying.own_jobs(now - timedelta(days=30), now, now=now)
    assert len({id(job.request) for job in found.jobs}) == 1


def test_a_cluster_like_ours_has_our_nodes_in_turn_with_racks_of_their_own(oda: Person) -> None:
    (size,) = replaying.clusters(Asked(policies=("packed",), own=False, nodes=(3,)))
    assert [node.name for node in size.snapshot.nodes] == ["node1", "node1+1", "node1+2"]
    assert {len(node.devices) for node in size.snapshot.nodes} == {8}
    assert {device.free for node in size.snapshot.nodes for device in node.devices} == {1000}
