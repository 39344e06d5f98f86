"""Gives every request its reader's reach, and every page what all pages show."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.functional import SimpleLazyObject

from haein.cluster.models import Device
from haein.lib import clock
from haein.tenants import scope as scopes
from haein.tenants.models import User
from haein.tenants.scope import Scope
from jobs import pulse

SECTIONS = {
    "overview": "overview",
    "jobs": "jobs",
    "job": "jobs",
    "job_new": "new",
    "job_clone": "new",
    "queue": "queue",
    "billing": "billing",
    "cluster": "cluster",
    "quota": "quota",
    "quotas": "quotas",
    "prices": "prices",
    "windows": "windows",
    "repack": "repack",
    "replays": "replays",
    "replay": "replays",
    "tokens": "tokens",
    "api_docs": "tokens",
}


class ScopeMiddleware:
    """Sets `request.scope_of_reader`, read from the database when it is first asked for."""

    sync_capable = True
    async_capable = False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse | Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        request.reader = SimpleLazyObject(lambda: _reach(request))  # type: ignore[attr-defined]
        return self.get_response(request)


def reader(request: HttpRequest) -> Scope:
    """The signed-in reader's reach. Raises PermissionDenied for somebody who belongs to no team."""
    found = cast("Scope | None", request.reader)  # type: ignore[attr-defined]
    if not found:
        raise PermissionDenied
    return found


def operator(request: HttpRequest) -> User:
    """The reader, who runs the cluster. Raises Http404 for everybody else: they are told of no such page."""
    user = reader(request).user
    if not user.is_operator:
        raise Http404
    return user


def page(request: HttpRequest) -> dict[str, Any]:
    """What the frame of every page needs."""
    match = getattr(request, "resolver_match", None)
    scope = getattr(request, "reader", None)
    context: dict[str, Any] = {
        "version": settings.VERSION,
        "scope": scope or None,
        "nav": SECTIONS.get(match.url_name or "", "") if match else "",
        "simulated": settings.HAEIN_BACKEND == "simulator",
        "speed": settings.HAEIN_SIM_SPEED,
    }
    if scope:
        context["troubles"] = pulse.troubles(now=clock.now())
        context["emulated"] = Device.objects.filter(present=True, emulated=True).exists()
        context["unsaved_account"] = not scope.user.has_usable_password()
    return context


def _reach(request: HttpRequest) -> Scope | None:
    user = request.user
    return scopes.of(user) if isinstance(user, User) else None
