"""What every command begins with: a connection, the job that is meant, and the arguments that say which."""

from __future__ import annotations

import itertools
import re
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from haein.client import errors, terminal
from haein.client.exits import Ambiguous

if TYPE_CHECKING:
    from haein.client.api import Client

PATIENCE_S = 10.0
NEWEST = 200
OLDEST = 1000


def connect() -> Client:
    from haein.client.api import Client

    said: set[str] = set()

    def waiting(why: str) -> None:
        if why not in said and sys.stderr.isatty():
            said.add(why)
            terminal.say(f"{why}, trying again...")

    return Client(patience=PATIENCE_S, waiting=waiting)


def results(path: str) -> Any:
    with connect() as haein:
        return haein.get(path)["results"]


# Jobs are named by an id, the last eight digits of one, or a name.


def complete_job(incomplete: str) -> Iterator[tuple[str, str]]:
    """Asks the server once and briefly; a shell that completes is no place for a complaint."""
    from haein.client.answers import Job, read
    from haein.client.api import Client

    try:
        with Client(patience=0) as haein:
            told = haein.transport.json("GET", "jobs", params={"limit": 50}, timeout=1.0)["results"]
        jobs = [read(Job, one) for one in told]
    except (errors.HaeinError, ValueError, KeyError, TypeError):
        return
    for job in jobs:
        if job.short_id.startswith(incomplete):
            yield job.short_id, f"{job.name} ({job.state})"


JobArgument = Annotated[
    str, typer.Argument(metavar="JOB", help="An id, its last 8 digits, or a name.", autocompletion=complete_job)
]
JobsArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="JOB...", help="Ids, their last 8 digits, or names.", autocompletion=complete_job),
]
Json = Annotated[bool, typer.Option("--json", help="Print the API's own JSON.")]
Text = str | None


def find_array(haein: Client, text: str) -> str:
    """The id of the array, by itself or by its last eight digits. Raises NotFound."""
    try:
        return str(UUID(text))
    except ValueError:
        pass
    newest = (job.array.id for job in itertools.islice(haein.jobs(), OLDEST) if job.array)
    found = next((array for array in newest if array.replace("-", "")[-8:] == text.lower()), None)
    if found is None:
        raise errors.NotFound(f"There is no array {text!r}. `haein show JOB` names the one of a job.", status=404)
    return found


def find_job(haein: Client, text: str) -> str:
    """The job's id. Raises NotFound, and Ambiguous with what it could be."""
    try:
        return str(UUID(text))
    except ValueError:
        pass
    short = re.fullmatch(r"[0-9a-fA-F]{8}", text)
    found = []
    for count, job in enumerate(itertools.islice(haein.jobs(), OLDEST if short else NEWEST)):
        if short and job.short_id == text.lower():
            return job.id
        if count < NEWEST and job.name == text:
            found.append(job)
    if not found:
        raise errors.NotFound(f"There is no job {text!r}. `haein ps --all` lists the newest.", status=404)
    if len(found) > 1:
        listed = "\n".join(f"  {job.short_id}  {job.state}, {terminal.age(job.created_at)} ago" for job in found[:20])
        raise Ambiguous(f"{len(found)} jobs are called {text!r}. Name one of them by its id:\n{listed}")
    return found[0].id
