"""A job's log, also as it grows."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from haein.client import terminal
from haein.client.commands.asking import JobArgument, Json, connect, find_job
from haein.client.exits import INTERRUPTED

if TYPE_CHECKING:
    from haein.client.answers import Array, Job
    from haein.client.api import Client


def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="The run with this number. Default: the newest.")] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="Only so many last lines, and what follows.")] = None,
    as_json: Json = False,
) -> None:
    """Print what a job has printed."""
    import json

    with connect() as haein:
        found = find_job(haein, job)
        if not as_json:
            return show_log(haein, found, follow=follow, attempt=attempt, tail=tail)
        for record in haein.log_records(found, follow=follow, attempt=attempt, tail=tail):
            terminal.out(json.dumps(record, ensure_ascii=False))
    return None


def patiently(haein: Client, job: Job) -> Job:
    try:
        return haein.wait(job.id)
    except KeyboardInterrupt:
        leave(job.short_id)


def array_patiently(haein: Client, array: Array) -> Array:
    try:
        return haein.wait_array(array.id)
    except KeyboardInterrupt:
        terminal.say(f"\nIts jobs go on. `haein cancel --array {array.short_id}` ends them.")
        raise typer.Exit(INTERRUPTED) from None


def leave(short: str) -> NoReturn:
    terminal.say(f"\nThe job goes on. `haein cancel {short}` ends it, `haein logs -f {short}` shows it again.")
    raise typer.Exit(INTERRUPTED)


def show_log(
    haein: Client, job: str, *, follow: bool, attempt: int | None = None, tail: int | None = None, quiet: bool = False
) -> None:
    clean = terminal.with_colours if sys.stdout.isatty() and "NO_COLOR" not in os.environ else None
    clean = terminal.plain if clean is None and sys.stdout.isatty() else clean
    seen = attempt or 0
    try:
        for line in haein.logs(job, follow=follow, attempt=attempt, tail=tail):
            if seen and line.attempt != seen and not quiet:
                terminal.say(f"-- run {line.attempt} --")
            seen = line.attempt
            terminal.out(clean(line.text) if clean else line.text)
    except KeyboardInterrupt:
        leave(job.replace("-", "")[-8:])
