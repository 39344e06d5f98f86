"""The REST API's addresses, and how whatever goes wrong in it is told."""

from __future__ import annotations

from typing import Any

import structlog
from django.http import HttpRequest
from django.urls import path, re_path
from django.utils.translation import gettext as _
from drf_spectacular.views import SpectacularAPIView
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import api as billing
from dashboard.outage import DOWN, RETRY_AFTER_S
from haein.cluster.backends.base import BackendDown
from haein.lib import api
from haein.lib.errors import NotFound
from haein.tenants import api as tenants
from jobs.api import place, queue, quotas, reading, repacks, windows, work

log = structlog.get_logger(__name__)


def handler(error: Exception, context: Any) -> Response:
    """What the framework calls for every exception of an endpoint."""
    if isinstance(error, DOWN):
        log.warning("the database is away", why=str(error).strip().splitlines()[:1])
        return api.problem("unavailable", _("The database can't be reached. Try again soon."), headers=_SOON)
    if isinstance(error, BackendDown):
        log.warning("the backend can't be asked", why=str(error))
        return api.problem("unavailable", _("The cluster can't be asked now. Try again soon."), headers=_SOON)
    answer = api.answer_to(error)
    if answer is None:
        log.exception("an endpoint failed", exc_info=error)
        answer = api.problem("internal", _("Something went wrong here; it has been written to the server's log."))
    return answer


_SOON = {"Retry-After": str(RETRY_AFTER_S)}


class Nothing(APIView):
    """Every other address below /api/: told as a problem, not as a page."""

    authentication_classes = ()
    permission_classes = ()

    def initial(self, request: Request, *args: Any, **kwargs: Any) -> None:
        raise NotFound(_("There is nothing at this address. The page /api/ has those that there are."))


# What each kind of request may be told besides its own answer.
_ALWAYS = (401, 403, 429, 500, 503)
# Verbs that may come when there is nothing left to do.
_TOO_LATE = {"cancel_job", "cancel_array", "retry_job", "revoke_token", "cancel_window", "approve_repack"}
_TOO_LATE |= {"reject_repack"}


def with_problems(result: dict[str, Any], generator: Any, request: HttpRequest | None, public: bool) -> dict[str, Any]:
    """Add the problems that every operation may answer with, so that the document has no surprises."""
    result["components"].setdefault("schemas", {})["Problem"] = _PROBLEM
    for address, methods in result["paths"].items():
        for operation in methods.values():
            told = set(_ALWAYS)
            # Whose quota is set is named in the body.
            if "{" in address or operation.get("parameters") or operation["operationId"] == "set_quota":
                told |= {404, 422}
            if "requestBody" in operation:
                told |= {400, 413, 415, 422}
            if operation["operationId"] in _TOO_LATE:
                told.add(409)
            for number in sorted(told):
                answer = operation["responses"].setdefault(str(number), {"description": _describe(number)})
                answer["content"] = {api.PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return result


def _describe(number: int) -> str:
    return " or ".join(str(title) for status, title in api.CODES.values() if status == number)


_PROBLEM = {
    "type": "object",
    "description": "What went wrong, after RFC 9457.",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(api.CODES)},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
                "required": ["field", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "code"],
}

# The document itself tells nobody anything of anybody.
_OPEN: Any = {"authentication_classes": [], "permission_classes": []}

urlpatterns = [
    path("me", tenants.MeView.as_view(), name="api_me"),
    path("token", tenants.TokenView.as_view(), name="api_token"),
    path("environments", work.EnvironmentsView.as_view(), name="api_environments"),
    path("quote", billing.QuoteView.as_view(), name="api_quote"),
    path("uploads", work.UploadsView.as_view(), name="api_uploads"),
    path("queue", queue.QueueView.as_view(), name="api_queue"),
    path("quotas", quotas.QuotasView.as_view(), name="api_quotas"),
    path("quotas/<uuid:quota_id>", quotas.QuotaView.as_view(), name="api_quota"),
    path("jobs", work.JobsView.as_view(), name="api_jobs"),
    path("jobs/<uuid:job_id>", work.JobView.as_view(), name="api_job"),
    path("jobs/<uuid:job_id>/cancel", work.CancelView.as_view(), name="api_job_cancel"),
    path("jobs/<uuid:job_id>/retry", work.RetryView.as_view(), name="api_job_retry"),
    path("arrays/<uuid:array_id>", work.ArrayView.as_view(), name="api_array"),
    path("arrays/<uuid:array_id>/cancel", work.ArrayCancelView.as_view(), name="api_array_cancel"),
    path("jobs/<uuid:job_id>/attempts", work.AttemptsView.as_view(), name="api_job_attempts"),
    path("jobs/<uuid:job_id>/events", work.EventsView.as_view(), name="api_job_events"),
    path("jobs/<uuid:job_id>/logs", reading.LogView.as_view(), name="api_job_logs"),
    path("jobs/<uuid:job_id>/files", reading.FilesView.as_view(), name="api_job_files"),
    path("jobs/<uuid:job_id>/files/content", reading.FileView.as_view(), name="api_job_file"),
    path("jobs/<uuid:job_id>/metrics", reading.MetricsView.as_view(), name="api_job_metrics"),
    path("jobs/<uuid:job_id>/cost", billing.CostView.as_view(), name="api_job_cost"),
    path("usage", billing.UsageView.as_view(), name="api_usage"),
    path("usage/summary", billing.SummaryView.as_view(), name="api_usage_summary"),
    path("prices", billing.PricesView.as_view(), name="api_prices"),
    path("nodes", place.NodesView.as_view(), name="api_nodes"),
    path("repacks", repacks.RepacksView.as_view(), name="api_repacks"),
    path("repacks/<uuid:repack_id>/approve", repacks.RepackApproveView.as_view(), name="api_repack_approve"),
    path("repacks/<uuid:repack_id>/reject", repacks.RepackRejectView.as_view(), name="api_repack_reject"),
    path("windows", windows.WindowsView.as_view(), name="api_windows"),
    path("windows/<uuid:window_id>/cancel", windows.WindowCancelView.as_view(), name="api_window_cancel"),
    path("schema", SpectacularAPIView.as_view(**_OPEN), name="api_schema"),
    re_path("", Nothing.as_view(), name="api_nothing"),
]
