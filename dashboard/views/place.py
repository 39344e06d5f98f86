"""The page of the cluster: every device and how full it is, a node at a time who holds it, and an operator's drain."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dashboard import machines, windows
from dashboard.forms import DrainForm
from dashboard.scoping import operator, reader
from haein.cluster import services
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import occupancy
from jobs import windows as planned


@login_required
@require_GET
def cluster(request: HttpRequest) -> HttpResponse:
    scope, occupied = reader(request), occupancy.now()
    context = machines.table(occupied, request.GET)
    if request.headers.get("HX-Request"):
        response = render(request, "dashboard/_nodes.html", context)
    else:
        name = request.GET.get("node", "")
        context |= machines.totals(occupied) | machines.options(occupied) | machines.waste(occupied, scope)
        context |= machines.carvings(occupied) | windows.concerning(scope, now=clock.now())
        context |= _node(name, scope) if name else {}
        response = render(request, "dashboard/cluster.html", context)
    response["Vary"] = "HX-Request"
    return response


@login_required
@require_GET
def node(request: HttpRequest, name: str) -> HttpResponse:
    """The part of the page that shows one node."""
    return render(request, "dashboard/_node.html", _node(name, reader(request)))


def _node(name: str, scope: Scope) -> dict[str, Any]:
    detail = occupancy.of_node(name.replace("\0", ""))
    if detail is None:
        raise Http404(_("There is no such node."))
    return machines.node(detail, scope, now=clock.now())


@login_required
@require_POST
def node_drain(request: HttpRequest, name: str) -> HttpResponse:
    """Now and until further notice, or from one moment to another."""
    by = operator(request)
    try:
        later = _drain(by, name, DrainForm(request.POST))
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Invalid as invalid:
        messages.error(request, invalid.message)
    else:
        done = _("The queue drains toward it.") if later else _("%(node)s takes no new work.") % {"node": name}
        messages.success(request, done)
    return redirect(machines.node_url(name))


def _drain(by: User, name: str, form: DrainForm) -> bool:
    """Whether it was planned for later. Raises NotFound, Invalid, Forbidden."""
    if not form.is_valid():
        raise Invalid({field: str(faults[0]) for field, faults in form.errors.items()})
    data, now = form.cleaned_data, clock.now()
    if not data["starts_at"] and not data["ends_at"]:
        services.drain(by=by, node=name, reason=data["reason"], now=now)
        return False
    if not data["starts_at"] or not data["ends_at"]:
        raise Invalid({"ends_at": _("Give both moments, or neither to drain it now.")})
    planned.maintain(
        by=by, nodes=[name], starts_at=data["starts_at"], ends_at=data["ends_at"], reason=data["reason"], now=now
    )
    return True


@login_required
@require_POST
def node_undrain(request: HttpRequest, name: str) -> HttpResponse:
    by = operator(request)
    try:
        still = services.undrain(by=by, node=name)
    except NotFound as missing:
        raise Http404(missing.message) from None
    if still:
        messages.warning(request, still)
    else:
        messages.success(request, _("%(node)s takes new work again.") % {"node": name})
    return redirect(machines.node_url(name))
