"""The page of the cluster: every device and how full it is, a node at a time who holds it, and an operator's drain."""

from __future__ import annotations

from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dashboard import machines
from dashboard.scoping import operator, reader
from haein.cluster import services
from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants.scope import Scope
from jobs import occupancy


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
        context |= machines.carvings(occupied)
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
    return machines.node(detail, scope)


@login_required
@require_POST
def node_drain(request: HttpRequest, name: str) -> HttpResponse:
    by = operator(request)
    try:
        services.drain(by=by, node=name, reason=request.POST.get("reason", ""), now=clock.now())
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Invalid as invalid:
        messages.error(request, invalid.message)
    else:
        messages.success(request, _("%(node)s takes no new work.") % {"node": name})
    return redirect(machines.node_url(name))


@login_required
@require_POST
def node_undrain(request: HttpRequest, name: str) -> HttpResponse:
    by = operator(request)
    try:
        services.undrain(by=by, node=name)
    except NotFound as missing:
        raise Http404(missing.message) from None
    messages.success(request, _("%(node)s takes new work again.") % {"node": name})
    return redirect(machines.node_url(name))
