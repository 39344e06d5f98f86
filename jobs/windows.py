"""Windows: GPUs reserved for a team, and nodes out for maintenance, from one moment to another.

An operator makes them. The queue drains toward them: before a window begins only what ends in time is started in it
(`asides()`), and what would still run there when it begins is told to end by then (`enforce()`).
"""

from __future__ import annotations

import enum
import math
from collections.abc import Collection, Hashable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, cast
from uuid import UUID

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet
from django.utils.translation import gettext as _

from haein.cluster.models import Device, Node
from haein.lib import live
from haein.lib.errors import Forbidden, Invalid, NotFound, Problem
from haein.placement import reserving
from haein.placement.queueing import Aside
from haein.tenants import audit
from haein.tenants.models import Team, User
from haein.tenants.scope import Scope
from jobs import preempting, snapshots, wakeup
from jobs.models import Allocation, Attempt, Window

MOST_REASON = 200  # characters, the column's
MOST_AHEAD = timedelta(days=366)
# A form knows minutes: "from now" is more than one ago when somebody thinks it over.
_JUST_NOW = timedelta(minutes=5)
# Any number that nothing else in this database locks: windows are made one after another, or two could take one device.
_LOCK = 0x4A0B6


class State(enum.Enum):
    COMING = "coming"
    NOW = "now"
    OVER = "over"
    CANCELLED = "cancelled"


def state(window: Window, *, now: datetime) -> State:
    if window.cancelled_at:
        return State.CANCELLED
    if window.ends_at <= now:
        return State.OVER
    return State.COMING if now < window.starts_at else State.NOW


@transaction.atomic
def reserve(
    *, by: User, team: UUID, gpus: int, model: str, starts_at: datetime, ends_at: datetime, reason: str, now: datetime
) -> Window:
    """Keep so many whole devices of a model for a team. Which ones is decided here, and stays.

    Raises Forbidden, NotFound where there is no such team, and Invalid by field: with the nearest that is possible
    where there are not as many.
    """
    _must_operate(by)
    found = Team.objects.filter(pk=team).first()
    if found is None:
        raise NotFound(_("There is no such team."))
    faults = _faults(reason, starts_at, ends_at, now)
    if gpus < 1:
        faults["gpus"] = _("Reserve at least one GPU.")
    if not (devices := _in_service(model)):
        faults["model"] = _("No %(model)s is in service.") % {"model": model or _("GPU")}
    if faults:
        raise Invalid(faults)
    _lock()
    taken = _Taken(now)
    free = [device for device in devices if device.pk not in taken.between(starts_at, ends_at)]
    chosen = reserving.choose(_rooms(devices, free), gpus, starts_at.timestamp())
    if chosen is None:
        raise Invalid(_nearest(gpus, model, devices, len(free), taken, starts_at, ends_at))
    window = _made(by, found, reason, starts_at, ends_at, now, gpus=gpus, model=model)
    keys = {cast(int, pk) for pk in chosen}
    window.devices.set(keys)
    names = sorted({device.node.name for device in devices if device.pk in keys})
    audit.record(
        "window.reserve",
        str(window.pk),
        by=by,
        organization_id=found.organization_id,
        team=str(found.pk),
        gpus=gpus,
        model=model,
        nodes=names,
        **_told(window),
    )
    return window


@transaction.atomic
def maintain(
    *,
    by: User,
    nodes: Collection[str],
    rack: str = "",
    starts_at: datetime,
    ends_at: datetime,
    reason: str,
    now: datetime,
) -> Window:
    """Take these nodes, or all of a rack, out from one moment to another. Raises Forbidden, Invalid by field."""
    _must_operate(by)
    faults = _faults(reason, starts_at, ends_at, now)
    found = list(Node.objects.filter(Q(name__in=nodes) | Q(rack=rack) if rack else Q(name__in=nodes)).order_by("name"))
    missing = sorted(set(nodes) - {node.name for node in found})
    if missing:
        faults["nodes"] = _("There is no node %(names)s.") % {"names": ", ".join(missing)}
    elif rack and not any(node.rack == rack for node in found):
        faults["rack"] = _("No node is in a rack %(rack)s.") % {"rack": rack}
    elif not found:
        faults["nodes"] = _("Name a node, or a rack.")
    if faults:
        raise Invalid(faults)
    _lock()
    if fault := _in_another(found, starts_at, ends_at):
        raise Invalid({"starts_at": fault})
    window = _made(by, None, reason, starts_at, ends_at, now)
    window.nodes.set(found)
    audit.record("window.maintain", str(window.pk), by=by, nodes=[node.name for node in found], **_told(window))
    return window


@transaction.atomic
def cancel(window_id: UUID, *, by: User, now: datetime) -> None:
    """It ends, or never begins; who was told to leave for it may stay.

    Raises NotFound, also for anybody who is no operator, and Problem when it is over.
    """
    window = Window.objects.select_for_update().filter(pk=window_id).first()
    if window is None or not by.is_operator:
        raise NotFound(_("There is no such window."))
    if state(window, now=now) in {State.CANCELLED, State.OVER}:
        raise Problem(_("It is over already."))
    window.cancelled_at = now
    window.save(update_fields=["cancelled_at"])
    code = "reservation" if window.team_id else "maintenance"
    on = Q(node__windows=window) | Q(workers__node__windows=window) | Q(allocations__device__windows=window)
    told = Attempt.objects.exclude(state=Attempt.State.ENDED).filter(on, preempt_code=code)
    # Whom another window sends away as well is told again by the next tick.
    preempting.withdraw(set(told.values_list("pk", flat=True)), now=now)
    audit.record("window.cancel", str(window.pk), by=by, **_told(window))
    _changed()


def seen_by(scope: Scope, *, now: datetime) -> QuerySet[Window]:
    """The windows that are not over: maintenance, and reservations of the reader's teams; an operator sees all."""
    shown = Window.objects.filter(cancelled_at=None, ends_at__gt=now).order_by("starts_at", "id")
    if not scope.user.is_operator:
        shown = shown.filter(Q(team=None) | Q(team__in=scope.team_ids))
    return shown.select_related("team__organization", "made_by").prefetch_related("nodes", "devices__node")


def over(*, by: User, now: datetime, most: int = 20) -> QuerySet[Window]:
    """The last ones that are over, for an operator. Raises Forbidden."""
    _must_operate(by)
    ended = Window.objects.filter(Q(cancelled_at__isnull=False) | Q(ends_at__lte=now)).order_by("-starts_at", "-id")
    return ended.select_related("team__organization", "made_by").prefetch_related("nodes", "devices__node")[:most]


def asides(now: datetime) -> tuple[Aside, ...]:
    """All open windows, in three queries."""
    open_ones = Window.objects.filter(cancelled_at=None, ends_at__gt=now).order_by("starts_at", "id")
    return tuple(
        Aside(
            id=window.pk,
            at=window.starts_at.timestamp(),
            until=window.ends_at.timestamp(),
            team=window.team_id,
            nodes=frozenset(node.pk for node in window.nodes.all()),
            devices=frozenset(device.pk for device in window.devices.all()),
        )
        for window in open_ones.prefetch_related("nodes", "devices")
    )


# Whoever sits on a window that begins within the notice and would still run then; the earliest window of each.
_SITTING = """
    WITH due AS (
        SELECT id, team_id, starts_at FROM jobs_window
        WHERE cancelled_at IS NULL AND starts_at <= %(soon)s AND ends_at > %(now)s
    ), sits AS (
        SELECT attempt.id AS attempt_id, out.window_id, attempt.node_id
        FROM jobs_attempt AS attempt JOIN jobs_window_nodes AS out ON out.node_id = attempt.node_id
        WHERE attempt.state <> 'ended'
        UNION
        SELECT worker.attempt_id, out.window_id, worker.node_id
        FROM jobs_worker AS worker JOIN jobs_window_nodes AS out ON out.node_id = worker.node_id
        UNION
        SELECT allocation.attempt_id, kept.window_id, device.node_id
        FROM jobs_allocation AS allocation
        JOIN jobs_window_devices AS kept ON kept.device_id = allocation.device_id
        JOIN cluster_device AS device ON device.id = allocation.device_id
        WHERE allocation.ended_at IS NULL
    )
    SELECT DISTINCT ON (attempt.id) attempt.id, due.starts_at, due.team_id IS NULL,
           string_agg(DISTINCT node.name, ', ' ORDER BY node.name)
    FROM due
    JOIN sits ON sits.window_id = due.id
    JOIN jobs_attempt AS attempt ON attempt.id = sits.attempt_id
    JOIN jobs_job AS job ON job.id = attempt.job_id
    JOIN cluster_node AS node ON node.id = sits.node_id
    WHERE attempt.state <> 'ended' AND attempt.preempt_at IS NULL AND due.team_id IS DISTINCT FROM job.team_id
      AND coalesce(attempt.started_at, attempt.placed_at) + make_interval(secs => job.time_limit_s) > due.starts_at
    GROUP BY attempt.id, due.id, due.starts_at, due.team_id
    ORDER BY attempt.id, due.starts_at
"""


def enforce(now: datetime) -> list[UUID]:
    """Tell those to end who would still be there when a window begins; returns the attempts that were told.

    They are asked to end when it begins, and have the whole notice in any case. Each tick asks, in one query.
    """
    notice = timedelta(seconds=settings.HAEIN_PREEMPTION_NOTICE_SECONDS)
    with connection.cursor() as cursor:
        cursor.execute(_SITTING, {"now": now, "soon": now + notice})
        sitting = cursor.fetchall()
    if not sitting:
        return []
    return preempting.warn(
        {
            pk: preempting.Yield(
                "maintenance" if out else "reservation",
                {"nodes": names, "at": preempting.said(starts_at)},
                max(starts_at, now + notice),
            )
            for pk, starts_at, out, names in sitting
        },
        now=now,
    )


def nodes_of(window: Window) -> list[str]:
    """The names of its nodes, or of those that its devices are in."""
    return sorted({node.name for node in window.nodes.all()} | {device.node.name for device in window.devices.all()})


def _must_operate(by: User) -> None:
    if not by.is_operator:
        raise Forbidden(_("Only an operator reserves GPUs or takes nodes out."))


def _faults(reason: str, starts_at: datetime, ends_at: datetime, now: datetime) -> dict[str, str]:
    """What is wrong with what both kinds are asked for, by field."""
    faults = {}
    if not reason.strip():
        faults["reason"] = _("Say why: whoever is kept out will read it.")
    elif len(reason.strip()) > MOST_REASON:
        faults["reason"] = _("Say it in %(most)d characters or fewer.") % {"most": MOST_REASON}
    if starts_at < now - _JUST_NOW:
        faults["starts_at"] = _("This has passed already: choose a moment to come.")
    if ends_at <= max(starts_at, now):
        faults["ends_at"] = _("It must end after it begins.")
    elif ends_at > now + MOST_AHEAD:
        faults["ends_at"] = _("At most %(days)d days ahead.") % {"days": MOST_AHEAD.days}
    return faults


def _lock() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])


def _made(
    by: User,
    team: Team | None,
    reason: str,
    starts_at: datetime,
    ends_at: datetime,
    now: datetime,
    *,
    gpus: int = 0,
    model: str = "",
) -> Window:
    window = Window.objects.create(
        team=team,
        reason=reason.strip(),
        gpus=gpus,
        model=model,
        starts_at=starts_at,
        ends_at=ends_at,
        made_by=by,
        made_at=now,
    )
    _changed()
    return window


def _changed() -> None:
    live.push(live.CLUSTER)
    wakeup.soon()


def _told(window: Window) -> dict[str, Any]:
    return {
        "reason": window.reason,
        "starts_at": window.starts_at.isoformat(),
        "ends_at": window.ends_at.isoformat(),
    }


@dataclass(frozen=True, slots=True)
class _Span:
    starts_at: datetime
    ends_at: datetime
    devices: frozenset[int]


class _Taken:
    """Which devices are in a window, and when."""

    def __init__(self, now: datetime) -> None:
        windows = Window.objects.filter(cancelled_at=None, ends_at__gt=now).prefetch_related(
            "devices", "nodes__devices"
        )
        self.spans = [
            _Span(
                window.starts_at,
                window.ends_at,
                frozenset(device.pk for device in window.devices.all())
                | frozenset(device.pk for node in window.nodes.all() for device in node.devices.all()),
            )
            for window in windows.prefetch_related("devices", "nodes__devices")
        ]

    def between(self, starts_at: datetime, ends_at: datetime) -> frozenset[int]:
        overlapping = (span for span in self.spans if span.starts_at < ends_at and span.ends_at > starts_at)
        return frozenset[int]().union(*(span.devices for span in overlapping))


def _in_service(model: str) -> list[Device]:
    """What is carved for good is no whole device."""
    devices = Device.objects.filter(model__name=model, present=True, problem="", layout=[], node__present=True)
    return list(
        devices.filter(node__drained_at=None, node__problem="").select_related("node").order_by("node__name", "index")
    )


def _rooms(devices: Iterable[Device], free: Collection[Device]) -> list[reserving.Room]:
    """The nodes that have one or more of the free devices."""
    ends = _ends(free)
    keys = {device.pk for device in free}
    rooms = []
    for node, own in groupby(devices, key=lambda device: device.node):
        of_node = [device.pk for device in own]
        mine: list[tuple[Hashable, float]] = [(pk, ends.get(pk, 0.0)) for pk in of_node if pk in keys]
        rooms.append(reserving.Room(node.pk, node.name, tuple(mine), whole=len(mine) == len(of_node)))
    return rooms


def _ends(devices: Collection[Device]) -> dict[int, float]:
    """When each is free at the latest by the limits of what runs there, in epoch seconds, of those that are held.

    Of what others hold nobody knows.
    """
    ends = {work.device_id: math.inf for work in snapshots.outside() if work.device_id is not None}
    rows = Allocation.objects.filter(ended_at=None, device__in=devices).values_list(
        "device_id", "attempt__started_at", "attempt__placed_at", "attempt__job__time_limit_s"
    )
    for device_id, started_at, placed_at, limit in rows:
        end = (started_at or placed_at).timestamp() + limit
        ends[device_id] = max(end, ends.get(device_id, 0.0))
    return ends


def _nearest(
    gpus: int,
    model: str,
    devices: Collection[Device],
    free: int,
    taken: _Taken,
    starts_at: datetime,
    ends_at: datetime,
) -> dict[str, str]:
    """What is possible instead, by field: fewer, or later."""
    if gpus > len(devices):
        return {"gpus": _("Only %(n)d %(model)s are in service.") % {"n": len(devices), "model": model}}
    fewer = _("%(n)d are in no other window then: reserve as many, or fewer.") % {"n": free}
    faults = {"gpus": fewer if free else _("All %(model)s are in other windows then.") % {"model": model}}
    keys = {device.pk for device in devices}
    for later in sorted(span.ends_at for span in taken.spans if span.ends_at > starts_at):
        if len(keys - taken.between(later, later + (ends_at - starts_at))) >= gpus:
            faults["starts_at"] = _("As many are free from %(at)s on.") % {"at": preempting.said(later)}
            break
    return faults


def _in_another(nodes: Collection[Node], starts_at: datetime, ends_at: datetime) -> str:
    """Which window has one of these nodes then, as a sentence; "" where none has."""
    open_ones = Window.objects.filter(cancelled_at=None, starts_at__lt=ends_at, ends_at__gt=starts_at)
    other = open_ones.filter(Q(nodes__in=nodes) | Q(devices__node__in=nodes)).order_by("starts_at").first()
    if other is None:
        return ""
    said = {"start": preempting.said(other.starts_at), "end": preempting.said(other.ends_at), "why": other.reason}
    if other.team_id:
        return _("GPUs there are reserved from %(start)s to %(end)s (%(why)s): cancel that, or choose a time.") % said
    return _("Some are out from %(start)s to %(end)s already (%(why)s): cancel that, or choose a time.") % said
