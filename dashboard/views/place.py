"""The page of the cluster: every device and how full it is."""

from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from dashboard import boards
from dashboard.scoping import reader
from haein.lib import clock


@login_required
@require_GET
def cluster(request: HttpRequest) -> HttpResponse:
    return render(request, "dashboard/cluster.html", boards.cluster(reader(request), now=clock.now()))
