"""A week of the demonstration's load through the pass itself, on paper: under our order and under two plainer ones."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import takewhile
from pathlib import Path

from bench.ground import Figure, percentile
from bench.month import BEGIN, SEED
from dashboard.demo import month, people, work
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.placement.model import WHOLE, Snapshot
from haein.placement.queueing import Account, Rules, units_of
from haein.placement.replay import mix_of
from haein.placement.traces import Job as Traced
from haein.placement.weeks import Job, Outcome, Week
from jobs import requests
from jobs.spec import Spec

DAYS = 7
# The load was made for 129 nodes and leaves a quarter of them idle. On as many as these it queues by day and drains by
# night; of the nodes that are left out one in eight serves, as of all.
NODES = 84
STEP_S = 60.0
GUARANTEED = 0.8  # of the cluster, in all
# Whose work is not lost by a restart: long trainings save it, and what a service has served is served.
SAVE = {people.GANGS, people.TRAINING, people.SERVING}


def wait_p50() -> Figure:
    """The median wait, no longer than the better of the two others', and the mean wait too."""
    ours, others = _weeks()
    best = min(each.wait_p50_s for each in others.values())
    shorter = ours.wait_mean_s <= min(each.wait_mean_s for each in others.values())
    return Figure(round(ours.wait_p50_s, 1), "s", round(best + 0.1, 1), _detail(), besides=shorter)


def utilization() -> Figure:
    """The part of all GPU time that went into work that was not lost."""
    ours, others = _weeks()
    best = max(each.useful for each in others.values())
    return Figure(round(100 * ours.useful, 2), "%", round(100 * best - 0.05, 2), _detail(), more_is_better=True)


def _detail() -> dict[str, object]:
    ours, others = _weeks()
    return {"ours": told(ours)} | {name: told(each) for name, each in others.items()} | {"nodes": NODES}


def told(outcome: Outcome) -> dict[str, float]:
    waits = list(outcome.waits.values())
    return {
        "jobs": len(waits),
        "wait_p50_s": round(outcome.wait_p50_s, 1),
        "wait_mean_s": round(outcome.wait_mean_s),
        "wait_p95_s": round(percentile(waits, 95)),
        "utilization_percent": round(100 * outcome.useful, 2),
        "preemptions": outcome.preemptions,
    }


@cache
def _weeks() -> tuple[Outcome, Mapping[str, Outcome]]:
    snapshot, jobs = cluster(), week()
    accounts, weights = shares(snapshot, jobs)
    ours = Week(snapshot, Rules(), accounts, weights, step_s=STEP_S, mix=mix_of(traced(jobs))).run(jobs)
    plain = Week(snapshot, Rules(ageing_s=1e12), step_s=STEP_S, mix=mix_of(traced(jobs)))
    first = [replace(job, team="", accounts=("all",), priority=0) for job in jobs]
    priority = [replace(job, team="", accounts=("all",)) for job in jobs]
    return ours, {"first_come": plain.run(first), "priority_only": plain.run(priority)}


def cluster() -> Snapshot:
    with tempfile.TemporaryDirectory() as var:
        snapshot = month.snapshot(SimulatorBackend(Path(var)).inventory())
    nodes = snapshot.nodes
    return Snapshot(
        tuple(node for at, node in enumerate(nodes) if at * NODES // len(nodes) != (at - 1) * NODES // len(nodes))
    )


def week() -> list[Job]:
    """Whoever is cancelled is, for us, done by then."""
    wishes = takewhile(lambda wish: wish.at < DAYS * work.DAY, work.wishes(SEED, BEGIN))
    return [
        Job(
            id=wish.number,
            team=wish.team.name,
            request=requests.of(requests.columns(Spec(name="", command="", **wish.shape.asked()))),
            submitted=wish.at,
            work_s=min(wish.duration_s, wish.cancelled_after_s or wish.duration_s),
            limit_s=wish.time_limit_s,
            priority=wish.priority,
            accounts=(("team", wish.team.name),),
            checkpoints=bool(SAVE & set(wish.tags)),
        )
        for wish in wishes
    ]


def traced(jobs: Sequence[Job]) -> list[Traced]:
    return [Traced(job.request, int(job.submitted), int(job.work_s)) for job in jobs]


def shares(snapshot: Snapshot, jobs: Sequence[Job]) -> tuple[dict[Hashable, Account], dict[Hashable, int]]:
    """Each team is guaranteed its part of four fifths of the cluster, by what it asks for in the week."""
    asked: Counter[Hashable] = Counter()
    for job in jobs:
        asked[job.team] += int(units_of(job.request) * job.work_s)
    capacity = WHOLE * sum(len(node.devices) for node in snapshot.nodes)
    whole = sum(asked.values())
    accounts: dict[Hashable, Account] = {
        ("team", team): Account(id=("team", team), guaranteed=int(GUARANTEED * capacity * units / whole))
        for team, units in asked.items()
    }
    return accounts, {team: max(1, 1000 * units // whole) for team, units in asked.items()}
