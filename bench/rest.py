"""What the house costs while nothing runs."""

from __future__ import annotations

import time

from psutil import Process

from bench.ground import Figure, inhabited

SETTLE_S = 20
WATCH_S = 30


def resting() -> Figure:
    """Proportional set size of every process together, and their share of one core over half a minute."""
    with inhabited() as (house, _):
        time.sleep(SETTLE_S)  # what is measured is rest, and rest is time in which nothing happens
        assert house.process is not None
        supervisor = Process(house.process.pid)
        everything = [supervisor, *supervisor.children(recursive=True)]
        before = _seconds(everything)
        time.sleep(WATCH_S)
        used = _seconds(everything) - before
        sizes = [(_name(process), process.memory_full_info().pss / 1e6) for process in everything]
    by_name: dict[str, float] = {}
    for name, size in sizes:
        by_name[name] = by_name.get(name, 0) + size
    core_percent = round(100 * used / WATCH_S, 2)
    detail = {
        "core_percent": core_percent,
        "core_percent_target": 5,
        "processes": len(sizes),
        "by_name_mb": {name: round(size, 1) for name, size in sorted(by_name.items(), key=lambda row: -row[1])},
    }
    return Figure(round(sum(size for _, size in sizes), 1), "MB", 600, detail, besides=core_percent < 5)


def _seconds(everything: list[Process]) -> float:
    return sum(sum(process.cpu_times()[:2]) for process in everything)


def _name(process: Process) -> str:
    words = " ".join(process.cmdline())
    known = ("granian", "worker", "beat", "supervisor", "valkey", "postgres")
    return next((name for name in known if name in words), words[:30])
