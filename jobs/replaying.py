"""Runs replays: reads the jobs and the cluster, asks placement, and says how far it is while it goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

import structlog
from django.db import DatabaseError
from django.utils.translation import gettext as _

from haein.cluster.models import Node
from haein.lib import clock
from haein.placement import rehearsal, replay, traces
from haein.placement.mix import Mix
from haein.placement.model import WHOLE, DeviceState, Gang, NodeState, Request, Snapshot
from haein.placement.policies import HAEIN, POLICIES
from haein.placement.rehearsal import Watch
from jobs import replays, requests, snapshots
from jobs.models import Job, Replay
from jobs.replays import Asked, NodeKind

log = structlog.get_logger(__name__)

REPORT_S = 0.5
# A decision costs as many steps as the policy expects shapes: of more than these only the most frequent are told.
MOST_SHAPES = 150
# How much of a run under the default policy goes into settling it first.
SETTLING = 0.2


class Stopped(Exception):
    """The replay is not ours any more: it was cancelled or deleted, or another worker has it."""


class Ending(Exception):
    """This worker was asked to end."""


def run_next(*, ending: Callable[[], bool]) -> bool:
    """Take the next replay and see it through; False when there is none, or when the worker is `ending`."""
    found = replays.take(now=clock.now())
    if found is None:
        return False
    try:
        result = _result(found, _Report(found, ending))
    except Stopped:
        log.info("a replay was stopped", replay=str(found.pk))
    except Ending:
        replays.give_back(found)
        return False
    except DatabaseError:
        raise  # the lease runs out, and then it is taken again
    except (traces.Fault, ValueError) as fault:
        replays.fail(found, str(fault), now=clock.now())
    except Exception as error:  # a fault of ours: the operator is told of it, and it is not tried again
        log.exception("a replay failed", replay=str(found.pk))
        problem = _("It failed by a fault of Haein's own, %(kind)s: the worker's log has more.")
        replays.fail(found, problem % {"kind": type(error).__name__}, now=clock.now())
    else:
        replays.finish(found, result, now=clock.now())
    return True


class _Report:
    """Told how much is done; says so in the row, and learns there whether it should go on."""

    def __init__(self, found: Replay, ending: Callable[[], bool]) -> None:
        self._replay = found
        self._ending = ending
        self._due = time.monotonic() + REPORT_S

    def __call__(self, part: float) -> None:
        """Raises Stopped, Ending."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + REPORT_S
        if self._ending():
            raise Ending
        if not replays.go_on(self._replay, progress=min(999, int(part * 1000)), now=clock.now()):
            raise Stopped


@dataclass(slots=True)
class _Trace:
    """The jobs that ran, and how many did not: those that still run count with the time that they have run so far."""

    jobs: list[traces.Job]
    never_ran: int = 0
    running: int = 0


def _result(found: Replay, report: _Report) -> dict[str, Any]:
    asked = Asked.from_json(found.asked)
    if asked.since and asked.until:
        trace = own_jobs(asked.since, asked.until, now=clock.now(), watch=report)
    else:
        trace = _uploaded(found)
    report(0)
    if not any(job.units for job in trace.jobs):
        raise ValueError(_("No job that asks for a GPU ran in this span: choose another, or upload a trace."))
    mix = _expected(trace.jobs)
    runs = [(size, name) for size in clusters(asked) for name in asked.policies]
    return {
        "jobs": len(trace.jobs),
        "never_ran": trace.never_ran,
        "running": trace.running,
        "emulated": asked.kind is None and Node.objects.filter(present=True, emulated=True).exists(),
        "runs": [
            _run(size, name, trace.jobs, mix, _Part(report, number, len(runs)))
            for number, (size, name) in enumerate(runs)
        ],
    }


@dataclass(frozen=True, slots=True)
class _Part:
    """One of several pieces of work, and how much of it is done."""

    report: Watch
    number: int
    of: int

    def __call__(self, part: float) -> None:
        self.report((self.number + part) / self.of)


def _run(size: Size, name: str, jobs: list[traces.Job], mix: Mix, watch: Watch) -> dict[str, Any]:
    policy, settling = POLICIES[name], 0.0
    if policy is HAEIN:
        settling = SETTLING
        policy = rehearsal.settle(size.snapshot, mix, lambda part: watch(SETTLING * part))
    queued = replay.queue(
        size.snapshot, jobs, policy, mix=mix, watch=lambda part: watch(settling + (1 - settling) * part)
    )
    held, stranded, waiting = queued.curve.columns
    return {
        "policy": name,
        "own": size.own,
        "nodes": len(size.snapshot.nodes),
        "gpus": sum(queued.gpus.values()),
        "models": sorted(queued.gpus),
        "jobs": queued.jobs,
        "refused": queued.refused,
        "mean_wait_s": queued.mean_wait_s,
        "median_wait_s": queued.median_wait_s,
        "p95_wait_s": queued.p95_wait_s,
        "mean_completion_s": queued.mean_completion_s,
        "makespan_s": queued.makespan_s,
        "utilization": queued.utilization,
        "stranded": queued.stranded,
        "charged": queued.charged,
        "there": queued.there,
        "curve": {
            "step_s": queued.curve.step_s,
            "held": [round(value, 3) for value in held],
            "stranded": [round(value, 3) for value in stranded],
            "waiting": [round(value, 1) for value in waiting],
        },
    }


def _expected(jobs: list[traces.Job]) -> Mix:
    return Mix(dict(Counter(replay.mix_of(jobs).weights).most_common(MOST_SHAPES)))


# What is replayed.


def _uploaded(found: Replay) -> _Trace:
    """Raises Fault."""
    content = traces.unpacked(found.file_name, bytes(found.trace), replays.MOST_UNPACKED)
    if content.count(b"\n") > replays.MOST_JOBS:
        raise ValueError(_too_many())
    jobs = traces.timed(found.file_name, content)
    ran = [job for job in jobs if job.submitted is not None]
    return _Trace(ran, never_ran=len(jobs) - len(ran))


def _too_many() -> str:
    return _("There are more than %(most)d jobs: take a shorter span, or a part of the file.") % {
        "most": replays.MOST_JOBS
    }


def own_jobs(since: datetime, until: datetime, *, now: datetime, watch: Watch = lambda _part: None) -> _Trace:
    """Our own jobs submitted in [since, until), of all teams, in one query.

    A job's duration is the time that its attempts ran, from start to end, added up: what went wrong and was run again
    is one longer run. One that never ran is counted and left out. Priorities count, who submitted does not.
    Raises ValueError for more than MOST_JOBS.
    """
    wanted = Job.objects.filter(created_at__gte=since, created_at__lt=until).order_by("created_at", "id")
    rows = wanted.values_list(
        "id", "created_at", "priority", *requests.COLUMNS, "attempts__started_at", "attempts__ended_at"
    )
    trace = _Trace([])
    shapes: dict[tuple[Any, ...], Request | Gang] = {}
    for _job, attempts in groupby(rows.iterator(chunk_size=5000), key=itemgetter(0)):
        watch(0)
        spans = [(began, ended, asked) for *asked, began, ended in attempts]
        ran = [(ended or now) - began for began, ended, _asked in spans if began]
        if not ran:
            trace.never_ran += 1
            continue
        trace.running += any(ended is None for _began, ended, _asked in spans)
        _id, created_at, priority, *values = spans[0][2]
        # Of all jobs alike there is one request: a hundred thousand would be most of the memory that a month takes. It
        # has no id: of two jobs in one second the row that came first stays first.
        shape = tuple(tuple(each) if isinstance(each, list) else each for each in values)
        if shape not in shapes:
            shapes[shape] = requests.of(dict(zip(requests.COLUMNS, values, strict=True)))
        if len(trace.jobs) == replays.MOST_JOBS:
            raise ValueError(_too_many())
        seconds = int(sum(ran, timedelta()).total_seconds())
        trace.jobs.append(traces.Job(shapes[shape], int(created_at.timestamp()), seconds, priority))
    return trace


# What it is replayed on.


@dataclass(frozen=True, slots=True)
class Size:
    """A cluster on which nobody holds anything; `own` is ours as it is."""

    snapshot: Snapshot
    own: bool


def clusters(asked: Asked) -> list[Size]:
    """The clusters asked for. Raises ValueError where one is to be like ours and we have no node, or is too large."""
    ours = snapshots.capacity()
    in_service = [node for node in ours.nodes if node.usable]
    if (asked.own or not asked.kind) and not any(node.devices for node in in_service):
        raise ValueError(_("No node with a GPU is in service here: say what a node should have."))
    sizes = [Size(ours, own=True)] if asked.own else []
    for count in asked.nodes:
        nodes = _of_kind(asked.kind, count) if asked.kind else _like(in_service, count)
        if sum(len(node.devices) for node in nodes) > replays.MOST_GPUS:
            raise ValueError(
                _("nodes: %(count)d of them have more than %(most)d GPUs; take fewer.")
                % {"count": count, "most": replays.MOST_GPUS}
            )
        sizes.append(Size(Snapshot(nodes), own=False))
    return sizes


def _like(ours: Sequence[NodeState], count: int) -> tuple[NodeState, ...]:
    """The first so many of our nodes, with all of their devices; where we have fewer, the same over again.

    Copies have racks and pods of their own.
    """
    nodes = []
    for number in range(count):
        turn, at = divmod(number, len(ours))
        node, more = ours[at], f"+{turn}" if turn else ""
        name = node.name + more
        devices = tuple(replace(each, id=(turn, each.id), node=name, usable=True) for each in node.devices)
        rack, pod = node.rack and node.rack + more, node.pod and node.pod + more
        nodes.append(replace(node, id=(turn, node.id), name=name, devices=devices, rack=rack, pod=pod))
    return tuple(nodes)


def _of_kind(kind: NodeKind, count: int) -> tuple[NodeState, ...]:
    """Nodes that differ in nothing; nobody knows their racks."""
    return tuple(
        NodeState(
            id=number,
            name=f"n{number}",
            cpus=kind.cpus,
            memory_mb=kind.memory_mb,
            free_cpus=kind.cpus,
            free_memory_mb=kind.memory_mb,
            usable=True,
            devices=tuple(
                DeviceState(id=(number, index), node=f"n{number}", model=kind.model, free=WHOLE, usable=True)
                for index in range(kind.gpus)
            ),
        )
        for number in range(count)
    )
