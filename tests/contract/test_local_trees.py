"""However a job spreads and resists, its end is the end of all of it."""

from __future__ import annotations

import shutil
import time

from haein.cluster.backends.base import Cause, Phase

from .stage import LocalStage, alive, until

DOUBLE_FORK = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(600)
    os._exit(0)
os.wait()
time.sleep({0})
"""
IGNORING = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('deaf', flush=True)
time.sleep(600)
"""


def test_what_double_forks_into_its_own_session_is_ended_on_stop(local: LocalStage, mark: str) -> None:
    launch = local.begin(f'python -c "{DOUBLE_FORK.format(600)}" {mark}')
    until(lambda: len(alive(mark, "python")) >= 2)
    local.backend.stop([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.STOPPED
    assert alive(mark) == []


def test_what_a_command_leaves_behind_is_ended_before_its_end_is_told(local: LocalStage, mark: str) -> None:
    launch = local.begin(f'python -c "{DOUBLE_FORK.format(0)}" {mark}; echo done')
    until(lambda: alive(mark))
    sight = local.end_of(launch)
    assert alive(mark) == []
    assert (sight.cause, sight.exit_code) == (Cause.EXITED, 0)


def test_one_that_ignores_sigterm_is_killed_after_its_grace(local: LocalStage, mark: str) -> None:
    launch = local.begin(f'python -c "{IGNORING}" {mark}', grace_s=1)
    until(lambda: local.said(launch))
    asked = time.monotonic()
    local.backend.stop([launch.attempt_id])
    sight = local.end_of(launch)
    assert 0.9 < time.monotonic() - asked < 3
    assert (sight.cause, sight.signal) == (Cause.STOPPED, 9)
    assert alive(mark) == []


def test_one_that_saves_on_sigterm_has_its_grace(local: LocalStage) -> None:
    launch = local.begin("trap 'echo saved; exit 0' TERM; echo ready; while :; do sleep 0.01; done", grace_s=20)
    until(lambda: local.said(launch) == ["ready"])
    local.backend.stop([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.STOPPED
    assert local.said(launch) == ["ready", "saved"]


def test_a_stop_is_noticed_when_its_signal_is_lost(local: LocalStage) -> None:
    launch = local.begin("sleep 600")
    (local.folder(launch) / "stop").write_text("at=0\0")
    assert local.end_of(launch).cause is Cause.STOPPED


def test_a_stopped_process_is_ended_too(local: LocalStage, mark: str) -> None:
    launch = local.begin(f"sh -c 'echo ready; kill -STOP $$' {mark}")
    until(lambda: local.said(launch))
    local.backend.stop([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.STOPPED
    assert alive(mark) == []


def test_a_job_whose_records_are_deleted_does_not_run_on_unseen(local: LocalStage, mark: str) -> None:
    launch = local.begin(f"sh -c 'sleep 600; :' {mark}")
    shutil.rmtree(local.folder(launch))
    until(lambda: not alive(mark) and not alive("runner.py", str(launch.attempt_id)))


def test_a_tree_that_keeps_forking_is_ended(local: LocalStage, mark: str) -> None:
    breeder = f"f() {{ (sleep 0.05; f {mark}) & sleep 0.02; (f {mark}) & sleep 600; }}; f"
    launch = local.begin(f'bash -c "{breeder}" {mark}', grace_s=0)
    until(lambda: len(alive(mark)) > 60)
    local.backend.stop([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.STOPPED
    assert alive(mark) == []


def test_closing_its_own_output_is_not_its_end(local: LocalStage) -> None:
    launch = local.begin("exec >&- 2>&-; sleep 0.4; exit 7")
    assert local.look(launch).phase is Phase.RUNNING
    assert local.end_of(launch).exit_code == 7
