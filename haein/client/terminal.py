"""How the command speaks: to people in tables and colours where there is a terminal, to programs in JSON."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from rich.console import Console

# What a terminal would obey. Names and logs come from others: colours may stay, the cursor is ours.
_ORDERS = re.compile(r"\x1b\[[0-9;]*m|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = {"succeeded": "green", "failed": "red", "timed_out": "red", "cancelled": "yellow", "running": "cyan"}
_UNLIMITED = 10_000


def plain(text: str) -> str:
    """The text without anything that a terminal would obey."""
    return _ORDERS.sub("", text)


def with_colours(text: str) -> str:
    """The same, but for colours."""
    return _ORDERS.sub(lambda found: found[0] if found[0].endswith("m") and len(found[0]) > 1 else "", text)


def console() -> Console:
    from rich.console import Console

    # A pipe has no width: nothing is cut off there.
    return Console(highlight=False, width=None if sys.stdout.isatty() else _UNLIMITED)


def say(text: str) -> None:
    """To the person, beside the output."""
    print(plain(text), file=sys.stderr, flush=True)


def out(text: str) -> None:
    print(text, flush=True)


def out_json(value: Any) -> None:
    out(json.dumps(value, indent=2, ensure_ascii=False))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns that begin with > are numbers, to the right; a column "STATE" is coloured by what it says."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        made.add_column(name.lstrip(">"), justify="right" if name.startswith(">") else "left",
                        no_wrap=name.lstrip(">") in ("ID", "STATE", "AGE"))  # fmt: skip
    for row in rows:
        # As text: a name such as [red] is a name, not an order to the table.
        made.add_row(
            *(Text(plain(cell), style=_COLOURS.get(cell, "") if name == "STATE" else "")
              for name, cell in zip(columns, row, strict=True))
        )  # fmt: skip
    console().print(made)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values; without those that have no value."""
    found = [(name, value) for name, value in rows if value]
    width = max((len(name) for name, _ in found), default=0)
    for name, value in found:
        first, *rest = value.split("\n")
        out(f"{name:<{width}}  {plain(first)}")
        for line in rest:
            out(f"{'':<{width}}  {plain(line)}")


def moment(at: datetime | None) -> str:
    """In the reader's own zone."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S") if at else ""


def age(at: datetime | None) -> str:
    """How long ago, in its largest unit."""
    if at is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - at).total_seconds()))
    return span(seconds, parts=1)


def span(seconds: int, *, parts: int = 2) -> str:
    found = []
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, length)
        if count:
            found.append(f"{count}{unit}")
    return " ".join(found[:parts]) or "0s"


def size(count: int) -> str:
    amount, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if amount < 1024 or unit == "TiB":
            break
        amount /= 1024
    return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"


def cores(count: float) -> str:
    return f"{count:g}"


def percent(thousandths: int) -> str:
    return f"{thousandths / 10:g}%"


class Advance(Protocol):
    """Told the bytes so far and their number (-1: nobody knows)."""

    def __call__(self, done: int, total: int) -> None: ...


def shows_progress() -> bool:
    return sys.stderr.isatty() and "NO_COLOR" not in os.environ


@contextmanager
def progress(label: str) -> Iterator[Advance]:
    """A bar on standard error while there is somebody to see it."""
    if not shows_progress():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(plain(label), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=None if total < 0 else total)
