"""Which paths a job may reach: the system to read, its own folders to write, and nothing of Haein's."""

from __future__ import annotations

import glob
import os
from pathlib import Path

SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/dev",
)
# On many systems /etc/resolv.conf is a link into /run.
NAME_RESOLUTION = ("/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty", "/dev/ptmx", "/dev/pts")
SHARED_MEMORY = "/dev/shm"  # noqa: S108  (Python's multiprocessing and every data loader need it)


def readable(environment: Path, hidden: tuple[Path, ...]) -> list[str]:
    """The system and the job's Python, without anything under `hidden`."""
    paths = [path for root in SYSTEM for path in without(Path(root), hidden)]
    return [*map(str, paths), *NAME_RESOLUTION, str(environment), *_base_prefix(environment)]


def devices() -> list[str]:
    return [*DEVICES, *glob.glob("/dev/nvidia*")]


def without(root: Path, hidden: tuple[Path, ...]) -> list[Path]:
    """The root itself or, as Landlock can't take back what it gave, its parts beside the hidden folder."""
    root = root.resolve()
    if root in hidden or not root.exists():
        return []
    if root.is_dir() and any(path.is_relative_to(root) for path in hidden):
        return [part for child in root.iterdir() if not child.is_symlink() for part in without(child, hidden)]
    return [root]


def _base_prefix(environment: Path) -> list[str]:
    """Where the interpreter behind the environment's bin/python really lives: it brings its standard library."""
    interpreter = Path(os.path.realpath(environment / "bin" / "python"))
    prefix = interpreter.parent.parent
    return [str(prefix)] if prefix != Path("/") else [str(interpreter)]
