"""Who asks over the API: tokens and sessions, scopes, requests that may come twice, and the reader's own account."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, ClassVar, cast

from django.conf import settings
from django.contrib import auth
from django.contrib.sessions.backends.db import SessionStore
from django.db import connection, transaction
from django.utils.translation import gettext as _
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import exceptions, permissions, serializers
from rest_framework.authentication import BaseAuthentication, SessionAuthentication
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.utils import encoders
from rest_framework.views import APIView

from haein.lib import api, clock
from haein.lib.errors import Forbidden, Invalid
from haein.tenants import scope as scopes
from haein.tenants import tokens
from haein.tenants.models import IdempotencyKey, Team, Token, User
from haein.tenants.scope import Scope

KEYS_LIVE = timedelta(hours=24)
_LONGEST_KEY = 200


class TokenAuthentication(BaseAuthentication):
    """`Authorization: Bearer haein_...`"""

    def authenticate(self, request: Request) -> tuple[User, Token] | None:
        scheme, _space, text = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
        if not scheme:
            return None
        if scheme.lower() != "bearer":
            raise exceptions.AuthenticationFailed(_("Sign in with a token: Authorization: Bearer haein_..."))
        token = tokens.find(text.strip())
        if token is None:
            raise exceptions.AuthenticationFailed(_("The token is unknown, was revoked or has expired: make another."))
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]
    target_class = "haein.tenants.api.TokenAuthentication"
    name = "token"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer", "description": "A token of the page Tokens: haein_..."}


class Scoped(permissions.BasePermission):
    """A person's session may do all that the person may; a token what its scopes say."""

    def has_permission(self, request: Request, view: APIView) -> bool:
        needed = cast("Door", view).scopes.get(str(request.method), "")
        if not needed or not isinstance(request.auth, Token) or tokens.covers(request.auth, needed):
            return True
        self.message = _("This token lacks the scope %(scope)s: make one that has it.") % {"scope": needed}
        return False


class Door(APIView):
    """What all endpoints share: who may come in, and how fast. `scopes` names what a token needs, by method."""

    authentication_classes = (TokenAuthentication, SessionAuthentication)
    permission_classes = (permissions.IsAuthenticated, Scoped)
    throttle_classes = (api.PerReader,)
    content_negotiation_class = api.OneKind
    scopes: ClassVar[Mapping[str, str]] = {}

    @property
    def reach(self) -> Scope:
        """The reader's reach, read once a request. Raises Forbidden for somebody who belongs to no team."""
        found: Scope | None = getattr(self, "_reach", None)
        if found is None:
            found = self._reach = scopes.of(cast(User, self.request.user))
        if found is None:
            raise Forbidden(_("You belong to no team any more. Ask an owner of your organization."))
        return found


def still_signed_in(request: Request) -> bool:
    """Read anew, for an answer that takes long: a token may be revoked, a session ended meanwhile."""
    if isinstance(request.auth, Token):
        return tokens.find(request.headers["Authorization"].partition(" ")[2].strip()) is not None
    fresh = SessionStore(session_key=request._request.session.session_key)
    return bool(auth.get_user(SimpleNamespace(session=fresh)).pk)  # type: ignore[arg-type]


IDEMPOTENCY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "minLength": 1, "maxLength": _LONGEST_KEY, "pattern": "^[\\x21-\\x7e]+$"},
    OpenApiParameter.HEADER,
    description="Any text that names this one request: sent again with it, the request does nothing more and gets the "
    "first answer, with the header `Idempotency-Replayed`. Kept for a day.",
)


def once(request: Request, body: Any, work: Callable[[], Response]) -> Response:
    """Do the work once for each Idempotency-Key; `body` is what makes two requests the same (JSON).

    The key's row and the work are one transaction: of many at once, one works and the others wait for its answer; a
    work that fails leaves no key behind. Raises Invalid, MismatchedKey, and whatever the work raises.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None:
        return work()
    if not 1 <= len(key) <= _LONGEST_KEY or not all(33 <= ord(letter) <= 126 for letter in key):
        fault = _("Give 1 to %(most)s visible ASCII characters.") % {"most": _LONGEST_KEY}
        raise Invalid({"Idempotency-Key": fault})
    told = json.dumps([request.method, request.get_full_path(), body], sort_keys=True, default=str)
    digest = hashlib.sha256(told.encode()).hexdigest()
    user = cast(User, request.user)
    with transaction.atomic():
        mine = _claimed(user, key, digest)
        if mine is None:
            return _again(IdempotencyKey.objects.get(user=user, key=key), digest)
        answer = work()
        IdempotencyKey.objects.filter(pk=mine).update(
            status=answer.status_code,
            location=answer.headers.get("Location", ""),
            body=json.loads(encoders.JSONEncoder().encode(answer.data)),
        )
    return answer


def _claimed(user: User, key: str, digest: str) -> int | None:
    """The new row's id, or None when there is one with the key.

    The statement waits while another request with the key is at work, and goes on when that has committed or failed.
    """
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO tenants_idempotencykey (user_id, key, request, location, created_at)"
            " VALUES (%s, %s, %s, '', %s) ON CONFLICT (user_id, key) DO NOTHING RETURNING id",
            [user.pk, key, digest, clock.now()],
        )
        row = cursor.fetchone()
    return int(row[0]) if row else None


def _again(kept: IdempotencyKey, digest: str) -> Response:
    if kept.request != digest:
        raise api.MismatchedKey(_("This Idempotency-Key came before with another request: use a new one."))
    headers = {"Idempotency-Replayed": "true", **({"Location": kept.location} if kept.location else {})}
    return Response(kept.body, kept.status, headers=headers)


def forget_old_keys() -> int:
    """Keys older than a day are free again; returns how many."""
    return IdempotencyKey.objects.filter(created_at__lt=clock.now() - KEYS_LIVE).delete()[0]


class _Person(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    email = serializers.EmailField()
    name = serializers.CharField()
    is_operator = serializers.BooleanField()


class _MyTeam(api.Named):
    writable = serializers.BooleanField(help_text="whether you may submit and change work of this team")


class _MyToken(api.Named):
    expires_at = serializers.DateTimeField(allow_null=True)


class _Server(serializers.Serializer[Any]):
    version = serializers.CharField()


class Me(serializers.Serializer[Any]):
    """Who asks, and what they may."""

    user = _Person()
    organization = api.Named()
    team = api.Named(help_text="the team that new work goes to")
    teams = _MyTeam(many=True)
    scopes = serializers.ListField(child=serializers.ChoiceField(Token.Scope.choices))
    token = _MyToken(allow_null=True)
    server = _Server()


class MeView(Door):
    @extend_schema(operation_id="me", tags=["account"], responses=Me, summary="Who asks")
    def get(self, request: Request) -> Response:
        reach, token = self.reach, request.auth if isinstance(request.auth, Token) else None
        return Response(
            {
                "user": {
                    "id": reach.user.pk,
                    "email": reach.user.email,
                    "name": reach.user.name,
                    "is_operator": reach.user.is_operator,
                },
                "organization": {"id": reach.organization.pk, "name": reach.organization.name},
                "team": {"id": reach.team.pk, "name": reach.team.name},
                "teams": [
                    {"id": team.pk, "name": team.name, "writable": team.pk in reach.writable}
                    for team in Team.objects.filter(pk__in=reach.team_ids).order_by("created_at", "id")
                ],
                "scopes": token.scopes if token else Token.Scope.values,
                "token": {"id": token.pk, "name": token.name, "expires_at": token.expires_at} if token else None,
                "server": {"version": settings.VERSION},
            }
        )


class TokenView(Door):
    @extend_schema(
        operation_id="revoke_token",
        tags=["account"],
        summary="Revoke the token that asks",
        description="The token of the request is worth nothing afterwards. A session is told 409: it has none.",
        responses={204: None},
    )
    def delete(self, request: Request) -> Response:
        if not isinstance(request.auth, Token):
            return api.problem("conflict", _("You are signed in without a token: sign out on the page instead."))
        tokens.revoke(request.auth.pk, by=cast(User, request.user))
        return Response(status=204)
