"""Where jobs run, and what it costs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from haein.client import terminal
from haein.client.commands.asking import Json, Text, complete_job, connect, find_job, results
from haein.client.exits import BadOption

if TYPE_CHECKING:
    from haein.client.answers import Window


def cost(
    job: Annotated[Text, typer.Argument(metavar="[JOB]", help="A job.", autocompletion=complete_job)] = None,
    month: Annotated[Text, typer.Option(help="A month such as 2026-11. Default: this one.")] = None,
    as_json: Json = False,
) -> None:
    """Show what a job has cost, or what this month has."""
    from haein.client.answers import Cost, UsageSummary, read

    if job and month:
        raise BadOption("A job's cost is over all months: leave --month out.")
    with connect() as haein:
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
                (f"{one.device} {one.profile}".strip(), one.device_model, terminal.percent(one.share),
                 terminal.span(one.seconds), str(one.price_per_hour), str(one.amount))
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


def nodes(as_json: Json = False) -> None:
    """List the cluster's machines and GPUs, and how full they are."""
    from haein.client.answers import Node, read

    told = results("nodes")
    if as_json:
        return terminal.out_json(told)
    rows = []
    for node in (read(Node, one) for one in told):
        name = node.name + (" (away)" if not node.present else " (drained)" if node.drained else "")
        words = (node.pool, ", ".join(node.labels))
        use = f"{terminal.cores(node.cpus_used)} of {terminal.cores(node.cpus)}"
        memory = f"{terminal.size(node.memory_mb_used << 20)} of {terminal.size(node.memory_mb << 20)}"
        for device in node.devices:
            model = device.model + (" (emulated)" if device.emulated else "")
            part = (str(device.index), model, terminal.percent(device.used), device.problem)
            rows.append((name, *words, use, memory, *part))
            name, words, use, memory = "", ("", ""), "", ""
        if not node.devices:
            rows.append((name, *words, use, memory, "", "", "", ""))
    terminal.table(["NODE", "POOL", "LABELS", "CORES", "MEMORY", ">GPU", "MODEL", ">IN USE", "PROBLEM"], rows)
    return None


windows = typer.Typer(help="List reservations and maintenance; operators also plan and cancel them.")
_MOMENTS = ["%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M%z"]
_From = Annotated[
    datetime,
    typer.Option("--from", formats=_MOMENTS, metavar="MOMENT", help="2026-12-01T18:00, your time; or with +0900."),
]
_To = Annotated[datetime, typer.Option("--to", formats=_MOMENTS, metavar="MOMENT", help="The end, as --from.")]
_Reason = Annotated[str, typer.Option(help="Why; whoever is kept out will read it.")]


@windows.callback(invoke_without_command=True)
def _windows(context: typer.Context, as_json: Json = False) -> None:
    """List what is reserved for your teams and what goes out for maintenance, now and to come."""
    from haein.client.answers import Window, read

    if context.invoked_subcommand:
        return None
    told = results("windows")
    if as_json:
        return terminal.out_json(told)
    terminal.table(
        ["ID", "WHAT", "NODES", "FROM", "TO", "STATE", "WHY"],
        [
            (one.id, _planned(one), ", ".join(one.nodes), terminal.moment(one.starts_at), terminal.moment(one.ends_at),
             one.state, one.reason)
            for one in (read(Window, item) for item in told)
        ],
    )  # fmt: skip
    return None


def _planned(window: Window) -> str:
    whose = window.team.name if window.team else ""
    return f"{window.gpus} x {window.model} for {whose}" if whose else window.kind


@windows.command()
def reserve(
    gpus: Annotated[int, typer.Argument(help="How many whole GPUs.")],
    model: Annotated[str, typer.Argument(help="A model as `haein nodes` names it.")],
    team: Annotated[str, typer.Option(help="The team's id.")],
    starts_at: _From,
    ends_at: _To,
    reason: _Reason,
) -> None:
    """Keep GPUs for a team (operators)."""
    with connect() as haein:
        _made(haein.reserve(team, gpus, model, starts_at=starts_at, ends_at=ends_at, reason=reason))


@windows.command()
def maintain(
    starts_at: _From,
    ends_at: _To,
    reason: _Reason,
    nodes: Annotated[list[str] | None, typer.Argument(metavar="[NODE...]", help="Names of nodes.")] = None,
    rack: Annotated[str, typer.Option(help="All nodes of a rack.")] = "",
) -> None:
    """Take nodes out (operators)."""
    with connect() as haein:
        _made(haein.maintain(nodes or (), rack=rack, starts_at=starts_at, ends_at=ends_at, reason=reason))


@windows.command("cancel")
def cancel_window(window: Annotated[str, typer.Argument(help="Its id.")]) -> None:
    """Cancel one; whoever was told to leave for it may stay (operators)."""
    with connect() as haein:
        haein.cancel_window(window)
    terminal.out("Cancelled.")


def _made(window: Window) -> None:
    nodes = terminal.plain(", ".join(window.nodes))
    terminal.out(f"{window.id}: {terminal.plain(_planned(window))}, {nodes}")


def prices(as_json: Json = False) -> None:
    """List what an hour of each GPU model costs, now and soon."""
    from haein.client.answers import Price, read

    told = results("prices")
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


def environments(as_json: Json = False) -> None:
    """List what a job's environment may be."""
    from haein.client.answers import Environment, read

    told = results("environments")
    if as_json:
        return terminal.out_json(told)
    found = [read(Environment, item) for item in told]
    terminal.table(
        ["NAME", "READY", "DESCRIPTION"],
        [(one.name, "yes" if one.ready else "not yet", one.description) for one in found],
    )
    return None
