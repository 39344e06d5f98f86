"""Signing in and out."""

from __future__ import annotations

import getpass
import os
import sys
from typing import Annotated, Any

import typer

from haein.client import errors, terminal
from haein.client.commands import asking
from haein.client.commands.asking import Json, connect
from haein.client.exits import BadOption


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
    if token == "-":  # noqa: S105 - the word for standard input, no secret
        given = sys.stdin.readline()
    elif os.environ.get("HAEIN_TOKEN"):
        given = os.environ["HAEIN_TOKEN"]
    else:
        terminal.say(f"Make a token on {address}/tokens/ and paste it here.")
        given = getpass.getpass("Token: ", sys.stderr)
    if not (given := given.strip()):
        raise BadOption("That was no token.")
    with Client(address, given, patience=asking.PATIENCE_S) as haein:
        me = haein.me()
    credentials.store(credentials.Credentials(address, given))
    terminal.out(f"Signed in to {address} as {me.user.name or me.user.email}.")


def logout() -> None:
    """End the token, and forget it."""
    from haein.client import credentials

    with connect() as haein:
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


def whoami(as_json: Json = False) -> None:
    """Show who you are to the server, and what the token may do."""
    from haein.client.answers import Me, read

    with connect() as haein:
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
