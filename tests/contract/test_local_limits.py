"""Time, memory and cores: each limit is kept, and who passes one is told so."""

from __future__ import annotations

from haein.cluster.backends.base import Cause

from .stage import LocalStage, alive

GROW = "import time; held = []\nfor _ in range(300): held.append(b'x' * 2**20 * 5); time.sleep(0.01)"
SHARED = """
import mmap, os, time
shared = mmap.mmap(-1, 100 * 2**20)
shared.write(b'x' * (100 * 2**20))
for _ in range(5):
    if os.fork() == 0:
        sum(shared[i] for i in range(0, len(shared), 4096))
        time.sleep(1.5)
        os._exit(0)
time.sleep(1.5)
"""


def test_passing_the_time_limit_ends_it_with_a_sentence(local: LocalStage, mark: str) -> None:
    launch, sight = local.run(f"sh -c 'sleep 600; :' {mark}", time_limit_s=1)
    assert sight.cause is Cause.TIME_LIMIT
    assert "time limit of 1 s" in sight.detail
    assert sight.started_at
    assert sight.ended_at
    assert 1 <= sight.ended_at - sight.started_at < 2
    assert local.said(launch, "haein") == [sight.detail]
    assert alive(mark) == []


def test_passing_the_memory_limit_ends_it_with_a_sentence(local: LocalStage, mark: str) -> None:
    launch, sight = local.run(f'python -c "{GROW}" {mark}', memory_mb=200)
    assert sight.cause is Cause.MEMORY_LIMIT
    assert "its limit is 200 MiB" in sight.detail
    assert local.said(launch, "haein") == [sight.detail]
    assert alive(mark) == []


def test_memory_is_summed_over_the_tree(local: LocalStage, mark: str) -> None:
    hold = "import time; held = b'x' * 2**20 * 60; time.sleep(600)"
    _, sight = local.run(f'for i in 1 2 3 4; do python -c "{hold}" {mark} & done; wait', memory_mb=200)
    assert sight.cause is Cause.MEMORY_LIMIT
    assert alive(mark) == []


def test_shared_memory_counts_once(local: LocalStage) -> None:
    _, sight = local.run(f'python -c "{SHARED}"', memory_mb=300)
    assert (sight.cause, sight.exit_code) == (Cause.EXITED, 0)


def test_reserving_address_space_costs_nothing(local: LocalStage) -> None:
    no_reserve = 0x4000
    reserve = f"import mmap; mmap.mmap(-1, 50 * 2**30, mmap.MAP_PRIVATE | {no_reserve})"
    _, sight = local.run(f"python -c '{reserve}'", memory_mb=200)
    assert (sight.cause, sight.detail) == (Cause.EXITED, "")


def test_it_runs_on_as_many_cores_as_were_granted(local: LocalStage) -> None:
    launch, _ = local.run('python -c "import os; print(len(os.sched_getaffinity(0)))"; echo $OMP_NUM_THREADS', cpus=250)
    assert local.said(launch) == ["1", "1"]


def test_it_leaves_no_core_dump_and_is_the_first_to_go_when_memory_is_short(local: LocalStage) -> None:
    launch, _ = local.run("ulimit -c; cat /proc/self/oom_score_adj")
    assert local.said(launch) == ["0", "500"]
