"""Reads traces of requests and lists of nodes, in the columns in which they were published; a fault names its place.

- openb (Alibaba cluster-trace-gpu-v2023): nodes `sn,cpu_milli,memory_mib,gpu,model`; requests
  `name,cpu_milli,memory_mib,num_gpu,gpu_milli[,gpu_spec][,creation_time,deletion_time,scheduled_time]`, in seconds.
- Muri (SIGCOMM '22): `job_id,num_gpu,submit_time,duration`, in milliseconds, whole GPUs only. Its priorities
  are left alone: the policies published with it do not look at them.

Other columns are not looked at. A file may be packed by gzip, its name then ends in .gz.
"""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from haein.placement.mix import shape_of, units
from haein.placement.model import WHOLE, DeviceState, Gang, NodeState, Request, Snapshot

NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")
OPENB_COLUMNS = ("name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli")
TIME_COLUMNS = ("creation_time", "scheduled_time", "deletion_time")
MURI_COLUMNS = ("job_id", "num_gpu", "submit_time", "duration")
# More GPUs than any node has are asked for as a gang of members of this many (Muri's nodes have 8).
MEMBER = 8
MOST_BYTES = 1 << 30  # of a file, unpacked: a packed one may be a thousand times as large as it looks


class Fault(Exception):
    """A file can't be read as it is: the message names the file, the line, the column, and what to write there."""


@dataclass(frozen=True, slots=True)
class Job:
    """One request of a trace. Times are in seconds; None where the trace has none. Higher priorities go first."""

    request: Request | Gang
    submitted: int | None = None
    duration: int | None = None
    priority: int = 0

    @property
    def units(self) -> int:
        """Thousandths of GPUs asked for."""
        each = self.request.each if isinstance(self.request, Gang) else self.request
        members = self.request.members if isinstance(self.request, Gang) else 1
        return members * units(shape_of(each))


@dataclass(frozen=True, slots=True)
class _Row:
    name: str
    line: int
    cells: Mapping[str, str]

    def fault(self, column: str, fix: str) -> Fault:
        found = self.cells.get(column) or ""
        return Fault(f"{self.name}, line {self.line}, column {column}: {found!r} {fix}")

    def text(self, column: str) -> str:
        return (self.cells.get(column) or "").strip()

    def number(self, column: str, low: int, high: int | None = None) -> int:
        text = self.text(column)
        limits = f"from {low} to {high}" if high is not None else f"of {low} or more"
        if not text.isascii() or not text.isdigit() or int(text) < low or (high is not None and int(text) > high):
            raise self.fault(column, f"is no whole number {limits}; write one.")
        return int(text)


def content(path: Path) -> bytes:
    """What the file holds, unpacked. Raises Fault."""
    try:
        return unpacked(str(path), path.read_bytes(), MOST_BYTES)
    except OSError as error:
        raise Fault(f"{path}: {error.strerror}; name a file that can be read.") from error


def unpacked(name: str, raw: bytes, most: int) -> bytes:
    """The bytes of a file called so, unpacked where its name ends in .gz. Raises Fault, also for more than `most`."""
    if name.endswith(".gz"):
        raw = _unpack(name, raw, most + 1)
    if len(raw) > most:
        raise Fault(f"{name}: it is larger than {most >> 20} MiB unpacked; give a part of it.")
    return raw


def _unpack(name: str, raw: bytes, most: int) -> bytes:
    try:
        with gzip.GzipFile(fileobj=BytesIO(raw)) as packed:
            return packed.read(most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise Fault(f"{name}: this is no whole gzip file; pack it again, or give it unpacked.") from error


def _rows(name: str, raw: bytes) -> tuple[tuple[str, ...], Iterator[_Row]]:
    """The header, and the rows below it."""
    try:
        lines = raw.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Fault(f"{name}: this is not UTF-8 text at byte {error.start}; save it as CSV in UTF-8.") from error
    reader = csv.reader(lines)
    header = tuple(cell.strip() for cell in next(reader, []))
    if not header:
        raise Fault(f"{name}, line 1: the file is empty; begin it with a line of column names.")

    def below() -> Iterator[_Row]:
        for cells in reader:
            if not cells:
                continue
            if len(cells) != len(header):
                raise Fault(
                    f"{name}, line {reader.line_num}, column {header[min(len(cells), len(header) - 1)]}: "
                    f"the line has {len(cells)} cells and the header {len(header)}; write as many."
                )
            yield _Row(name, reader.line_num, dict(zip(header, cells, strict=True)))

    return header, below()


def _require_columns(name: str, header: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    for column in wanted:
        if column not in header:
            raise Fault(f"{name}, line 1, column {column}: it is missing; the header needs {','.join(wanted)}.")


def nodes(path: Path) -> Snapshot:
    """The nodes of a list, empty, by name: the lowest name wins where nothing else decides."""
    header, rows = _rows(str(path), content(path))
    _require_columns(str(path), header, NODE_COLUMNS)
    found: dict[str, NodeState] = {}
    for row in rows:
        name = row.text("sn")
        if not name or name in found:
            raise row.fault("sn", "names no node, or one that is there already; give each node a name of its own.")
        found[name] = _node(row, name)
    if not any(node.devices for node in found.values()):
        raise Fault(f"{path}, line 1, column gpu: no node has a GPU; list nodes that have.")
    return Snapshot(tuple(found[name] for name in sorted(found)))


def _node(row: _Row, name: str) -> NodeState:
    cpus, memory_mb, model = row.number("cpu_milli", 0), row.number("memory_mib", 0), row.text("model")
    return NodeState(
        id=name,
        name=name,
        cpus=cpus,
        memory_mb=memory_mb,
        free_cpus=cpus,
        free_memory_mb=memory_mb,
        usable=True,
        devices=tuple(
            DeviceState(id=(name, index), node=name, model=model, free=WHOLE, usable=True)
            for index in range(row.number("gpu", 0, 1024))
        ),
    )


def jobs(path: Path) -> list[Job]:
    """The requests of a trace, in the order of the file. Raises Fault."""
    return jobs_in(str(path), content(path))


def jobs_in(name: str, raw: bytes) -> list[Job]:
    """The same, of the content of a file called so."""
    found = _read(name, raw)
    if not any(job.units for job in found):
        raise Fault(f"{name}, line 1, column num_gpu: no request asks for a GPU; there is nothing to place.")
    return found


def timed(name: str, raw: bytes) -> list[Job]:
    """Those of a trace that says when; one that never ran has no times. Raises Fault for a trace that does not."""
    header, _ = _rows(name, raw)
    if not set(MURI_COLUMNS) <= set(header):
        _require_columns(name, header, (*OPENB_COLUMNS, *TIME_COLUMNS))
    return _read(name, raw)


def beginning(name: str, raw: bytes, most: int) -> bytes:
    """The first whole lines of a file called so, unpacked: about `most` bytes of them. Raises Fault."""
    start = _unpack(name, raw, most + 1) if name.endswith(".gz") else raw[: most + 1]
    return start if len(start) <= most else start[: start.rfind(b"\n") + 1] or start


def _read(name: str, raw: bytes) -> list[Job]:
    header, rows = _rows(name, raw)
    if set(MURI_COLUMNS) <= set(header):
        return [_muri(row) for row in rows]
    _require_columns(name, header, OPENB_COLUMNS)
    timed = set(TIME_COLUMNS) <= set(header)
    return [_openb(row, timed) for row in rows]


def _openb(row: _Row, timed: bool) -> Job:
    gpus = row.number("num_gpu", 0, 1024)
    # Requests of no GPU leave the cell empty or write 0; some traces leave it empty for whole ones too.
    share = row.number("gpu_milli", 1, WHOLE) if gpus and row.text("gpu_milli") else WHOLE
    request = Request(
        id=row.text("name"),
        gpus=gpus,
        share=share,
        cpus=row.number("cpu_milli", 0),
        memory_mb=row.number("memory_mib", 0),
        model=row.text("gpu_spec"),
    )
    if not timed or not row.text("scheduled_time"):
        return Job(request)
    submitted, began, ended = (row.number(column, 0) for column in TIME_COLUMNS)
    if ended < began:
        raise row.fault("deletion_time", f"is before scheduled_time {began}; write when it ended, in seconds.")
    return Job(request, submitted, ended - began)


def _muri(row: _Row) -> Job:
    gpus = row.number("num_gpu", 1, 1024)
    members = -(-gpus // MEMBER)
    if gpus % members:
        raise row.fault("num_gpu", f"is no multiple of {MEMBER}; write up to {MEMBER}, or a multiple.")
    each = Request(id=row.text("job_id"), gpus=gpus // members, cpus=0, memory_mb=0)
    return Job(
        Gang(each=each, members=members) if members > 1 else each,
        row.number("submit_time", 0) // 1000,
        row.number("duration", 0) // 1000,
    )
