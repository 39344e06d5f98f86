"""User and group numbers for jobs when Haein runs as root: one user per job, one group per team, none shared."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import UUID


def number_for(folder: Path, kind: str, owner: UUID, numbers: tuple[int, int]) -> int:
    """The number that belongs to the owner, given now if need be. `numbers` are the first and the last to give.

    A number is taken by a symbolic link of its name that points to the owner's id: making one is atomic, so no two
    owners get the same number, and the owner's hash says where to look for it again. Raises RuntimeError when
    all are taken.
    """
    first, last = numbers
    count = last - first + 1
    folder.mkdir(mode=0o750, exist_ok=True)
    for step in range(count):
        number = first + (owner.int + step) % count
        link = folder / f"{kind}-{number}"
        try:
            os.symlink(str(owner), link)
            return number
        except FileExistsError:
            if os.readlink(link) == str(owner):
                return number
    raise RuntimeError(f"All {count:,} numbers for jobs from {first} to {last} are taken in {folder}.")
