"""What pages say of the queue: where a job stands, who waits, what is held, and whether promises were kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.core.paginator import Paginator
from django.template.loader import render_to_string
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from dashboard import charts, present
from haein.tenants.scope import Scope
from jobs import standing, waiting, wording
from jobs.models import Job
from jobs.promises import Place, Score, When
from jobs.waiting import Held, Queue

PAGE = 25


def of_job(job: Job, scope: Scope, *, now: datetime) -> dict[str, Any]:
    """What stands before a waiting job, when it starts, and what would start sooner, in sentences."""
    found = standing.of(job, scope, now=now)
    return {
        "ahead": _ahead(found.ahead, found.own, found.own_count),
        "when": when(found.when, now),
        "score": score_sentence(found.score) if found.when else "",
        "sooner": found.sooner,
    }


def _ahead(count: int, own: Sequence[tuple[UUID, str]], own_count: int) -> str:
    if not count:
        return _("It is next in the queue.")
    if not own:
        return ngettext("%(count)d job is ahead of it.", "%(count)d jobs are ahead of it.", count) % {"count": count}
    links = format_html_join(", ", '<a href="{}">{}</a>', ((present.job_url(pk), name) for pk, name in own))
    if own_count > len(own):
        links = format_html("{}, …", links)
    told = ngettext(
        "{count} job is ahead of it, {own} of them your team's: {links}.",
        "{count} jobs are ahead of it, {own} of them your team's: {links}.",
        count,
    )
    return format_html(told, count=count, own=own_count, links=links)


def when(found: When | None, now: datetime) -> str:
    """The promise as a sentence; "" where nothing is known."""
    if found is None:
        return ""
    if found.p90 <= now:
        return _("It should have started by now; when it does is being worked out anew.")
    if found.p50 <= now:
        late = _("It starts any moment probably, and by {p90} with nine chances in ten.")
        return format_html(late, p90=moment(found.p90))
    told = _("It starts around {p50} probably, and by {p90} with nine chances in ten.")
    return format_html(told, p50=moment(found.p50), p90=moment(found.p90))


def moment(at: datetime) -> SafeString:
    return render_to_string("dashboard/_time.html", {"at": at, "format": "moment"})


def score_sentence(score: Score) -> str:
    """How often nine in ten was true; "" before anything was promised."""
    if score.p90_percent is None:
        return ""
    words = ngettext(
        "Of %(count)d promise of nine chances in ten %(percent)d %% held in the last seven days.",
        "Of %(count)d promises of nine chances in ten %(percent)d %% held in the last seven days.",
        score.all,
    )
    return words % {"percent": score.p90_percent, "count": score.all}


def page(scope: Scope, *, sort: str, number: str | None, now: datetime) -> dict[str, Any]:
    """All that the queue's page shows."""
    found = waiting.of(scope, sort=sort, now=now)
    shown = Paginator(found.order, PAGE).get_page(number)
    several = len(scope.team_ids) > 1 or scope.user.is_operator
    rows = [_row(job, place, now) for job, place in found.rows(list(shown.object_list))]
    shown.object_list = rows  # type: ignore[assignment]
    return {
        "page": shown,
        "teams": several,
        "sort": sort if sort in waiting.SORTS else waiting.DEFAULT_SORT,
        "sorts": list(waiting.SORTS.items()),
        **head(found),
        "score": found.known.score,
        "figure": charts.held(found.known.score),
    }


def head(found: Queue) -> dict[str, Any]:
    """What moves above the list: numbers, and how fresh the forecast is."""
    return {
        "figures": _figures(len(found.order), found.others, found.held),
        "as_of": found.known.as_of,
        "score_words": score_sentence(found.known.score),
    }


def _figures(mine: int, others: int, held: Held) -> list[tuple[str, str, str]]:
    every, outside = f"{held.all / 1000:g}", _("held by work not submitted through Haein")
    return [
        (_("Waiting"), f"{mine}", _("jobs that you can see")),
        (_("Of others"), f"{others}", _("more jobs wait in all")),
        (_("GPUs held"), f"{held.held / 1000:g}", _("of %(all)s in service") % {"all": every}),
        *([(_("GPUs outside"), f"{held.outside / 1000:g}", outside)] if held.outside else []),
        (_("GPUs free"), f"{held.free / 1000:g}", _("not all in one piece")),
        (_("GPUs lent"), f"{held.borrowed / 1000:g}", _("held beyond a team's guarantee")),
    ]


def _row(job: Job, place: Place | None, now: datetime) -> dict[str, Any]:
    organization = job.team.organization
    return {
        "id": job.pk,
        "short": job.short_id,
        "name": job.name,
        "index": job.array_index,
        "url": present.job_url(job.pk),
        "team": f"{organization.name} / {job.team.name}",
        "by": str(job.submitted_by),
        "shape": present.shape(job),
        "reason": wording.sentence(job.reason, job.reason_values),
        "queued": job.queued_at,
        "ahead": place.ahead if place else None,
        "when": place.when if place else None,
        "late": bool(place and place.when and place.when.p90 <= now),
    }
