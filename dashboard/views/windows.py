"""The operators' page of windows: what is reserved and what goes out, and the form for more."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_http_methods, require_POST

from dashboard import windows as boards
from dashboard.forms import WindowForm
from dashboard.scoping import operator, reader
from haein.cluster.models import Node
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound, Problem
from haein.tenants.models import User
from jobs import windows


@login_required
@require_http_methods(["GET", "POST"])
def window_list(request: HttpRequest) -> HttpResponse:
    by = operator(request)
    form = WindowForm(request.POST if request.method == "POST" else None)
    form.offer(list(Node.objects.exclude(rack="").order_by("rack").values_list("rack", flat=True).distinct()))
    if request.method == "POST" and form.is_valid() and _make(form, by):
        messages.success(request, _("It is planned: the queue drains toward it."))
        return redirect("windows")
    context = {"form": form, **boards.page(by, reader(request), now=clock.now())}
    return render(request, "dashboard/windows.html", context, status=422 if form.errors else 200)


def _make(form: WindowForm, by: User) -> bool:
    """Whether it was made; if not, the form says why."""
    data, now = form.cleaned_data, clock.now()
    both = {name: data[name] for name in ("starts_at", "ends_at", "reason")}
    try:
        if data["kind"] == "reservation":
            windows.reserve(
                by=by, team=data["team"].pk, gpus=data["gpus"], model=data["model"].name, now=now, **both
            )  # fmt: skip
        else:
            windows.maintain(by=by, nodes=form.node_names(), rack=data.get("rack", ""), now=now, **both)
    except Invalid as invalid:
        form.explain(invalid.fields)
        return False
    return True


@login_required
@require_POST
def window_cancel(request: HttpRequest, window_id: UUID) -> HttpResponse:
    by = operator(request)
    try:
        windows.cancel(window_id, by=by, now=clock.now())
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Problem as problem:
        messages.error(request, problem.message)
    else:
        messages.success(request, _("Cancelled: whoever was told to leave for it may stay."))
    return redirect("windows")
