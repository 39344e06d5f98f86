"""Traces are read or refused with their fault's place; replays follow the published protocol, the same each time."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from haein.placement import rehearsal, replay, traces
from haein.placement.curves import MOST, Recorder
from haein.placement.model import WHOLE, DeviceState, Gang, NodeState, Request, Snapshot
from haein.placement.policies import BEST_FIT, FGD, HAEIN, PACKED

DATA = Path(__file__).parents[2] / "bench" / "data"
NODES = "sn,cpu_milli,memory_mib,gpu,model\nb,8000,1000,2,T4\na,8000,1000,1,L4\n"
REQUESTS = (
    "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec\nx,1000,10,1,500,\ny,1000,10,2,1000,T4|L4\nz,500,5,0,,\n"
)
MURI = "job_id,num_gpu,submit_time,duration\n0,8,0,10000\n1,16,5000,20000\n2,1,6000,1000\n"
Write = Callable[[str], Path]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.csv"
        path.write_text(text)
        return path

    return write


def test_it_reads_openb_with_the_lowest_name_first(written: Write) -> None:
    snapshot, jobs = traces.nodes(written(NODES)), traces.jobs(written(REQUESTS))
    assert [(node.name, len(node.devices)) for node in snapshot.nodes] == [("a", 1), ("b", 2)]
    assert [job.units for job in jobs] == [500, 2000, 0]


def test_it_reads_a_packed_file(tmp_path: Path) -> None:
    path = tmp_path / "nodes.csv.gz"
    path.write_bytes(gzip.compress(NODES.encode()))
    assert len(traces.nodes(path).nodes) == 2


def test_it_reads_muri_with_a_gang_for_what_no_node_has(written: Write) -> None:
    first, second, _ = traces.jobs(written(MURI))
    assert (first.units, first.submitted, first.duration) == (8000, 0, 10)
    assert isinstance(second.request, Gang)
    assert (second.request.members, second.units) == (2, 16_000)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "line 1: the file is empty; begin it with a line of column names."),
        (
            REQUESTS.replace("num_gpu", "gpus"),
            "line 1, column num_gpu: it is missing; the header needs name,cpu_milli,memory_mib,num_gpu,gpu_milli.",
        ),
        (REQUESTS.replace("500,\n", "5oo,\n"), "line 2, column gpu_milli: '5oo' is no whole number from 1 to 1000; "),
        (REQUESTS.replace("x,1000", "x,-1"), "line 2, column cpu_milli: '-1' is no whole number of 0 or more; write"),
        (REQUESTS.replace("T4|L4", ""), None),
        (REQUESTS.replace(",T4|L4", ""), "line 3, column gpu_spec: the line has 5 cells and the header 6; write as"),
        (
            MURI.replace("1,16", "1,17"),
            "line 3, column num_gpu: '17' is no multiple of 8; write up to 8, or a multiple.",
        ),
    ],
)
def test_a_bad_file_is_refused_with_line_column_and_fix(written: Write, text: str, fault: str | None) -> None:
    path = written(text)
    if fault is None:
        traces.jobs(path)
        return
    with pytest.raises(traces.Fault) as caught:
        traces.jobs(path)
    assert str(caught.value).startswith(f"{path}, {fault}")


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(traces.Fault, match="No such file or directory; name a file that can be read"):
        traces.nodes(tmp_path / "none.csv")
    (tmp_path / "bytes.csv").write_bytes(b"sn,\xff")
    with pytest.raises(traces.Fault, match="this is not UTF-8 text at byte 3; save it as CSV in UTF-8"):
        traces.nodes(tmp_path / "bytes.csv")


def test_two_nodes_of_one_name_are_refused(written: Write) -> None:
    with pytest.raises(traces.Fault, match=r"line 3, column sn: 'b' names no node, or one that is there already"):
        traces.nodes(written(NODES.replace("a,8000", "b,8000")))


def test_arrivals_are_the_trace_shuffled_and_then_draws_of_it_again(written: Write) -> None:
    jobs = traces.jobs(written(REQUESTS))
    order = list(replay.arrivals(jobs, 3000, 130, seed=1))
    assert {job.request.id for job in order[:3]} == {"x", "y", "z"}
    assert sum(job.units for job in order) >= 3900 > sum(job.units for job in order[:-1])
    assert order == list(replay.arrivals(jobs, 3000, 130, seed=1)) != list(replay.arrivals(jobs, 3000, 130, seed=2))


def test_the_anchors_are_in_their_order_on_a_tenth_of_the_cluster() -> None:
    snapshot, jobs = traces.nodes(DATA / "openb_nodes.csv"), traces.jobs(DATA / "openb_default.csv.gz")
    tenth = type(snapshot)(snapshot.nodes[::10])
    given = {policy.name: replay.fill(tenth, jobs, policy, 100, 110).allocated_percent for policy in (BEST_FIT, FGD)}
    again = replay.fill(tenth, jobs, FGD, 100, 110).allocated_percent
    assert given["fgd"] == again
    assert given["fgd"][100] > given["bestfit"][100] + 0.5
    assert 88 < given["bestfit"][100] < given["fgd"][100] < 96.91  # the bound of the whole cluster


def test_a_rehearsal_settles_on_one_of_the_candidates_under_the_default_s_name(written: Write) -> None:
    snapshot, jobs = traces.nodes(written(NODES)), traces.jobs(written(REQUESTS))
    settled = rehearsal.settle(snapshot, replay.mix_of(jobs))
    assert settled.name == HAEIN.name
    assert settled == rehearsal.settle(snapshot, replay.mix_of(jobs))


def test_a_queue_lets_whoever_fits_pass_and_counts_waits_from_submit(written: Write) -> None:
    nodes = traces.nodes(written("sn,cpu_milli,memory_mib,gpu,model\na,0,0,8,\nb,0,0,8,\n"))
    queued = replay.queue(nodes, traces.jobs(written(MURI)), PACKED)
    # 0 runs 0-10, 2 passes the gang and runs 6-7, the gang of both nodes runs 10-30.
    assert (queued.jobs, queued.refused, queued.makespan_s) == (3, 0, 30)
    assert queued.mean_completion_s == pytest.approx((10 + 25 + 1) / 3)
    assert queued.mean_wait_s == pytest.approx(5 / 3)
    with pytest.raises(ValueError, match="queueing needs the times of every job"):
        replay.queue(nodes, traces.jobs(written(REQUESTS)), PACKED)


ONE_NODE = "sn,cpu_milli,memory_mib,gpu,model\na,0,0,4,B200\n"


def test_what_a_queue_measures_is_what_is_counted_by_hand(written: Write) -> None:
    """Four GPUs. 0 takes three for 0-10; 1 asks for two at 2 and waits; 2 asks for eight, which never fit; 3 takes
    the free one for 4-6; 1 runs 10-30.
    """
    jobs = "job_id,num_gpu,submit_time,duration\n0,3,0,10000\n1,2,2000,20000\n2,8,3000,1000\n3,1,4000,2000\n"
    parts: list[float] = []
    found = replay.queue(traces.nodes(written(ONE_NODE)), traces.jobs(written(jobs)), PACKED, watch=parts.append)
    assert (found.jobs, found.refused, found.makespan_s) == (3, 1, 30)
    assert found.mean_wait_s == pytest.approx(8 / 3)
    assert (found.median_wait_s, found.p95_wait_s) == (0, 8)
    assert found.mean_completion_s == pytest.approx((10 + 28 + 2) / 3)
    # 3 x 10 + 1 x 2 + 2 x 20 of 4 x 30 seconds are held.
    assert found.utilization == pytest.approx(72 / 120)
    # 1 waits for two from 2 to 10, and one is free but from 4 to 6.
    assert found.stranded == pytest.approx(6 / 30)
    assert (found.charged, found.there) == ({"B200": 72_000}, {"B200": 120_000})
    held, stranded, waiting = found.curve.columns
    assert (found.curve.step_s, len(held)) == (1, 30)
    assert (held[:12], stranded[:12]) == (
        (3, 3, 3, 3, 4, 4, 3, 3, 3, 3, 2, 2),
        (0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 0),
    )
    assert waiting == (0, 0, *[1] * 8, *[0] * 20)
    assert parts == sorted(parts)
    assert parts[-1] == 1


def test_nothing_is_stranded_when_those_who_wait_ask_for_less_than_is_free(written: Write) -> None:
    """On two nodes of four, of which three are taken each, somebody waits for two on one node: two are stranded."""
    jobs = "job_id,num_gpu,submit_time,duration\n0,3,0,10000\n1,3,0,10000\n2,2,0,10000\n"
    nodes = traces.nodes(written(ONE_NODE + "b,0,0,4,B200\n"))
    assert replay.queue(nodes, traces.jobs(written(jobs)), PACKED).stranded == pytest.approx(2 * 10 / 20)
    alone = "job_id,num_gpu,submit_time,duration\n0,3,0,10000\n"
    assert replay.queue(nodes, traces.jobs(written(alone)), PACKED).stranded == 0


def test_a_higher_priority_is_looked_at_first_and_an_instance_is_charged_by_its_memory() -> None:
    device = DeviceState(id=0, node="a", model="B200", free=WHOLE, usable=True, memory_mb=8000, free_memory_mb=8000)
    node = NodeState(id=0, name="a", cpus=0, memory_mb=0, free_cpus=0, free_memory_mb=0, usable=True, devices=(device,))
    whole, half, small = (
        Request(id="whole", gpus=1, cpus=0, memory_mb=0),
        Request(id="half", gpus=1, share=500, gpu_memory_mb=2000, cpus=0, memory_mb=0),
        Request(id="small", gpus=1, profile="1g.23gb", cpus=0, memory_mb=0),
    )
    jobs = [traces.Job(whole, 0, 10), traces.Job(half, 1, 10, 0), traces.Job(small, 1, 10, 5)]
    found = replay.queue(Snapshot((node,)), jobs, HAEIN)
    # The whole one 0-10; then the small one, which was not the first; then the half, as a carved device has no shares.
    assert found.mean_completion_s == pytest.approx((10 + 19 + 29) / 3)
    assert found.charged == {"B200": 10 * (1000 + 125 + (500 + 250) // 2)}


def test_what_watches_ends_it(written: Write) -> None:
    class Enough(Exception):
        pass

    def watch(part: float) -> None:
        if part >= 0.5:
            raise Enough

    nodes, jobs = traces.nodes(written(ONE_NODE)), traces.jobs(written(MURI.replace("16", "4").replace(",8,", ",4,")))
    with pytest.raises(Enough):
        replay.queue(nodes, jobs, PACKED, watch=watch)
    with pytest.raises(Enough):
        rehearsal.settle(nodes, replay.mix_of(jobs), watch)


@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 100)), max_size=60))
def test_a_curve_adds_up_in_at_most_so_many_steps(held: list[tuple[int, int]]) -> None:
    recorder = Recorder(1, 7)
    for seconds, value in held:
        recorder.hold(recorder.now + seconds, (value,))
    curve = recorder.curve()
    (column,) = curve.columns
    assert len(column) <= MOST
    spans = [min(curve.step_s, recorder.seconds - at * curve.step_s) for at in range(len(column))]
    assert sum(spans) == sum(seconds for seconds, _ in held)
    total = sum(value * span for value, span in zip(column, spans, strict=True))
    assert total == pytest.approx(sum(seconds * value for seconds, value in held))


def test_the_command_prints_a_line_for_each_policy_and_seed(written: Write) -> None:
    out = StringIO()
    arguments = ["replay", str(written(REQUESTS)), "--nodes", str(written(NODES)), "--seeds", "100-101", "--json"]
    call_command(*arguments, "--policy", "bestfit", "--policy", "haein", stdout=out)
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["policy"], line["seed"]) for line in lines] == [
        ("bestfit", 100),
        ("bestfit", 101),
        ("haein", 100),
        ("haein", 101),
    ]
    assert all(set(line) == {"policy", "seed", "allocated_percent", "decisions_per_s"} for line in lines)
    assert set(lines[0]["allocated_percent"]) == {"90", "100", "110"}


def test_the_command_queues_and_says_what_is_wrong_with_a_file(written: Write) -> None:
    out = StringIO()
    nodes = str(written("sn,cpu_milli,memory_mib,gpu,model\na,0,0,8,\nb,0,0,8,\n"))
    call_command(
        "replay", str(written(MURI)), "--nodes", nodes, "--protocol", "queue", "--policy", "packed", stdout=out
    )
    assert out.getvalue().startswith("policy packed  order first come  jobs 3")
    for word in ("median_wait_s", "p95_wait_s", "utilization_percent", "stranded_gpus"):
        assert word in out.getvalue()
    with pytest.raises(CommandError, match="line 1: the file is empty"):
        call_command("replay", str(written("")), "--nodes", nodes)
    with pytest.raises(CommandError, match="--seeds: 'x' is no seed or span of seeds"):
        call_command("replay", str(written(MURI)), "--nodes", nodes, "--seeds", "x")


def test_the_command_runs_where_nothing_was_ever_started(written: Write, tmp_path: Path) -> None:
    command = [sys.executable, "manage.py", "replay", str(written(REQUESTS)), "--nodes", str(written(NODES))]
    ran = subprocess.run(
        [*command, "--policy", "bestfit", "--seeds", "7", "--json"],
        cwd=DATA.parents[1],
        env={"PATH": os.environ["PATH"], "HAEIN_VAR": str(tmp_path / "nothing")},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["seed"] == 7
    assert not (tmp_path / "nothing").exists()
