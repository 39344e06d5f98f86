"""What every way to Slurm must tell and do alike, on a real one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from haein.cluster.backends.slurm.commands import CommandGateway
from haein.cluster.backends.slurm.gateway import Gateway, SlurmRefused
from haein.cluster.backends.slurm.records import Gres, Held, State
from haein.cluster.backends.slurm.rest import RestGateway
from haein.slurmlab import Lab
from tests.house import until

from .ways import RUNS_AS, commands, ended, open_folder, record, running, submission


@pytest.fixture(params=["commands", "rest"])
def gateway(request: pytest.FixtureRequest, slurm: Lab, slurmrestd: RestGateway) -> Iterator[Gateway]:
    way: Gateway = slurmrestd if request.param == "rest" else commands(slurm)
    mine: list[int] = []
    submit = way.submit

    def remembering(wanted: Any) -> int:
        mine.append(submit(wanted))
        return mine[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(way, "submit", remembering)
        yield way
    commands(slurm).cancel(mine)


def test_it_tells_of_every_node(gateway: Gateway) -> None:
    nodes = gateway.nodes()
    assert [node.name for node in nodes] == [f"node{number:03}" for number in range(1, 9)]
    assert (nodes[0].cpus, nodes[0].memory_mb, nodes[0].partitions) == (112, 2_000_000, ("main",))
    assert nodes[0].gres == (Gres("gpu", "b200", 8), Gres("shard", "b200", 80))
    assert nodes[7].gres == (Gres("gpu", "1g.23gb", 56),)
    assert all({"IDLE", "MIXED", "ALLOCATED"} & node.states for node in nodes)


def test_a_job_is_told_of_from_its_start_to_its_end(gateway: Gateway, slurm: Lab, tmp_path: Any) -> None:
    folder = open_folder(slurm.folder / f"told-{time.monotonic_ns()}")
    script = f'id -u > {folder}/ids; id -G >> {folder}/ids; echo "$WORDS:$HOME:$PWD" > {folder}/words; exit 7'
    order = submission(
        slurm, "haein-first", script, gres="gpu:b200:2", folder=str(folder), environment={"WORDS": "a 'b',c"}
    )
    before = int(time.time())
    number = gateway.submit(order)
    job = ended(gateway, number)
    assert (job.name, job.state, job.exit_code, job.signal) == ("haein-first", State.FAILED, 7, None)
    assert (job.user, job.account, job.partition) == (RUNS_AS.pw_name, "haein", "main")
    assert (job.nodes, job.cpus, job.comment) == (("node001",), 2, "of haein-first")
    assert job.started is not None
    assert job.ended is not None
    assert before <= job.submitted <= job.started <= job.ended <= time.time() + 1
    uid, groups = (folder / "ids").read_text().splitlines()
    # Its own groups, and not those of whoever submitted it.
    assert int(uid) == RUNS_AS.pw_uid
    assert int(groups.split()[0]) == RUNS_AS.pw_gid
    assert (folder / "words").read_text() == f"a 'b',c::{folder}\n"


@pytest.mark.parametrize(
    ("gres", "nodes", "held"),
    [
        ("", ("node002",), ()),
        ("gpu:b200:2", ("node002",), (Gres("gpu", "b200", 2, (0, 1)),)),
        ("gpu:b200:8", ("node002", "node003"), (Gres("gpu", "b200", 8, tuple(range(8))),)),
        ("gpu:1g.23gb:3", ("node008",), (Gres("gpu", "1g.23gb", 3, (0, 1, 2)),)),
    ],
)
def test_it_tells_what_a_job_holds_on_each_node(
    gateway: Gateway, slurm: Lab, gres: str, nodes: tuple[str, ...], held: tuple[Gres, ...]
) -> None:
    number = gateway.submit(submission(slurm, "haein-held", "sleep 600", gres=gres, nodes=nodes, cpus=3))
    assert running(gateway, number).nodes == nodes
    assert gateway.held([number, 987_654]) == {number: [Held(node, 3, 500, held) for node in nodes]}


def test_a_share_is_told_as_shards_of_one_gpu(gateway: Gateway, slurm: Lab) -> None:
    number = gateway.submit(submission(slurm, "haein-share", "sleep 600", gres="shard:4", nodes=("node004",)))
    running(gateway, number)
    (held,) = gateway.held([number])[number]
    (shards,) = held.gres
    assert (shards.name, shards.count) == ("shard", 4)


def test_cancelled_is_what_ran_and_what_waited_and_nothing_else(gateway: Gateway, slurm: Lab) -> None:
    whole = {"gres": "gpu:b200:8", "nodes": ("node005",)}
    runs = gateway.submit(submission(slurm, "haein-runs", "sleep 600", **whole))
    running(gateway, runs)
    waits = gateway.submit(submission(slurm, "haein-waits", "sleep 600", **whole))
    waiting = record(gateway, waits)
    assert (waiting.state, waiting.started, waiting.ended) == (State.PENDING, None, None)
    over = gateway.submit(submission(slurm, "haein-over", "true"))
    ended(gateway, over)
    gateway.cancel([runs, waits, over, 987_654])
    assert ended(gateway, waits).started is None
    assert ended(gateway, runs).started is not None
    assert [ended(gateway, each).state for each in (runs, waits, over)] == [
        State.CANCELLED, State.CANCELLED, State.COMPLETED,
    ]  # fmt: skip


def test_what_is_on_record_is_what_was_seen(gateway: Gateway, slurm: Lab) -> None:
    since = int(time.time())
    name = f"haein-{time.monotonic_ns()}"
    number = gateway.submit(submission(slurm, name, "exit 3", gres="gpu:b200:1"))
    seen = ended(gateway, number)

    def look() -> bool:
        return any(run.state.is_over for run in gateway.history([name, "haein-never"], since) or ())

    until(look, "slurmdbd has it on record")
    (past,) = gateway.history([name, "haein-never"], since) or ()
    for fact in ("id", "name", "state", "user", "account", "submitted", "started", "ended", "nodes", "cpus",
                 "signal", "suspended_s"):  # fmt: skip
        assert getattr(past, fact) == getattr(seen, fact), fact
    # slurmrestd 0.0.38 has no exit codes of what is on record.
    assert past.exit_code == (3 if isinstance(gateway, CommandGateway) else None)
    assert gateway.history([name], past.submitted + 1) == []


@pytest.mark.parametrize(
    ("changes", "number", "sentence"),
    [
        ({"gres": "gpu:h100:1"}, 2014, "No node of Slurm's has what the job asks for"),
        ({"nodes": ("node099",)}, 2018, "Slurm has no node of this name."),
        ({"account": "nobody's"}, 2045, "Slurm has no account under which"),
        ({"partition": "--help"}, 2000, "Slurm has no such partition."),
        ({"qos": "golden"}, 2066, "Slurm has no such QOS"),
        ({"memory_mb": 10**8}, 2014, "No node of Slurm's has"),
        ({"reservation": "none"}, 2053, "Slurm has no such reservation"),
    ],
)
def test_a_refusal_is_a_sentence(
    gateway: Gateway, slurm: Lab, changes: dict[str, Any], number: int, sentence: str
) -> None:
    with pytest.raises(SlurmRefused) as refusal:
        gateway.submit(submission(slurm, "haein-refused", "true", **changes))
    assert refusal.value.number == number
    assert str(refusal.value).startswith(sentence)
    # Of some a record is left, which has never had a node.
    assert all(job.state.is_over and not job.nodes for job in gateway.jobs() if job.name == "haein-refused")


def test_slurm_does_not_run_a_job_again_by_itself(gateway: Gateway, slurm: Lab) -> None:
    number = gateway.submit(submission(slurm, "haein-once", "sleep 600"))
    running(gateway, number)
    assert " Requeue=0 " in slurm.run("scontrol", "-o", "show", "job", str(number))


def test_it_tells_of_reservations(gateway: Gateway, slurm: Lab) -> None:
    slurm.run(
        "scontrol", "create", "reservation", "reservationname=visit", "starttime=now+60", "duration=10",
        "users=nobody", "nodes=node[006-007]", "flags=maint",
    )  # fmt: skip
    try:
        (found,) = gateway.reservations()
    finally:
        slurm.run("scontrol", "delete", "reservationname=visit")
    assert (found.name, found.nodes, found.users) == ("visit", ("node006", "node007"), ("nobody",))
    assert found.ends - found.starts == 600
    assert 0 < found.starts - time.time() <= 61
    assert "MAINT" in found.flags


def test_a_waiting_array_is_one_record(gateway: Gateway, slurm: Lab) -> None:
    number = int(slurm.run("sbatch", "--parsable", "--hold", "--array=0-99", "-J", "theirs", "--wrap", "true"))
    try:
        assert [job.id for job in gateway.jobs() if job.name == "theirs" and not job.state.is_over] == [number]
    finally:
        commands(slurm).cancel([number])


def test_both_ways_tell_the_same(slurm: Lab, slurmrestd: RestGateway) -> None:
    number = commands(slurm).submit(submission(slurm, "haein-both", "exit 5", gres="gpu:b200:1"))
    ended(commands(slurm), number)

    def settled(look: Callable[[Gateway], Any]) -> bool:
        return bool(look(commands(slurm)) == look(slurmrestd))

    until(
        lambda: settled(lambda way: sorted(way.jobs(), key=lambda job: (job.id, job.name))), "both tell the same jobs"
    )
    until(lambda: settled(lambda way: way.nodes()), "both tell the same nodes")
