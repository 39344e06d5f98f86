"""Which paths a job may reach: the system to read, its own folders to write, and nothing of Haein's."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
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
MOST_LINKS = 40  # as many as the kernel follows
SHARED_MEMORY = "/dev/shm"  # noqa: S108  (Python's multiprocessing and every data loader need it)


def readable(environment: Path, hidden: tuple[Path, ...]) -> list[str]:
    """For Landlock: the system and the job's Python, without anything under `hidden`."""
    roots = [Path(root) for root in (*SYSTEM, *_interpreter(environment))]
    return [*(str(path) for root in roots for path in without(root, hidden)), *NAME_RESOLUTION, str(environment)]


def shown(environment: Path, hidden: tuple[Path, ...]) -> tuple[list[str], list[str]]:
    """For a mount namespace: what is shown of the machine, to be covered where it is hidden; and what of the job's
    Python lies where it is hidden, to be shown on top of that."""
    named = [str(environment), *_interpreter(environment)]
    paths = sorted({*named, *map(os.path.realpath, named)})
    within = [path for path in paths if _is_in(path, hidden) or _is_in(os.path.realpath(path), hidden)]
    beside = [path for path in paths if path not in within and not _is_in(path, SYSTEM)]
    # A Python whose prefix is the checkout itself would bring all of it back: then its jobs fail, and nothing leaks.
    return machine() + beside, [path for path in within if not any(_is_in(str(each), [path]) for each in hidden)]


def machine() -> list[str]:
    return [path for path in (*SYSTEM, *NAME_RESOLUTION) if path not in ("/proc", "/dev") and os.path.exists(path)]


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


def _interpreter(environment: Path) -> list[str]:
    """Where the interpreter behind the environment's bin/python lives, link by link: it brings its standard library."""
    places: list[str] = []
    path = str(environment / "bin" / "python")
    while os.path.islink(path) and len(places) < MOST_LINKS:
        path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        places.append(path)
    prefixes = [os.path.dirname(os.path.dirname(place)) for place in (*places, os.path.realpath(path))]
    return [place if prefix == "/" else prefix for place, prefix in zip((*places, path), prefixes, strict=True)]


def _is_in(path: str, folders: Iterable[str | Path]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
