"""The signal to save reaches who can take it, and a file of the job's own says that it has saved."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from haein.cluster.backends.base import Cause, Phase

from .stage import LocalStage, until

# Says `saved <pid>` and touches the file; a helper forked from it has the same handler and must not be asked.
SAVES = """
import os, pathlib, signal, sys, time
def save(*_):
    print("saved", "helper" if os.getpid() != main else "main", flush=True)
    pathlib.Path(os.environ["HAEIN_CHECKPOINT"]).touch()
main = os.getpid()
signal.signal(signal.SIGUSR1, save)
os.fork()
print("ready", flush=True)
while True:
    time.sleep(0.05)
"""


def test_it_passes_over_a_shell_and_leaves_out_helpers(local: LocalStage, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text(SAVES)
    launch = local.begin(
        "cd . && python save.py; echo over",
        checkpoints=True,
        upload=str(tmp_path / "kept"),
        upload_name="save.py",
    )
    until(lambda: local.said(launch).count("ready") == 2)
    local.backend.signal_checkpoint([launch.attempt_id])
    until(lambda: local.look(launch).checkpointed_at)
    assert local.look(launch).phase is Phase.RUNNING
    local.backend.stop([launch.attempt_id])
    local.end_of(launch)
    assert [line for line in local.said(launch) if line.startswith("saved")] == ["saved main"]


def test_one_who_knows_nothing_of_the_signal_is_not_ended_by_it(local: LocalStage) -> None:
    launch = local.begin("sleep 600", checkpoints=True)
    local.backend.signal_checkpoint([launch.attempt_id])
    local.backend.stop([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.STOPPED


def test_the_file_is_the_jobs_own_and_named_for_those_that_checkpoint(local: LocalStage) -> None:
    launch, sight = local.run('touch "$HAEIN_CHECKPOINT"; dirname "$HAEIN_CHECKPOINT"', checkpoints=True)
    assert local.said(launch) == [str(local.work(launch))]
    assert sight.started_at is not None
    assert sight.checkpointed_at == pytest.approx(sight.started_at, abs=5)
    other, _ = local.run('echo "${HAEIN_CHECKPOINT-none}"')
    assert local.said(other) == ["none"]


@pytest.mark.parametrize(
    "trick", ["ln -s /etc/passwd", "mkdir", "mkfifo", "touch -d 1960-01-01"], ids=["link", "folder", "pipe", "past"]
)
def test_what_is_no_honest_file_says_nothing(local: LocalStage, trick: str) -> None:
    _, sight = local.run(f'{trick} "$HAEIN_CHECKPOINT"', checkpoints=True)
    assert (sight.exit_code, sight.checkpointed_at) == (0, None)


def test_a_date_to_come_is_taken_for_now(local: LocalStage) -> None:
    _, sight = local.run('touch -d 2090-01-01 "$HAEIN_CHECKPOINT"', checkpoints=True)
    assert sight.checkpointed_at is not None
    assert sight.checkpointed_at <= time.time()


def test_without_a_runner_it_is_asked_of_nobody(local: LocalStage) -> None:
    launch = local.begin("sleep 600", checkpoints=True)
    os.kill(local.runner(launch), 9)
    local.backend.signal_checkpoint([launch.attempt_id])
    assert local.end_of(launch).cause is Cause.LOST
