"""Looking at jobs, ending them and running them again."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haein.client import errors, terminal
from haein.client.commands.asking import NEWEST, JobArgument, JobsArgument, Json, Text, connect, find_array, find_job
from haein.client.exits import FAILED, BadOption

if TYPE_CHECKING:
    from haein.client.answers import Array, Attempt, ExpectedStart, Held, Job, Waiting
    from haein.client.api import Client


def ps(
    everything: Annotated[bool, typer.Option("--all", "-a", help="Ended ones too.")] = False,
    state: Annotated[Text, typer.Option(help="Only those that are queued, running, failed...")] = None,
    tag: Annotated[Text, typer.Option(help="Only those with this tag.")] = None,
    array: Annotated[Text, typer.Option(help="Only those of this array, ended ones too.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="The newest so many.")] = 50,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print ids alone.")] = False,
    as_json: Json = False,
) -> None:
    """List jobs, newest first: those that have not ended, unless asked otherwise."""
    from haein.client.answers import Job, read

    wanted = state or (None if everything or array else "open")
    with connect() as haein:
        within = find_array(haein, array) if array else None
        listed = haein.pages("jobs", state=wanted, tag=tag, array=within, limit=min(limit + 1, NEWEST))
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
            (job.short_id, _name(job), job.state, _held(job), terminal.age(job.created_at), str(job.submitted_by or ""),
             job.reason if job.state == "queued" else "")
            for job in jobs
        ],
    )  # fmt: skip
    if more:
        terminal.say(f"Only the newest {limit} are shown: --limit shows more.")
    return None


def _name(job: Job) -> str:
    return f"{job.name} [{job.array.index}]" if job.array else job.name


def _held(job: Job | Waiting) -> str:
    if job.workers == 1:
        return _held_by_one(job, str(job.gpus)) if job.gpus else "-"
    if not job.gpus:
        return f"{job.workers} workers"
    whole = "1 GPU" if job.gpus == 1 else f"{job.gpus} GPUs"
    return f"{job.workers} workers x {_held_by_one(job, whole)}"


def _held_by_one(job: Job | Waiting, whole: str) -> str:
    if job.profile:
        return f"{job.gpus} x {job.profile}"
    return whole if job.share == 1000 else f"{job.gpus} x {terminal.percent(job.share)}"


def _near(job: Job) -> str:
    if job.near == "any":
        return ""
    return f"one {job.near}, or they wait" if job.near_required else f"one {job.near}, where that can be"


def _yields(job: Job) -> str:
    """Whether, how, and how often."""
    when = {"never": "never", "spot": "always, as the first"}.get(job.preemption, "on borrowed GPUs")
    ways = [when, "saves its work" if job.checkpoints else "", "" if job.requeue else "is not queued again"]
    times = f"yielded {job.preemptions} times" if job.preemptions > 1 else "yielded once" if job.preemptions else ""
    return ", ".join(part for part in (*ways, times) if part)


def _runs(attempts: Iterable[Attempt]) -> Iterator[tuple[str, ...]]:
    """A row for each run, and of a gang one for each further worker."""
    from haein.client.answers import Worker

    for run in attempts:
        first, *others = [
            (worker.node, _slices([held for held in run.devices if held.rank == worker.rank]))
            for worker in run.workers or (Worker(0, run.node),)
        ]
        yield (str(run.number), run.state, *first, terminal.moment(run.started_at), terminal.moment(run.ended_at),
               run.detail or run.cause)  # fmt: skip
        for other in others:
            yield "", "", *other, "", "", ""


def _slices(held: Sequence[Held]) -> str:
    named = ", ".join(f"{one.device} {one.profile}".strip() for one in held)
    return f"{named} (emulated)" if any(one.emulated for one in held) else named


def show(job: JobArgument, as_json: Json = False) -> None:
    """Show a job: what was asked, how far it has come, and why."""
    from haein.client.answers import Job, read

    with connect() as haein:
        found = find_job(haein, job)
        told = haein.get(f"jobs/{found}")
        if as_json:
            return terminal.out_json(told)
        attempts, events = haein.attempts(found), haein.events(found)
    seen = read(Job, told)
    ended_with = f"signal {seen.signal}" if seen.signal else "" if seen.exit_code is None else str(seen.exit_code)
    terminal.pairs(
        [
            ("Job", f"{_name(seen)} ({seen.id})"),
            ("Array", f"{seen.array.id}, {seen.array.size} jobs" if seen.array else ""),
            ("State", seen.state + (", its end was asked for" if seen.cancel_requested and seen.is_open else "")),
            ("Why", seen.reason),
            ("Must end", f"{terminal.moment(seen.preempt_at)}, to make room" if seen.preempt_at else ""),
            (
                "Tried again",
                f"{terminal.moment(seen.not_before)}, or at once by haein retry" if seen.not_before else "",
            ),
            ("Ahead", "" if seen.ahead is None else str(seen.ahead)),
            ("Starts", _expected(seen.expected_start)),
            ("Sooner", "\n".join(seen.sooner)),
            ("Exit", ended_with),
            ("Command", seen.command),
            ("Environment", seen.environment),
            ("GPUs", _held(seen)),
            ("GPU memory", f"{terminal.size(seen.gpu_memory_mb << 20)} of each" if seen.gpu_memory_mb else ""),
            ("GPU model", seen.gpu_model.replace("|", " or ")),
            ("Near", _near(seen)),
            ("Pool", seen.pool),
            ("Labels", ", ".join(seen.labels)),
            ("CPU cores", terminal.cores(seen.cpus)),
            ("Memory", terminal.size(seen.memory_mb << 20)),
            ("Time limit", terminal.span(seen.time_limit_s, parts=4)),
            ("Yields", _yields(seen)),
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
        terminal.table([">RUN", "STATE", "NODE", "DEVICES", "STARTED", "ENDED", "CAUSE"], _runs(attempts))
    if events:
        terminal.out("")
        terminal.table(
            ["WHEN", "STATE", "WHY", "WHO"],
            [(terminal.moment(one.at), one.new_state, one.reason, one.actor) for one in events],
        )
    return None


def _expected(start: ExpectedStart | None) -> str:
    if start is None:
        return ""
    return f"around {terminal.moment(start.p50)} probably, by {terminal.moment(start.p90)} with nine chances in ten"


def queue(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=500, help="The first so many.")] = 50,
    as_json: Json = False,
) -> None:
    """List who waits, the next to start first, and when they start."""
    from haein.client.answers import Queue, read

    with connect() as haein:
        told = haein.get("queue", limit=limit)
    if as_json:
        return terminal.out_json(told)
    seen = read(Queue, told)
    if seen.results:
        terminal.table(
            ["ID", "NAME", "TEAM", "GPUS", "WAITS", ">AHEAD", "PROBABLY", "NINE IN TEN BY", "WHY"],
            [
                (one.job.id.replace("-", "")[-8:], one.job.name, one.team.name, _held(one), terminal.age(one.queued_at),
                 "" if one.ahead is None else str(one.ahead),
                 terminal.moment(one.expected_start.p50) if one.expected_start else "not known",
                 terminal.moment(one.expected_start.p90) if one.expected_start else "", one.reason)
                for one in seen.results
            ],
        )  # fmt: skip
    else:
        terminal.out("No job of yours waits.")
    gpus, promises = seen.gpus, seen.promises
    terminal.say(
        f"{seen.waiting} wait that you can see, and {seen.others} more. {gpus.held:g} of {gpus.all:g} GPUs are held,"
        f" {gpus.lent:g} of them lent{f', and {gpus.outside:g} more by work from outside' if gpus.outside else ''}."
    )
    if promises.count:
        terminal.say(f"Of {promises.count} promises of the last seven days {promises.p90_held_percent} % held.")
    return None


def cancel(
    jobs: JobsArgument = None,
    array: Annotated[Text, typer.Option(help="All of this array that have not ended.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before.")] = False,
) -> None:
    """Cancel jobs, or all of an array. At a terminal it asks before."""
    if bool(jobs) == bool(array):
        raise BadOption("Name jobs, or an array with --array.")
    with connect() as haein:
        if array:
            _cancel_array(haein, find_array(haein, array), yes)
            return
        found = [find_job(haein, job) for job in jobs or ()]
        if _must_ask(yes):
            _confirm(", ".join(f"{seen.name} ({seen.short_id})" for seen in map(haein.job, found)))
        _each(found, haein.cancel)


def _cancel_array(haein: Client, array: str, yes: bool) -> None:
    if _must_ask(yes):
        seen = haein.array(array)
        _confirm(f"all of {seen.name} ({in_states(seen)})")
    seen = haein.cancel_array(array)
    terminal.out(f"{terminal.plain(seen.name)} ({seen.short_id}) is being cancelled: {in_states(seen)}.")


def in_states(array: Array) -> str:
    """How many of its jobs are in each state."""
    return ", ".join(f"{count} {state.replace('_', ' ')}" for state, count in array.states.items() if count)


def _must_ask(yes: bool) -> bool:
    return not yes and sys.stdin.isatty() and sys.stderr.isatty()


def _confirm(what: str) -> None:
    if not typer.confirm(terminal.plain(f"Cancel {what}?"), err=True):
        terminal.say("Nothing was cancelled.")
        raise typer.Exit(FAILED)


def retry(job: JobArgument) -> None:
    """Queue an ended job once more, in the same folder; try one that rests after a failure at once."""
    with connect() as haein:
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
