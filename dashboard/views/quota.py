"""The pages of quotas: the operator's sheet of all, and a team's own."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods

from dashboard import quotas as pages
from dashboard.quotas import QuotaForm
from dashboard.scoping import operator, reader
from haein.lib import clock
from haein.lib.errors import Forbidden, Invalid, NotFound
from haein.tenants.models import Team
from haein.tenants.scope import Scope
from jobs import quotas, sheets
from jobs.quotas import Owner, Values

UNDO = "quota_undo"


@login_required
@require_http_methods(["GET", "POST"])
def sheet(request: HttpRequest) -> HttpResponse:
    """All organizations and teams, for whoever runs the cluster."""
    operator(request)
    return _page(request, "quotas", lambda: pages.sheet(request.GET, now=clock.now()))


@login_required
@require_http_methods(["GET", "POST"])
def own(request: HttpRequest) -> HttpResponse:
    """A team of the reader's."""
    scope = reader(request)

    def context() -> dict[str, Any]:
        mine = list(sheets.teams_of(scope))
        team = _team(mine, request.GET.get("team") or request.POST.get("team") or str(scope.team.pk))
        found = pages.of_team(team, mine, now=clock.now())
        return {**found, "may_set": quotas.may_set(scope.user, team.organization)}

    return _page(request, "quota", context)


def _team(mine: list[Team], asked: str) -> Team:
    found = next((team for team in mine if str(team.pk) == asked), None)
    if found is None:
        raise Http404(_("There is no such organization or team."))
    return found


def _page(request: HttpRequest, name: str, context: Any) -> HttpResponse:
    """Both pages set quotas in one way: a panel in the page, a form that comes back here, and an undo."""
    scope, form = reader(request), None
    if request.method == "POST":
        if "undo" in request.POST:
            return _undone(request, scope, name)
        form, answer = _set(request, scope, name)
        if answer:
            return answer
    asked = request.POST if form else request.GET
    panel = {"edit_url": reverse(name), "undo": UNDO in request.session}
    if form or "edit" in asked:
        panel |= pages.editing(scope, pages.owner(scope, asked), form, adding="add" in request.GET)
    if request.headers.get("HX-Request"):
        part = "_quota_edit" if "edit" in asked else "_quota_sheet"
        response = render(request, f"dashboard/{part}.html", panel if "edit" in asked else panel | context())
    else:
        response = render(request, f"dashboard/{name}.html", panel | context(), status=422 if form else 200)
    response["Vary"] = "HX-Request"
    return response


def _set(request: HttpRequest, scope: Scope, name: str) -> tuple[QuotaForm, HttpResponse | None]:
    """The form when it was at fault, else where to go."""
    whose = pages.owner(scope, request.POST)
    before = quotas.find(whose)
    form = QuotaForm(whose, operator=scope.user.is_operator, data=request.POST, before=before)
    try:
        if "clear" in request.POST:
            quotas.clear(by=scope.user, owner=whose)
        elif form.is_valid():
            quotas.set_quota(by=scope.user, owner=whose, values=form.values())
    except Invalid as invalid:
        form.explain(invalid.fields)
    except (Forbidden, NotFound) as refused:
        messages.error(request, refused.message)
        return form, redirect(_back(name, whose))
    if form.errors and "clear" not in request.POST:
        return form, None
    _remember(request, whose, quotas.values_of(before) if before else None)
    cleared = (
        _("The quota of %(whose)s is taken away.") if "clear" in request.POST else _("Set: the quota of %(whose)s.")
    )
    messages.success(request, cleared % {"whose": whose})
    return form, redirect(_back(name, whose))


def _back(name: str, whose: Owner) -> str:
    query = {"team": str(whose.team.pk)} if whose.team and name == "quota" else {}
    return reverse(name) + (f"?{urlencode(query)}" if query else "")


def _remember(request: HttpRequest, whose: Owner, before: Values | None) -> None:
    request.session[UNDO] = {"whose": pages.key(whose), "values": asdict(before) if before else None}


def _undone(request: HttpRequest, scope: Scope, name: str) -> HttpResponse:
    """Set what was before the reader's last change; that change is then what can be undone."""
    kept = request.session.pop(UNDO, None)
    if kept is None:
        return redirect(name)
    asked = QueryDict(mutable=True)
    asked.update(kept["whose"])
    whose = pages.owner(scope, asked)
    before = quotas.find(whose)
    try:
        if kept["values"] is None:
            quotas.clear(by=scope.user, owner=whose)
        else:
            quotas.set_quota(by=scope.user, owner=whose, values=Values(**kept["values"]))
    except (Invalid, Forbidden, NotFound) as refused:
        messages.error(request, refused.message)
    else:
        _remember(request, whose, quotas.values_of(before) if before else None)
        messages.success(request, _("As before: the quota of %(whose)s.") % {"whose": whose})
    return redirect(_back(name, whose))
