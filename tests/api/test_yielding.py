"""A program says how its job yields, and reads whether it must."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from haein.lib import clock
from jobs import preempting, scheduling
from jobs.models import Attempt, Job
from jobs.preempting import Yield
from tests.cast import Program, fields_of

Submitted = Callable[..., dict[str, Any]]


def test_what_is_left_out_yields_borrowed_gpus_and_waits_again(submitted: Submitted) -> None:
    told = submitted()
    assert (told["preemption"], told["checkpoints"], told["requeue"]) == ("allowed", False, True)
    assert (told["preemptions"], told["guaranteed"], told["preempt_at"], told["not_before"]) == (0, None, None, None)


def test_what_was_asked_is_told_again(submitted: Submitted, alices: Program) -> None:
    asked = {"preemption": "never", "checkpoints": True, "requeue": False}
    told = alices.get(f"jobs/{submitted(**asked)['id']}").json()
    assert {name: told[name] for name in asked} == asked


@pytest.mark.parametrize(
    ("asked", "field"), [({"preemption": "maybe"}, "preemption"), ({"checkpoints": "x"}, "checkpoints")]
)
def test_what_makes_no_sense_is_named(big: None, alices: Program, asked: dict[str, Any], field: str) -> None:
    assert fields_of(alices.post("jobs", {"name": "x", "command": "true", **asked})) == {field}


def test_one_that_runs_says_whether_its_place_is_its_own_and_when_it_must_leave(
    submitted: Submitted, alices: Program
) -> None:
    job = submitted()["id"]
    now = clock.now()
    scheduling.run_pass(now=now, ready=frozenset({"python"}))
    attempt = Attempt.objects.get()
    assert alices.get(f"jobs/{job}").json()["guaranteed"] is False
    at = now + timedelta(seconds=60)
    preempting.warn({attempt.pk: Yield("reclaimed", {"gpus": "1"}, at)}, now=now)
    for told in (alices.get(f"jobs/{job}").json(), alices.get("jobs").json()["results"][0]):
        assert told["preempt_at"] == at.isoformat().replace("+00:00", "Z")
    (run,) = alices.get(f"jobs/{job}/attempts").json()["results"]
    assert (run["guaranteed"], run["preempt_at"], run["checkpoint_at"]) == (False, told["preempt_at"], None)
    assert "A team that is guaranteed the GPUs" in alices.get(f"jobs/{job}/events").json()["results"][-1]["reason"]


def test_retry_tries_at_once_what_rests(submitted: Submitted, alices: Program) -> None:
    job = submitted()["id"]
    until = clock.now() + timedelta(seconds=60)
    Job.objects.update(not_before=until, reason="resting")
    told = alices.get(f"jobs/{job}").json()
    assert told["not_before"] == until.isoformat().replace("+00:00", "Z")
    assert "It rests after a failure until" in told["reason"]
    told = alices.post(f"jobs/{job}/retry").json()
    assert (told["state"], told["not_before"]) == ("queued", None)
    assert alices.post(f"jobs/{job}/retry").status_code == 409
