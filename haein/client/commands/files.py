"""What a job leaves in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from haein.client import terminal
from haein.client.commands.asking import JobArgument, Json, connect, find_job
from haein.client.exits import BadOption


def files(
    job: JobArgument, path: Annotated[str, typer.Argument(help="A folder of the job.")] = "", as_json: Json = False
) -> None:
    """List a job's files."""
    from haein.client.answers import File, read

    with connect() as haein:
        told = haein.get(f"jobs/{find_job(haein, job)}/files", path=path)["results"]
    if as_json:
        return terminal.out_json(told)
    terminal.table(
        [">SIZE", "CHANGED", "NAME"],
        [
            ("" if one.type == "folder" else terminal.size(one.size), terminal.moment(one.modified_at),
             one.name + ("/" if one.type == "folder" else ""))
            for one in (read(File, item) for item in told)
        ],
    )  # fmt: skip
    return None


def cp(
    source: Annotated[str, typer.Argument(metavar="JOB:PATH", help="A file or folder of a job; JOB: is all of it.")],
    target: Annotated[Path, typer.Argument(metavar="LOCAL", help="A folder, or the file's new name.")],
) -> None:
    """Bring a job's file or folder here. A download that was cut goes on where it stopped."""
    job, colon, path = source.partition(":")
    if not colon:
        raise BadOption(f"Write JOB:PATH, for example {source}:results/model.bin; {source}: is all of its files.")
    if not target.parent.is_dir():
        raise BadOption(f"There is no folder {target.parent}.")
    with connect() as haein, terminal.progress("Receiving") as bar:
        written = haein.download(
            find_job(haein, job), path, target, progress=lambda _path, done, total: bar(done, total)
        )
    for place in written:
        terminal.out(terminal.plain(str(place)))
