"""Jobs on a real Slurm, through the backend alone: gangs, slices, what is taken back, and what others run."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from haein.cluster.backends.base import Capability, Cause, Drain, NodeFact, Phase, Place, Refused, SliceGrant
from haein.cluster.backends.slurm import script
from haein.cluster.backends.slurm.backend import SlurmBackend
from haein.cluster.backends.slurm.script import Terms
from haein.slurmlab.lab import Lab
from tests.contract.slurm_stage import JOBS_USER, SlurmStage
from tests.contract.stage import until

AS_JOBS_USER = ("--uid=nobody", "--gid=nogroup") if os.geteuid() == 0 else ()


@pytest.fixture
def stage(slurm: Lab) -> Iterator[SlurmStage]:
    stage = SlurmStage(slurm)
    yield stage
    stage.close()


def whole(node: NodeFact, *indexes: int) -> Place:
    return Place(node.name, tuple(SliceGrant(node.devices[index].uuid, index, 1000) for index in indexes))


def carved(stage: SlurmStage) -> NodeFact:
    return next(node for node in stage.backend.inventory() if node.devices[0].layout)


def test_it_can_do_what_the_nodes_can(stage: SlurmStage) -> None:
    assert stage.backend.capabilities >= {Capability.GANGS, Capability.MIG, Capability.FRACTIONS}
    assert stage.backend.share_step == 100
    assert [len(node.devices) for node in stage.backend.inventory()] == [8] * 8
    assert [cut.profile for cut in carved(stage).devices[0].layout] == ["1g.23gb"] * 7


def test_a_gang_runs_on_its_nodes_with_a_rank_each(stage: SlurmStage) -> None:
    first, second = stage.backend.inventory()[1:3]
    command = 'echo "$HAEIN_RANK/$HAEIN_WORKERS $MASTER_ADDR $HAEIN_DEVICES"; test -d "$HOME"; sleep 2'
    launch = stage.begin(command, places=(whole(first, 0, 1), whole(second, 0, 1)))
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    seen = stage.look(launch)
    assert [place.node for place in seen.places] == [first.name, second.name]
    assert [len(place.slices) for place in seen.places] == [2, 2]
    assert stage.end_of(launch).cause is Cause.EXITED
    told = sorted(stage.said(launch))
    devices = [",".join(grant.device_uuid for grant in place.slices) for place in seen.places]
    assert told == [f"{rank}: {rank}/2 {first.name} {devices[rank]}" for rank in range(2)]


def test_workers_that_share_a_node_have_devices_of_their_own(stage: SlurmStage) -> None:
    node = stage.backend.inventory()[1]
    launch = stage.begin('echo "$CUDA_VISIBLE_DEVICES"; sleep 1', places=(whole(node, 0), whole(node, 1)))
    assert stage.end_of(launch).cause is Cause.EXITED
    assert len({line.split()[1] for line in stage.said(launch)}) == 2


def test_when_one_worker_fails_all_are_ended(stage: SlurmStage) -> None:
    first, second = stage.backend.inventory()[1:3]
    command = 'if [ "$HAEIN_RANK" = 1 ]; then exit 7; fi; sleep 600'
    sight = stage.end_of(stage.begin(command, places=(whole(first, 0), whole(second, 0))))
    assert sight.cause in {Cause.EXITED, Cause.SIGNALLED}
    assert sight.exit_code != 0


def test_a_gang_saves_its_work_when_it_is_signalled(stage: SlurmStage) -> None:
    first, second = stage.backend.inventory()[1:3]
    places = (whole(first, 0), whole(second, 0))
    launch = stage.begin(stage.saving, places=places, checkpoints=True, grace_s=3)
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    until(lambda: stage.backend.signal_checkpoint([launch.attempt_id]) or stage.look(launch).checkpointed_at)
    assert stage.look(launch).phase is Phase.RUNNING
    stage.backend.stop([launch.attempt_id])
    assert stage.end_of(launch).cause is Cause.STOPPED


def test_an_instance_is_asked_for_by_its_profile(stage: SlurmStage) -> None:
    node = carved(stage)
    device = node.devices[0]
    place = Place(node.name, (SliceGrant(device.uuid, 0, 8, 7, "1g.23gb", 0),))
    launch = stage.begin("echo $HAEIN_DEVICES; sleep 1", places=(place,))
    until(lambda: stage.look(launch).phase is Phase.RUNNING)
    (seen,) = stage.look(launch).places
    assert [(grant.profile, grant.units, grant.memory) for grant in seen.slices] == [("1g.23gb", 8, 7)]
    assert stage.end_of(launch).cause is Cause.EXITED
    assert stage.said(launch) == [seen.slices[0].device_uuid]


def test_a_share_is_so_many_shards_of_one_device(stage: SlurmStage) -> None:
    node = stage.backend.inventory()[0]
    share = Place(node.name, (SliceGrant(node.devices[0].uuid, 0, 300),))
    launches = [stage.begin("sleep 600", places=(share,)) for _ in range(2)]
    seen = [until(lambda launch=launch: stage.look(launch).places) for launch in launches]  # type: ignore[misc]
    assert [place.slices[0].units for (place,) in seen] == [300, 300]
    # Slurm fills one device before it opens another.
    assert len({place.slices[0].device_uuid for (place,) in seen}) == 1


def test_a_share_that_shards_do_not_make_up_is_refused(stage: SlurmStage) -> None:
    node = stage.backend.inventory()[0]
    with pytest.raises(Refused, match="10ths"):
        stage.begin("true", places=(Place(node.name, (SliceGrant(node.devices[0].uuid, 0, 250),)),))


def test_what_slurm_does_not_start_is_taken_back(stage: SlurmStage) -> None:
    node = stage.backend.inventory()[0]
    holder = stage.begin(stage.endless, places=(whole(node, *range(8)),))
    waiting = stage.order(stage.quick, places=(whole(node, 0),))
    stage.backend.launch(waiting)
    assert "Slurm says" in stage.look(waiting).detail
    stage.backend = SlurmBackend(stage.gateway, replace(stage.site, patience_s=1))
    sight = stage.end_of(waiting)
    assert (sight.cause, sight.started_at) == (Cause.NOT_TAKEN, None)
    assert "Slurm says" in sight.detail
    assert stage.look(holder).phase is Phase.RUNNING


def test_what_waits_in_slurm_ends_at_once_when_it_is_stopped(stage: SlurmStage) -> None:
    node = stage.backend.inventory()[0]
    stage.begin(stage.endless, places=(whole(node, *range(8)),))
    waiting = stage.order(stage.quick, places=(whole(node, 0),))
    stage.backend.launch(waiting)
    stage.backend.stop([waiting.attempt_id])
    sight = stage.end_of(waiting)
    assert (sight.cause, sight.started_at) == (Cause.STOPPED, None)


def test_a_limit_that_can_never_clear_is_refused_with_a_sentence(slurm: Lab) -> None:
    slurm.run("scontrol", "create", "PartitionName=short", "Nodes=node001", "MaxTime=1")
    stage = SlurmStage(slurm, terms=Terms(partitions=("short",)))
    try:
        launch = stage.order("true", time_limit_s=3600)
        with suppress(Refused):  # where the site lets Slurm refuse it at once (EnforcePartLimits)
            stage.backend.launch(launch)
        assert stage.end_of(launch).cause is Cause.NOT_STARTED
        assert "time limit" in stage.look(launch).detail
    finally:
        stage.close()
        slurm.run("scontrol", "delete", "PartitionName=short")


def test_what_others_run_is_seen_with_what_it_takes(stage: SlurmStage) -> None:
    number = stage.lab.run(
        "sbatch", "--parsable", "--gres=gpu:b200:3", "--nodelist=node002", "--cpus-per-task=2", "--mem=100",
        "--output=/dev/null", "--chdir=/", *AS_JOBS_USER, "--wrap=sleep 600",
    ).strip()  # fmt: skip
    try:
        (seen,) = until(stage.backend.outside)
        assert (seen.name, seen.owner, seen.node) == (f"Slurm job {number}", JOBS_USER, "node002")
        assert [grant.units for grant in seen.slices] == [1000] * 3
        assert (seen.cpus, seen.memory_mb) == (2000, 100)
    finally:
        stage.lab.run("scancel", number)
    until(lambda: not stage.backend.outside())


def test_a_job_of_another_user_is_not_ours_whatever_its_name(stage: SlurmStage) -> None:
    launch = stage.begin(stage.endless)
    others = SlurmBackend(stage.gateway, replace(stage.site, user="daemon"))
    assert [each.name for each in others.outside()] == [f"Slurm job {stage.number(launch)}"]
    assert list(stage.backend.outside()) == []


def test_a_drain_of_ours_can_be_taken_back_and_one_of_others_stays(stage: SlurmStage) -> None:
    def fact() -> NodeFact:
        return next(node for node in stage.backend.inventory() if node.name == "node003")

    def problem() -> str:
        return fact().problem

    assert fact().drain is None
    stage.backend.drain("node003", "firmware")
    assert "drain" in stage.lab.run("sinfo", "-h", "-n", "node003", "-o", "%T")
    assert (problem(), fact().drain) == ("", Drain.OURS)  # ours is the row's to say
    stage.backend.resume("node003")
    assert "drain" not in stage.lab.run("sinfo", "-h", "-n", "node003", "-o", "%T")
    stage.lab.run("scontrol", "update", "nodename=node003", "state=drain", "reason=disk")
    try:
        assert "Drained in Slurm" in problem()
        assert "disk" in problem()
        stage.backend.drain("node003", "firmware")
        stage.backend.resume("node003")
        assert "disk" in problem()
        assert fact().drain is Drain.THEIRS
    finally:
        stage.lab.run("scontrol", "update", "nodename=node003", "state=resume")


def test_a_job_can_read_neither_haeins_files_nor_another_jobs(stage: SlurmStage) -> None:
    secret = stage.var / "secret"
    secret.write_text("of the server")
    secret.chmod(0o644)
    other, _ = stage.run("echo mine > mine")
    tries = (
        f"cat {secret}; cat {stage.var}/work/{other.job_id}/mine; cat {stage.folder(other)}/order; ls {stage.var}/work"
    )
    launch, sight = stage.run(f"{tries}; echo done")
    assert sight.cause is Cause.EXITED
    assert stage.said(launch) == ["done"]
    assert len(stage.said(launch, "err")) == 4


def test_the_times_are_those_of_slurms_own_record(stage: SlurmStage) -> None:
    launch, sight = stage.run("sleep 2")
    name = f"haein-{launch.attempt_id}"

    def told() -> list[str]:
        return stage.lab.run("sacct", "-X", "-n", "-P", f"--name={name}", "--format=ElapsedRaw,State,AllocTRES").split(
            "|"
        )

    row = until(lambda: (row := told()) and "COMPLETED" in row and row)
    assert sight.started_at is not None
    assert sight.ended_at is not None
    assert int(row[0]) == sight.ended_at - sight.started_at
    assert "gres/gpu:b200=1" in row[2]


def test_the_script_is_the_one_on_record(stage: SlurmStage) -> None:
    attempt, job = uuid.UUID(int=1), uuid.UUID(int=2)
    text = script.SCRIPT.format(
        attempt=attempt, job=job, agent=Path("/share/agent/x/agent.py"), folder="/share/attempts/1"
    )
    assert text == (Path(__file__).parent / "script.sh").read_text()
