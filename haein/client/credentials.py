"""Who this person is to which server: from the environment, else from a file that only he can read."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from haein.client.errors import HaeinError, NotSignedIn


@dataclass(frozen=True, slots=True)
class Credentials:
    """A server's address without a slash at its end, and a token for it."""

    url: str
    token: str


def place() -> Path:
    home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(home).expanduser() / "haein" / "credentials.json"


def stored() -> Credentials | None:
    """What `haein login` has stored. Raises HaeinError when it can't be read."""
    try:
        told = json.loads(place().read_text())
        return Credentials(str(told["url"]), str(told["token"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        raise HaeinError(f"{place()} can't be read: remove it and sign in again with `haein login`.") from None


def find(url: str | None = None) -> Credentials:
    """HAEIN_URL and HAEIN_TOKEN before what is stored. Raises NotSignedIn.

    A stored token is for the server that it is from: it is never sent to another that HAEIN_URL names.
    """
    kept = stored()
    asked = url or os.environ.get("HAEIN_URL", "")
    address = normal(asked) if asked else kept.url if kept else ""
    if not address:
        raise NotSignedIn("You are not signed in: `haein login URL`, or set HAEIN_URL and HAEIN_TOKEN.")
    token = os.environ.get("HAEIN_TOKEN", "").strip()
    if not token and kept and kept.url == address:
        token = kept.token
    if not token:
        raise NotSignedIn(f"You are not signed in to {address}: `haein login {address}`, or set HAEIN_TOKEN.")
    return Credentials(address, token)


def normal(url: str) -> str:
    """The address as it is stored: with its scheme, without a slash at the end. Raises HaeinError."""
    text = url.strip()
    if "://" not in text:
        host = text.partition("/")[0].rpartition(":")[0] or text.partition("/")[0]
        text = f"{'http' if host in ('localhost', '127.0.0.1', '[::1]') else 'https'}://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise HaeinError(f"{url!r} is no address of a server: write one such as https://haein.example.com")
    return text.rstrip("/")


def store(found: Credentials) -> None:
    """For this person alone, and at once: whoever reads it meanwhile sees the old or the new."""
    folder = place().parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, written = tempfile.mkstemp(dir=folder)  # mode 0600 from its first moment
        with os.fdopen(handle, "w") as file:
            json.dump({"url": found.url, "token": found.token}, file)
        os.replace(written, place())
    except OSError as error:
        raise HaeinError(f"{place()} can't be written: {error.strerror}.") from None


def forget() -> None:
    place().unlink(missing_ok=True)
