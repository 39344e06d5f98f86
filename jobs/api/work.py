"""The endpoints of jobs: submit, look, cancel, retry."""

from __future__ import annotations

import io
from typing import Any, ClassVar
from uuid import UUID

from django.urls import reverse
from django.utils.decorators import method_decorator
from django.utils.translation import gettext as _
from django.views.decorators.http import conditional_page
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.cluster.registry import backend
from haein.lib import api, clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants.api import IDEMPOTENCY, Door, once
from haein.tenants.models import Token
from haein.tenants.scope import Scope
from jobs import arrays, search, services, standing, uploads
from jobs.api import shapes
from jobs.models import Attempt, Event, Job, Upload
from jobs.states import State

READ, WRITE = Token.Scope.JOBS_READ, Token.Scope.JOBS_WRITE
LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="its address")


def found(job_id: UUID, scope: Scope) -> Job:
    """The job with its outcome, if the reader may see it. Raises NotFound."""
    row = shapes.jobs_seen_by(scope).select_related("team__organization").filter(pk=job_id).first()
    if row is None:
        raise NotFound(_("There is no such job."))
    return row


def shown(row: Job, scope: Scope) -> dict[str, Any]:
    stands = standing.of(row, scope, now=clock.now()) if row.state == State.QUEUED else None
    return shapes.job(row, stands=stands, size=_size(row), alone=True)


def _size(row: Job) -> int | None:
    return arrays.sizes([row.array]).get(row.array) if row.array else None


class JobQuery(api.PageQuery):
    """Which jobs a list has."""

    state = serializers.ChoiceField(
        ["open", *shapes.STATES], required=False, help_text="a state, or `open` for all that have not ended"
    )
    q = serializers.CharField(required=False, help_text="words of the name or the command")
    tag = serializers.CharField(required=False)
    array = serializers.UUIDField(required=False, help_text="the id of an array: its jobs alone")


class JobsView(Door):
    scopes: ClassVar = {"GET": READ, "POST": WRITE}

    @extend_schema(
        operation_id="list_jobs", tags=["jobs"], summary="Jobs, newest first", parameters=[JobQuery],
        responses=shapes.paged(shapes.JobShape),
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        query = api.asked(request, JobQuery)
        rows = search.find(
            scope=self.reach,
            words=query.get("q", ""),
            state=query.get("state", ""),
            tag=query.get("tag", ""),
            array=query.get("array"),
        )
        return api.Pages().answer(request, self, shapes.with_outcome(rows), shapes.job)

    @extend_schema(
        operation_id="submit_job", tags=["jobs"], summary="Submit a job, or an array of them", request=shapes.JobSpec,
        parameters=[IDEMPOTENCY, LOCATION], responses={201: shapes.JobShape},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        data = api.sent(request, shapes.JobSpec)
        return once(request, data, lambda: self._submitted(data))

    def _submitted(self, data: dict[str, Any]) -> Response:
        spec, upload, original = shapes.spec_of(data), None, None
        if data["upload"]:
            upload = Upload.objects.seen_by(self.reach).filter(pk=data["upload"]).first()
            if upload is None:
                raise Invalid({"upload": _("There is no such upload: send the file to /uploads first.")})
        if data["cloned_from"]:
            original = Job.objects.seen_by(self.reach).filter(pk=data["cloned_from"]).first()
            if original is None:
                raise Invalid({"cloned_from": _("There is no such job.")})
        job = services.submit(scope=self.reach, spec=spec, upload=upload, cloned_from=original)
        return Response(
            shapes.job(job, size=_size(job), alone=False),
            status=201,
            headers={"Location": reverse("api_job", args=[job.pk])},
        )


@method_decorator(conditional_page, name="dispatch")
class JobView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(operation_id="get_job", tags=["jobs"], summary="One job", responses=shapes.JobShape)
    def get(self, request: Request, job_id: UUID) -> Response:
        return Response(shown(found(job_id, self.reach), self.reach))


class CancelView(Door):
    scopes: ClassVar = {"POST": WRITE}

    @extend_schema(
        operation_id="cancel_job", tags=["jobs"], summary="Ask for its end", request=None, responses=shapes.JobShape,
        description="At once while it waits; by a signal and, after a grace, a kill while it runs.",
    )  # fmt: skip
    def post(self, request: Request, job_id: UUID) -> Response:
        services.cancel(found(job_id, self.reach), scope=self.reach)
        return Response(shown(found(job_id, self.reach), self.reach))


class RetryView(Door):
    scopes: ClassVar = {"POST": WRITE}

    @extend_schema(
        operation_id="retry_job", tags=["jobs"], summary="Run it again in the same folder", request=None,
        responses=shapes.JobShape,
    )  # fmt: skip
    def post(self, request: Request, job_id: UUID) -> Response:
        services.retry(found(job_id, self.reach), scope=self.reach)
        return Response(shown(found(job_id, self.reach), self.reach))


class ArrayView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="get_array", tags=["jobs"], summary="An array, and how many of its jobs are in each state",
        responses=shapes.ArrayShape,
    )  # fmt: skip
    def get(self, request: Request, array_id: UUID) -> Response:
        return Response(shapes.array(arrays.get(array_id, scope=self.reach)))


class ArrayCancelView(Door):
    scopes: ClassVar = {"POST": WRITE}

    @extend_schema(
        operation_id="cancel_array", tags=["jobs"], summary="Ask for the end of all its jobs that have not ended",
        request=None, responses=shapes.ArrayShape,
    )  # fmt: skip
    def post(self, request: Request, array_id: UUID) -> Response:
        services.cancel_array(array_id, scope=self.reach)
        return Response(shapes.array(arrays.get(array_id, scope=self.reach)))


class AttemptsView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="list_attempts", tags=["jobs"], summary="Its runs, newest first", parameters=[api.PageQuery],
        responses=shapes.paged(shapes.AttemptShape),
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> Response:
        api.asked(request, api.PageQuery)
        job = found(job_id, self.reach)
        rows = Attempt.objects.seen_by(self.reach).filter(job=job).select_related("node")
        return api.Pages().answer(
            request, self, rows.prefetch_related("workers__node", "allocations__device__node"), shapes.attempt
        )


class _OldestFirst(api.Pages):
    ordering = "id"


class EventsView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="list_events", tags=["jobs"], summary="What happened to it, oldest first",
        parameters=[api.PageQuery], responses=shapes.paged(shapes.EventShape),
    )  # fmt: skip
    def get(self, request: Request, job_id: UUID) -> Response:
        api.asked(request, api.PageQuery)
        job = found(job_id, self.reach)
        return _OldestFirst().answer(request, self, Event.objects.seen_by(self.reach).filter(job=job), shapes.event)


class EnvironmentsView(Door):
    scopes: ClassVar = {"GET": READ}

    @extend_schema(
        operation_id="list_environments", tags=["jobs"], summary="What jobs can run in",
        responses=shapes.EnvironmentsShape,
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        known = backend().environments()
        return Response(shapes.page([{"name": e.name, "description": e.description, "ready": e.ready} for e in known]))


class UploadQuery(api.Strict):
    name = serializers.CharField(max_length=200, help_text="the file's name in the job's folder")


class UploadsView(Door):
    scopes: ClassVar = {"POST": WRITE}
    parser_classes = (api.Raw,)

    @extend_schema(
        operation_id="upload", tags=["jobs"], summary="Keep a file for jobs to come",
        description="A .zip or .tar.gz is unpacked into the job's folder before its first attempt; any other file is "
        "put there as it is.",
        request={"application/octet-stream": bytes}, parameters=[UploadQuery, IDEMPOTENCY],
        responses={201: shapes.UploadShape},
    )  # fmt: skip
    def post(self, request: Request) -> Response:
        name = api.asked(request, UploadQuery)["name"]
        scope = self.reach
        services.may_submit(scope)
        length = request.META.get("CONTENT_LENGTH", "")
        if not length.isdecimal():
            raise Invalid({"Content-Length": _("Say how many bytes the file has.")})
        size = int(length)
        return once(request, {"size": size}, lambda: self._kept(request, name, size))

    def _kept(self, request: Request, name: str, size: int) -> Response:
        # A body of no bytes reaches no parser.
        body: Any = request.data if size else io.BytesIO()
        upload = uploads.keep(body, team=self.reach.team, name=name, size=size)
        return Response(shapes.UploadShape(upload).data, status=201)
