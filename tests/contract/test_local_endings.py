"""Every way in which a command can end by itself has a reason that a person understands."""

from __future__ import annotations

import pytest

from haein.cluster.backends.base import Cause

from .stage import LocalStage


def test_an_exit_code_comes_with_the_last_words(local: LocalStage) -> None:
    _, sight = local.run("echo no such data set >&2; exit 3")
    assert (sight.cause, sight.exit_code, sight.signal) == (Cause.EXITED, 3, None)
    assert "exit code 3" in sight.detail
    assert "no such data set" in sight.detail


def test_a_command_that_does_not_exist_says_so(local: LocalStage) -> None:
    _, sight = local.run("trian.py --fast")
    assert (sight.cause, sight.exit_code) == (Cause.EXITED, 127)
    assert "not found" in sight.detail
    assert "trian.py" in sight.detail


def test_a_command_that_is_no_program_says_so(local: LocalStage) -> None:
    _, sight = local.run("touch data; ./data")
    assert (sight.cause, sight.exit_code) == (Cause.EXITED, 126)
    assert "can't be executed" in sight.detail or "executed" in sight.detail


@pytest.mark.parametrize("command", ["kill -SEGV $$", "python -c 'import os; os.kill(os.getpid(), 11)'; exit $?"])
def test_a_signal_is_named(local: LocalStage, command: str) -> None:
    _, sight = local.run(command)
    assert (sight.cause, sight.signal) == (Cause.SIGNALLED, 11)
    assert "SIGSEGV" in sight.detail


def test_a_kill_from_elsewhere_is_not_taken_for_a_limit(local: LocalStage) -> None:
    _, sight = local.run("kill -KILL $$")
    assert (sight.cause, sight.signal) == (Cause.SIGNALLED, 9)
    assert "out of memory" in sight.detail


def test_a_command_too_long_for_the_kernel_is_not_started(local: LocalStage) -> None:
    _, sight = local.run("true " + "x" * 200_000)
    assert sight.cause is Cause.NOT_STARTED
    assert "too long" in sight.detail
    assert sight.started_at is None


def test_a_machine_that_can_not_prepare_the_job_is_not_the_users_fault(local: LocalStage) -> None:
    launch = local.order("true")
    (local.var / "work").mkdir()
    (local.var / "work" / str(launch.job_id)).write_text("a file where a folder must be")
    local.backend.launch(launch)
    sight = local.end_of(launch)
    assert sight.cause is Cause.LOST
    assert "could not prepare" in sight.detail


def test_shell_syntax_works(local: LocalStage) -> None:
    launch, _ = local.run("for i in 1 2; do echo $i; done | tac && echo ${HAEIN_JOB_NAME^^}")
    assert local.said(launch) == ["2", "1", "DIGITS"]
