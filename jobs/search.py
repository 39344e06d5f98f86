"""Finds jobs for a list: by words, state and tag, in an order, always within the reader's reach."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db.models import Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from haein.tenants.scope import Scope
from jobs.models import STATE_NAMES, Job
from jobs.states import OPEN, State

SORTS = {
    "-created_at": _("Newest first"),
    "created_at": _("Oldest first"),
    "name": _("Name"),
    "-priority": _("Highest priority first"),
}
STATES = [("open", _("Not ended")), *((state.value, STATE_NAMES[state]) for state in State)]


def find(
    *, scope: Scope, words: str = "", state: str = "", tag: str = "", array: UUID | None = None, sort: str = ""
) -> QuerySet[Job]:
    """Unknown states and sorts mean none and the default: a link from an old page still works."""
    jobs: QuerySet[Job] = Job.objects.seen_by(scope).select_related("submitted_by")
    if array:
        jobs = jobs.filter(array=array)
    for word in words.split():
        jobs = jobs.filter(Q(name__icontains=word) | Q(command__icontains=word))
    if state == "open":
        jobs = jobs.filter(state__in=[s.value for s in OPEN])
    elif state in set(State):
        jobs = jobs.filter(state=state)
    if tag:
        jobs = jobs.filter(tags__contains=[tag])
    return jobs.order_by(sort if sort in sorts(array) else next(iter(sorts(array))), "-id")


def sorts(array: UUID | None) -> Mapping[str, Promise]:
    """The orders that a list may be in, the default first; only an array's jobs have an index."""
    return {"array_index": _("By index"), **SORTS} if array else SORTS
