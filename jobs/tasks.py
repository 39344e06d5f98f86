"""What the workers do: look at the queue when told to, and once a second find whatever was lost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from uuid import UUID

import structlog
from celery import shared_task, signals

from haein.cluster import inventory
from haein.cluster import services as cluster
from haein.cluster.backends.base import BackendDown
from haein.cluster.registry import backend
from haein.lib import clock
from haein.telemetry import series
from jobs import lifecycle, promises, pulse, repacks, replaying, scheduling, settling, snapshots, uploads, windows

log = structlog.get_logger(__name__)

INVENTORY_EVERY_S = 10
MOST_REST_S = 0.5
_rests_until = 0.0
_reconciling, _advancing, _waiting = threading.Lock(), threading.Lock(), threading.Lock()
_replaying, _promising = threading.Lock(), threading.Lock()
_inventory_due = 0.0
_drained: dict[str, str] = {}
_ending = threading.Event()
signals.worker_shutting_down.connect(lambda **_: _ending.set(), weak=False)


@shared_task(name="jobs.advance")
def advance() -> None:
    """Place what can be placed and launch it. Of many at once one works, and one waits to see what came meanwhile."""
    if not _waiting.acquire(blocking=False):
        return
    with _advancing:
        # Under a flood of submits passes take half the time, not all of it: what comes meanwhile goes with the next.
        _ending.wait(max(0.0, _rests_until - time.monotonic()))
        _waiting.release()
        _step("advance", _advance)


@shared_task(name="jobs.reconcile")
def reconcile() -> None:
    """One tick. Ticks that overlap in one process would only repeat each other; between processes rows decide."""
    if not _reconciling.acquire(blocking=False):
        return
    try:
        works = (
            ("inventory", _inventory),
            ("observe", _observe),
            ("windows", _windows),
            ("advance", _advance),
            ("repack", _follow),
        )
        steps = [_step(name, work) for name, work in works]
        pulse.beat("scheduler", problem=next((problem for problem in steps if problem), ""), now=clock.now())
    finally:
        _reconciling.release()


@shared_task(name="jobs.remove_abandoned_uploads")
def remove_abandoned_uploads() -> None:
    uploads.remove_abandoned(now=clock.now())


@shared_task(name="jobs.replay")
def replay() -> None:
    """Every replay that waits, one after another; in a process of its own, as it takes a core for minutes."""
    if not _replaying.acquire(blocking=False):
        return
    try:
        while replaying.run_next(ending=_ending.is_set):
            pass
    finally:
        _replaying.release()


@shared_task(name="jobs.promise")
def promise() -> None:
    """When each that waits will start; takes up to a second of a core, so it runs beside replays."""
    if not _promising.acquire(blocking=False):
        return
    try:
        promises.renew(now=clock.now())
    finally:
        _promising.release()


@shared_task(name="jobs.forget_promises")
def forget_promises() -> None:
    promises.forget(now=clock.now())


@shared_task(name="jobs.settle")
def settle() -> None:
    """Takes some seconds of a core when the mix of jobs has changed, so it runs where replays do."""
    settling.settle(snapshots.capacity(), now=clock.now())


@shared_task(name="jobs.repack")
def repack() -> None:
    """Whether a move of running jobs would make room for one that waits; takes up to a second of a core."""
    repacks.look(now=clock.now())


def _inventory() -> None:
    """Every few seconds, and at once when an operator has drained a node or let it work again."""
    global _inventory_due, _drained
    drained = cluster.drained()
    if time.monotonic() >= _inventory_due or drained != _drained:
        facts = backend().inventory()
        inventory.refresh(facts, backend().outside(), now=clock.now())
        cluster.hand_over(backend(), facts)
        _inventory_due, _drained = time.monotonic() + INVENTORY_EVERY_S, drained


def _observe() -> None:
    running = lifecycle.observe(backend(), now=clock.now())
    _measure(running)


def _measure(running: list[UUID]) -> None:
    readings = backend().readings(running) if running else []
    series.record(readings, now=clock.now())


def _windows() -> None:
    windows.enforce(clock.now())


def _follow() -> None:
    repacks.follow(now=clock.now())


def _advance() -> None:
    global _rests_until
    ready = frozenset(environment.name for environment in backend().environments() if environment.ready)
    begun = time.monotonic()
    scheduling.run_pass(now=clock.now(), ready=ready)
    _rests_until = time.monotonic() + min(time.monotonic() - begun, MOST_REST_S)
    taken = lifecycle.launch(backend(), now=clock.now())
    while taken == lifecycle.MOST_AT_ONCE:  # there may be more of them
        taken = lifecycle.launch(backend(), now=clock.now())
    if taken and not backend().queues:
        lifecycle.observe(backend(), now=clock.now())  # most have begun by now: say so before the next tick


def _step(name: str, work: Callable[[], None]) -> str:
    """One part of a tick must not keep the others from their work. Returns the problem, "" if there was none."""
    try:
        work()
    except BackendDown as error:
        log.warning("the backend can't be asked", step=name, why=str(error))
        return str(error)
    except Exception as error:
        log.exception("a step failed", step=name)
        return f"{name}: {type(error).__name__}"
    return ""
