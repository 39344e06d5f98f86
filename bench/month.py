"""A month of a thousand devices in memory, and one day of it through the database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from bench.ground import Figure
from dashboard.demo import month, work
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.placement import books
from haein.placement.cluster import Cluster
from haein.placement.ledger import Kind
from haein.placement.model import Grant
from haein.supervisor.layout import ROOT

# A Monday's midnight where the work comes from.
BEGIN = datetime(2026, 6, 1, tzinfo=UTC) - work.ZONE
DAYS, SEED = 30, 1


def in_memory() -> Figure:
    """Simulated failures and durations, the engine's decisions, and Law 2 every six hours."""
    checks = 0

    def balance(cluster: Cluster, held: list[Grant]) -> None:
        nonlocal checks
        books.check(cluster.snapshot(), [(grant, Kind.BILLABLE) for grant in held])
        checks += 1

    with tempfile.TemporaryDirectory() as var:
        snapshot = month.snapshot(SimulatorBackend(Path(var)).inventory())
    gpus = sum(len(node.devices) for node in snapshot.nodes)
    seconds = DAYS * work.DAY
    began, used = time.perf_counter(), time.process_time()
    lived = month.run(work.wishes(SEED, BEGIN), snapshot, seed=SEED, seconds=seconds, sampled=balance)
    took, used = time.perf_counter() - began, time.process_time() - used
    waits = sorted(course.attempts[0].placed_at - course.wish.at for course in lived.courses if course.attempts)
    detail = {
        "jobs": len(lived.courses),
        "gpus": gpus,
        "jobs_per_s": round(len(lived.courses) / took),
        "cpu_s": round(used, 1),
        "utilization_percent": round(100 * lived.held / (gpus * lived.seconds), 1),
        "states": dict(Counter(course.state or "open" for course in lived.courses)),
        "attempts": sum(len(course.attempts) for course in lived.courses),
        "failures_of_nodes": lived.failures,
        "mean_wait_s": round(sum(waits) / len(waits)),
        "waited_no_second_percent": round(100 * sum(wait < 1 for wait in waits) / len(waits), 1),
        "law_2_checked": checks,
        "seed": SEED,
    }
    return Figure(round(took, 1), "s", 300, detail, besides=len(lived.courses) >= 99_000 and checks == 4 * DAYS - 1)


def day_in_the_database() -> Figure:
    """The real passes, launches, observations and metering on PostgreSQL, with the simulator's clock in our hands."""
    services = [sys.executable, "-m", "haein.supervisor", "services", "--"]
    day = [sys.executable, "manage.py", "shell", "--no-imports", "-c", "from bench import day; day.main()"]
    environ = {**os.environ, "HAEIN_BACKEND": "simulator"}
    ran = subprocess.run([*services, *day], cwd=ROOT, env=environ, stdout=subprocess.PIPE, check=True)
    detail = json.loads(ran.stdout.splitlines()[-1])
    took = detail.pop("seconds")
    # No target was set; a day must take less than an hour for a rehearsal to be worth it.
    return Figure(took, "s", 3600, detail, besides=detail["allocations"] == detail["metered_once"])
