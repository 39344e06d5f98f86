"""The endpoints of quotas: who may use how much, and setting it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar
from uuid import UUID

from django.db.models import Model, Q, QuerySet
from django.utils.translation import gettext as _
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from haein.lib import api, clock
from haein.lib.errors import NotFound
from haein.tenants.api import Door
from haein.tenants.models import Organization, OrganizationMember, Team, Token, User
from haein.tenants.scope import Scope
from jobs import quotas, spec
from jobs.api import shapes
from jobs.models import Quota
from jobs.quotas import Owner, Values
from jobs.uses import Use, Uses

Row = TypeVar("Row", bound=Model)

# What the API says in GPUs and weights, and rows in thousandths of them.
_THOUSANDTHS = ("guaranteed", "borrow", "weight", "gpus_per_job")
_SAME = ("lends", "running_jobs", "time_limit_s", "gpu_hours")
_MOST_GPUS = quotas.MOST_UNITS / 1000
_NAME = "^[^\\x00]*$"
_WHOSE: dict[str, Any] = {"required": False, "default": "", "max_length": 254, "pattern": _NAME}


class QuotaQuery(api.PageQuery):
    """Which quotas a list has."""

    organization = serializers.CharField(required=False, max_length=80, help_text="its id or its name")
    team = serializers.CharField(required=False, max_length=80, help_text="its id or its name")


class QuotaSpec(api.Strict):
    """All of a quota. What is left out has the value shown; null is no limit.

    Whose it is: a team's, with `member` that person's of the team, and without `team` the organization's.
    """

    organization = api.Text(**_WHOSE, help_text="its id or its name; needed where a team's name does not say it")
    team = api.Text(**_WHOSE, help_text="its id or its name; empty: the organization's own quota")
    member = api.Text(**_WHOSE, help_text="a member's id or e-mail address; empty: the team's own quota")
    pool = api.Text(
        required=False,
        default="",
        max_length=60,
        pattern="^[A-Za-z0-9_.:/-]*$",
        help_text="of the jobs that name this pool; empty: of all jobs",
    )
    guaranteed = api.Number(
        required=False,
        default=0.0,
        min_value=0,
        max_value=_MOST_GPUS,
        help_text="GPUs that a team has whenever it asks, parts of one too",
    )
    borrow = api.Number(
        required=False,
        default=None,
        allow_null=True,
        min_value=0,
        max_value=_MOST_GPUS,
        help_text="GPUs beyond those, of what is idle; with the guarantee, the most that may be held",
    )
    lends = api.Truth(required=False, default=True, help_text="whether others may use what is idle of the guarantee")
    weight = api.Number(
        required=False,
        default=1.0,
        min_value=0.001,
        max_value=quotas.MOST_WEIGHT / 1000,
        help_text="how much of what can be borrowed, against the others",
    )
    running_jobs = api.Whole(
        required=False, default=None, allow_null=True, min_value=0, max_value=quotas.MOST_JOBS, help_text="at once"
    )
    gpus_per_job = api.Number(
        required=False,
        default=None,
        allow_null=True,
        min_value=0.001,
        max_value=_MOST_GPUS,
        help_text="of all workers of one job",
    )
    time_limit_s = api.Whole(
        required=False,
        default=None,
        allow_null=True,
        min_value=1,
        max_value=spec.MOST_TIME_S,
        help_text="seconds, the longest time limit that a job may ask for",
    )
    gpu_hours = api.Whole(
        required=False,
        default=None,
        allow_null=True,
        min_value=0,
        max_value=quotas.MOST_HOURS,
        help_text="in a calendar month (UTC)",
    )


class _Member(api.Named):
    email = serializers.EmailField()


class _Used(serializers.Serializer[Any]):
    """In GPUs and GPU-hours; of a quota for a pool by the jobs that name it."""

    guaranteed = serializers.FloatField(help_text="held inside a guarantee")
    borrowed = serializers.FloatField(help_text="held beyond it")
    waiting = serializers.FloatField(help_text="asked for by jobs that wait")
    jobs = serializers.IntegerField(help_text="that hold them")
    gpu_hours = serializers.FloatField(help_text="of this calendar month (UTC), what runs counted until now")


class QuotaShape(serializers.Serializer[Any]):
    """Who may use how much; null is no limit."""

    id = serializers.UUIDField()
    organization = api.Named()
    team = api.Named(allow_null=True, help_text="null: the organization's own quota")
    member = _Member(allow_null=True, help_text="null: not one member's")
    pool = serializers.CharField(allow_blank=True, help_text="empty: of all jobs")
    guaranteed = serializers.FloatField(help_text="GPUs")
    borrow = serializers.FloatField(allow_null=True, help_text="GPUs beyond those")
    lends = serializers.BooleanField()
    weight = serializers.FloatField()
    running_jobs = serializers.IntegerField(allow_null=True, help_text="at once")
    gpus_per_job = serializers.FloatField(allow_null=True)
    time_limit_s = serializers.IntegerField(allow_null=True)
    gpu_hours = serializers.IntegerField(allow_null=True, help_text="in a calendar month (UTC)")
    changed_at = serializers.DateTimeField()
    used = _Used(help_text="at this moment, and in this month")


class QuotasView(Door):
    scopes: ClassVar = {"GET": Token.Scope.JOBS_READ, "PUT": Token.Scope.QUOTAS_WRITE}

    @extend_schema(
        operation_id="list_quotas", tags=["quotas"], summary="Quotas that you may see, the newest first",
        parameters=[QuotaQuery], responses=shapes.paged(QuotaShape),
        description="Of your teams and their organization; an owner sees all of the organization's, an operator all.",
    )  # fmt: skip
    def get(self, request: Request) -> Response:
        query = api.asked(request, QuotaQuery)
        rows = quotas.seen_by(self.reach)
        if name := query.get("organization"):
            rows = rows.filter(_called(name, "organization"))
        if name := query.get("team"):
            rows = rows.filter(_called(name, "team"))
        pages = api.Pages()
        found = pages.paginate_queryset(rows, request, self) or []
        return pages.get_paginated_response(_shapes(found))

    @extend_schema(
        operation_id="set_quota", tags=["quotas"], summary="Set a quota, all of it", request=QuotaSpec,
        responses=QuotaShape,
        description="An operator sets any; an organization's owner those of its teams and their members, as far as the "
        "organization is guaranteed what they are.",
    )  # fmt: skip
    def put(self, request: Request) -> Response:
        data = api.sent(request, QuotaSpec)
        quota = quotas.set_quota(by=self.reach.user, owner=_owner(data, self.reach), values=_values(data))
        return Response(_shapes([quota])[0])


class QuotaView(Door):
    scopes: ClassVar = {"GET": Token.Scope.JOBS_READ, "DELETE": Token.Scope.QUOTAS_WRITE}

    @extend_schema(operation_id="get_quota", tags=["quotas"], summary="One quota", responses=QuotaShape)
    def get(self, request: Request, quota_id: UUID) -> Response:
        return Response(_shapes([quotas.get(quota_id, scope=self.reach)])[0])

    @extend_schema(
        operation_id="clear_quota", tags=["quotas"], summary="Take a quota away", responses={204: None},
        description="Its guarantee and its limits are no more. For whoever may set it.",
    )  # fmt: skip
    def delete(self, request: Request, quota_id: UUID) -> Response:
        row = quotas.get(quota_id, scope=self.reach)
        whose = Owner(organization=row.organization, team=row.team, member=row.member, pool=row.pool)
        quotas.clear(by=self.reach.user, owner=whose)
        return Response(status=204)


def _owner(data: Mapping[str, Any], scope: Scope) -> Owner:
    """Whom the names mean, among what the reader may see. Raises NotFound, also for a name that several have."""
    teams = _teams(scope)
    organizations = Organization.objects.all()
    if not scope.user.is_operator:
        organizations = organizations.filter(teams__in=teams).distinct()
    organization = _one(organizations, data["organization"], "organization") if data["organization"] else None
    if organization:
        teams = teams.filter(organization=organization)
    team = _one(teams, data["team"], "team") if data["team"] else None
    people = User.objects.filter(teams__team=team) if team else User.objects.none()
    member = _one(people, data["member"], "member") if data["member"] else None
    return quotas.owner(
        scope=scope,
        organization=organization.pk if organization else None,
        team=team.pk if team else None,
        member=member.pk if member else None,
        pool=data["pool"],
    )


def _teams(scope: Scope) -> QuerySet[Team]:
    """The teams whose names mean something to the reader."""
    if scope.user.is_operator:
        return Team.objects.all()
    owned = OrganizationMember.objects.filter(user=scope.user, role=OrganizationMember.Role.OWNER)
    return Team.objects.filter(Q(pk__in=scope.team_ids) | Q(organization__in=owned.values("organization")))


_NAMED_BY = {"organization": "name", "team": "name__iexact", "member": "email__iexact"}


def _one(rows: QuerySet[Row], text: str, kind: str) -> Row:
    found = list(rows.filter(_called(text, "", _NAMED_BY[kind]))[:2])
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFound(_("%(kind)s: several are called %(name)s. Give the id.") % {"kind": kind, "name": text})
    raise NotFound(_("%(kind)s: there is none called %(name)s.") % {"kind": kind, "name": text})


def _called(text: str, whose: str, named_by: str = "name__iexact") -> Q:
    """By id where the text is one, else by name."""
    begin = f"{whose}__" if whose else ""
    try:
        return Q(**{f"{begin}pk": UUID(text)})
    except ValueError:
        return Q(**{f"{begin}{named_by}": text})


def _values(data: Mapping[str, Any]) -> Values:
    sizes: dict[str, Any] = {name: None if data[name] is None else round(data[name] * 1000) for name in _THOUSANDTHS}
    return Values(**sizes, **{name: data[name] for name in _SAME})


def _shapes(rows: Sequence[Quota]) -> list[dict[str, Any]]:
    """Each with its use, in a number of queries that does not grow."""
    teams = Team.objects.filter(organization__in={row.organization_id for row in rows})
    uses = Uses(list(teams.values_list("pk", flat=True)), now=clock.now())
    return [_shape(row, uses.of(quotas.id_of(row))) for row in rows]


def _shape(row: Quota, use: Use) -> dict[str, Any]:
    sizes = {name: getattr(row, name) for name in _THOUSANDTHS}
    return {
        "id": row.pk,
        "organization": _named(row.organization),
        "team": _named(row.team),
        "member": {"id": row.member.pk, "name": str(row.member), "email": row.member.email} if row.member else None,
        "pool": row.pool,
        **{name: None if size is None else size / 1000 for name, size in sizes.items()},
        **{name: getattr(row, name) for name in (*_SAME, "changed_at")},
        "used": {
            "guaranteed": use.inside / 1000,
            "borrowed": use.borrowed / 1000,
            "waiting": use.waiting / 1000,
            "jobs": use.jobs,
            "gpu_hours": round(use.spent / quotas.HOUR, 3),
        },
    }


def _named(row: Organization | Team | None) -> dict[str, Any] | None:
    return {"id": row.pk, "name": str(row)} if row else None
