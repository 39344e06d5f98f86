"""A month in memory: whoever waits is placed, everything held adds up, and the same seed lives the same month."""

from __future__ import annotations

from collections import defaultdict
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from dashboard.demo import month, work
from dashboard.demo.month import Course, Month
from dashboard.demo.work import DAY
from haein.cluster.backends.base import Cause
from haein.placement import books
from haein.placement.cluster import Cluster
from haein.placement.ledger import Kind
from haein.placement.model import Grant
from tests.demo.stage import MONDAY, facts

NODES, DAYS = 12, 6


def played(seed: int = 3, **more: object) -> Month:
    coming = work.wishes(seed, MONDAY, nodes=NODES, jobs_a_day=120)
    return month.run(coming, month.snapshot(facts(NODES)), seed=seed, seconds=DAYS * DAY, **more)  # type: ignore[arg-type]  # run's own options, whatever they are


@pytest.fixture(scope="module")
def lived() -> Month:
    return played()


def test_law_2_holds_at_every_instant_that_is_looked_at() -> None:
    seen = []

    def balance(cluster: Cluster, held: list[Grant]) -> None:
        books.check(cluster.snapshot(), [(grant, Kind.BILLABLE) for grant in held])
        seen.append(len(held))

    played(sampled=balance, sample_s=3600)
    assert len(seen) == DAYS * 24 - 1
    assert max(seen) > 20


def test_the_same_seed_lives_the_same_month(lived: Month) -> None:
    assert played() == lived
    assert played(seed=4) != lived


def test_a_job_waits_before_it_runs_and_ends_after_it(lived: Month) -> None:
    for course in lived.courses:
        assert course.wish.at <= min((run.queued_at for run in course.attempts), default=course.wish.at)
        for run in course.attempts:
            started = run.placed_at if run.started_at is None else run.started_at
            assert run.queued_at <= run.placed_at <= started <= run.ended_at
        assert not course.state or course.ended_at <= lived.seconds
        assert len({run.number for run in course.attempts}) == len(course.attempts)


def test_each_worker_of_a_gang_has_a_node_of_its_own(lived: Month) -> None:
    gangs = [run for course in lived.courses for run in course.attempts if course.wish.shape.workers > 1]
    assert len(gangs) > 5
    for run in gangs:
        assert len({placement.node_id for placement in run.placements}) == len(run.placements)
        assert {len(placement.grants) for placement in run.placements} == {8}


def test_an_attempt_ends_as_its_wish_says(lived: Month) -> None:
    by_state: defaultdict[str, list[Course]] = defaultdict(list)
    for course in lived.courses:
        by_state[course.state].append(course)
    assert by_state.keys() >= {"succeeded", "failed", "cancelled"}
    for course in by_state["succeeded"]:
        run = course.attempts[-1]
        assert run.started_at is not None
        assert run.ended_at - run.started_at == pytest.approx(course.wish.duration_s)
        assert (run.cause, run.exit_code) == (Cause.EXITED, 0)
    for course in by_state["failed"]:
        # As often as it may, and no attempt that its node spoiled is counted.
        assert course.failures == course.wish.retries + 1
        assert len(course.attempts) == course.failures + course.lost


def test_what_runs_on_a_node_that_fails_is_lost_and_runs_again() -> None:
    lived = month.run(
        work.wishes(1, datetime(2026, 6, 1, tzinfo=UTC), nodes=NODES, jobs_a_day=120),
        month.snapshot(facts(NODES)),
        seed=11,
        seconds=60 * DAY,
    )
    assert lived.failures
    lost = [course for course in lived.courses if course.lost]
    assert lost
    for course in lost:
        for run, following in pairwise([*course.attempts, None]):
            if run and run.cause is Cause.LOST:
                assert run.node in {placement.node_id for placement in run.placements}
                assert following is None or following.queued_at == run.ended_at
