"""What is asked of the cluster is made up, but always in the same way, and never more than could be given."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from itertools import islice, takewhile

import pytest

from dashboard.demo import people, work
from dashboard.demo.history import asked
from dashboard.demo.work import DAY
from jobs.spec import Spec
from tests.demo.stage import MONDAY, wishes


def test_the_same_seed_asks_for_the_same() -> None:
    assert list(islice(work.wishes(7, MONDAY), 2000)) == list(islice(work.wishes(7, MONDAY), 2000))
    assert list(islice(work.wishes(7, MONDAY), 50)) != list(islice(work.wishes(8, MONDAY), 50))


def test_wishes_come_in_order_and_with_numbers_of_their_own() -> None:
    coming = wishes(days=2)
    assert [wish.at for wish in coming] == sorted(wish.at for wish in coming)
    assert [wish.number for wish in coming] == list(range(len(coming)))


def test_as_many_jobs_come_as_were_asked_for() -> None:
    count = sum(1 for _ in takewhile(lambda wish: wish.at < 28 * DAY, work.wishes(1, MONDAY, jobs_a_day=1000)))
    assert count == pytest.approx(28_000, rel=0.04)


def test_afternoons_are_busier_than_nights_and_weekends() -> None:
    begin = datetime(2026, 6, 1, tzinfo=UTC) - work.ZONE  # a Monday's midnight, where its people are
    hours, days = Counter[int](), Counter[int]()
    for wish in takewhile(lambda wish: wish.at < 7 * DAY, work.wishes(1, begin)):
        hours[int(wish.at % DAY // 3600)] += 1
        days[int(wish.at // DAY)] += 1
    assert hours[14] > 4 * hours[4]
    assert days[2] > 1.5 * days[6]


def test_every_kind_of_work_is_somebodys() -> None:
    assert {wish.tags[0] for wish in wishes(days=3)} == set(work.KINDS)
    for wish in wishes(days=3):
        assert wish.person in wish.team.people
        assert wish.tags[0] in dict(wish.team.does)


@pytest.mark.parametrize("nodes", [2, 8, 12, 129])
def test_no_gang_is_larger_than_its_cluster_can_spare(nodes: int) -> None:
    coming = takewhile(lambda wish: wish.at < 3 * DAY, work.wishes(1, MONDAY, nodes=nodes, jobs_a_day=nodes * 5))
    assert max(wish.shape.workers for wish in coming) <= max(2, nodes // 6)


def test_a_wish_is_a_job_that_could_be_submitted() -> None:
    for wish in wishes(days=1):
        Spec(**asked(wish)).check()


def test_run_times_have_the_shape_of_the_trace() -> None:
    """Half of openb's pods with a share of a GPU ran for up to 539 s, nine of ten up to 9,235 s."""
    shares = [wish for wish in wishes(days=7) if wish.shape.share < 1000 and wish.tags == (people.EXPERIMENTS,)]
    whole = sorted(wish.duration_s for wish in shares if not wish.exit_code)
    assert len(whole) > 3000
    assert whole[len(whole) // 2] == pytest.approx(539, rel=0.15)
    assert whole[len(whole) * 9 // 10] == pytest.approx(9235, rel=0.3)
