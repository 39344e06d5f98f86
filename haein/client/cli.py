"""The commands: each asks the SDK, and shows a person a table or a program the API's own JSON."""

from __future__ import annotations

import getpass
import itertools
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from uuid import UUID

import typer
from typer.core import TyperCommand, TyperGroup

from haein.client import errors, terminal

if TYPE_CHECKING:
    from haein.client.answers import Job
    from haein.client.api import Client
    from haein.client.git_source import GitSource
    from haein.client.job_file import JobFile
    from haein.client.spec import JobSpec

OK, FAILED, USAGE, NOT_ALLOWED, NOT_FOUND, INVALID, AWAY = range(7)
TIMED_OUT, CANCELLED, INTERRUPTED = 124, 130, 130
PATIENCE_S = 10.0
NEWEST = 200
OLDEST = 1000


class Ambiguous(errors.HaeinError):
    """A name that several jobs have."""


class BadOption(errors.HaeinError):
    """An option or argument that can't be what it is."""


def exit_code(error: errors.HaeinError) -> int:
    """docs/cli.md has the table."""
    if isinstance(error, (Ambiguous, BadOption)):
        return USAGE
    if isinstance(error, (errors.NotSignedIn, errors.Forbidden)):
        return NOT_ALLOWED
    if isinstance(error, errors.NotFound):
        return NOT_FOUND
    if isinstance(error, (errors.ServerAway, errors.TooManyRequests)):
        return AWAY
    if isinstance(error, (errors.Invalid, errors.BadFiles)) or type(error).__name__ == "BadJobFile":
        return INVALID
    return FAILED


class Commands(TyperGroup):
    """Turns every error that is meant for a person into a sentence and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except errors.HaeinError as error:
            terminal.say(f"haein: {error}")
            if isinstance(error, errors.Invalid):
                for name, sentence in error.fields.items():
                    terminal.say(f"  {name}: {sentence}")
            if isinstance(error, errors.NotSignedIn) and error.status:
                terminal.say("Sign in again with `haein login`, or set HAEIN_TOKEN to a token that is good.")
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


class WithCommand(TyperCommand):
    """Everything behind -- is the job's command, whatever it looks like."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["command"] = args[at + 1 :]
            args = args[:at]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Submit jobs to a Haein, watch them, and bring back what they made.",
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        from haein.client.version import version

        terminal.out(f"haein {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def _connect() -> Client:
    from haein.client.api import Client

    said: set[str] = set()

    def waiting(why: str) -> None:
        if why not in said and sys.stderr.isatty():
            said.add(why)
            terminal.say(f"{why}, trying again...")

    return Client(patience=PATIENCE_S, waiting=waiting)


# Jobs are named by an id, the last eight digits of one, or a name.


def _complete_job(incomplete: str) -> Iterator[tuple[str, str]]:
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
    str, typer.Argument(metavar="JOB", help="An id, its last 8 digits, or a name.", autocompletion=_complete_job)
]
JobsArgument = Annotated[
    list[str],
    typer.Argument(metavar="JOB...", help="Ids, their last 8 digits, or names.", autocompletion=_complete_job),
]
Json = Annotated[bool, typer.Option("--json", help="Print the API's own JSON.")]


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


# Signing in and out.


@app.command()
def login(
    url: Annotated[
        str | None, typer.Argument(help="The server's address. Default: HAEIN_URL, else the last one.")
    ] = None,
    token: Annotated[str | None, typer.Option(metavar="-", help="- reads the token from standard input.")] = None,
) -> None:
    """Sign in with a token that is made on the server's page /tokens/."""
    from haein.client import credentials
    from haein.client.api import Client

    kept = credentials.stored()
    asked = url or os.environ.get("HAEIN_URL") or (kept.url if kept else "")
    if not asked:
        raise BadOption("Give the server's address: haein login https://haein.example.com")
    address = credentials.normal(asked)
    if token not in (None, "-"):
        raise BadOption("A token on the command line is seen by everybody here: use --token - or the prompt.")
    if token == "-":  # noqa: S105
        given = sys.stdin.readline()
    elif os.environ.get("HAEIN_TOKEN"):
        given = os.environ["HAEIN_TOKEN"]
    else:
        terminal.say(f"Make a token on {address}/tokens/ and paste it here.")
        given = getpass.getpass("Token: ", sys.stderr)
    if not (given := given.strip()):
        raise BadOption("That was no token.")
    with Client(address, given, patience=PATIENCE_S) as haein:
        me = haein.me()
    credentials.store(credentials.Credentials(address, given))
    terminal.out(f"Signed in to {address} as {me.user.name or me.user.email}.")


@app.command()
def logout() -> None:
    """End the token, and forget it."""
    from haein.client import credentials

    with _connect() as haein:
        try:
            haein.revoke_token()
        except errors.NotSignedIn:
            terminal.say("The token was no longer good.")
        url = haein.transport.url
    kept = credentials.stored()
    if kept and kept.url == url:
        credentials.forget()
    if os.environ.get("HAEIN_TOKEN"):
        terminal.say("HAEIN_TOKEN is still set, to a token that has been ended.")
    terminal.out(f"Signed out of {url}.")


@app.command()
def whoami(as_json: Json = False) -> None:
    """Show who you are to the server, and what the token may do."""
    from haein.client.answers import Me, read

    with _connect() as haein:
        told = haein.get("me")
        url = haein.transport.url
    if as_json:
        return terminal.out_json(told)
    me = read(Me, told)
    terminal.pairs(
        [
            ("Name", f"{me.user.name} <{me.user.email}>" + (" (operator)" if me.user.is_operator else "")),
            ("Organization", me.organization.name if me.organization else ""),
            ("Team", me.team.name if me.team else ""),
            ("Token", (me.token.name + _until(me.token.expires_at)) if me.token else ""),
            ("May", ", ".join(me.scopes)),
            ("Server", f"{url}, Haein {me.server.version}"),
        ]
    )
    return None


def _until(at: Any) -> str:
    return f", good until {terminal.moment(at)}" if at else ""


# Submitting.

Text = str | None


@app.command(cls=WithCommand, options_metavar="[OPTIONS] [-- COMMAND...]")
def submit(
    ctx: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A job file.", show_default=False)] = None,
    name: Annotated[Text, typer.Option(help="What lists show.")] = None,
    files: Annotated[Path | None, typer.Option(help="A folder or file to send.")] = None,
    environment: Annotated[Text, typer.Option(help="One of `haein environments`.")] = None,
    gpus: Annotated[Text, typer.Option(help="How many GPUs: 0 to 64.")] = None,
    share: Annotated[Text, typer.Option(help="How much of each, such as 50%.")] = None,
    cpus: Annotated[Text, typer.Option(help="CPU cores, such as 0.5.")] = None,
    memory: Annotated[Text, typer.Option(help="Memory, such as 2GiB.")] = None,
    time_limit: Annotated[Text, typer.Option(help="Such as 30m, 2h or 1d 12h.")] = None,
    retries: Annotated[Text, typer.Option(help="How often it is run again when it fails.")] = None,
    priority: Annotated[Text, typer.Option(help="Higher goes first.")] = None,
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
        "name": name, "environment": environment, "gpus": gpus, "share": share, "cpus": cpus, "memory_mb": memory,
        "time_limit_s": time_limit, "retries": retries, "priority": priority,
    }  # fmt: skip
    spec, source, read = _spec(file, ctx.meta.get("command"), texts, tag, env)
    if files is not None:
        if not files.exists():
            raise BadOption(f"--files: {files} is not there")
        source = files
    with _connect() as haein:
        job = _send(haein, spec, source, read)
        if quiet:
            terminal.out(job.id)
        elif not as_json:
            # Beside the log, if there is one.
            (terminal.say if follow or wait else terminal.out)(
                f"{job.name} ({job.short_id}) is {job.state}.\n{job.url}"
            )
        if follow or (wait and not as_json):
            _show_log(haein, job.id, follow=True, quiet=quiet)
        if wait or follow:
            job = _patiently(haein, job)
        if as_json:
            terminal.out_json(haein.get(f"jobs/{job.id}"))
        if (wait or follow) and not quiet and not as_json:
            terminal.say(f"{job.name} ({job.short_id}) has {_ended(job)}. {job.reason}".strip())
    if wait:
        raise typer.Exit(exit_code_of(job))


def _spec(
    file: Path | None, command: list[str] | None, texts: dict[str, Text], tags: list[str] | None, env: list[str] | None
) -> tuple[JobSpec, Path | GitSource | None, JobFile | None]:
    from haein.client import job_file
    from haein.client.spec import JobSpec

    if command is not None and not command:
        raise BadOption("There is nothing behind --: say what to run, for example haein submit -- python train.py")
    if file is None and command is None:
        raise BadOption("Give a job file, or a command behind --, for example haein submit -- python train.py")
    read = job_file.JobFile.read(file) if file else None
    given: dict[str, Any] = {}
    faults = []
    for attribute, text in texts.items():
        if text is not None:
            try:
                given[attribute] = job_file.from_option(attribute, text)
            except ValueError as fault:
                option = {"memory_mb": "memory", "time_limit_s": "time-limit"}.get(attribute, attribute)
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
    given |= {"tags": tags} if tags else {}
    if command:
        # One word alone may be a whole line for the shell; several are one program and its arguments.
        given["command"] = command[0] if len(command) == 1 else shlex.join(command)
    if read:
        spec = read.spec(**given)
        # What an option says is not the file's fault.
        own = replace(read, lines={name: line for name, line in read.lines.items() if name not in given})
        return spec, read.files, own
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


def exit_code_of(job: Job) -> int:
    """What a shell would say of the job's own process."""
    if job.state == "succeeded":
        return OK
    if job.state in ("timed_out", "cancelled"):
        return TIMED_OUT if job.state == "timed_out" else CANCELLED
    if job.signal:
        return 128 + job.signal
    return job.exit_code if job.exit_code and 0 < job.exit_code < 256 else FAILED


def _ended(job: Job) -> str:
    if job.state == "cancelled":
        return "been cancelled"
    return {"timed_out": "timed out"}.get(job.state, job.state)


def _patiently(haein: Client, job: Job) -> Job:
    try:
        return haein.wait(job.id)
    except KeyboardInterrupt:
        _leave(job.short_id)


def _leave(short: str) -> NoReturn:
    terminal.say(f"\nThe job goes on. `haein cancel {short}` ends it, `haein logs -f {short}` shows it again.")
    raise typer.Exit(INTERRUPTED)


def _show_log(
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
        _leave(job.replace("-", "")[-8:])


# Looking at jobs.


@app.command()
def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False,
    state: Annotated[Text, typer.Option(help="Only those that are queued, running, failed...")] = None,
    tag: Annotated[Text, typer.Option(help="Only those with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids alone.")] = False,
    as_json: Json = False,
) -> None:
    """List jobs, newest first: those that have not ended, unless asked otherwise."""
    from haein.client.answers import Job, read

    wanted = state or (None if everything else "open")
    with _connect() as haein:
        listed = haein.pages("jobs", state=wanted, tag=tag, limit=min(limit + 1, NEWEST))
        told = list(itertools.islice(listed, limit + 1))
    more, told = len(told) > limit, told[:limit]
    if as_json:
        return terminal.out_json(told)
    jobs = [read(Job, one) for one in told]
    if quiet:
        for job in jobs:
            terminal.out(job.id)
        return None
    terminal.table(
        ["ID", "NAME", "STATE", "GPUS", "AGE", "BY", "WHY"],
        [
            (job.short_id, job.name, job.state, _held(job), terminal.age(job.created_at), str(job.submitted_by or ""),
             job.reason if job.state == "queued" else "")
            for job in jobs
        ],
    )  # fmt: skip
    if more:
        terminal.say(f"Only the newest {limit} are shown: --limit shows more.")
    return None


def _held(job: Job) -> str:
    if not job.gpus:
        return "-"
    return str(job.gpus) if job.share == 1000 else f"{job.gpus} x {terminal.percent(job.share)}"


@app.command()
def show(job: JobArgument, as_json: Json = False) -> None:
    """Show a job: what was asked, how far it has come, and why."""
    from haein.client.answers import Job, read

    with _connect() as haein:
        found = find_job(haein, job)
        told = haein.get(f"jobs/{found}")
        if as_json:
            return terminal.out_json(told)
        attempts, events = haein.attempts(found), haein.events(found)
    seen = read(Job, told)
    ended_with = f"signal {seen.signal}" if seen.signal else "" if seen.exit_code is None else str(seen.exit_code)
    terminal.pairs(
        [
            ("Job", f"{seen.name} ({seen.id})"),
            ("State", seen.state + (", its end was asked for" if seen.cancel_requested and seen.is_open else "")),
            ("Why", seen.reason),
            ("Ahead", "" if seen.ahead is None else str(seen.ahead)),
            ("Exit", ended_with),
            ("Command", seen.command),
            ("Environment", seen.environment),
            ("GPUs", _held(seen)),
            ("CPU cores", terminal.cores(seen.cpus)),
            ("Memory", terminal.size(seen.memory_mb << 20)),
            ("Time limit", terminal.span(seen.time_limit_s, parts=4)),
            ("Tags", ", ".join(seen.tags)),
            ("Variables", "\n".join(f"{name}={value}" for name, value in seen.variables.items())),
            ("Files", f"{seen.upload.name}, {terminal.size(seen.upload.size)}" if seen.upload else ""),
            ("Submitted", f"{terminal.moment(seen.created_at)} by {seen.submitted_by}"),
            ("Started", terminal.moment(seen.started_at)),
            ("Ended", terminal.moment(seen.ended_at)),
            ("Page", seen.url),
        ]
    )
    if attempts:
        terminal.out("")
        terminal.table(
            [">RUN", "STATE", "NODE", "DEVICES", "STARTED", "ENDED", "CAUSE"],
            [
                (str(one.number), one.state, one.node, ", ".join(held.device for held in one.devices),
                 terminal.moment(one.started_at), terminal.moment(one.ended_at), one.detail or one.cause)
                for one in attempts
            ],
        )  # fmt: skip
    if events:
        terminal.out("")
        terminal.table(
            ["WHEN", "STATE", "WHY", "WHO"],
            [(terminal.moment(one.at), one.new_state, one.reason, one.actor) for one in events],
        )
    return None


@app.command()
def logs(
    job: JobArgument,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    attempt: Annotated[int | None, typer.Option(min=1, help="The run with this number. Default: the newest.")] = None,
    tail: Annotated[int | None, typer.Option(min=1, help="Only so many last lines, and what follows.")] = None,
    as_json: Json = False,
) -> None:
    """Print what a job has printed."""
    import json

    with _connect() as haein:
        found = find_job(haein, job)
        if not as_json:
            return _show_log(haein, found, follow=follow, attempt=attempt, tail=tail)
        for record in haein.log_records(found, follow=follow, attempt=attempt, tail=tail):
            terminal.out(json.dumps(record, ensure_ascii=False))
    return None


@app.command()
def cancel(
    jobs: JobsArgument, yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before.")] = False
) -> None:
    """Cancel jobs. At a terminal it asks before."""
    with _connect() as haein:
        found = [find_job(haein, job) for job in jobs]
        if not yes and sys.stdin.isatty() and sys.stderr.isatty():
            names = ", ".join(f"{seen.name} ({seen.short_id})" for seen in map(haein.job, found))
            if not typer.confirm(terminal.plain(f"Cancel {names}?"), err=True):
                terminal.say("Nothing was cancelled.")
                raise typer.Exit(FAILED)
        _each(found, haein.cancel)


@app.command()
def retry(job: JobArgument) -> None:
    """Queue an ended job once more, in the same folder."""
    with _connect() as haein:
        _each([find_job(haein, job)], haein.retry)


def _each(found: Iterable[str], act: Any) -> None:
    """One that can't be does not keep the others from it; the first one's error is the command's."""
    first: errors.HaeinError | None = None
    for identifier in found:
        try:
            job: Job = act(identifier)
        except errors.HaeinError as error:
            if first:
                terminal.say(f"haein: {error}")
            first = first or error
        else:
            asked = ", its end was asked for" if job.is_open and job.cancel_requested else ""
            terminal.out(f"{terminal.plain(job.name)} ({job.short_id}) is {job.state}{asked}.")
    if first:
        raise first


@app.command()
def files(
    job: JobArgument, path: Annotated[str, typer.Argument(help="A folder of the job.")] = "", as_json: Json = False
) -> None:
    """List a job's files."""
    from haein.client.answers import File, read

    with _connect() as haein:
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


@app.command()
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
    with _connect() as haein, terminal.progress("Receiving") as bar:
        written = haein.download(
            find_job(haein, job), path, target, progress=lambda _path, done, total: bar(done, total)
        )
    for place in written:
        terminal.out(terminal.plain(str(place)))


# Money and the cluster.


@app.command()
def cost(
    job: Annotated[Text, typer.Argument(metavar="[JOB]", help="A job.", autocompletion=_complete_job)] = None,
    month: Annotated[Text, typer.Option(help="A month such as 2026-11. Default: this one.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a job has cost, or what this month has."""
    from haein.client.answers import Cost, UsageSummary, read

    if job and month:
        raise BadOption("A job's cost is over all months: leave --month out.")
    with _connect() as haein:
        told = (
            haein.get(f"jobs/{find_job(haein, job)}/cost") if job else haein.get("usage/summary", month=month)
        )  # fmt: skip
    if as_json:
        return terminal.out_json(told)
    if job:
        bill = read(Cost, told)
        terminal.table(
            ["DEVICE", "MODEL", ">SHARE", ">TIME", ">PER HOUR", ">AMOUNT"],
            [
                (one.device, one.device_model, terminal.percent(one.share), terminal.span(one.seconds),
                 str(one.price_per_hour), str(one.amount))
                for one in bill.lines
            ],
        )  # fmt: skip
        still = f", and {bill.per_hour} an hour while it runs" if bill.running else ""
        terminal.out(f"Total: {bill.total} {bill.currency}{still}")
        return None
    summary = read(UsageSummary, told)
    terminal.table(
        ["PERSON", ">GPU HOURS", ">AMOUNT"], [(p.name, str(p.gpu_hours), str(p.amount)) for p in summary.people]
    )
    running = f", of which {summary.running} by jobs that still run" if summary.running else ""
    terminal.out(f"{summary.month}: {summary.total} {summary.currency}{running}")
    return None


@app.command()
def nodes(as_json: Json = False) -> None:
    """List the cluster's machines and GPUs, and how full they are."""
    from haein.client.answers import Node, read

    told = _results("nodes")
    if as_json:
        return terminal.out_json(told)
    rows = []
    for node in (read(Node, one) for one in told):
        name = node.name + ("" if node.present else " (away)")
        use = f"{terminal.cores(node.cpus_used)} of {terminal.cores(node.cpus)}"
        memory = f"{terminal.size(node.memory_mb_used << 20)} of {terminal.size(node.memory_mb << 20)}"
        for device in node.devices:
            model = device.model + (" (emulated)" if device.emulated else "")
            rows.append((name, use, memory, str(device.index), model, terminal.percent(device.used), device.problem))
            name = use = memory = ""
        if not node.devices:
            rows.append((name, use, memory, "", "", "", ""))
    terminal.table(["NODE", "CORES", "MEMORY", ">GPU", "MODEL", ">IN USE", "PROBLEM"], rows)
    return None


@app.command()
def prices(as_json: Json = False) -> None:
    """List what an hour of each GPU model costs, now and soon."""
    from haein.client.answers import Price, read

    told = _results("prices")
    if as_json:
        return terminal.out_json(told)
    terminal.table(
        ["MODEL", ">PER HOUR", "CURRENCY", "FROM", "UNTIL"],
        [
            (one.device_model, str(one.per_hour), one.currency, terminal.moment(one.valid_from),
             terminal.moment(one.valid_to))
            for one in (read(Price, item) for item in told)
        ],
    )  # fmt: skip
    return None


@app.command()
def environments(as_json: Json = False) -> None:
    """List what a job's environment may be."""
    from haein.client.answers import Environment, read

    told = _results("environments")
    if as_json:
        return terminal.out_json(told)
    found = [read(Environment, item) for item in told]
    terminal.table(
        ["NAME", "READY", "DESCRIPTION"],
        [(one.name, "yes" if one.ready else "not yet", one.description) for one in found],
    )
    return None


def _results(path: str) -> Any:
    with _connect() as haein:
        return haein.get(path)["results"]


@app.command()
def schema() -> None:
    """Print the JSON Schema of a job file, for editors."""
    from haein.client.schema import schema as made

    terminal.out_json(made())
