"""Packs a folder for a job: the same files make the same bytes, so that an upload said twice is the same upload."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from haein.client.errors import BadFiles
from haein.client.gitignore import Rules


@dataclass(frozen=True, slots=True)
class Entry:
    """A file to send: `name` with / between its parts, `place` where its bytes are."""

    name: str
    place: Path


def entries(folder: Path) -> list[Entry]:
    """Every file that git would not ignore, sorted by name. Raises BadFiles, which names what can't be sent.

    .gitignore counts in the folder, below it, and above it up to the repository's top; `.git` itself is always out.
    """
    top = folder.resolve()
    if not top.is_dir():
        raise BadFiles(f"{folder} is no folder.")
    found = [_checked(top, name) for name in _walk(top, "", _rules_above(top))]
    if not found:
        raise BadFiles(f"{folder} has no file to send: it is empty, or its .gitignore leaves everything out.")
    return sorted(found, key=lambda entry: os.fsencode(entry.name))


def _rules_above(top: Path) -> list[tuple[str, Rules]]:
    """(what to put before a path within `top`, rules) for each .gitignore between `top` and its repository's top."""
    if (top / ".git").exists():
        return []
    above: list[tuple[str, Rules]] = []
    prefix = ""
    for name, parent in zip((top.name, *(p.name for p in top.parents)), top.parents, strict=False):
        prefix = f"{name}/{prefix}"
        above += [(prefix, rules)] if (rules := _rules_in(parent)) else []
        if (parent / ".git").exists():
            return above[::-1]
    return []


def _rules_in(folder: Path) -> Rules | None:
    place = folder / ".gitignore"
    # Git too does not follow a link here.
    if place.is_symlink() or not place.is_file():
        return None
    return Rules.read(place.read_text("utf-8", "surrogateescape"))


def _walk(folder: Path, before: str, rules: list[tuple[str, Rules]]) -> Iterator[str]:
    """`rules` pairs what stands before a name of this folder, seen from the .gitignore's place, with its lines."""
    own = _rules_in(folder)
    rules = [*rules, ("", own)] if own else rules
    try:
        listed = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise BadFiles(f"{folder} can't be read: {error.strerror}.") from None
    for entry in listed:
        if entry.name == ".git":
            continue
        is_folder = entry.is_dir(follow_symlinks=False)
        said = (r.out(prefix + entry.name, folder=is_folder) for prefix, r in reversed(rules))
        if next((out for out in said if out is not None), False):
            continue
        if is_folder:
            deeper = [(f"{prefix}{entry.name}/", r) for prefix, r in rules]
            yield from _walk(Path(entry.path), f"{before}{entry.name}/", deeper)
        elif entry.is_symlink() or entry.is_file():
            yield before + entry.name


def _checked(top: Path, name: str) -> Entry:
    place = top / name
    if not place.is_symlink():
        return Entry(name, place)
    # A job's folder takes no links, so what a link leads to is sent in its place.
    try:
        target = place.resolve(strict=True)
    except (OSError, RuntimeError):
        raise BadFiles(f"{name} is a link that leads nowhere: remove it, or leave it out in .gitignore.") from None
    if not target.is_relative_to(top):
        raise BadFiles(f"{name} is a link that leads out of the folder, to {target}: leave it out in .gitignore.")
    if not target.is_file():
        raise BadFiles(f"{name} is a link to a folder, which can't be sent: leave it out in .gitignore.")
    return Entry(name, target)


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive; `size` in bytes."""

    name: str
    source: IO[bytes]
    size: int
    executable: bool


def members(folder: Path) -> Iterator[Member]:
    """The files to send, each open while it is its turn. Raises BadFiles."""
    for entry in entries(folder):
        with _reading(entry.name), entry.place.open("rb") as source:
            told = os.fstat(source.fileno())
            yield Member(entry.name, source, told.st_size, bool(told.st_mode & stat.S_IXUSR))


@contextmanager
def packed(content: Iterable[Member]) -> Iterator[IO[bytes]]:
    """A .tar.gz at its beginning, in a temporary file that is gone afterwards. Raises BadFiles."""
    with tempfile.TemporaryFile(prefix="haein-") as file:
        # No name and no time of its own in gzip's header.
        with (
            gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed,
            tarfile.TarFile(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for one in content:
                member = tarfile.TarInfo(one.name)
                member.size = one.size
                member.mode = 0o755 if one.executable else 0o644
                with _reading(one.name):
                    archive.addfile(member, one.source)
                archive.members.clear()  # type: ignore[attr-defined]  # else every name stays in memory
        file.seek(0)
        yield file


@contextmanager
def _reading(name: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadFiles(f"{name} can't be sent: {error.strerror or 'it changed while it was read'}.") from None
