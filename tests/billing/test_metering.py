"""Every ended run is metered exactly once, whoever pulls, however often and however late."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from billing import metering, prices
from billing.models import Price, Usage
from haein.cluster.models import DeviceModel
from haein.lib import clock
from jobs.models import Allocation, Job
from tests.cast import Person, together

Submit = Callable[..., Job]
Used = Callable[..., Allocation]
START = datetime(2026, 11, 20, 10, 0, 0, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def lines() -> list[tuple[int, int]]:
    return list(Usage.objects.order_by("starts").values_list("seconds", "units"))


def test_pulling_again_adds_nothing(alice: Person, submit: Submit, used: Used) -> None:
    used(submit(alice), START, after(90), units=500)
    assert (metering.pull(), metering.pull()) == (1, 0)
    Allocation.objects.update(metered=False)  # as after a crash between the two writes, were they not one
    assert metering.pull() == 1
    assert lines() == [(90, 500)]


def test_a_line_says_who_used_what_from_when_to_when(alice: Person, submit: Submit, used: Used) -> None:
    held = used(submit(alice), after(0.9), after(61.2), units=250)
    metering.pull()
    row = Usage.objects.get()
    assert (row.starts, row.ends, row.seconds, row.units) == (START, after(61), 61, 250)
    assert (row.team, row.user, row.job, row.device) == (alice.team, alice.user, held.attempt.job, held.device)
    assert row.price == Price.objects.get()


@pytest.mark.django_db(transaction=True)
def test_many_who_pull_at_once_write_each_line_once(alice: Person, submit: Submit, used: Used) -> None:
    job = submit(alice)
    for number in range(40):
        used(job, after(number), after(number + 10))
    pulled = together(lambda _: metering.pull(), 5)
    assert sum(pulled) == 40
    assert lines() == [(10, 1000)] * 40


def test_what_runs_is_left_until_it_ends_and_then_pulled_late(alice: Person, submit: Submit, used: Used) -> None:
    held = used(submit(alice), START, None)
    assert metering.pull() == 0
    held.ended_at = after(86_400)
    held.save()
    metering.pull()
    assert lines() == [(86_400, 1000)]


def test_the_turn_of_the_month_cuts_a_line(alice: Person, submit: Submit, used: Used) -> None:
    start = datetime(2026, 10, 31, 23, 59, 30, tzinfo=UTC)
    used(submit(alice), start, datetime(2026, 12, 1, 0, 0, 20, tzinfo=UTC))
    metering.pull()
    assert [seconds for seconds, _ in lines()] == [30, 30 * 86_400, 20]
    assert [row.starts.month for row in Usage.objects.order_by("starts")] == [10, 11, 12]


def test_a_turn_of_the_month_at_an_end_makes_no_empty_line(alice: Person, submit: Submit, used: Used) -> None:
    turn = datetime(2026, 11, 1, tzinfo=UTC)
    used(submit(alice), turn - timedelta(seconds=5), turn)
    used(submit(alice), turn, turn + timedelta(seconds=7))
    metering.pull()
    assert [seconds for seconds, _ in lines()] == [5, 7]


def test_the_year_turns_as_well(alice: Person, submit: Submit, used: Used) -> None:
    turn = datetime(2027, 1, 1, tzinfo=UTC)
    used(submit(alice), turn - timedelta(seconds=5), turn + timedelta(seconds=7))
    metering.pull()
    assert [seconds for seconds, _ in lines()] == [5, 7]


def test_a_price_that_changes_under_a_run_makes_two_lines(
    alice: Person, oda: Person, submit: Submit, used: Used
) -> None:
    start = clock.now()
    change = start + timedelta(seconds=3600)
    prices.set_price(by=oda.user, device_model=DeviceModel.objects.get(), per_hour=9_000_000, valid_from=change)
    used(submit(alice), change - timedelta(seconds=100), change + timedelta(seconds=50))
    metering.pull()
    assert list(Usage.objects.order_by("starts").values_list("seconds", "price__per_hour")) == [
        (100, 4_000_000),
        (50, 9_000_000),
    ]


@pytest.mark.parametrize("units", [1, 1000])
def test_what_the_operators_machine_spoiled_is_not_charged(
    alice: Person, submit: Submit, used: Used, units: int
) -> None:
    used(submit(alice), START, after(1000), units=units, waived=True)
    assert metering.pull() == 1
    assert lines() == []


def test_the_last_seconds_that_are_credited_are_not_charged_whatever_they_cross(
    alice: Person, submit: Submit, used: Used
) -> None:
    """Forty-one whole seconds lie before the turn of the month and sixty after it."""
    turn = datetime(2026, 11, 1, tzinfo=UTC)
    start, end = turn - timedelta(seconds=40.5), turn + timedelta(seconds=60.9)
    used(submit(alice), start, end, credited_s=71)
    used(submit(alice), start, end, credited_s=11)
    used(submit(alice), START, after(100), credited_s=100)
    assert metering.pull() == 3
    Allocation.objects.update(metered=False)
    assert metering.pull() == 3
    assert sorted(Usage.objects.values_list("starts__month", "seconds")) == [(10, 30), (10, 41), (11, 49)]


def test_a_run_within_one_second_costs_nothing(alice: Person, submit: Submit, used: Used) -> None:
    used(submit(alice), after(0.1), after(0.9))
    used(submit(alice), None, after(5))  # it never ran
    assert metering.pull() == 2
    assert lines() == []


def test_runs_that_touch_share_no_second_and_lose_none(alice: Person, submit: Submit, used: Used) -> None:
    job, edges = submit(alice), [0.0, 1.7, 1.9, 4.2, 9.999, 10.0, 33.3]
    for start, end in pairwise(edges):
        used(job, after(start), after(end))
    metering.pull()
    assert sum(seconds for seconds, _ in lines()) == 33
