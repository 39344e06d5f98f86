"""Arrays: jobs that were submitted at once and differ by their index, and what they are together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from django.db.models import Count, IntegerField, OuterRef, QuerySet, Subquery
from django.utils.translation import gettext as _

from haein.lib import ids
from haein.lib.errors import NotFound
from haein.tenants.scope import Scope
from jobs.models import Job
from jobs.states import ENDED, OPEN, State

# By the index, which is in the database's own index beside the array: no row is read for it.
_MEMBERS = Count("array_index")


@dataclass(frozen=True, slots=True)
class Array:
    """All jobs of an array. `states` has those that occur; `asked` have not ended, but were asked to."""

    id: UUID
    name: str
    team_id: UUID
    organization_id: UUID
    created_at: datetime
    states: Mapping[State, int]
    asked: int

    @property
    def short_id(self) -> str:
        return ids.short(self.id)

    @property
    def size(self) -> int:
        return sum(self.states.values())

    @property
    def ended(self) -> int:
        return sum(count for state, count in self.states.items() if state in ENDED)

    @property
    def cancellable(self) -> int:
        """How many have not ended and were not asked to."""
        return self.size - self.ended - self.asked


@dataclass(frozen=True, slots=True)
class Place:
    """Where a job stands in its array: the `number`th of `size` by index, and who is beside it."""

    id: UUID
    index: int
    size: int
    number: int
    previous: UUID | None
    next: UUID | None


def get(array_id: UUID, *, scope: Scope) -> Array:
    """The array, if the reader may see it, in one query. Raises NotFound."""
    members = Job.objects.seen_by(scope).filter(array=array_id).order_by()
    # What all have in common groups them no further.
    common = members.values("name", "team_id", "team__organization_id", "created_at", "state")
    rows = list(common.annotate(count=Count("pk"), asked=Count("cancel_requested_at")))
    if not rows:
        raise NotFound(_("There is no such array."))
    first = rows[0]
    return Array(
        array_id,
        first["name"],
        first["team_id"],
        first["team__organization_id"],
        first["created_at"],
        {State(row["state"]): row["count"] for row in sorted(rows, key=lambda row: list(State).index(row["state"]))},
        sum(row["asked"] for row in rows if row["state"] in OPEN),
    )


def place(job: Job) -> Place | None:
    """In one query; None for a job of no array."""
    if job.array is None or job.array_index is None:
        return None
    siblings = Job.objects.filter(array=OuterRef("array")).order_by()
    before = siblings.filter(array_index__lt=OuterRef("array_index"))
    after = siblings.filter(array_index__gt=OuterRef("array_index"))
    found = (
        Job.objects.filter(pk=job.pk)
        .annotate(
            size=_count(siblings),
            before=_count(before),
            previous=Subquery(before.order_by("-array_index").values("pk")[:1]),
            next=Subquery(after.order_by("array_index").values("pk")[:1]),
        )
        .values("size", "before", "previous", "next")
        .get()
    )
    number = (found["before"] or 0) + 1
    return Place(job.array, job.array_index, found["size"], number, found["previous"], found["next"])


def _count(members: QuerySet[Job]) -> Subquery:
    counted = members.values("array").annotate(count=_MEMBERS)
    return Subquery(counted.values("count"), output_field=IntegerField())


def sizes(arrays: Iterable[UUID | None]) -> dict[UUID, int]:
    """How many jobs each has; asks for nothing where there is none."""
    known = {array for array in arrays if array is not None}
    if not known:
        return {}
    counted = Job.objects.filter(array__in=known).order_by().values_list("array")
    return {array: count for array, count in counted.annotate(_MEMBERS) if array is not None}


def variables(job: Job, sizes: Mapping[UUID, int]) -> dict[str, str]:
    """The user's own and those of the job's array; the name that users of Slurm know yields to the user's own."""
    if job.array is None or job.array_index is None:
        return dict(job.variables)
    index = str(job.array_index)
    return {
        "SLURM_ARRAY_TASK_ID": index,
        **job.variables,
        "HAEIN_ARRAY_ID": str(job.array),
        "HAEIN_ARRAY_INDEX": index,
        "HAEIN_ARRAY_SIZE": str(sizes[job.array]),
    }
