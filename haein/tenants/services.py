"""The verbs that make people and organizations; every door that writes them comes here."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import timedelta

from django.contrib.auth.models import AnonymousUser
from django.db import connection, transaction
from django.utils.translation import gettext as _

from haein.lib import clock
from haein.lib.errors import Invalid, NotFound
from haein.tenants import audit
from haein.tenants.models import Organization, OrganizationMember, SetupLink, Team, TeamMember, User

SETUP_LINK_LIVES = timedelta(days=1)
FIRST_OPERATOR = "operator@localhost"

Gate = Callable[[], str]
_gates: list[Gate] = []


def register_gate(gate: Gate) -> None:
    """An upper layer's word on whether a second organization may come: a sentence that refuses it, or ""."""
    _gates.append(gate)


def hold_room_for_organization() -> None:
    """Raises Invalid where there is an organization already and a gate refuses another one.

    The answer holds until the end of the transaction: of two that come at once, one is the second.
    """
    refusal = next((sentence for gate in _gates if (sentence := gate())), "")
    if not refusal:
        return
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"LOCK TABLE {Organization._meta.db_table} IN SHARE ROW EXCLUSIVE MODE")
        if Organization.objects.exists():
            raise Invalid({"organization": refusal})


@transaction.atomic
def create_organization(*, by: User, name: str, team: str = "") -> Organization:
    """An organization owned by `by`, with its first team. Raises Invalid."""
    name = name.strip()
    if not name:
        raise Invalid({"organization": _("Name your organization, your company or your lab for example.")})
    hold_room_for_organization()
    organization = Organization.objects.create(name=name)
    first = Team.objects.create(organization=organization, name=team or _("First team"))
    OrganizationMember.objects.create(organization=organization, user=by, role=OrganizationMember.Role.OWNER)
    TeamMember.objects.create(team=first, user=by, role=TeamMember.Role.ADMIN)
    audit.record(
        "organization.create", str(organization.pk), by=by, organization_id=organization.pk, name=name, team=first.name
    )
    return organization


@transaction.atomic
def setup_link(*, renew: bool = False) -> str | None:
    """A new one-time token for the first operator, or None when there is one already (unless `renew`)."""
    if User.objects.filter(is_operator=True).exists() and not renew:
        return None
    token = secrets.token_urlsafe(24)
    SetupLink.objects.filter(used_at=None).delete()
    SetupLink.objects.create(digest=_digest(token), expires_at=clock.now() + SETUP_LINK_LIVES)
    return token


@transaction.atomic
def open_setup_link(token: str) -> User:
    """The operator whom the link makes, or finds again. Raises NotFound for a link that is used, old or wrong."""
    now = clock.now()
    taken = SetupLink.objects.filter(digest=_digest(token), used_at=None, expires_at__gt=now).update(used_at=now)
    if not taken:
        raise NotFound(
            _(
                "This link has been used or is too old. On the server, .venv/bin/python manage.py setup_link --renew"
                " prints a new one."
            )
        )
    operator = User.objects.filter(is_operator=True).order_by("date_joined").first()
    if operator is None:
        operator = User.objects.create_user(FIRST_OPERATOR, name=_("Operator"), is_operator=True)
        _house(operator)
    audit.record("operator.setup", str(operator.pk), by=operator)
    return operator


def _house(operator: User) -> None:
    """In an organization of its own or, where there is room for one only, in that one: nobody else runs the cluster."""
    try:
        create_organization(by=operator, name=_("My organization"))
    except Invalid:
        team = Team.objects.select_related("organization").order_by("created_at", "pk")[0]
        OrganizationMember.objects.create(organization=team.organization, user=operator)
        TeamMember.objects.create(team=team, user=operator, role=TeamMember.Role.ADMIN)


@transaction.atomic
def keep_account(*, by: User | AnonymousUser, email: str, password: str) -> User:
    """Give an account that a setup link made its own address and password. Raises Invalid, NotFound."""
    if not isinstance(by, User) or by.has_usable_password():
        raise NotFound(_("This account has a password already."))
    email = email.strip().lower()
    if User.objects.filter(email=email).exclude(pk=by.pk).exists():
        raise Invalid({"email": _("Another account has this address.")})
    by.email = email
    by.set_password(password)
    by.save(update_fields=["email", "password"])
    audit.record("account.keep", str(by.pk), by=by)
    return by


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
