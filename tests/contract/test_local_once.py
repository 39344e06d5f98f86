"""A command is run once, whoever launches it how often and whatever is killed meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from haein.cluster.backends.base import BackendDown, Cause, Launch, Phase, Sight
from haein.cluster.backends.local import backend
from haein.cluster.backends.local.backend import LocalBackend

from .stage import LocalStage, alive, until

COUNT_ME = 'echo ran >> "$HAEIN_TEAM_DIR/count"'


def count(local: LocalStage, launch: Launch) -> int:
    return len((local.var / "teams" / str(launch.team_id) / "count").read_text().splitlines())


def test_launching_twice_runs_it_once(local: LocalStage) -> None:
    launch = local.order(COUNT_ME)
    local.backend.launch(launch)
    local.backend.launch(launch)
    local.end_of(launch)
    local.backend.launch(launch)
    assert count(local, launch) == 1


def launch_from_here(var: Path, launch: Launch, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    LocalBackend(var).launch(launch)


def test_launches_raced_by_several_processes_run_it_once(local: LocalStage) -> None:
    context = multiprocessing.get_context("fork")
    for _ in range(3):
        launch = local.order(COUNT_ME)
        barrier = context.Barrier(5)
        racers = [context.Process(target=launch_from_here, args=(local.var, launch, barrier)) for _ in range(5)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
        assert local.end_of(launch).cause is Cause.EXITED
        assert count(local, launch) == 1


def test_runners_raced_past_the_launcher_run_it_once(local: LocalStage) -> None:
    launch = local.order(COUNT_ME)
    local.backend.launch(launch)
    for _ in range(4):
        backend._start_runner(local.folder(launch))
    local.end_of(launch)
    backend._start_runner(local.folder(launch))
    assert count(local, launch) == 1


def test_it_lives_on_when_its_launcher_is_killed(local: LocalStage) -> None:
    context = multiprocessing.get_context("fork")
    launch = local.order("sleep 0.3; " + COUNT_ME)

    def launch_and_die() -> None:
        LocalBackend(local.var).launch(launch)
        os.kill(os.getpid(), signal.SIGKILL)

    launcher = context.Process(target=launch_and_die)
    launcher.start()
    launcher.join()
    assert launcher.exitcode == -signal.SIGKILL
    assert LocalBackend(local.var).observe([launch.attempt_id])[launch.attempt_id].phase is Phase.RUNNING
    assert local.end_of(launch).exit_code == 0
    assert count(local, launch) == 1


def test_a_runner_killed_before_it_began_leaves_an_attempt_that_may_be_launched(local: LocalStage) -> None:
    launch = local.begin(COUNT_ME)
    local.end_of(launch)
    # What is on disk when a runner dies between taking its lock and writing its start record.
    until(lambda: not alive("runner.py", str(launch.attempt_id)))
    for record in ("start", "exit"):
        (local.folder(launch) / record).unlink()
    assert local.look(launch).phase is Phase.UNKNOWN
    local.backend.launch(launch)
    assert local.end_of(launch).exit_code == 0
    assert count(local, launch) == 2


def test_a_runner_killed_at_any_moment_of_its_start_runs_it_at_most_once(local: LocalStage) -> None:
    chance = random.Random(7)
    outcomes = set()
    for _ in range(25):
        launch = local.order("[ -e ran ] && echo twice; touch ran; echo ran")
        launcher = threading.Thread(target=launch_regardless, args=(local, launch))
        launcher.start()
        time.sleep(chance.uniform(0, 0.06))  # the moment is the point here; any will do
        for pid in alive("runner.py", str(launch.attempt_id)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.join()
        before = local.look(launch).phase
        sight = end_after_launching_again(local, launch)
        outcomes.add((before, sight.cause))
        ran = local.said(launch)
        assert ran in (["ran"], []), outcomes
        assert ran == ["ran"] or sight.cause is Cause.LOST
        assert before is not Phase.UNKNOWN or sight.cause is Cause.EXITED
    assert (Phase.UNKNOWN, Cause.EXITED) in outcomes


def end_after_launching_again(local: LocalStage, launch: Launch) -> Sight:
    def has_begun() -> bool:
        launch_regardless(local, launch)
        return local.look(launch).phase is not Phase.UNKNOWN

    until(has_begun)
    return local.end_of(launch)


def launch_regardless(local: LocalStage, launch: Launch) -> None:
    with suppress(BackendDown):
        local.backend.launch(launch)


def test_a_stop_before_the_start_means_that_it_never_runs(local: LocalStage) -> None:
    launch = local.order(COUNT_ME)
    local.folder(launch).mkdir(parents=True)
    local.backend.stop([launch.attempt_id])
    local.backend.launch(launch)
    sight = local.end_of(launch)
    assert (sight.cause, sight.started_at) == (Cause.STOPPED, None)
    assert not (local.var / "teams" / str(launch.team_id) / "count").exists()


def test_a_second_attempt_finds_the_folder_as_the_first_left_it(local: LocalStage, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("first")
    upload = {"upload": str(tmp_path / "data"), "upload_name": "data"}
    first, _ = local.run("echo changed > data", **upload)
    second, _ = local.run("cat data", job_id=first.job_id, team_id=first.team_id, attempt_number=2, **upload)
    assert local.said(second) == ["changed"]
