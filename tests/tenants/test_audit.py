"""Who did what can't be rewritten."""

import pytest
from django.db import IntegrityError, transaction

from haein.tenants import audit
from haein.tenants.models import AuditEntry
from tests.cast import Person


def test_an_entry_can_be_neither_changed_nor_deleted(alice: Person) -> None:
    audit.record("job.submit", "x", by=alice.user)
    for rewrite in (lambda: AuditEntry.objects.update(action="else"), lambda: AuditEntry.objects.all().delete()):
        with pytest.raises(IntegrityError, match="tenants_auditentry is append-only"), transaction.atomic():
            rewrite()


def test_what_haein_does_by_itself_is_under_its_own_name(db: None) -> None:
    audit.record("price.set", "B200", by=None, per_hour_micro=1)
    entry = AuditEntry.objects.get()
    assert (entry.actor_id, entry.actor_name, entry.detail) == (None, "haein", {"per_hour_micro": 1})


def test_an_entry_goes_with_the_write_that_it_tells_of(alice: Person) -> None:
    def write() -> None:
        with transaction.atomic():
            audit.record("job.submit", "x", by=alice.user)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert not AuditEntry.objects.filter(action="job.submit").exists()
