"""How Slurm writes things down: durations, times, node lists, generic resources, states and exit codes.

Everything raises ValueError for what it can't read. The forms are those of Slurm's manual pages (squeue, sacct,
scontrol) and of what 22.05 really prints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime

from haein.cluster.backends.slurm.records import Gres, State

_NOTHING = frozenset({"", "(null)", "N/A", "n/a", "None", "NONE", "Unknown", "UNKNOWN", "None assigned"})
_ENDLESS = frozenset({"UNLIMITED", "INFINITE", "Partition_Limit", "NOT_SET", "INVALID"})
_GRES = re.compile(r"(?:gres[/:])?([^:(=]+)(?::((?:\(null\)|[^(=])*))?(?:=(\w+))?(?:\(([^)]*)\))?")
_COUNT = re.compile(r"\d+K?")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?")
_TRAILING_NUMBER = re.compile(r"(.*?)(\d+)")

# What the suffix of a node's state stands for (man sinfo, "NODE STATE CODES").
_NODE_SUFFIXES = {
    "*": "NOT_RESPONDING", "~": "POWERED_DOWN", "#": "POWERING_UP", "!": "POWER_DOWN", "%": "POWERING_DOWN",
    "$": "MAINTENANCE", "@": "REBOOT_REQUESTED", "^": "REBOOT_ISSUED", "-": "PLANNED",
}  # fmt: skip

# Also the words that stand beside or instead of the base state, by what they mean for who holds what.
_JOB_STATES = {
    **{state.value: state for state in State},
    "RESIZING": State.RUNNING,
    "SIGNALING": State.RUNNING,
    "STAGE_OUT": State.COMPLETING,
    "UPDATE_DB": State.COMPLETING,
    "POWER_UP_NODE": State.CONFIGURING,
    "REQUEUED": State.PENDING,
    "REQUEUE_FED": State.PENDING,
    "REQUEUE_HOLD": State.PENDING,
    "RESV_DEL_HOLD": State.PENDING,
    "SPECIAL_EXIT": State.PENDING,
    "EXPEDITING": State.PENDING,
    "LAUNCH_FAILED": State.FAILED,
    "RECONFIG_FAIL": State.FAILED,
}


def text(word: str) -> str:
    """The word, or "" where Slurm says in one of its ways that there is none."""
    return "" if word in _NOTHING else word


def duration(word: str) -> int | None:
    """Seconds of "[D-]HH:MM:SS", "MM:SS" or "MM:SS.mmm"; None for a limit that is none."""
    if word in _ENDLESS or word in _NOTHING:
        return None
    days, dash, clock = word.rpartition("-")
    parts = clock.split(".")[0].split(":")
    if dash:
        # "1-02" is a day and two hours, while "02" alone would be minutes.
        parts += ["0"] * (3 - len(parts))
    if not 1 <= len(parts) <= 3:
        raise ValueError(f"{word!r} is no duration of Slurm's.")
    numbers = [int(part) for part in parts]
    if len(numbers) == 1:
        numbers.append(0)
    seconds = 0
    for number in numbers:
        seconds = seconds * 60 + number
    return seconds + int(days or 0) * 86400


def moment(word: str) -> int | None:
    """Seconds since the epoch of what a tool of Slurm printed with TZ=UTC0, in its standard form or as %s; None for
    "N/A", "None", "Unknown" and 0."""
    if word.isdecimal():
        return int(word) or None
    if word in _NOTHING:
        return None
    return int(datetime.strptime(word, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC).timestamp())


def count(word: str) -> int:
    """A whole number, also of "14K" and of the least in "4-8"."""
    low = word.split("-")[0]
    if low[-1:].upper() == "K":
        return round(float(low[:-1]) * 1024)
    return int(low)


def state(word: str) -> State:
    """A job's base state: "CANCELLED by 1000" and "CANCELLED+" are CANCELLED.

    A word that nobody here knows yet counts as COMPLETING: it holds what it holds, and neither waits nor has ended.
    """
    return _JOB_STATES.get(word.split(" ")[0].rstrip("+"), State.COMPLETING)


def node_states(word: str) -> frozenset[str]:
    """{"IDLE", "NOT_RESPONDING", "DRAIN"} of "IDLE*+DRAIN"."""
    states: set[str] = set()
    for part in word.split("+"):
        base = part.rstrip("".join(_NODE_SUFFIXES))
        states.update(_NODE_SUFFIXES[suffix] for suffix in part[len(base) :])
        if base:
            states.add(base)
    return frozenset(states)


def exit_status(word: str) -> tuple[int, int | None]:
    """(exit code, signal or None) of "3:9", or of a raw status of wait(2) as squeue prints it ("768")."""
    code, colon, signal = word.partition(":")
    if colon:
        return int(code), int(signal) or None
    status = int(code)
    return (status >> 8) & 0xFF, (status & 0x7F) or None


def split_outside_brackets(word: str, separator: str = ",") -> list[str]:
    """The parts of a list whose own brackets of any kind may hold the separator; none of an empty word."""
    parts, depth, begin = [], 0, 0
    for position, letter in enumerate(word):
        if letter in "[(":
            depth += 1
        elif letter in "])":
            depth -= 1
        elif letter == separator and depth == 0:
            parts.append(word[begin:position])
            begin = position + 1
    if depth != 0:
        raise ValueError(f"{word!r} has a bracket without its other half.")
    parts.append(word[begin:])
    return [part for part in parts if part]


def indices(word: str) -> tuple[int, ...]:
    """(0, 1, 2, 7) of "0-2,7"; nothing of "N/A"."""
    if word in _NOTHING:
        return ()
    return tuple(number for first, last in _ranges(word) for number in range(int(first), int(last) + 1))


def _ranges(word: str) -> Iterator[tuple[str, str]]:
    for part in word.split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValueError(f"{word!r} is no list of numbers.")
        first, last = match.groups()
        yield first, last or first


def expand(nodes: str) -> tuple[str, ...]:
    """The names of a compressed node list, in its order, padding kept: "node[001-003,007],gpu1"."""
    if nodes in _NOTHING:
        return ()
    if "[" not in nodes:
        return tuple(nodes.split(","))
    return tuple(name for part in split_outside_brackets(nodes) for name in _expand_one(part))


def _expand_one(word: str) -> Iterator[str]:
    """The names of one host expression, in which any number of bracketed lists may stand."""
    head, bracket, rest = word.partition("[")
    if not bracket:
        yield word
        return
    inside, closing, tail = rest.partition("]")
    if not closing:
        raise ValueError(f"{word!r} has a bracket without its other half.")
    tails = list(_expand_one(tail))
    for first, last in _ranges(inside):
        for number in range(int(first), int(last) + 1):
            for end in tails:
                yield f"{head}{number:0{len(first)}}{end}"


def compress(nodes: Iterable[str]) -> str:
    """A node list as Slurm takes it, each name once: the numbers at the ends of the names in brackets."""
    numbers: dict[tuple[str, int], set[int]] = {}
    plain = []
    for name in sorted(set(nodes)):
        match = _TRAILING_NUMBER.fullmatch(name)
        if match is None:
            plain.append(name)
        else:
            numbers.setdefault((match[1], len(match[2])), set()).add(int(match[2]))
    lists = [_compress_one(head, width, sorted(found)) for (head, width), found in numbers.items()]
    return ",".join([*plain, *lists])


def _compress_one(head: str, width: int, found: Sequence[int]) -> str:
    if len(found) == 1:
        return f"{head}{found[0]:0{width}}"
    runs: list[list[int]] = []
    for number in found:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    words = [f"{first:0{width}}" + (f"-{last:0{width}}" if last > first else "") for first, last in runs]
    return f"{head}[{','.join(words)}]"


def gres(word: str) -> tuple[Gres, ...]:
    """The generic resources of a list such as "gpu:b200:8(S:0-1),shard:80" or "gpu:1g.23gb:3(IDX:0-2)".

    Which socket a device hangs on ("S:") is left out, and so is the number of shards on each GPU; an entry without a
    number is one.
    """
    if word in _NOTHING:
        return ()
    return tuple(_gres_one(part) for part in split_outside_brackets(word))


def _gres_one(word: str) -> Gres:
    match = _GRES.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is no generic resource.")
    name, middle, number, note = match.groups()
    kind, _, last = (middle or "").rpartition(":")
    if number is not None:
        kind = middle or ""
    elif _COUNT.fullmatch(last):
        number = last
    else:
        # "gpu:b200" names a type, of which it is one.
        kind = middle or ""
    key, _, value = (note or "").partition(":")
    return Gres(name, text(kind), 1 if number is None else count(number), indices(value) if key == "IDX" else ())
