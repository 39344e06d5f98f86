"""The record of every write: one line, in the same transaction as the write itself."""

from uuid import UUID

from haein.tenants.models import AuditEntry, User


def record(action: str, target: str, *, by: User | None, organization_id: UUID | None = None, **detail: object) -> None:
    """`action` is a verb and its object ("job.submit"), `target` names the thing; `by` is None for Haein itself."""
    AuditEntry.objects.create(
        actor_id=by.pk if by else None,
        actor_name=by.email if by else "haein",
        organization_id=organization_id,
        action=action,
        target=target,
        detail=detail,
    )
