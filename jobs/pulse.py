"""Tells whether the periodic work is being done, so that a page can say so when it is not."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.utils.translation import gettext as _

from jobs.models import Pulse

# Written at most this often while all is well: a row a second would be a write for nothing.
_WRITE_EVERY = timedelta(seconds=4)
LATE = timedelta(seconds=15)


def beat(part: str, *, problem: str, now: datetime) -> None:
    """The part has just done its work, with or without a problem (a sentence)."""
    fresh = Pulse.objects.filter(part=part, problem=problem, at__gt=now - _WRITE_EVERY).exists()
    if not fresh:
        Pulse.objects.update_or_create(part=part, defaults={"at": now, "problem": problem[:300]})


def troubles(*, now: datetime) -> list[str]:
    """What the readers of every page should know: at most one sentence a part."""
    row = Pulse.objects.filter(part="scheduler").first()
    if row is None or row.at < now - LATE:
        return [
            _("The scheduler has not reported lately: waiting jobs stay queued, running ones go on, nothing is lost.")
        ]
    if row.problem:
        return [_("The cluster backend has a problem, it is asked again every second: %(why)s") % {"why": row.problem}]
    return []
