"""The operator's page of repacks: what is proposed, how far the one under way is, and those before."""

from __future__ import annotations

from uuid import UUID

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_POST

from dashboard import repacks as boards
from dashboard.scoping import operator
from haein.lib import clock
from haein.lib.errors import NotFound, Problem
from jobs import repacks


@login_required
@require_GET
def repack(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/repack.html", boards.page(operator(request), now=clock.now()))


@login_required
@require_POST
def repack_approve(request: HttpRequest, repack_id: UUID) -> HttpResponse:
    by = operator(request)
    try:
        repacks.approve(repack_id, by=by, now=clock.now())
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Problem as problem:
        messages.error(request, problem.message)
    else:
        messages.success(request, _("The jobs that move were told; they save their work and end soon."))
    return redirect("repack")


@login_required
@require_POST
def repack_reject(request: HttpRequest, repack_id: UUID) -> HttpResponse:
    by = operator(request)
    try:
        repacks.reject(repack_id, by=by, now=clock.now())
    except NotFound as missing:
        raise Http404(missing.message) from None
    except Problem as problem:
        messages.error(request, problem.message)
    else:
        messages.success(request, _("Nothing is moved. For this job none is proposed again within the hour."))
    return redirect("repack")
