"""The page of the queue: who waits, and when they start."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from dashboard import queues
from dashboard.scoping import reader
from haein.lib import clock


@login_required
@require_GET
def queue(request: HttpRequest) -> HttpResponse:
    sort, number = request.GET.get("sort", ""), request.GET.get("page")
    context = queues.page(reader(request), sort=sort, number=number, now=clock.now())
    part = "_queue_list" if request.headers.get("HX-Request") else "queue"
    response = render(request, f"dashboard/{part}.html", context)
    response["Vary"] = "HX-Request"
    return response
