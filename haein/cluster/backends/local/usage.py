"""What a job's process tree uses, measured so that watching costs next to nothing.

The runner imports this file, so it stays with modules that start fast.
"""

from __future__ import annotations

import resource
import time

from haein.cluster.backends.local.processes import TICKS_PER_SECOND, Process, proportional_memory

MIB = 1024 * 1024
# Reading smaps_rollup takes the kernel about a millisecond per GB; ordinary readings may take a fiftieth of the time.
SHARE_OF_TIME = 50


class Meter:
    """Measures one tree; `memory` in bytes, `cores` in use since the measure before, or the beginning."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.memory = 0
        self.cores = 0.0
        self.processes: list[Process] = []
        self._resident = 0
        self._growth = 0
        self._shared_part = 1.0
        self._next_proportional = 0.0
        self._cpu = (time.monotonic(), 0.0)

    def measure_memory(self, tree: list[Process]) -> None:
        self.processes = [process for process in tree if not process.is_dead]
        resident = sum(process.rss for process in self.processes)
        self._growth = resident - self._resident
        self._resident = resident
        # Shared pages count once in PSS and once per process in RSS, so PSS is never more: RSS is a cheap first look.
        over = bool(self.limit) and resident * self._shared_part > self.limit
        if over or time.monotonic() >= self._next_proportional:
            self._measure_proportional()
        self.memory = int(resident * self._shared_part)

    def measure_cpu(self, now: float, top: Process | None) -> None:
        """`top` is the topmost process of the tree, whether it counts as one of the job's own or not."""
        # A process that ends hands its time to the parent that waits for it, and at last to the runner.
        reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = {process.pid: process.cpu for process in self.processes}
        if top is not None and not top.is_dead:
            cpu[top.pid] = top.cpu
        used = sum(cpu.values()) / TICKS_PER_SECOND + reaped.ru_utime + reaped.ru_stime
        then, used_then = self._cpu
        self.cores = max(0.0, (used - used_then) / max(now - then, 0.01))
        self._cpu = (now, used)

    @property
    def is_over_limit(self) -> bool:
        return bool(self.limit) and self.memory > self.limit

    @property
    def is_near_limit(self) -> bool:
        """Whether the limit could be passed within about a second, judging by the last measure."""
        return bool(self.limit) and max(self.memory * 2, self.memory + 4 * self._growth) > self.limit

    def _measure_proportional(self) -> None:
        began = time.monotonic()
        parts = [proportional_memory(process.pid) for process in self.processes]
        total = sum(process.rss if part is None else part for process, part in zip(self.processes, parts, strict=True))
        self._shared_part = total / self._resident if self._resident else 1.0
        ended = time.monotonic()
        self._next_proportional = ended + SHARE_OF_TIME * (ended - began)
