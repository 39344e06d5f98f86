"""What keeps jobs apart on this machine, found out by trying."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from haein.cluster.backends.base import Isolation
from haein.cluster.backends.local import landlock

USERS, NAMESPACES, LANDLOCK = "users", "namespaces", "landlock"
MAY_BE_LEFT_OFF = frozenset({NAMESPACES, LANDLOCK})
PROBE = Path(__file__).with_name("probe.py")
PATIENCE_S = 20.0
# Where systems forbid user namespaces: the switch, the value by which it forbids, and the one that allows.
SWITCHES = (
    ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
    ("kernel.unprivileged_userns_clone", "0", "1"),
    ("user.max_user_namespaces", "0", "15000"),
)


@dataclass(frozen=True, slots=True)
class Locks:
    """`users`: each job has a user of its own. `namespaces`: of mounts, processes and IPC; where there are none,
    `obstacle` says what the kernel answered and `remedy` what would allow them. `landlock`: its ABI, 0 for none."""

    users: bool
    namespaces: bool
    landlock: int
    obstacle: str = ""
    remedy: str = ""

    def isolation(self) -> Isolation:
        names = [name for name, held in self._by_name().items() if held]
        if self.users or self.namespaces:
            return Isolation(True, f"Jobs are kept apart by {_listed(names)}.")
        alone = f" {_listed(names)} alone can't keep two organizations apart." if names else ""
        return Isolation(
            False,
            f"Jobs share one user here and have no namespaces of their own ({self.obstacle}).{alone} "
            f"For more than one, run Haein as root, or allow user namespaces: {self.remedy}.",
        )

    def _by_name(self) -> dict[str, int]:
        return {
            "a user for each job": self.users,
            "namespaces": self.namespaces,
            f"Landlock (ABI {self.landlock})": self.landlock,
        }


def found(*, users: bool, off: frozenset[str] = frozenset()) -> Locks:
    """Which locks this process can put on a job. `users` is whether jobs have users of their own; `off` names locks
    that are to be left off, of MAY_BE_LEFT_OFF."""
    abi = 0 if LANDLOCK in off else landlock.abi()
    if NAMESPACES in off:
        return Locks(users, False, abi, "they are switched off", "take them out of HAEIN_LOCKS_OFF")
    obstacle = _obstacle()
    return Locks(users, not obstacle, abi, obstacle, remedy() if obstacle else "")


@cache
def _obstacle() -> str:
    """Why a job can't have namespaces of its own; "" when it can. Tried in a process of its own, once."""
    try:
        tried = subprocess.run(
            [sys._base_executable, "-I", "-S", "-E", str(PROBE)],  # type: ignore[attr-defined]
            env={"LC_ALL": "C.UTF-8"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = (tried.stdout + tried.stderr).strip().splitlines()
    return "" if tried.returncode == 0 else (said[-1] if said else f"trying them ended with {tried.returncode}")


def remedy() -> str:
    """The command that allows an ordinary user to make namespaces."""
    for name, forbidding, allowing in SWITCHES:
        try:
            value = Path("/proc/sys", *name.split(".")).read_text().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"sudo sysctl -w {name}={allowing}"
    return "no sysctl forbids them, so it is a container's seccomp profile or masked /proc, or AppArmor"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
