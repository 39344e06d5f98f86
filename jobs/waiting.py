"""The queue as a reader may see it: who of his waits and where they stand, and of all others numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext_lazy as _

from haein.cluster.models import Device
from haein.placement import weights
from haein.placement.model import WHOLE, Grant
from haein.tenants.scope import Scope
from jobs import promises, snapshots
from jobs.models import Allocation, Job
from jobs.promises import Known, Place
from jobs.states import State

SORTS = {
    "start": _("Next to start first"),
    "queued_at": _("Longest wait first"),
    "-priority": _("Highest priority first"),
    "name": _("Name"),
}
DEFAULT_SORT = "start"


@dataclass(frozen=True, slots=True)
class Held:
    """Thousandths of the GPUs in service: all, held by jobs, of those the ones that are held beyond their holders'
    guarantees, and held by work that was not submitted here."""

    all: int
    held: int
    borrowed: int
    outside: int

    @property
    def free(self) -> int:
        return max(0, self.all - self.held - self.outside)


@dataclass(frozen=True, slots=True)
class Queue:
    """`order` are the reader's waiting jobs, sorted; `others` is how many more wait. `known` is without places."""

    order: Sequence[UUID]
    others: int
    known: Known
    held: Held
    now: datetime

    def rows(self, ids: Sequence[UUID]) -> list[tuple[Job, Place | None]]:
        """These of them, in this order, with their places."""
        found: Mapping[UUID, Job] = Job.objects.select_related("team__organization", "submitted_by").in_bulk(ids)
        places = promises.known(ids, now=self.now).places
        return [(found[pk], places.get(pk)) for pk in ids if pk in found]


def seen_by(scope: Scope) -> QuerySet[Job]:
    """Who waits of the reader's teams; an operator sees all."""
    jobs = Job.objects.all() if scope.user.is_operator else Job.objects.seen_by(scope)
    return jobs.filter(state=State.QUEUED)


def of(scope: Scope, *, sort: str = DEFAULT_SORT, now: datetime) -> Queue:
    """Unknown sorts mean the default: a link from an old page still works. Five queries."""
    by_row = sort in SORTS and sort != DEFAULT_SORT
    rows = seen_by(scope).order_by(*([sort] if by_row else ["-priority"]), "queued_at", "id")
    ids = list(rows.values_list("pk", flat=True))
    if not by_row:
        line = promises.order(now=now)
        ids.sort(key=lambda pk: line.get(pk.bytes, len(line)))
    every = Job.objects.filter(state=State.QUEUED).count()
    return Queue(ids, max(0, every - len(ids)), promises.known([], now=now), _held(), now)


def _held() -> Held:
    usable = Device.objects.filter(present=True, problem="", node__present=True, node__problem="")
    in_service = dict(usable.filter(node__drained_at=None).values_list("pk", "model__name"))
    held = Allocation.objects.filter(ended_at=None, device__in=in_service).aggregate(
        all=Sum("weight"), borrowed=Sum("weight", filter=Q(attempt__guaranteed=False))
    )
    outside = sum(
        weights.of_grant(Grant(work.device_id, work.units, work.memory, work.profile), in_service[work.device_id], 0)
        for work in snapshots.outside()
        if work.device_id in in_service
    )
    return Held(WHOLE * len(in_service), held["all"] or 0, held["borrowed"] or 0, outside)
