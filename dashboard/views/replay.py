"""The operator's pages of replays: the list with the form, a replay and its outcome, and the tables of it."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from dashboard import replays as boards
from dashboard.forms import ReplayForm
from dashboard.scoping import reader
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound, Problem
from haein.tenants.models import User
from jobs import replays
from jobs.models import Replay

PAGE = 20


def _operator(request: HttpRequest) -> User:
    user = reader(request).user
    if not user.is_operator:
        raise Http404
    return user


def _replay(request: HttpRequest, replay_id: UUID) -> Replay:
    try:
        return replays.get(replay_id, by=_operator(request))
    except NotFound as missing:
        raise Http404(missing.message) from None


@login_required
@require_http_methods(["GET", "POST"])
def replay_list(request: HttpRequest) -> HttpResponse:
    operator = _operator(request)
    if request.headers.get("HX-Request"):
        return _listed(request, operator, "dashboard/_replay_list.html", {})
    initial = ReplayForm.initial_of(boards.node_of_ours(), clock.now().date())
    form = ReplayForm(initial=initial)
    if request.method == "POST":
        form = ReplayForm(request.POST, request.FILES, initial=initial)
        if form.is_valid() and (started := _start(form, operator)):
            return redirect("replay", started.pk)
    return _listed(request, operator, "dashboard/replays.html", {"form": form}, status=422 if form.errors else 200)


def _start(form: ReplayForm, operator: User) -> Replay | None:
    """The replay, or nothing and the form says why."""
    file = form.cleaned_data["trace"] if form.cleaned_data["source"] == "file" else None
    try:
        return replays.start(
            by=operator,
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
    request: HttpRequest, operator: User, template: str, context: dict[str, object], *, status: int = 200
) -> HttpResponse:
    found = replays.newest(by=operator).defer("trace", "result")
    page = Paginator(found, PAGE).get_page(request.GET.get("page"))
    page.object_list = [boards.row(each) for each in page.object_list]  # type: ignore[misc]
    response = render(request, template, {**context, "page": page}, status=status)
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
def replay_csv(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    """One line for each run."""
    return _download(boards.result_csv(boards.runs(_replay(request, replay_id), now=clock.now())), replay_id, "runs")


@login_required
@require_GET
def replay_curves_csv(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    """One line for each step of each run."""
    return _download(boards.curves_csv(boards.runs(_replay(request, replay_id), now=clock.now())), replay_id, "curves")


def _download(table: bytes, replay_id: UUID, what: str) -> HttpResponse:
    response = HttpResponse(table, content_type="text/csv; charset=utf-8")
    name = f"haein-replay-{replay_id.hex[-8:]}-{what}.csv"
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name) or ""
    return response


@login_required
@require_POST
def replay_cancel(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    found = _replay(request, replay_id)
    try:
        replays.cancel(found.pk, by=_operator(request))
    except Problem as problem:
        messages.error(request, problem.message)
    return redirect("replay", found.pk)


@login_required
@require_POST
def replay_delete(request: HttpRequest, replay_id: UUID) -> HttpResponse:
    replays.delete(_replay(request, replay_id).pk, by=_operator(request))
    messages.success(request, _("The replay is deleted."))
    return redirect("replays")
