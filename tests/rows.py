"""The truth behind the pages, for tests on a running house: its PostgreSQL, and the runners' own records."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg


class Rows:
    """Reads with a connection of its own each time, because the server may have been killed in between."""

    def __init__(self, var: Path) -> None:
        self.var = var

    def ask(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """The rows; none while the database is away."""
        try:
            with psycopg.connect(self._url(), connect_timeout=2) as connection:
                return connection.execute(sql, values).fetchall()
        except psycopg.OperationalError:
            return []

    def states(self) -> dict[str, str]:
        """Every job's state by its id."""
        return {str(job): state for job, state in self.ask("SELECT id, state FROM jobs_job")}

    def runner_records(self, attempt: object) -> tuple[float, float]:
        """When the attempt's process started and ended, as its runner wrote it down."""
        folder = self.var / "attempts" / str(attempt)
        return _moment(folder / "start", "started_at"), _moment(folder / "exit", "ended_at")

    def _url(self) -> str:
        lines = (self.var / "secrets" / "haein.env").read_text().splitlines()
        return next(line.split("=", 1)[1] for line in lines if line.startswith("HAEIN_DATABASE_URL="))


def _moment(record: Path, name: str) -> float:
    found = re.search(rf"\b{name}=([0-9.]+)", record.read_text())
    assert found, record
    return float(found[1])
