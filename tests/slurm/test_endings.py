"""What Slurm's states and reasons come to, together with what the job's own process left."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from haein.cluster.backends.base import Cause
from haein.cluster.backends.slurm import endings
from haein.cluster.backends.slurm.records import JobRecord, State

ATTEMPT = uuid.uuid4()
START = {"started_at": "100.5", "slurm_job": "7"}
ASKED = {"at": "150", "why": endings.STOP_ASKED, "detail": ""}


def record(state: State, *, started: int | None = 100, ended: int | None = 160, reason: str = "None") -> JobRecord:
    return JobRecord(7, f"haein-{ATTEMPT}", state, "u", "a", "main", 90, started, ended, ("n1",), 4, reason)


def left(cause: str, code: str = "") -> dict[str, str]:
    return {
        "started_at": "100.5",
        "ended_at": "159.9",
        "cause": cause,
        "exit_code": code,
        "signal": "",
        "detail": "said",
    }


@pytest.mark.parametrize(
    ("state", "start", "end", "wish", "cause"),
    [
        (State.COMPLETED, START, left("EXITED", "0"), None, Cause.EXITED),
        (State.FAILED, START, left("EXITED", "3"), None, Cause.EXITED),
        (State.FAILED, START, left("MEMORY_LIMIT"), None, Cause.MEMORY_LIMIT),
        (State.FAILED, START, left("STOPPED"), ASKED, Cause.STOPPED),
        (State.FAILED, START, None, None, Cause.SIGNALLED),
        (State.FAILED, None, None, None, Cause.LOST),
        (State.TIMEOUT, START, None, None, Cause.TIME_LIMIT),
        (State.OUT_OF_MEMORY, START, None, None, Cause.MEMORY_LIMIT),
        (State.NODE_FAIL, START, None, None, Cause.LOST),
        (State.PREEMPTED, START, left("LOST"), None, Cause.PREEMPTED),
        (State.CANCELLED, START, left("LOST"), None, Cause.ENDED_OUTSIDE),
        (State.CANCELLED, START, None, ASKED, Cause.STOPPED),
    ],
)
def test_the_cause(state: State, start: Any, end: Any, wish: Any, cause: Cause) -> None:
    sight = endings.of(ATTEMPT, record(state), start, end, wish, "")
    assert sight.cause is cause
    # By Slurm's clock, so that the bill is what sacct says.
    assert (sight.started_at, sight.ended_at) == (100.0, 160.0)


def test_an_exit_code_is_told_only_of_an_end_of_its_own() -> None:
    assert endings.of(ATTEMPT, record(State.FAILED), START, left("EXITED", "3"), None, "").exit_code == 3
    assert endings.of(ATTEMPT, record(State.CANCELLED), START, left("EXITED", "3"), None, "").exit_code is None


@pytest.mark.parametrize(
    ("why", "cause"),
    [
        (endings.STOP_ASKED, Cause.STOPPED),
        (endings.TAKEN_BACK, Cause.NOT_TAKEN),
        (endings.HOPELESS, Cause.NOT_STARTED),
    ],
)
def test_one_that_was_called_back_while_it_waited_never_ran(why: str, cause: Cause) -> None:
    # Slurm dates the start of what was cancelled while it waited with its end.
    waited = record(State.CANCELLED, started=160, ended=160)
    sight = endings.of(ATTEMPT, waited, None, None, {"at": "1", "why": why, "detail": "Slurm says so."}, "")
    assert (sight.cause, sight.started_at) == (cause, None)
    assert sight.detail


@pytest.mark.parametrize("told", [left("LOST"), left("NOT_STARTED"), {"cause": "nonsense"}, None])
def test_who_ran_for_an_hour_pays_for_it_whatever_he_writes_of_his_end(told: Any) -> None:
    ran = record(State.FAILED, started=100, ended=3700)
    for start in (START, None):
        sight = endings.of(ATTEMPT, ran, start, told, None, "")
        assert (sight.started_at, sight.ended_at) == (100.0, 3700.0)
        assert start is None or sight.cause is not Cause.LOST


def test_only_a_job_that_ended_at_once_can_have_been_started_anew() -> None:
    assert endings.was_started_anew(record(State.COMPLETED, started=100, ended=101), 90.0)
    assert not endings.was_started_anew(record(State.COMPLETED, started=100, ended=101), 100.5)
    assert not endings.was_started_anew(record(State.COMPLETED, started=100, ended=3700), 90.0)


def test_a_run_of_less_than_a_second_ran() -> None:
    sight = endings.of(ATTEMPT, record(State.COMPLETED, started=100, ended=100), START, left("EXITED", "0"), None, "")
    assert (sight.started_at, sight.ended_at) == (100.0, 100.0)


def test_a_command_that_could_not_be_started_used_nothing() -> None:
    end = left("NOT_STARTED")
    assert endings.of(ATTEMPT, record(State.FAILED), START, end, None, "").started_at is None


def test_a_script_that_could_not_begin_says_what_slurm_printed() -> None:
    sight = endings.of(ATTEMPT, record(State.FAILED), None, None, None, "env: python3: No such file or directory")
    assert "python3: No such file" in sight.detail


def test_why_it_waits_is_a_sentence_with_slurms_word() -> None:
    waiting = record(State.PENDING, reason="ReqNodeNotAvail, UnavailableNodes:n1")
    assert endings.waits_for(waiting).startswith("Slurm says ReqNodeNotAvail: ")
    assert endings.waits_for(record(State.PENDING, reason="(Cleaning)")) == "Slurm says Cleaning."
    assert endings.is_hopeless(record(State.PENDING, reason="PartitionTimeLimit"))
    assert not endings.is_hopeless(record(State.PENDING, reason="Resources"))
