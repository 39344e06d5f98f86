"""Which release this is."""

from __future__ import annotations

import functools
from pathlib import Path


@functools.cache
def version() -> str:
    """The installed release's; in a checkout, the newest heading of CHANGELOG.md."""
    changes = Path(__file__).parents[2] / "CHANGELOG.md"
    if changes.is_file():
        return next(line.split()[1] for line in changes.read_text().splitlines() if line.startswith("## "))
    from importlib import metadata  # takes 40 ms, and a checkout needs none of it

    return metadata.version("haein")
