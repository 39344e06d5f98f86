"""What the runner is to do, as the launcher writes it down and the runner reads it.

The runner imports this file, so it stays with modules that start fast: a plain class, as dataclasses cost 7 ms.
"""

from __future__ import annotations

from haein.cluster.backends.local import records

NUMBERS = (
    "uid",
    "gid",
    "cores",
    "first_core",
    "cpus",
    "memory_mb",
    "time_limit_s",
    "grace_s",
    "log_cap",
    "namespaces",
    "landlock",
)
TEXTS = ("attempt", "command", "shell", "work", "scratch", "devices", "checkpoint")
LISTS = ("variable", "readable", "device", "writable", "system", "own", "hidden")


class Order:
    """`cpus` in thousandths of a core, memory in MiB, times in seconds, `log_cap` in bytes; a limit of 0 is none.

    `uid` 0 means that the job stays with the runner's own account. `variable` holds NAME=VALUE strings, the other
    lists paths: those that may be read and executed, device files, and those that may be written; and for
    `namespaces`, what is shown of the machine, what of it is `hidden`, and what is shown on top of that nevertheless.
    `namespaces` and `landlock` are 1 where that lock is to be in force. `checkpoint` is the file that the job touches
    when it has saved its work, "" for one that does not know the signal to save.
    """

    attempt: str
    command: str
    shell: str
    work: str
    scratch: str
    devices: str
    checkpoint: str
    uid: int
    gid: int
    cores: int
    first_core: int
    cpus: int
    memory_mb: int
    time_limit_s: int
    grace_s: int
    log_cap: int
    namespaces: int
    landlock: int
    variable: list[str]
    readable: list[str]
    device: list[str]
    writable: list[str]
    system: list[str]
    own: list[str]
    hidden: list[str]


def to_pairs(order: Order) -> records.Pairs:
    pairs = [(key, str(getattr(order, key))) for key in (*TEXTS, *NUMBERS)]
    return pairs + [(key, item) for key in LISTS for item in getattr(order, key)]


def from_pairs(pairs: records.Pairs) -> Order:
    order = Order()
    for key in LISTS:
        setattr(order, key, [value for name, value in pairs if name == key])
    for key, value in pairs:
        if key in NUMBERS:
            setattr(order, key, int(value))
        elif key in TEXTS:
            setattr(order, key, value)
    return order
