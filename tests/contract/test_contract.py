"""What every backend promises (haein/cluster/backends/base.py), tried on every backend there is."""

from __future__ import annotations

import io
import time
import uuid
from pathlib import PurePosixPath

import pytest

from haein.cluster.backends.base import Capability, Cause, LogLine, Phase, Refused

from .stage import Stage, until


def test_it_lists_environments_and_nodes_with_their_devices(stage: Stage) -> None:
    assert "python" in [environment.name for environment in stage.backend.environments()]
    node = stage.backend.inventory()[0]
    assert node.cpus >= 1000
    assert node.memory_mb > 0
    assert [device.index for device in node.devices] == list(range(len(node.devices)))
    assert len({device.uuid for device in node.devices}) == len(node.devices)


def test_devices_keep_their_names_when_asked_again(stage: Stage) -> None:
    assert stage.backend.inventory() == stage.backend.inventory()


def test_an_attempt_that_was_never_launched_is_unknown_and_nothing_raises_for_it(stage: Stage) -> None:
    stranger = uuid.uuid4()
    assert stage.backend.observe([stranger])[stranger].phase is Phase.UNKNOWN
    stage.backend.signal_checkpoint([stranger])
    stage.backend.stop([stranger])
    stage.backend.forget([stranger])
    assert stage.backend.observe([stranger])[stranger].phase is Phase.UNKNOWN
    assert list(stage.backend.readings([stranger])) == []
    chunk = stage.backend.read_log(stranger, 0, 1000)
    assert (chunk.lines, chunk.next, chunk.end) == ((), 0, 0)
    assert list(stage.backend.list_files(stranger, PurePosixPath())) == []
    with pytest.raises(FileNotFoundError):
        stage.backend.open_file(stranger, PurePosixPath("a"))


def test_it_runs_a_command_to_its_end(stage: Stage) -> None:
    before = time.time()
    launch, sight = stage.run(stage.quick)
    assert (sight.cause, sight.exit_code, sight.signal, sight.detail) == (Cause.EXITED, 0, None, "")
    assert sight.started_at is not None
    assert sight.ended_at is not None
    assert before - 1 <= sight.started_at <= sight.ended_at <= time.time() + 1
    assert stage.said(launch) == ["hello"]
    assert sight.log_bytes == stage.backend.read_log(launch.attempt_id, 0, 1000).end


def test_a_launch_is_seen_running_and_again_launching_changes_nothing(stage: Stage) -> None:
    launch = stage.begin(stage.endless)
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    first = stage.look(launch)
    stage.backend.launch(launch)
    assert stage.look(launch).started_at == first.started_at


def test_launching_an_ended_attempt_leaves_it_ended(stage: Stage) -> None:
    launch, sight = stage.run(stage.quick)
    stage.backend.launch(launch)
    assert stage.look(launch) == sight


def test_observing_answers_for_every_id_at_once(stage: Stage) -> None:
    launches = [stage.begin(stage.endless) for _ in range(3)]
    stranger = uuid.uuid4()
    wanted = [launch.attempt_id for launch in launches]
    until(lambda: all(sight.phase is Phase.RUNNING for sight in stage.backend.observe(wanted).values()))
    assert set(stage.backend.observe([*wanted, stranger])) == {*wanted, stranger}


def test_stopping_ends_it_as_stopped_and_may_be_asked_twice(stage: Stage) -> None:
    launch = stage.begin(stage.endless)
    stage.backend.stop([launch.attempt_id])
    stage.backend.stop([launch.attempt_id])
    sight = stage.end_of(launch)
    assert sight.cause is Cause.STOPPED
    assert sight.detail
    stage.backend.stop([launch.attempt_id])
    assert stage.look(launch) == sight


def test_a_job_that_checkpoints_saves_when_it_is_signalled_and_goes_on(stage: Stage) -> None:
    launch = stage.begin(stage.saving, checkpoints=True)
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    assert stage.look(launch).checkpointed_at is None
    saved = [0.0]

    def is_saved() -> bool:
        # Asked for again until it has: at first the shell may not have set its trap yet.
        stage.backend.signal_checkpoint([launch.attempt_id])
        return (stage.look(launch).checkpointed_at or 0) > saved[-1]

    for _ in range(2):
        until(is_saved)
        sight = stage.look(launch)
        assert sight.phase is Phase.RUNNING
        assert (sight.started_at or 0) < (sight.checkpointed_at or 0)
        saved.append(sight.checkpointed_at or 0)
    stage.backend.stop([launch.attempt_id])
    ended = stage.end_of(launch)
    assert (ended.checkpointed_at or 0) >= saved[-1]
    stage.backend.signal_checkpoint([launch.attempt_id])
    assert stage.look(launch) == ended


def test_the_next_attempt_knows_what_was_saved(stage: Stage) -> None:
    first = stage.begin(stage.saving, checkpoints=True)
    until(lambda: stage.look(first).phase is Phase.RUNNING)
    until(lambda: stage.backend.signal_checkpoint([first.attempt_id]) or stage.look(first).checkpointed_at)
    stage.backend.stop([first.attempt_id])
    saved_at = stage.end_of(first).checkpointed_at
    second = stage.begin(stage.saving, checkpoints=True, job_id=first.job_id, attempt_number=2)
    assert stage.look(second).checkpointed_at == saved_at


def test_a_job_that_does_not_checkpoint_is_not_signalled(stage: Stage) -> None:
    launch = stage.begin(stage.endless)
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    stage.backend.signal_checkpoint([launch.attempt_id])
    stage.backend.stop([launch.attempt_id])  # found in one look with the other wish
    sight = stage.end_of(launch)
    assert (sight.cause, sight.checkpointed_at) == (Cause.STOPPED, None)


def test_a_log_read_in_small_steps_is_the_log_read_at_once(stage: Stage) -> None:
    launch, _ = stage.run(stage.quick)
    whole = stage.backend.read_log(launch.attempt_id, 0, 1 << 20)
    offset, lines = 0, list[LogLine]()
    while offset < whole.end:
        chunk = stage.backend.read_log(launch.attempt_id, offset, 1)
        assert chunk.start == offset
        assert chunk.next > offset
        lines += chunk.lines
        offset = chunk.next
    assert tuple(lines) == whole.lines
    assert stage.backend.read_log(launch.attempt_id, whole.end, 1000).lines == ()
    assert stage.backend.read_log(launch.attempt_id, -(1 << 20), 1 << 20).lines == whole.lines


def test_it_measures_what_a_running_attempt_uses(stage: Stage) -> None:
    launch = stage.begin(stage.endless)
    (reading,) = until(lambda: stage.backend.readings([launch.attempt_id, uuid.uuid4()]))
    assert reading.attempt_id == launch.attempt_id
    places = stage.look(launch).places or launch.places
    assert [row[0] for row in reading.devices] == [grant.device_uuid for grant in places[0].slices]
    stage.backend.stop([launch.attempt_id])
    stage.end_of(launch)
    assert list(stage.backend.readings([launch.attempt_id])) == []


def test_it_refuses_an_unknown_environment_and_knows_the_attempt_as_not_started(stage: Stage) -> None:
    launch = stage.order(stage.quick, environment="julia")
    with pytest.raises(Refused, match="python"):
        stage.backend.launch(launch)
    sight = stage.look(launch)
    assert (sight.phase, sight.cause, sight.started_at) == (Phase.ENDED, Cause.NOT_STARTED, None)
    assert "julia" in sight.detail
    stage.backend.launch(launch)
    assert stage.look(launch) == sight


def test_it_refuses_an_image_where_it_runs_none(stage: Stage) -> None:
    if Capability.CONTAINER_IMAGES in stage.backend.capabilities:
        pytest.skip("this backend runs images")
    with pytest.raises(Refused, match="image"):
        stage.begin(stage.quick, environment="registry.example/team/train:1")


def test_it_forgets_ended_attempts_and_leaves_running_ones(stage: Stage) -> None:
    ended, _ = stage.run(stage.quick)
    running = stage.begin(stage.endless)
    until(lambda: stage.look(running).phase is Phase.RUNNING)
    ids = [ended.attempt_id, running.attempt_id]
    until(lambda: stage.backend.forget(ids) or stage.look(ended).phase is Phase.UNKNOWN)
    assert stage.look(running).phase is Phase.RUNNING
    assert stage.backend.read_log(ended.attempt_id, 0, 1000).lines == ()


def test_an_upload_is_in_the_jobs_folder(stage: Stage, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "kept").write_bytes(b"print(1)\n")
    launch, _ = stage.run(stage.quick, upload=str(tmp_path / "kept"), upload_name="train.py")
    facts = {str(fact.path): fact for fact in stage.backend.list_files(launch.job_id, PurePosixPath())}
    assert facts["train.py"].size == 9
    assert not facts["train.py"].is_folder
    file, fact = stage.backend.open_file(launch.job_id, PurePosixPath("train.py"))
    with file:
        assert (file.read(), fact.size) == (b"print(1)\n", 9)
        file.seek(6)  # a download that broke off goes on from where it was
        assert file.read() == b"1)\n"
    assert isinstance(file, io.IOBase)
