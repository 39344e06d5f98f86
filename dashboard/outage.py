"""What a reader gets while a part is away: a page that says so, loses nothing, and looks again by itself."""

from __future__ import annotations

import sys
from collections.abc import Callable

import structlog
from django.db import OperationalError
from django.db.utils import InterfaceError
from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from psycopg_pool import PoolTimeout

log = structlog.get_logger(__name__)

DOWN = (OperationalError, InterfaceError, PoolTimeout)
RETRY_AFTER_S = 3


def alive(request: HttpRequest) -> HttpResponse:
    """The web server answers; it says nothing of the parts behind it."""
    return HttpResponse("ok\n", content_type="text/plain")


class OutageMiddleware:
    """Remembers what a view failed with: the handler below runs where the exception can't be seen any more."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> None:
        request.failed_with = exception  # type: ignore[attr-defined]


def server_error(request: HttpRequest) -> HttpResponse:
    """Django's handler500: "the database is away" becomes a 503 that a person and a program understand."""
    error = getattr(request, "failed_with", None) or sys.exc_info()[1]
    if not isinstance(error, DOWN):
        return HttpResponse(render_to_string("500.html"), status=500)
    log.warning("the database is away", why=str(error).strip().splitlines()[:1])
    response = HttpResponse(render_to_string("dashboard/outage.html"), status=503)
    response["Retry-After"] = str(RETRY_AFTER_S)
    response["Cache-Control"] = "no-store"
    return response
