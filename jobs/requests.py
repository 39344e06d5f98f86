"""What placement is asked for a job's sake, made from the columns that a job's row and its spec share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from haein.placement.model import Gang, Near, Request
from jobs import spec

# What is asked for each worker, and how many of them there are and where: all that placement looks at.
WORKER = ("gpus", "share", "gpu_memory_mb", "profile", "gpu_model", "cpus", "memory_mb", "pool", "labels")
COLUMNS = (*WORKER, "workers", "near", "near_required")

_NEAR = {
    spec.Near.NODE: Near.NODE,
    spec.Near.RACK: Near.RACK,
    spec.Near.POD: Near.POD,
    spec.Near.ANY: Near.ANYWHERE,
}


def columns(asked: Any) -> dict[str, Any]:
    """Those of a job, or of a spec."""
    return {name: getattr(asked, name) for name in COLUMNS}


def of(columns: Mapping[str, Any], id: Hashable = None) -> Request | Gang:
    """From all of COLUMNS; what else is among them does not matter."""
    each = worker(columns, id)
    if columns["workers"] == 1:
        return each
    near = _NEAR[spec.Near(columns["near"])]
    return Gang(each=each, members=columns["workers"], near=near, required=columns["near_required"])


def worker(columns: Mapping[str, Any], id: Hashable = None) -> Request:
    """For one worker alone: WORKER is enough."""
    return Request(
        id=id,
        gpus=columns["gpus"],
        share=columns["share"],
        cpus=columns["cpus"],
        memory_mb=columns["memory_mb"],
        model=columns["gpu_model"],
        gpu_memory_mb=columns["gpu_memory_mb"],
        profile=columns["profile"],
        pool=columns["pool"],
        labels=frozenset(columns["labels"]),
    )
