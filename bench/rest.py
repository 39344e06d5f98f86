"""What the house costs while nothing runs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from bench.ground import inhabited
from tests.house import House

SETTLE_S = 20
WATCH_S = 30
TICK = os.sysconf("SC_CLK_TCK")


def resting() -> tuple[float, str, float, dict[str, Any]]:
    """Proportional set size of every process together, and their share of one core over half a minute."""
    with inhabited() as (house, _):
        time.sleep(SETTLE_S)  # what is measured is rest, and rest is time in which nothing happens
        before = _ticks(house)
        time.sleep(WATCH_S)
        after = _ticks(house)
        sizes = {pid: _pss_kb(pid) for pid in after}
        names = {pid: _name(pid) for pid in after}
    used = sum(after[pid] - before.get(pid, after[pid]) for pid in after)
    by_name: dict[str, float] = {}
    for pid, size in sizes.items():
        by_name[names[pid]] = by_name.get(names[pid], 0) + size / 1024
    detail = {
        "core_percent": round(100 * used / TICK / WATCH_S, 2),
        "core_percent_target": 5,
        "processes": len(sizes),
        "by_name_mb": {name: round(size, 1) for name, size in sorted(by_name.items(), key=lambda row: -row[1])},
    }
    return round(sum(sizes.values()) / 1024, 1), "MB", 600, detail


def _ticks(house: House) -> dict[str, int]:
    found = {}
    for line in house.processes():
        pid = line.split()[0]
        try:
            fields = (Path("/proc") / pid / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[pid] = int(fields[11]) + int(fields[12])
    return found


def _pss_kb(pid: str) -> int:
    text = (Path("/proc") / pid / "smaps_rollup").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("Pss:")).split()[1])


def _name(pid: str) -> str:
    words = (Path("/proc") / pid / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    known = ("granian", "worker", "beat", "supervisor", "valkey", "postgres")
    return next((name for name in known if name in words), words[:30])
