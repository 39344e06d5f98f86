"""Writes many rows at once by PostgreSQL's COPY: under the same constraints, several times as fast as bulk_create."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

from django.db import connection
from django.db.models import JSONField, Model
from psycopg.types.json import Jsonb


def write(rows: Sequence[Model]) -> None:
    """Rows of one model, complete with their primary keys. Raises IntegrityError where a constraint is broken."""
    if not rows:
        return
    fields = rows[0]._meta.concrete_fields
    columns = ", ".join(_quoted(field.column) for field in fields)
    # Django's own preparation would take most of the time, and psycopg knows all types but this one.
    values = attrgetter(*(field.attname for field in fields))
    documents = [at for at, field in enumerate(fields) if isinstance(field, JSONField)]
    into = f"COPY {_quoted(rows[0]._meta.db_table)} ({columns}) FROM STDIN"
    with connection.wrap_database_errors, connection.cursor() as cursor, cursor.copy(into) as copy:
        for row in rows:
            line = list(values(row))
            for at in documents:
                line[at] = Jsonb(line[at])
            copy.write_row(line)


def keys(model: type[Model], count: int) -> list[int]:
    """So many numbers of the model's own sequence, for rows that others are to point to."""
    table, column = model._meta.db_table, model._meta.pk.column
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT nextval(pg_get_serial_sequence(%s, %s)) FROM generate_series(1, %s)", [table, column, count]
        )
        return [number for (number,) in cursor.fetchall()]


def settle(*models: type[Model]) -> None:
    """Lets PostgreSQL see what has just been written, as its own housekeeping would within a minute or two."""
    with connection.cursor() as cursor:
        for model in models:
            cursor.execute(f"VACUUM (ANALYZE) {_quoted(model._meta.db_table)}")


def _quoted(name: str | None) -> str:
    assert name  # every concrete field has a column
    return connection.ops.quote_name(name)
