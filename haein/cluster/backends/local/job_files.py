"""A job's working folder as others may look at it: the job wrote it, so no link in it is ever followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from haein.cluster.backends.base import FileFact

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK a named pipe would hold the reader for ever.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def list_folder(root: Path, folder: PurePosixPath) -> list[FileFact]:
    """See Backend.list_files. Links and special files are left out, as they can't be opened either."""
    if not root.is_dir() and not folder.parts:
        return []
    with _opened(root, folder) as fd, os.scandir(fd) as entries:
        facts = (_fact(folder, entry.name, entry.stat(follow_symlinks=False)) for entry in entries)
        return sorted((fact for fact in facts if fact is not None), key=lambda fact: fact.path.name)


def open_regular(root: Path, path: PurePosixPath) -> tuple[BinaryIO, FileFact]:
    """See Backend.open_file."""
    if not path.parts:
        raise FileNotFoundError(f"{path} is a folder.")
    with _opened(root, path.parent) as parent:
        try:
            fd = os.open(path.name, FILE, dir_fd=parent)
        except OSError:
            raise FileNotFoundError(f"{path} is not there, or can't be read.") from None
    fact = _fact(path.parent, path.name, os.fstat(fd))
    if fact is None or fact.is_folder:
        os.close(fd)
        raise FileNotFoundError(f"{path} is not a file.")
    return os.fdopen(fd, "rb"), fact


def _fact(folder: PurePosixPath, name: str, status: os.stat_result) -> FileFact | None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        return None
    # A name that is no text can't be asked for over the web; it is shown, with its odd bytes replaced.
    shown = os.fsencode(name).decode("utf-8", "replace")
    is_folder = stat.S_ISDIR(status.st_mode)
    version = "" if is_folder else f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_size:x}"
    return FileFact(folder / shown, is_folder, 0 if is_folder else status.st_size, status.st_mtime, version)


@contextmanager
def _opened(root: Path, folder: PurePosixPath) -> Iterator[int]:
    """The folder as a descriptor, reached step by step so that nothing swapped in between leads outside."""
    if folder.is_absolute() or ".." in folder.parts:
        raise FileNotFoundError(f"{folder} leads outside the job's folder.")
    fd = -1
    try:
        fd = os.open(root, FOLDER)
        for part in folder.parts:
            inner = os.open(part, FOLDER, dir_fd=fd)
            os.close(fd)
            fd = inner
    except OSError:
        if fd >= 0:
            os.close(fd)
        raise FileNotFoundError(f"{folder} is not there, or can't be read.") from None
    try:
        yield fd
    finally:
        os.close(fd)
