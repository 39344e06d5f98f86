"""What a part is: a command that must run, as whom, when it is ready, and how it ends."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from haein.supervisor.account import Account
from haein.supervisor.layout import ROOT, Layout
from haein.supervisor.refusal import Refusal

# Of the caller's environment only these reach a part; everything else is built.
PASSED_ON = ("TZ", "LD_LIBRARY_PATH", "SSL_CERT_FILE")


@dataclass(frozen=True)
class Part:
    name: str
    command: list[str]
    account: Account
    environ: dict[str, str] = field(default_factory=lambda: {"PATH": os.defpath, "LC_ALL": "C"})
    ready: Callable[[int], bool] = lambda _pid: True
    stop_signal: int = signal.SIGTERM
    last_signal: int = signal.SIGKILL
    patience: float = 10  # seconds between the two
    restarted: bool = True
    owns_session: bool = False  # what is left of its session dies with it
    shown: Callable[[str], bool] = lambda _line: True


def environment(layout: Layout, account: Account) -> dict[str, str]:
    """What a process of ours sees of the world."""
    given = {name: value for name, value in os.environ.items() if name.startswith("HAEIN_") or name in PASSED_ON}
    if not layout.service.is_ours:
        given["HAEIN_SERVICE_GID"] = str(layout.service.gid)
    return {
        **given,
        "HAEIN_VAR": str(layout.var),
        "HAEIN_PORT": str(port()),
        "PATH": f"{ROOT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
    }


def port() -> int:
    given = os.environ.get("HAEIN_PORT") or "8000"
    if not given.isdecimal() or not 0 < int(given) < 65536:
        raise Refusal(f"HAEIN_PORT is {given!r}: it must be a number from 1 to 65535.")
    return int(given)


def python(*arguments: str) -> list[str]:
    return [str(Path(ROOT, ".venv/bin/python")), *arguments]
