"""The bill of a job is what its runner wrote down: whole seconds times the share times the price."""

from collections.abc import Callable
from fractions import Fraction
from math import floor
from typing import Any

from billing import metering, statements
from billing.models import Usage
from haein.lib import clock
from jobs.models import Job
from tests.cast import Person, records

Submit = Callable[..., Job]


def test_a_run_costs_what_its_runner_recorded(alice: Person, submit: Submit, finish: Any) -> None:
    job = finish(submit(alice, command="sleep 1.3", gpus=2, share=500))
    told = records(job.attempts.get(), "exit")
    seconds = floor(float(told["ended_at"])) - floor(float(told["started_at"]))
    assert seconds in {1, 2}
    expected = round(Fraction(2 * seconds * 500 * 4_000_000, 3_600_000))
    assert statements.of_job(job, now=clock.now()).total == expected
    metering.pull()
    assert statements.of_jobs([job.pk], now=clock.now()) == {job.pk: expected}
    assert list(Usage.objects.values_list("seconds", "units")) == [(seconds, 500)] * 2
