"""Whose it is: people, organizations, teams, and the record of who did what."""

from __future__ import annotations

from typing import Any, ClassVar, Self

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from haein.lib import ids


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        user = self.model(email=email.lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractBaseUser):
    """A person. The e-mail address is the login name; an operator runs the cluster, whatever the organization."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    email = models.EmailField(_("e-mail address"), unique=True)
    name = models.CharField(_("name"), max_length=120, blank=True)
    is_active = models.BooleanField(default=True)
    is_operator = models.BooleanField(default=False)
    date_joined = models.DateTimeField(default=timezone.now)

    objects = UserManager()

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(Lower("email"), name="user_email_any_case")]

    def __str__(self) -> str:
        return self.name or self.email


class Organization(models.Model):
    """The tenant: who is billed."""

    class Standing(models.TextChoices):
        ACTIVE = "active", _("active")
        SUSPENDED = "suspended", _("suspended")

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    name = models.CharField(_("name"), max_length=80)
    standing = models.CharField(max_length=12, choices=Standing, default=Standing.ACTIVE)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=models.Q(standing__in=["active", "suspended"]), name="organization_standing"
            )
        ]

    def __str__(self) -> str:
        return self.name


class Team(models.Model):
    """A project within an organization."""

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    organization = models.ForeignKey(Organization, models.PROTECT, related_name="teams")
    name = models.CharField(_("name"), max_length=80)
    created_at = models.DateTimeField(default=timezone.now)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint("organization", Lower("name"), name="team_name_in_organization")
        ]

    def __str__(self) -> str:
        return self.name


class OrganizationMember(models.Model):
    """A person's part in an organization."""

    class Role(models.TextChoices):
        OWNER = "owner", _("owner")
        MEMBER = "member", _("member")

    organization = models.ForeignKey(Organization, models.PROTECT, related_name="members")
    user = models.ForeignKey(User, models.PROTECT, related_name="organizations")
    role = models.CharField(max_length=12, choices=Role, default=Role.MEMBER)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["organization", "user"], name="organization_member_once"),
            models.CheckConstraint(condition=models.Q(role__in=["owner", "member"]), name="organization_member_role"),
        ]


class TeamMember(models.Model):
    """A person's part in a team; a viewer reads and launches nothing."""

    class Role(models.TextChoices):
        ADMIN = "admin", _("admin")
        MEMBER = "member", _("member")
        VIEWER = "viewer", _("viewer")

    team = models.ForeignKey(Team, models.PROTECT, related_name="members")
    user = models.ForeignKey(User, models.PROTECT, related_name="teams")
    role = models.CharField(max_length=12, choices=Role, default=Role.MEMBER)

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["team", "user"], name="team_member_once"),
            models.CheckConstraint(condition=models.Q(role__in=["admin", "member", "viewer"]), name="team_member_role"),
        ]


class SetupLink(models.Model):
    """The one-time link that makes the first operator. Only a hash of it is kept."""

    digest = models.CharField(max_length=64, unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)


class Token(models.Model):
    """What a program signs in with, as its person and within its scopes. Only a hash of it is kept."""

    class Scope(models.TextChoices):
        JOBS_READ = "jobs:read", _("read jobs, logs and files")
        JOBS_WRITE = "jobs:write", _("submit, cancel and retry jobs")
        BILLING_READ = "billing:read", _("read prices, usage and costs")
        CLUSTER_READ = "cluster:read", _("read nodes, devices, reservations and maintenance")
        CLUSTER_WRITE = "cluster:write", _("reserve GPUs and take nodes out, as an operator")
        QUOTAS_WRITE = "quotas:write", _("set quotas, where you may")

    id = models.UUIDField(primary_key=True, default=ids.new, editable=False)
    user = models.ForeignKey(User, models.PROTECT, related_name="tokens")
    name = models.CharField(_("name"), max_length=80)
    digest = models.CharField(max_length=64, unique=True)
    # The first characters, so that a person finds the one that was seen in a log.
    hint = models.CharField(max_length=12)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope))
    created_at = models.DateTimeField(default=timezone.now)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        indexes: ClassVar = [models.Index(fields=["user", "-created_at"], name="token_by_user")]

    def __str__(self) -> str:
        return self.name


class IdempotencyKey(models.Model):
    """A create that a client may send again: the answer that the first one got, kept for a day.

    The row is written in the transaction of what it stands for, so a second request with the key waits for the first.
    """

    user = models.ForeignKey(User, models.PROTECT, related_name="+")
    key = models.CharField(max_length=200)
    request = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    location = models.CharField(max_length=300, blank=True)
    body = models.JSONField(null=True)
    created_at = models.DateTimeField(default=timezone.now, db_index=True)

    class Meta:
        constraints: ClassVar = [models.UniqueConstraint(fields=["user", "key"], name="idempotency_key_once")]


class AuditEntry(models.Model):
    """Who did what to what. Append-only: a trigger refuses every update and delete.

    The actor is kept as an id and a name, not as a key, so that the record outlives the person's account.
    """

    at = models.DateTimeField(default=timezone.now)
    actor_id = models.UUIDField(null=True)
    actor_name = models.CharField(max_length=254)
    organization_id = models.UUIDField(null=True, db_index=True)
    action = models.CharField(max_length=60)
    target = models.CharField(max_length=120)
    detail = models.JSONField(default=dict)


class OwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to a team. `seen_by` is the one door through which a reader's queries go."""

    def seen_by(self, scope: Any) -> Self:
        """The rows of the reader's teams; `scope` is a tenants.scope.Scope."""
        return self.filter(**{f"{self.model.team_path}__in": scope.team_ids})


class Owned(models.Model):
    """A row that belongs to a team, directly or through `team_path`.

    tests/architecture holds every page, socket and command to the door: outside services they reach such rows only
    by `seen_by`.
    """

    team_path: ClassVar[str] = "team_id"

    objects = OwnedQuerySet.as_manager()

    class Meta:
        abstract = True
