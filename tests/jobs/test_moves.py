"""A state changes by compare-and-swap: of all who try, one wins, and the others touch nothing."""

from collections.abc import Callable
from functools import partial

import pytest

from haein.lib import clock
from jobs import moves
from jobs.models import Event, Job
from jobs.states import TABLE, State
from jobs.states import Event as Kind
from tests.cast import Person, together

Submit = Callable[..., Job]


@pytest.mark.django_db(transaction=True)
def test_of_many_who_move_the_same_jobs_one_wins_each(big: None, alice: Person, submit: Submit) -> None:
    jobs = [submit(alice).pk for _ in range(5)]

    def place(number: int) -> list[moves.Moved]:
        return moves.apply(Kind.PLACE, {pk: moves.Why("placed", {"where": number}) for pk in jobs}, now=clock.now())

    moved = together(place, 6)
    assert sorted(row.id for rows in moved for row in rows) == sorted(jobs)
    assert Event.objects.filter(kind="place").count() == 5
    assert set(Job.objects.values_list("state", flat=True)) == {"starting"}


@pytest.mark.django_db(transaction=True)
def test_of_two_different_moves_one_wins(big: None, alice: Person, submit: Submit) -> None:
    for _ in range(5):
        job = submit(alice)
        kinds = [Kind.PLACE, Kind.RETRY, Kind.RUN, Kind.PLACE]
        moved = together(partial(_move, job, kinds), 4)
        # Queued leads to starting once; running may follow it, and nothing else fits.
        assert [len(rows) for n, rows in enumerate(moved) if kinds[n] is Kind.PLACE].count(1) == 1
        assert moved[1] == []
        job.refresh_from_db()
        assert job.state == ("running" if moved[2] else "starting")


def _move(job: Job, kinds: list[Kind], number: int) -> list[moves.Moved]:
    return moves.apply(kinds[number], {job.pk: moves.Why("x")}, now=clock.now())


def test_jobs_in_another_state_are_left_alone(big: None, alice: Person, submit: Submit) -> None:
    one, other = submit(alice), submit(alice)
    moves.apply(Kind.CANCEL, {other.pk: moves.Why("cancelled_queued", {"by": "Alice"})}, now=clock.now())
    why = moves.Why("placed", {"where": "node1/gpu0"})
    (moved,) = moves.apply(Kind.PLACE, {one.pk: why, other.pk: why}, now=clock.now())
    assert (moved.id, moved.old, moved.new, moved.team_id) == (one.pk, State.QUEUED, State.STARTING, alice.team.pk)
    other.refresh_from_db()
    assert (other.state, other.reason) == ("cancelled", "cancelled_queued")


@pytest.mark.parametrize("kind", list(Kind))
def test_the_rows_go_where_the_table_says(big: None, alice: Person, submit: Submit, kind: Kind) -> None:
    now = clock.now()
    for old in State:
        job = submit(alice)
        Job.objects.filter(pk=job.pk).update(state=old, ended_at=now if old in TABLE[Kind.RETRY] else None)
        moved = moves.apply(kind, {job.pk: moves.Why("x", {"n": 1})}, now=now)
        job.refresh_from_db()
        assert job.state == TABLE[kind].get(old, old)
        assert bool(moved) == (old in TABLE[kind])
        assert (job.ended_at is None) == job.is_open


def test_no_jobs_are_no_moves(db: None) -> None:
    assert moves.apply(Kind.PLACE, {}, now=clock.now()) == []
