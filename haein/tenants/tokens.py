"""Tokens for programs: made once, shown once, found again by their hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection
from datetime import timedelta
from uuid import UUID

from django.db import connection, models, transaction
from django.utils.translation import gettext as _

from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants import audit
from haein.tenants.models import Token, User

PREFIX = "haein_"
MOST_DAYS = 3650
MOST = 100
# A page that says "used a minute ago" needs no write with every request.
USE_IS_NOTED_EVERY = timedelta(minutes=1)

# What a scope lets a program do besides itself.
INCLUDES = {
    Token.Scope.JOBS_WRITE: {Token.Scope.JOBS_READ},
    Token.Scope.CLUSTER_WRITE: {Token.Scope.CLUSTER_READ},
    Token.Scope.QUOTAS_WRITE: {Token.Scope.JOBS_READ},
}


@transaction.atomic
def create(*, by: User, name: str, scopes: Collection[str], days: int | None) -> tuple[Token, str]:
    """A token of the person's and its text, which nobody can read again; without `days` it does not expire.

    Raises Invalid.
    """
    name = name.strip()
    if not name or len(name) > 80 or not name.isprintable():
        raise Invalid({"name": _("Name it after the program or machine that will use it, in at most 80 characters.")})
    unknown = sorted(set(scopes) - set(Token.Scope.values))
    if unknown or not scopes:
        raise Invalid({"scopes": _("Choose at least one of: %(known)s.") % {"known": ", ".join(Token.Scope.values)}})
    if days is not None and not 1 <= days <= MOST_DAYS:
        raise Invalid({"days": _("From 1 to %(most)s days.") % {"most": MOST_DAYS}})
    if usable(by).count() >= MOST:
        raise Invalid({"name": _("You have %(most)s tokens: revoke one that is not used any more.") % {"most": MOST}})
    text = PREFIX + secrets.token_urlsafe(32)
    now = clock.now()
    token = Token.objects.create(
        user=by,
        name=name,
        digest=_digest(text),
        hint=text[: len(PREFIX) + 4],
        scopes=sorted(set(scopes)),
        created_at=now,
        expires_at=now + timedelta(days=days) if days is not None else None,
    )
    audit.record("token.create", str(token.pk), by=by, name=name, scopes=token.scopes, days=days)
    return token, text


def usable(user: User) -> models.QuerySet[Token]:
    """The person's tokens that have not been revoked, expired ones included: they are shown until they are removed."""
    return Token.objects.filter(user=user, revoked_at=None).order_by("-created_at")


def find(text: str) -> Token | None:
    """The token with this text, if it may be used now; its use is noted."""
    now = clock.now()
    token = _with_digest(_digest(text))
    if token is None or not token.user.is_active or (token.expires_at is not None and token.expires_at <= now):
        return None
    if token.last_used_at is None or token.last_used_at < now - USE_IS_NOTED_EVERY:
        Token.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


@transaction.atomic
def revoke(token_id: UUID, *, by: User) -> None:
    """From now on it opens nothing. Raises NotFound for one that is not the person's, or was revoked before."""
    if not Token.objects.filter(pk=token_id, user=by, revoked_at=None).update(revoked_at=clock.now()):
        raise NotFound(_("There is no such token."))
    audit.record("token.revoke", str(token_id), by=by)


def _with_digest(digest: str) -> Token | None:
    """Every request of a program begins with it: written out, as the text of a queryset takes 1 ms to make."""
    tokens, users = ([field.attname for field in model._meta.concrete_fields] for model in (Token, User))
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_columns('token', tokens)}, {_columns('person', users)} FROM tenants_token AS token"  # noqa: S608
            " JOIN tenants_user AS person ON person.id = token.user_id"
            " WHERE token.digest = %s AND token.revoked_at IS NULL",
            [digest],
        )
        row = cursor.fetchone()
    if row is None:
        return None
    token = Token.from_db(None, tokens, row[: len(tokens)])
    token.user = User.from_db(None, users, row[len(tokens) :])
    return token


def _columns(table: str, names: Collection[str]) -> str:
    return ", ".join(f"{table}.{name}" for name in names)


def covers(token: Token, scope: str) -> bool:
    """Whether the token lets a program do what the scope stands for."""
    return any(scope == held or scope in INCLUDES.get(Token.Scope(held), ()) for held in token.scopes)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
