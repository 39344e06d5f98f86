"""`manage.py replay REQUESTS.csv --nodes NODES.csv`: a trace under one policy or several, side by side."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from haein.placement import rehearsal, replay, traces
from haein.placement.model import Snapshot
from haein.placement.policies import HAEIN, POLICIES, Policy


class Command(BaseCommand):
    help = "Replay a trace of requests (openb's or Muri's columns) on a list of nodes. Needs no database."
    # Nothing of ours has to be there, or in order, to look at two files.
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django's own name for it

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("requests", type=Path)
        parser.add_argument("--nodes", type=Path, required=True)
        parser.add_argument(
            "--protocol",
            choices=["fill", "queue"],
            default="fill",
            help="fill: place until all is taken, nobody goes. queue: arrivals, waits and durations as the trace says.",
        )
        parser.add_argument("--policy", action="append", choices=[*POLICIES], help="may be given several times")
        parser.add_argument("--seeds", default="100-104", help="of the order of arrivals when filling: 100-104, or 7")
        parser.add_argument("--shortest-first", action="store_true", help="when queueing, instead of first come")
        parser.add_argument("--json", action="store_true", help="one line of JSON for each policy and seed")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            snapshot, jobs = traces.nodes(options["nodes"]), traces.jobs(options["requests"])
            seeds = _seeds(options["seeds"])
            for name in options["policy"] or [HAEIN.name]:
                policy = POLICIES[name]
                if policy is HAEIN:
                    policy = rehearsal.settle(snapshot, replay.mix_of(jobs))
                if options["protocol"] == "fill":
                    lines = _fill(snapshot, jobs, policy, seeds)
                else:
                    lines = iter([_queue(snapshot, jobs, policy, options["shortest_first"])])
                for line in lines:
                    self._say(line, as_json=options["json"])
        except (traces.Fault, ValueError) as fault:
            raise CommandError(str(fault)) from fault

    def _say(self, line: dict[str, Any], *, as_json: bool) -> None:
        if as_json:
            self.stdout.write(json.dumps(line))
        else:
            self.stdout.write("  ".join(f"{name} {value}" for name, value in line.items()))
        self.stdout.flush()


def _fill(snapshot: Snapshot, jobs: list[traces.Job], policy: Policy, seeds: range) -> Iterator[dict[str, Any]]:
    for seed in seeds:
        filled = replay.fill(snapshot, jobs, policy, seed)
        yield {
            "policy": policy.name,
            "seed": seed,
            "allocated_percent": {str(mark): round(value, 3) for mark, value in filled.allocated_percent.items()},
            "decisions_per_s": round(filled.decisions_per_s),
        }


def _queue(snapshot: Snapshot, jobs: list[traces.Job], policy: Policy, shortest_first: bool) -> dict[str, Any]:
    queued = replay.queue(snapshot, jobs, policy, shortest_first=shortest_first)
    return {
        "policy": policy.name,
        "order": "shortest first" if shortest_first else "first come",
        "jobs": queued.jobs,
        "refused": queued.refused,
        "mean_completion_s": round(queued.mean_completion_s),
        "mean_wait_s": round(queued.mean_wait_s),
        "median_wait_s": round(queued.median_wait_s),
        "p95_wait_s": queued.p95_wait_s,
        "makespan_s": queued.makespan_s,
        "utilization_percent": round(100 * queued.utilization, 2),
        "stranded_gpus": round(queued.stranded, 2),
        "decisions_per_s": round(queued.decisions_per_s),
    }


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise CommandError(f"--seeds: {text!r} is no seed or span of seeds; write 100-104, or 7.")
    return range(int(first), int(last or first) + 1)
