"""The temporary folder of an attempt, deleted once the attempt is over; its content is whatever the job made of it."""

from __future__ import annotations

import os


def remove(path: str) -> None:
    """Delete the folder without ever following a link out of it; what resists is left to forget()."""
    try:
        for _, folders, files, fd in os.fwalk(path, topdown=False, follow_symlinks=False):
            for name in files:
                os.unlink(name, dir_fd=fd)
            for name in folders:
                try:
                    os.rmdir(name, dir_fd=fd)
                except NotADirectoryError:
                    os.unlink(name, dir_fd=fd)
        os.rmdir(path)
    except (OSError, RecursionError):
        pass
