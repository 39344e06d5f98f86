"""What makes no sense is refused when it is made, by a sentence that names the field."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from haein.placement.model import DeviceState, NodeState, Request, Snapshot

from .worlds import ask, node

DEVICE = DeviceState(id="gpu", node="a", model="B200", free=1000, usable=True)
NODE = node("a", 1000)


@pytest.mark.parametrize(
    ("thing", "field", "value", "limits"),
    [
        (ask(1), "gpus", -1, "of 0 or more"),
        (ask(1), "gpus", True, "of 0 or more"),
        (ask(1), "share", 0, "from 1 to 1000"),
        (ask(1), "share", 1001, "from 1 to 1000"),
        (ask(1), "share", 0.5, "from 1 to 1000"),
        (ask(1), "cpus", -1, "of 0 or more"),
        (ask(1), "memory_mb", Decimal(5), "of 0 or more"),
        (DEVICE, "free", -1, "from 0 to 1000"),
        (DEVICE, "free", 1001, "from 0 to 1000"),
        (NODE, "cpus", -1, "of 0 or more"),
        (NODE, "memory_mb", None, "of 0 or more"),
        (NODE, "free_cpus", 64_001, "from 0 to 64000"),
        (NODE, "free_memory_mb", 65_537, "from 0 to 65536"),
    ],
)
def test_it_refuses_a_number_out_of_range(
    thing: Request | DeviceState | NodeState, field: str, value: Any, limits: str
) -> None:
    message = f"{field}: a whole number {limits} is needed, not {value!r}."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        replace(thing, **{field: value})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(NODE, devices=(replace(DEVICE, node="b"),)), "devices: 'gpu' says it is in node b, not in a."),
        (
            lambda: replace(DEVICE, capacity=7),
            "capacity: a device has 1000 units, or 56 in MIG mode, not 7.",
        ),
        (lambda: Snapshot((NODE, NODE)), "nodes: 'a' is there twice; each must be there once."),
        (
            lambda: Snapshot((NODE, replace(NODE, id="other"))),
            "devices: 'a/0' is there twice; each must be there once.",
        ),
    ],
)
def test_it_refuses_a_cluster_that_contradicts_itself(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


def test_a_job_without_gpus_is_legal() -> None:
    assert ask(0).gpus == 0


def test_several_fractions_are_legal() -> None:
    assert (ask(2, 500).gpus, ask(2, 500).share) == (2, 500)
