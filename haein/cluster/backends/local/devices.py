"""The GPUs of this machine: NVIDIA's through NVML or, where there is none, emulated ones that say so."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import pynvml

from haein.cluster.backends.base import DeviceFact, NodeFact

MIB = 1024 * 1024
MACHINE_ID = "machine-id"
EMULATED = "EMU-"  # how the uuid of an emulated device begins

Row = tuple[str, float | None, float | None]


def nvidia_devices() -> tuple[DeviceFact, ...]:
    """The machine's NVIDIA GPUs, none where there is no driver."""
    try:
        pynvml.nvmlInit()
        return tuple(_nvidia_device(index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()


def _nvidia_device(index: int) -> DeviceFact:
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        return DeviceFact(
            index=index,
            uuid=pynvml.nvmlDeviceGetUUID(handle),
            model=pynvml.nvmlDeviceGetName(handle),
            memory_mb=pynvml.nvmlDeviceGetMemoryInfo(handle).total // MIB,
            emulated=False,
        )
    except pynvml.NVMLError as error:
        # A GPU that fell off the bus still has an index; it must be seen, and not be used.
        problem = f"NVML can't read device {index}: {error}."
        return DeviceFact(index, f"NVIDIA-{index}", "unknown", 0, emulated=False, problem=problem)


def nvidia_row(device: str, pids: Collection[int]) -> Row:
    """Utilization of the whole device, and the memory that these processes hold on it."""
    try:
        handle = pynvml.nvmlDeviceGetHandleByUUID(device)
        busy = float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        running = pynvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except pynvml.NVMLError:
        return device, None, None
    held = [process.usedGpuMemory for process in running if process.pid in pids]
    if None in held:
        return device, busy, None
    return device, busy, sum(held) / MIB


def emulated_devices(var: Path, count: int, model: str, memory_mb: int) -> tuple[DeviceFact, ...]:
    machine = machine_id(var)
    return tuple(
        DeviceFact(index, f"{EMULATED}{uuid.uuid5(machine, str(index))}", model, memory_mb, emulated=True)
        for index in range(count)
    )


def emulated_rows(devices: Collection[str], cores_used: float, cores_granted: float, memory_mb: float) -> list[Row]:
    """An emulated device is as busy as the job's share of the CPUs, and holds the job's host memory."""
    busy = min(100.0, 100.0 * cores_used / cores_granted) if cores_granted else 0.0
    return [(device, round(busy / len(devices), 1), round(memory_mb / len(devices), 1)) for device in devices]


def machine_id(var: Path) -> uuid.UUID:
    """The same for as long as the data folder lives, so that emulated devices keep their names over restarts."""
    path = var / MACHINE_ID
    if not path.exists():
        aside = var / f".{MACHINE_ID}.{os.getpid()}"
        aside.write_text(f"{uuid.uuid4()}\n")
        aside.chmod(0o644)
        with suppress(FileExistsError):
            os.link(aside, path)
        aside.unlink()
    return uuid.UUID(path.read_text().strip())


def this_node(devices: tuple[DeviceFact, ...]) -> NodeFact:
    return NodeFact(
        name=socket.gethostname(),
        cpus=1000 * len(os.sched_getaffinity(0)),
        memory_mb=_memory_for_jobs_mb(),
        emulated=any(device.emulated for device in devices),
        devices=devices,
    )


def _memory_for_jobs_mb() -> int:
    """The machine's memory (or what its control group leaves us), less a tenth, at most 4 GiB, for everything else."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MIB
    with suppress(OSError, ValueError):  # no control group, or "max"
        total = min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()) // MIB)
    return total - min(total // 10, 4096)
