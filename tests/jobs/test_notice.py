"""A run that must yield is told when and why, once; and told when it need not after all."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from haein.lib import clock
from jobs import preempting, scheduling, wording
from jobs.models import Attempt, Job
from jobs.preempting import Yield
from tests.cast import Person, together

Submit = Callable[..., Job]


@pytest.fixture
def running(big: None, alice: Person, submit: Submit) -> list[Attempt]:
    """Two attempts that hold a GPU each."""
    for _ in range(2):
        submit(alice)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))
    return list(Attempt.objects.order_by("number", "pk"))


def test_the_notice_is_on_the_attempt_and_in_the_events(running: list[Attempt], alice: Person, submit: Submit) -> None:
    one, other = running
    now = clock.now()
    taker = submit(alice, gpus=8)
    notice = Yield("reclaimed", {"gpus": "8"}, now + timedelta(seconds=60), taker.pk)
    assert preempting.warn({one.pk: notice}, now=now) == [one.pk]
    one.refresh_from_db()
    assert (one.preempt_at, one.preempt_code, one.preempt_values) == (notice.at, "reclaimed", {"gpus": "8"})
    assert (one.preempted_for, one.warned_at) == (taker, None)
    event = one.job.events.get(reason="warned")
    assert (event.kind, event.old_state, event.attempt) == ("note", one.job.state, 1)
    said = wording.sentence(event.reason, event.reason_values)
    assert said.startswith(
        f"It is asked to end at {notice.at:%Y-%m-%d %H:%M:%S} UTC. A team that is guaranteed the GPUs"
    )
    assert "8 in all" in said
    assert not other.job.events.filter(reason="warned").exists()


def test_the_first_notice_stands(running: list[Attempt]) -> None:
    one, other = running
    now = clock.now()
    first, second = (Yield("reclaimed", {"gpus": "1"}, now + timedelta(seconds=s)) for s in (60, 5))
    preempting.warn({one.pk: first}, now=now)
    Attempt.objects.filter(pk=other.pk).update(state="ended")
    assert preempting.warn({one.pk: second, other.pk: second}, now=now) == []
    one.refresh_from_db()
    assert one.preempt_at == first.at
    assert one.job.events.filter(reason="warned").count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_many_who_give_notice_one_wins_each(running: list[Attempt]) -> None:
    now = clock.now()
    notice = Yield("reclaimed", {"gpus": "1"}, now + timedelta(seconds=60))
    told = together(lambda _: preempting.warn({row.pk: notice for row in running}, now=now), 5)
    assert sorted(pk for won in told for pk in won) == sorted(row.pk for row in running)
    assert all(row.job.events.filter(reason="warned").count() == 1 for row in running)


def test_it_is_called_off_while_the_end_was_not_asked_for(running: list[Attempt]) -> None:
    one, other = running
    now = clock.now()
    notice = Yield("moved", {"old": "node1", "new": "node2"}, now + timedelta(seconds=60))
    preempting.warn({one.pk: notice, other.pk: Yield(notice.code, notice.values, now)}, now=now)
    assert preempting.withdraw([one.pk, other.pk], now=now) == [one.pk]
    one.refresh_from_db()
    other.refresh_from_db()
    assert (one.preempt_at, one.preempt_code, one.preempt_values, one.preempted_for) == (None, "", {}, None)
    assert other.preempt_at == now
    event = one.job.events.get(reason="notice_withdrawn")
    assert "need not end" in wording.sentence(event.reason, event.reason_values)
    assert preempting.warn({one.pk: notice}, now=now) == [one.pk]  # it may be told again
