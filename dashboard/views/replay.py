"""The operator's pages of replays: the list with the form, a replay and its outcome, and the tables of it."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dashboard import replays as boards
from dashboard import tables
from dashboard.forms import ReplayForm
from dashboard.scoping import operator
from haein.lib import clock, streams
from haein.lib.errors import Invalid, NotFound, Problem
from haein.tenants.models import User
from jobs import replays
from jobs.models import Replay

PAGE = 20


def _replay(request: HttpRequest, replay_id: UUID) -> Replay:
    try:
        return replays.get(replay_id, by=operator(request))
    except NotFound as missing:
        raise Http404(missing.message) from None


@login_required
@require_http_methods(["GET", "POST"])
def replay_list(request: HttpRequest) -> HttpResponse:
    by = operator(request)
    if request.headers.get("HX-Request"):
        return _listed(request, by, "dashboard/_replay_list.html", {})
    initial = ReplayForm.initial_of(boards.node_of_ours(), clock.now().date())
    form = ReplayForm(initial=initial)
    if request.method == "POST":
        form = ReplayForm(request.POST, request.FILES, initial=initial)
        if form.is_valid() and (started := _start(form, by)):
            return redirect("replay", started.pk)
    return _listed(request, by, "dashboard/replays.html", {"form": form}, status=422 if form.errors else 200)


def _start(form: ReplayForm, by: User) -> Replay | None:
    """The replay, or nothing and the form says why."""
    file = form.cleaned_data["trace"] if form.cleaned_data["source"] == "file" else None
    try:
        return replays.start(
            by=by,
            asked=form.asked(),
            file_name=file.name if file else "",
            content=file.read() if file else b"",
        )
    except Invalid as invalid:
        for name, sentence in invalid.fields.items():
            form.add_error(name, sentence)
    except Problem as problem:
        form.add_error(None, problem.message)
    return None


def _listed(
    request: HttpRequest, by: User, template: str, context: dict[str, object], *, status: int = 200
) -> HttpResponse:
    found = replays.newest(by=by).defer("trace", "result")
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    rows = [boards.row(each) for each in page.object_list]
    response = render(request, template, {**context, "page": page, "rows": rows}, status=status)
    response["Vary"] = "HX-Request"
    return response


@login_required
@require_GET
def replay(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    found = _replay(request, replay_id)
    context: dict[str, object] = {"replay": boards.row(found), "result": found.result}
    if found.result:
        runs = boards.runs(found, now=clock.now())
        context |= {"table": boards.table(runs), "figures": boards.figures(runs)}
        context["unpriced"] = any(run.cost is None or run.idle is None for run in runs)
    return render(request, "dashboard/replay.html", context)


@login_required
@require_GET
def replay_csv(request: HttpRequest, replay_id: UUID) -> StreamingHttpResponse:
    """One line for each run."""
    return _download(
        request, boards.result_csv(boards.runs(_replay(request, replay_id), now=clock.now())), replay_id, "runs"
    )


@login_required
@require_GET
def replay_curves_csv(request: HttpRequest, replay_id: UUID) -> StreamingHttpResponse:
    """One line for each step of each run."""
    return _download(
        request, boards.curves_csv(boards.runs(_replay(request, replay_id), now=clock.now())), replay_id, "curves"
    )


def _download(request: HttpRequest, table: bytes, replay_id: UUID, what: str) -> StreamingHttpResponse:
    name = f"haein-replay-{replay_id.hex[-8:]}-{what}.csv"
    return streams.response(request, iter([table]), name=name, content_type=tables.CSV)


@login_required
@require_POST
def replay_cancel(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    found = _replay(request, replay_id)
    try:
        replays.cancel(found.pk, by=operator(request))
    except Problem as problem:
        messages.error(request, problem.message)
    return redirect("replay", found.pk)


@login_required
@require_POST
def replay_delete(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    replays.delete(_replay(request, replay_id).pk, by=operator(request))
    messages.success(request, _("The replay is deleted."))
    return redirect("replays")
