"""Who may use how much: looking at quotas, and setting them where you may."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any

import typer

from haein.client import errors, terminal
from haein.client.commands.asking import Json, Text, connect
from haein.client.exits import BadOption

if TYPE_CHECKING:
    from haein.client.answers import Quota
    from haein.client.api import Client

app = typer.Typer(help="List quotas and what is used of them; set and clear them where you may.")

# What takes a limit away.
NONE = "none"

Team = Annotated[Text, typer.Option(help="A team's name or id; without it the organization's own quota.")]
Organization = Annotated[Text, typer.Option(help="Its name or id, where the team's does not say it.")]
Member = Annotated[Text, typer.Option(help="A member's e-mail address: of that team, only his or hers.")]
Pool = Annotated[str, typer.Option(help="Of the jobs that name this pool; without it of all jobs.")]


@app.callback(invoke_without_command=True)
def quotas(ctx: typer.Context, as_json: Json = False) -> None:
    """List the quotas that you may see, and what is used of them."""
    from haein.client.answers import Quota, read

    if ctx.invoked_subcommand:
        return None
    with connect() as haein:
        told = list(haein.pages("quotas"))
    if as_json:
        return terminal.out_json(told)
    found = sorted((read(Quota, one) for one in told), key=_place)
    terminal.table(
        ["ORGANIZATION", "TEAM", "MEMBER", "POOL", ">GUARANTEED", ">USED", ">BORROW", ">USED", "LENDS", ">WEIGHT",
         ">JOBS", ">GPU-HOURS", "LIMITS OF A JOB"],
        [
            (one.organization.name, one.team.name if one.team else "", one.member.name if one.member else "", one.pool,
             f"{one.guaranteed:g}", f"{one.used.guaranteed:g}", _most(one.borrow), f"{one.used.borrowed:g}",
             "yes" if one.lends else "no", f"{one.weight:g}", _of(one.used.jobs, one.running_jobs),
             _of(one.used.gpu_hours, one.gpu_hours), _limits(one))
            for one in found
        ],
    )  # fmt: skip
    return None


def _place(one: Quota) -> tuple[str, ...]:
    """Below an organization its teams, below a team its members."""
    below = (one.team.name if one.team else "", one.member.name if one.member else "")
    return one.organization.name, *below, one.pool


def _most(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"


def _of(used: float, most: int | None) -> str:
    return f"{used:.6g}" if most is None else f"{used:.6g} of {most}"


def _limits(one: Quota) -> str:
    gpus = "" if one.gpus_per_job is None else f"{one.gpus_per_job:g} GPUs"
    limit = "" if one.time_limit_s is None else terminal.span(one.time_limit_s, parts=4)
    return ", ".join(filter(None, (gpus, limit)))


@app.command("set")
def set_quota(
    team: Team = None,
    organization: Organization = None,
    member: Member = None,
    pool: Pool = "",
    guaranteed: Annotated[Text, typer.Option(help="GPUs that it has whenever it asks, such as 1.5.")] = None,
    borrow: Annotated[Text, typer.Option(help="GPUs beyond those at most, or none for no limit.")] = None,
    lends: Annotated[bool | None, typer.Option(help="Whether others may use what is idle of it.")] = None,
    weight: Annotated[Text, typer.Option(help="How much of what can be borrowed, against the others: 1.")] = None,
    running_jobs: Annotated[Text, typer.Option(help="Jobs at once, or none.")] = None,
    gpus_per_job: Annotated[Text, typer.Option(help="GPUs of one job, or none.")] = None,
    time_limit: Annotated[Text, typer.Option(help="Of one job, such as 2d, or none.")] = None,
    gpu_hours: Annotated[Text, typer.Option(help="GPU-hours of a calendar month (UTC), or none.")] = None,
) -> None:
    """Set a quota; what is not named stays as it is."""
    wanted = {
        **_numbers(guaranteed=guaranteed, borrow=borrow, weight=weight, gpus_per_job=gpus_per_job),
        **_numbers(running_jobs=running_jobs, gpu_hours=gpu_hours),
        **({"time_limit_s": _span(time_limit)} if time_limit is not None else {}),
        **({"lends": lends} if lends is not None else {}),
    }
    if not wanted:
        raise BadOption("Say what to set, for example haein quotas set --team Vision --guaranteed 8")
    whose = _whose(team, organization, member, pool)
    with connect() as haein:
        before = _find(haein, whose)
        kept = before.values() if before else {}
        haein.set_quota(**{**kept, **whose, **wanted})
    terminal.out("Set." if before is None else "Changed.")


@app.command()
def clear(team: Team = None, organization: Organization = None, member: Member = None, pool: Pool = "") -> None:
    """Take a quota away: its guarantee and its limits are no more."""
    whose = _whose(team, organization, member, pool)
    with connect() as haein:
        found = _find(haein, whose)
        if found is None:
            raise errors.NotFound("There is no such quota. `haein quotas` lists those that there are.", status=404)
        haein.clear_quota(found.id)
    terminal.out("Cleared.")


def _whose(team: Text, organization: Text, member: Text, pool: str) -> dict[str, str]:
    if team is None and organization is None:
        raise BadOption("Say whose: --team, or --organization for its own quota.")
    if member is not None and team is None:
        raise BadOption("Say of which team the member's is: --team.")
    return {"team": team or "", "organization": organization or "", "member": member or "", "pool": pool}


def _find(haein: Client, whose: dict[str, str]) -> Quota | None:
    """The quota as it is. Several teams of one name have the server say so when it is set."""
    listed = haein.quotas(organization=whose["organization"] or None, team=whose["team"] or None)
    fits = [
        one for one in listed
        if bool(one.team) == bool(whose["team"]) and one.pool == whose["pool"] and _is(one, whose["member"])
    ]  # fmt: skip
    return fits[0] if len(fits) == 1 else None


def _is(one: Quota, member: str) -> bool:
    if one.member is None or not member:
        return one.member is None and not member
    return member.lower() in (one.member.email.lower(), one.member.id)


def _numbers(**texts: Text) -> dict[str, Any]:
    """As JSON's numbers; what was not given is left out. Raises BadOption."""
    return {name: _number(name, text) for name, text in texts.items() if text is not None}


def _number(name: str, text: str) -> float | int | None:
    if text == NONE:
        return None
    try:
        value = Decimal(text)
    except InvalidOperation:
        value = Decimal("nan")
    if not value.is_finite():
        raise BadOption(f'--{name.replace("_", "-")} is "{text}": write a number such as 8 or 1.5, or {NONE}')
    return int(value) if value == int(value) else float(value)


def _span(text: str) -> int | None:
    from haein.client import job_file

    if text == NONE:
        return None
    try:
        return int(job_file.from_option("time_limit_s", text))
    except ValueError as fault:
        raise BadOption(f"--time-limit {fault}") from None
