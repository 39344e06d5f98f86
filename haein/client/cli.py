"""The command `haein`: each part asks the SDK, and shows a person a table or a program the API's own JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from haein.client import errors, terminal
from haein.client.commands import cluster, files, jobs, logs, quotas, signing, submitting
from haein.client.exits import INTERRUPTED, exit_code


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


def _take(*commands: Callable[..., None]) -> None:
    """In the order in which --help lists them."""
    for command in commands:
        app.command()(command)


_take(signing.login, signing.logout, signing.whoami)
app.command(cls=submitting.WithCommand, options_metavar="[OPTIONS] [-- COMMAND...]")(submitting.submit)
_take(jobs.ps, jobs.show, jobs.queue, logs.logs, jobs.cancel, jobs.retry, files.files, files.cp)
_take(cluster.cost, cluster.nodes)
app.add_typer(cluster.windows, name="windows")
app.add_typer(quotas.app, name="quotas")
_take(cluster.prices, cluster.environments, submitting.schema)
