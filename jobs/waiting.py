"""The queue as a reader may see it: who of his waits and where they stand, and of all others numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Q, QuerySet, Sum
from django.utils.translation import gettext_lazy as _

from haein.cluster.models import Device
from haein.placement.model import WHOLE
from haein.tenants.scope import Scope
from jobs import promises
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
    """Thousandths of the GPUs in service: all, held, and of those the ones that are held beyond their holders'
    guarantees."""

    all: int
    held: int
    borrowed: int

    @property
    def free(self) -> int:
        return max(0, self.all - self.held)


@dataclass(frozen=True, slots=True)
class Queue:
    """`order` are the reader's waiting jobs, sorted; `others` is how many more wait."""

    order: Sequence[UUID]
    others: int
    known: Known
    held: Held

    def rows(self, ids: Sequence[UUID]) -> list[tuple[Job, Place | None]]:
        """These of them, in this order, with their places."""
        found: Mapping[UUID, Job] = Job.objects.select_related("team__organization", "submitted_by").in_bulk(ids)
        return [(found[pk], self.known.places.get(pk)) for pk in ids if pk in found]


def seen_by(scope: Scope) -> QuerySet[Job]:
    """Who waits of the reader's teams; an operator sees all."""
    jobs = Job.objects.all() if scope.user.is_operator else Job.objects.seen_by(scope)
    return jobs.filter(state=State.QUEUED)


def of(scope: Scope, *, sort: str = DEFAULT_SORT, now: datetime) -> Queue:
    """Unknown sorts mean the default: a link from an old page still works. Four queries."""
    by_row = sort in SORTS and sort != DEFAULT_SORT
    rows = seen_by(scope).order_by(*([sort] if by_row else ["-priority"]), "queued_at", "id")
    order = list(rows.values_list("pk", flat=True))
    known = promises.known(order, now=now)
    if not by_row:
        last = len(order)
        order.sort(key=lambda pk: known.places[pk].ahead if pk in known.places else last)
    waiting = Job.objects.filter(state=State.QUEUED).count()
    return Queue(order, max(0, waiting - len(order)), known, _held())


def _held() -> Held:
    devices = Device.objects.filter(present=True, problem="", node__present=True, node__drained_at=None).count()
    held = Allocation.objects.filter(ended_at=None).aggregate(
        all=Sum("weight"), borrowed=Sum("weight", filter=Q(attempt__guaranteed=False))
    )
    return Held(WHOLE * devices, held["all"] or 0, held["borrowed"] or 0)
