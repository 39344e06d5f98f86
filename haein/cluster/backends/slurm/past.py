"""Reads what sacct prints of jobs that are over, one record a job, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from haein.cluster.backends.slurm.records import State

# In this order, the name last: people write what they like into it, the sign between the columns too.
COLUMNS = (
    *("Cluster", "JobIDRaw", "JobID", "User", "Account", "Partition", "State", "ExitCode", "Submit", "Start", "End"),
    *("ElapsedRaw", "TimelimitRaw", "NNodes", "NodeList", "ReqTRES", "AllocTRES", "JobName"),
)
FORMAT = ",".join(COLUMNS)
# As people are told to run it: sacct writes local time, and in UTC no hour comes twice.
COMMAND = f"TZ=UTC sacct -a -X -P --format={FORMAT}"
OPEN = frozenset({State.PENDING, State.CONFIGURING, State.RUNNING, State.SUSPENDED, State.STOPPED, State.COMPLETING})
# sacct's word for a job that runs on elsewhere, or again: there is another record of it.
_OPEN_WORDS = {"REQUEUED", "RESIZING", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "SIGNALING", "STAGE_OUT"}
# MiB. Without a letter it is bytes.
_UNITS = {"": 2.0**-20, "K": 2.0**-10, "M": 1.0, "G": 2.0**10, "T": 2.0**20, "P": 2.0**30}
_NO_TIME = frozenset({"", "Unknown", "None", "N/A"})
_NO_NODES = frozenset({"", "None assigned", "(null)"})


class Unreadable(Exception):
    """A line that can't be read. The message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Run:
    """A job that is over. `gpus` are all that it held (or asked for, where it never ran), by the types that Slurm
    knew; `cpus` whole ones and `memory_mb` MiB in all. `limit_s` is None where it had no limit; `ran` is None where it
    never began. `array` is the id of the array whose element `index` it was."""

    cluster: str
    id: int
    name: str
    user: str
    account: str
    partition: str
    state: State
    exit_code: int
    signal: int
    submitted: datetime
    ran: tuple[datetime, datetime] | None
    ended: datetime
    elapsed_s: int
    limit_s: int | None
    nodes: int
    node_list: str
    cpus: int
    memory_mb: int
    gpus: int
    types: Mapping[str, int]
    shards: int
    array: int | None = None
    index: int | None = None

    @property
    def first_node(self) -> str:
        """node001 of node[001-004,7]."""
        return re.sub(r"\[([^],-]+)[^]]*\]", r"\1", re.split(r",(?![^[]*\])", self.node_list, maxsplit=1)[0])


@dataclass(frozen=True, slots=True)
class StillOpen:
    """A job that is not over yet."""


def runs(lines: Iterable[str], unreadable: Callable[[int, str], object]) -> Iterator[Run | StillOpen]:
    """Those that can be read; `unreadable` is told of each other line, by its number from 1, and why.

    Raises Unreadable where the first line does not name all of COLUMNS.
    """
    numbered = enumerate(lines, 1)
    header = next(numbered, (1, ""))[1].rstrip("\r\n").split("|")
    if missing := [name for name in COLUMNS if name not in header]:
        raise Unreadable(f"The first line must name the columns; {', '.join(missing)} are missing. Use {COMMAND}")
    if header[-1] != "JobName":
        raise Unreadable(f"JobName must be the last column, as in {COMMAND}")
    for number, line in numbered:
        text = line.rstrip("\r\n")
        if not text:
            continue
        cells = text.split("|", len(header) - 1)
        try:
            if len(cells) < len(header):
                raise Unreadable(f"{len(cells)} columns instead of {len(header)}")
            yield _run(dict(zip(header, cells, strict=True)))
        except Unreadable as fault:
            unreadable(number, str(fault))


def _run(cells: Mapping[str, str]) -> Run | StillOpen:
    state = _state(cells["State"])
    if state is None or state in OPEN:
        return StillOpen()
    submitted, ended = _moment(cells, "Submit"), _moment(cells, "End")
    if submitted is None or ended is None:
        raise Unreadable(f"it is {state.value}, and has no time of submission or of its end")
    began = _moment(cells, "Start")
    ran = (began, max(began, ended)) if began and cells["NodeList"] not in _NO_NODES else None
    held = _tres(cells["AllocTRES" if ran else "ReqTRES"])
    exit_code, _, signal = cells["ExitCode"].partition(":")
    array, index = _element(cells["JobID"])
    return Run(
        cluster=cells["Cluster"],
        id=_number(cells, "JobIDRaw"),
        name=cells["JobName"],
        user=cells["User"],
        account=cells["Account"],
        partition=cells["Partition"],
        state=state,
        exit_code=int(exit_code) if _is_whole(exit_code) else 0,
        signal=int(signal) if _is_whole(signal) else 0,
        submitted=submitted,
        ran=ran,
        ended=max(submitted, ended),
        elapsed_s=_number(cells, "ElapsedRaw") if ran else 0,
        limit_s=_limit(cells["TimelimitRaw"]),
        nodes=max(1, _number(cells, "NNodes")),
        node_list=cells["NodeList"] if ran else "",
        cpus=held.cpus,
        memory_mb=held.memory_mb,
        gpus=held.gpus,
        types=held.types,
        shards=held.shards,
        array=array,
        index=index,
    )


@lru_cache(maxsize=256)
def _state(text: str) -> State | None:
    """None for one that is not over. "CANCELLED by 1000" is CANCELLED. Raises Unreadable."""
    word = text.split(" ", 1)[0]
    if word in _OPEN_WORDS:
        return None
    try:
        return State(word)
    except ValueError:
        raise Unreadable(f"there is no state {text!r}") from None


def _moment(cells: Mapping[str, str], column: str) -> datetime | None:
    text = cells[column]
    if text in _NO_TIME:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable(f"{column} is {text!r}, and a time is written 2024-03-01T12:00:00") from None


def _number(cells: Mapping[str, str], column: str) -> int:
    text = cells[column]
    if not _is_whole(text):
        raise Unreadable(f"{column} is {text!r}, and must be a whole number")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _limit(text: str) -> int | None:
    """Seconds from TimelimitRaw's minutes; None for UNLIMITED, Partition_Limit and nothing."""
    return max(1, int(text)) * 60 if _is_whole(text) else None


def _element(job_id: str) -> tuple[int | None, int | None]:
    """The array and the index of "12_3"; nothing for a job of its own, and for "12_[4-7]", which never began."""
    array, _, index = job_id.partition("_")
    return (int(array), int(index)) if _is_whole(array) and _is_whole(index) else (None, None)


@dataclass(frozen=True, slots=True)
class _Tres:
    cpus: int
    memory_mb: int
    gpus: int
    types: Mapping[str, int]
    shards: int


@lru_cache(maxsize=16384)
def _tres(text: str) -> _Tres:
    """Of "cpu=8,mem=64G,node=1,gres/gpu=2,gres/gpu:b200=2". Raises Unreadable."""
    found = dict(part.split("=", 1) for part in text.split(",") if "=" in part)
    types = {name[9:]: _count(found[name]) for name in found if name.startswith("gres/gpu:")}
    return _Tres(
        cpus=_count(found.get("cpu", "0")),
        memory_mb=_memory(found.get("mem", "0")),
        gpus=_count(found["gres/gpu"]) if "gres/gpu" in found else sum(types.values()),
        types=types,
        shards=_count(found.get("gres/shard", "0")),
    )


def _count(text: str) -> int:
    if not _is_whole(text):
        raise Unreadable(f"{text!r} among its TRES is no whole number")
    return int(text)


def _memory(text: str) -> int:
    """MiB of 64G; a plain number is bytes."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)", text)
    if not match:
        raise Unreadable(f"mem={text} is no amount of memory")
    return round(float(match[1]) * _UNITS[match[2]])


def days(since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    """From `since` to `until` by days."""
    while since < until:
        after = since + timedelta(days=1)
        yield since, min(after, until)
        since = after


def written(moment: datetime) -> str:
    """A moment as sacct writes it, and reads it."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}"


def ended_within(lines: Iterable[str], begin: datetime, end: datetime) -> Iterator[str]:
    """Of what sacct tells of a span, which is all that was there in it, the jobs that ended in it."""
    at = COLUMNS.index("End")
    for line in lines:
        cells = line.split("|", at + 1)
        if len(cells) < at + 2 or written(begin) <= cells[at] < written(end):
            yield line
