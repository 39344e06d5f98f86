"""Submitting: by a job file, a command line, or both."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from haein.client import errors, terminal
from haein.client.commands.asking import Json, Text, connect
from haein.client.commands.jobs import in_states
from haein.client.commands.logs import array_patiently, patiently, show_log
from haein.client.exits import FAILED, BadOption, exit_code_of

if TYPE_CHECKING:
    from haein.client.answers import ArrayPlace, Job
    from haein.client.api import Client
    from haein.client.git_source import GitSource
    from haein.client.job_file import JobFile
    from haein.client.spec import JobSpec


class WithCommand(TyperCommand):
    """Everything behind -- is the job's command, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


def submit(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A job file.", show_default=False)] = None,
    name: Annotated[Text, typer.Option(help="What lists show.")] = None,
    files: Annotated[Path | None, typer.Option(help="A folder or file to send.")] = None,
    environment: Annotated[Text, typer.Option(help="One of `haein environments`.")] = None,
    gpus: Annotated[Text, typer.Option(help="How many GPUs: 0 to 64.")] = None,
    share: Annotated[Text, typer.Option(help="How much of each, such as 50%.")] = None,
    gpu_memory: Annotated[Text, typer.Option(help="GPU memory of each share, such as 20GiB.")] = None,
    profile: Annotated[Text, typer.Option(help="MIG instances of this profile, such as 1g.23gb.")] = None,
    gpu_model: Annotated[Text, typer.Option(help="Only this model, such as B200 or 'H100|H200'.")] = None,
    cpus: Annotated[Text, typer.Option(help="CPU cores, such as 0.5.")] = None,
    memory: Annotated[Text, typer.Option(help="Memory, such as 2GiB.")] = None,
    workers: Annotated[Text, typer.Option(help="How many start together, each with all of this.")] = None,
    near: Annotated[Text, typer.Option(help="Best on one node, rack or pod.")] = None,
    near_required: Annotated[bool | None, typer.Option(help="Wait rather than start farther away.")] = None,
    pool: Annotated[Text, typer.Option(help="Only nodes of this pool.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="Only nodes with this label; may be repeated.")] = None,
    time_limit: Annotated[Text, typer.Option(help="Such as 30m, 2h or 1d 12h.")] = None,
    retries: Annotated[Text, typer.Option(help="How often it is run again when it fails.")] = None,
    priority: Annotated[Text, typer.Option(help="Higher goes first.")] = None,
    preemption: Annotated[Text, typer.Option(help="Whether others may take its place: allowed, never, spot.")] = None,
    checkpoints: Annotated[bool | None, typer.Option(help="It saves its work on SIGUSR1.")] = None,
    requeue: Annotated[bool | None, typer.Option(help="Wait again after it had to yield (the default).")] = None,
    array: Annotated[Text, typer.Option(help="A job for each index, such as 0-9 or 1,3,7.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A word to find it by; may be repeated.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE; may be repeated.")] = None,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Don't wait (the default).")] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Show its log until it has ended.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="The same, and exit as the job did.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the job's id alone.")] = False,
    as_json: Json = False,
) -> None:
    """Submit a job: by a job file, by a command behind --, or both.

    Options stand instead of what the file says.
    """
    if detach + follow + wait > 1:
        raise BadOption("Choose one of --detach, --follow and --wait.")
    if as_json and follow:
        raise BadOption("--follow prints the log, --json the job: choose one, or use --wait --json.")
    texts = {
        "name": name, "environment": environment, "gpus": gpus, "share": share, "gpu_memory_mb": gpu_memory,
        "profile": profile, "gpu_model": gpu_model, "cpus": cpus, "memory_mb": memory, "workers": workers, "near": near,
        "pool": pool, "time_limit_s": time_limit, "retries": retries, "priority": priority,
        "preemption": preemption, "array": array,
    }  # fmt: skip
    own = {
        "tags": tag or None, "labels": label or None, "near_required": near_required, "checkpoints": checkpoints,
        "requeue": requeue,
    }  # fmt: skip
    spec, source, read = _spec(file, ctx.meta.get("command"), texts, own, env)
    if files is not None:
        if not files.exists():
            raise BadOption(f"--files: {files} is not there")
        source = files
    if spec.array and follow:
        raise BadOption("--follow shows the log of one job: submit an array with --wait, or without.")
    with connect() as haein:
        job = _send(haein, spec, source, read)
        if job.array:
            _see_array(haein, job.array, wait=wait, quiet=quiet, as_json=as_json)
            return
        if quiet:
            terminal.out(job.id)
        elif not as_json:
            # Beside the log, if there is one.
            (terminal.say if follow or wait else terminal.out)(
                f"{job.name} ({job.short_id}) is {job.state}.\n{job.url}"
            )
        if follow or (wait and not as_json):
            show_log(haein, job.id, follow=True, quiet=quiet)
        if wait or follow:
            job = patiently(haein, job)
        if as_json:
            terminal.out_json(haein.get(f"jobs/{job.id}"))
        if (wait or follow) and not quiet and not as_json:
            terminal.say(f"{job.name} ({job.short_id}) has {_ended(job)}. {job.reason}".strip())
    if wait:
        raise typer.Exit(exit_code_of(job))


def _see_array(haein: Client, place: ArrayPlace, *, wait: bool, quiet: bool, as_json: bool) -> None:
    """What submit tells of an array. Raises typer.Exit when it waited, and a job ended otherwise than well."""
    seen = haein.array(place.id)
    if quiet:
        terminal.out(seen.id)
    elif not as_json:
        (terminal.say if wait else terminal.out)(
            f"{seen.name} ({seen.short_id}) is an array of {seen.size} jobs: {in_states(seen)}.\n{seen.url}"
        )
    if wait:
        seen = array_patiently(haein, seen)
    if as_json:
        terminal.out_json(haein.get(f"arrays/{seen.id}"))
    if wait and not quiet and not as_json:
        terminal.say(f"{seen.name} ({seen.short_id}) has ended: {in_states(seen)}.")
    if wait and seen.states.get("succeeded", 0) < seen.size:
        raise typer.Exit(FAILED)


def _spec(
    file: Path | None, command: list[str] | None, texts: dict[str, Text], own: dict[str, Any], env: list[str] | None
) -> tuple[JobSpec, Path | GitSource | None, JobFile | None]:
    """`texts` are read as a job file's values are, `own` are in JobSpec's units; None is what was not given."""
    from haein.client import fields, job_file
    from haein.client.spec import JobSpec

    if command is not None and not command:
        raise BadOption("There is nothing behind --: say what to run, for example haein submit -- python train.py")
    if file is None and command is None:
        raise BadOption("Give a job file, or a command behind --, for example haein submit -- python train.py")
    read = job_file.JobFile.read(file) if file else None
    given = {attribute: value for attribute, value in own.items() if value is not None}
    faults = []
    for attribute, text in texts.items():
        if text is not None:
            try:
                given[attribute] = job_file.from_option(attribute, text)
            except ValueError as fault:
                option = fields.BY_ATTRIBUTE[attribute].name.replace("_", "-")
                faults.append(f"--{option} {fault}")
    variables = dict(read.values.get("variables", {})) if read else {}
    for pair in env or ():
        key, equals, value = pair.partition("=")
        if not equals:
            faults.append(f'--env is "{pair}": write KEY=VALUE')
        variables[key] = value
    if faults:
        raise BadOption("\n".join(faults))
    given |= {"variables": variables} if variables else {}
    if command:
        # One word alone may be a whole line for the shell; several are one program and its arguments.
        given["command"] = command[0] if len(command) == 1 else shlex.join(command)
    if read:
        spec = read.spec(**given)
        # What an option says is not the file's fault.
        blamed = {name: line for name, line in read.lines.items() if name not in given}
        return spec, read.files, replace(read, lines=blamed)
    return JobSpec(**{"name": plain_name(given["command"]), **given}), None, None


def plain_name(command: str) -> str:
    """A name for a job that was given none: the beginning of its command."""
    words = " ".join(re.sub(r"[\x00-\x1f\x7f]", " ", command).split())
    return words if len(words) <= 60 else f"{words[:57]}..."


def _send(haein: Client, spec: JobSpec, source: Path | GitSource | None, read: JobFile | None) -> Job:
    try:
        if source is None:
            return haein.submit(spec)
        with terminal.progress("Sending files") as bar:
            return haein.submit(spec, source, progress=bar)
    except errors.Invalid as refusal:
        if read is None:
            raise
        raise errors.Invalid(str(refusal), fields=_in_the_file(refusal.fields, read)) from None


def _in_the_file(told: dict[str, str], read: JobFile) -> dict[str, str]:
    """The server's faults, by the file's own words and lines."""
    from haein.client.fields import BY_ATTRIBUTE

    placed = {}
    for name, sentence in told.items():
        head, dot, rest = name.partition(".")
        path = (BY_ATTRIBUTE[head].path if head in BY_ATTRIBUTE else head) + dot + rest
        line = read.lines.get(head)
        placed[f"{read.path.name}:{line}: {path}" if line else path] = sentence
    return placed


def _ended(job: Job) -> str:
    if job.state == "cancelled":
        return "been cancelled"
    return {"timed_out": "timed out"}.get(job.state, job.state)


def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    from haein.client.schema import schema as made

    terminal.out_json(made())
