"""`manage.py import_sacct`: reads a Slurm's past into history; shows what it would do first, and takes it back."""

from __future__ import annotations

import csv
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from haein.cluster import slurm_site
from haein.cluster.backends.slurm import past, tools
from haein.cluster.backends.slurm.commands import Runner
from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused
from haein.lib import clock
from haein.lib.errors import Problem
from haein.tenants.models import Organization
from jobs import imports
from jobs.imports import Asked, Report


class Command(BaseCommand):
    help = f"Show what would be read into history from a file that was written by: {past.COMMAND} -S 2024-01-01"

    def add_arguments(self, parser: ArgumentParser) -> None:
        source = parser.add_mutually_exclusive_group(required=True)
        source.add_argument("file", type=Path, nargs="?")
        source.add_argument("--since", type=_day, help="ask sacct itself, day by day: 2024-01-01 (UTC)")
        source.add_argument("--undo", action="store_true", help="take the last import out again")
        parser.add_argument("--organization", help="whose history it is, by name or id")
        parser.add_argument(
            "--teams", type=Path, help="lines of account,team; other accounts go to teams of their names"
        )
        parser.add_argument("--domain", default="", help="users are the people user@domain; else one placeholder")
        parser.add_argument("--apply", action="store_true", help="write it down")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["undo"]:
                row, jobs = imports.undo()
                self.stdout.write(f"{jobs:,} jobs from {row.source} are out again.")
            else:
                self._read(options)
        except (Problem, SlurmDown, SlurmRefused, past.Unreadable, OSError) as fault:
            raise CommandError(str(fault)) from fault

    def _read(self, options: Mapping[str, Any]) -> None:
        asked = Asked(
            _organization(options["organization"]),
            str(options["file"] or f"sacct since {options['since']:%Y-%m-%d}"),
            _teams(options["teams"]),
            options["domain"],
        )
        lines = _of_file(options["file"]) if options["file"] else _of_sacct(slurm_site.runner(), options["since"])
        self._tell(imports.read(lines, asked, keep=options["apply"]), kept=options["apply"])

    def _tell(self, report: Report, *, kept: bool) -> None:
        hours = {key: seconds / imports.HOUR for key, seconds in report.gpu_seconds.items()}
        for (account, team), jobs in sorted(report.jobs.items()):
            self.stdout.write(
                f"account {account or '(none)'} -> team {team}: {_jobs(jobs)}, {hours[account, team]:,.1f} GPU-hours"
            )
        for state, jobs in sorted(report.states.items()):
            self.stdout.write(f"{state}: {jobs:,}")
        made = ", ".join(f"{len(keys)} {what}" for what, keys in report.made.items())
        self.stdout.write(f"In all {_jobs(report.jobs.total())}, {sum(hours.values()):,.1f} GPU-hours. New: {made}.")
        for count, why in _left_out(report):
            if count:
                self.stdout.write(f"Left out, {why}: {count:,}.")
        if report.shared:
            self.stdout.write(f"{_jobs(report.shared)} held shards, which are not counted as GPUs.")
        for line, why in report.faults:
            self.stdout.write(f"line {line}: {why}")
        self.stdout.write("Written." if kept else "Nothing was written: --apply does it, and --undo takes it back.")


def _left_out(report: Report) -> Iterator[tuple[int, str]]:
    yield report.known, "in history already"
    yield report.open, "not over yet"
    yield report.own, "submitted by Haein itself"
    yield report.unreadable, "can't be read"


def _jobs(count: int) -> str:
    return f"{count:,} job" if count == 1 else f"{count:,} jobs"


def _day(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC)


def _organization(name: str | None) -> Organization:
    every = list(Organization.objects.order_by("name"))
    named = [each for each in every if name in {each.name, str(each.pk)}]
    if len(named) != 1:
        known = ", ".join(f"{each.name} ({each.pk})" for each in every)
        raise CommandError(f"--organization must name one of: {known or 'there is none yet'}.")
    return named[0]


def _teams(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    rows = [row for row in csv.reader(path.read_text().splitlines()) if row]
    if wrong := next((row for row in rows if len(row) != 2 or not all(cell.strip() for cell in row)), None):
        raise CommandError(f"{path}: {','.join(wrong)!r} is not account,team.")
    return {account.strip(): team.strip() for account, team in rows}


def _of_file(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from file


def _of_sacct(runner: Runner, since: datetime) -> Iterator[str]:
    """What sacct tells of the jobs that ended, day by day."""
    yield "|".join(past.COLUMNS)
    question = ("sacct", "-a", "-X", "-P", "-n", f"--format={past.FORMAT}")
    # Whole seconds: what ended in this one is over too.
    for begin, end in past.days(since, clock.now() + timedelta(seconds=1)):
        told = tools.ask(runner, *question, "-S", past.written(begin), "-E", past.written(end))
        yield from past.ended_within(told.splitlines(), begin, end)
