"""A dead runner is noticed, what it left is ended, and only then is the attempt called lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from haein.cluster.backends.base import Cause, Phase

from .stage import LocalStage, alive, until

# Without its environment, its session and its parent: only the runner's own records name it.
STRIPPED = "(env -i setsid python3 -c 'import time; time.sleep(600)' {0} &) ; sleep 600; echo {0}"


def test_a_killed_runner_means_lost_and_no_process_is_left(local: LocalStage, mark: str) -> None:
    launch = local.begin(f"(setsid sh -c 'sleep 600; echo {mark}' &) ; sh -c 'sleep 600; echo {mark}' & sleep 600")
    until(lambda: len(alive(mark)) >= 3)
    os.kill(local.runner(launch), signal.SIGKILL)
    sight = local.end_of(launch)
    assert sight.cause is Cause.LOST
    assert sight.detail
    assert sight.started_at
    assert sight.ended_at
    assert sight.started_at <= sight.ended_at
    assert alive(mark) == []


def test_a_process_that_hid_is_found_by_the_runners_last_records(local: LocalStage, mark: str) -> None:
    launch = local.begin(STRIPPED.format(mark))
    until(lambda: len(alive(mark)) >= 2)
    hidden = str(alive(mark, "time.sleep")[0])
    until(lambda: (local.folder(launch) / "usage").exists() and hidden in local.record(launch, "usage")["tree"])
    os.kill(local.runner(launch), signal.SIGKILL)
    assert local.end_of(launch).cause is Cause.LOST
    assert alive(mark) == []


def test_its_log_stays_readable(local: LocalStage) -> None:
    launch = local.begin("echo before; sleep 600")
    until(lambda: local.said(launch))
    os.kill(local.runner(launch), signal.SIGKILL)
    local.end_of(launch)
    assert local.said(launch) == ["before"]


def test_it_is_never_launched_again(local: LocalStage) -> None:
    launch = local.begin("sleep 600")
    os.kill(local.runner(launch), signal.SIGKILL)
    local.backend.launch(launch)
    sight = local.end_of(launch)
    local.backend.launch(launch)
    assert local.look(launch) == sight


def test_a_reused_pid_is_not_touched(local: LocalStage) -> None:
    launch = local.begin("sleep 600")
    record = local.record(launch, "start")
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    try:
        os.kill(local.runner(launch), signal.SIGKILL)
        until(lambda: not alive("runner.py", str(launch.attempt_id)))
        # The job's pid now belongs to somebody else, who started at another time.
        forged = record | {"pid": str(bystander.pid), "pid_started": str(int(record["pid_started"]) - 1)}
        (local.folder(launch) / "start").write_text("".join(f"{key}={value}\0" for key, value in forged.items()))
        assert local.end_of(launch).cause is Cause.LOST
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_after_a_restart_of_the_machine_nothing_is_searched_for(local: LocalStage) -> None:
    launch = local.begin("sleep 600")
    os.kill(local.runner(launch), signal.SIGKILL)
    until(lambda: not Path(f"/proc/{local.record(launch, 'start')['pid']}").exists())
    record = local.record(launch, "start") | {"boot": "another"}
    (local.folder(launch) / "start").write_text("".join(f"{key}={value}\0" for key, value in record.items()))
    sight = local.end_of(launch)
    assert sight.cause is Cause.LOST
    assert "restarted" in sight.detail


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has jobs that another user can't end")
def test_whoever_may_not_end_it_says_running_until_it_is_ended(local: LocalStage) -> None:
    launch = local.begin("sleep 600")
    local.folder(launch).chmod(0o755)
    (local.folder(launch) / "lock").chmod(0o644)
    (local.folder(launch) / "start").chmod(0o644)
    (local.folder(launch) / "log").chmod(0o755)
    os.kill(local.runner(launch), signal.SIGKILL)
    seen = subprocess.run(
        [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            sys.executable,
            "-c",
            OBSERVE,
            str(local.var),
            str(launch.attempt_id),
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.strip() == Phase.RUNNING.name
    assert local.end_of(launch).cause is Cause.LOST


OBSERVE = """
import sys, uuid, pathlib
from haein.cluster.backends.local.backend import LocalBackend
attempt = uuid.UUID(sys.argv[2])
print(LocalBackend(pathlib.Path(sys.argv[1])).observe([attempt])[attempt].phase.name)
"""
