"""Readings come from the process tree; emulated devices say that they are emulated."""

from __future__ import annotations

import time

import pytest

from haein.cluster.backends.base import SliceGrant
from haein.cluster.backends.local.backend import LocalBackend

from .stage import LocalStage, until

BUSY = "import time; held = b'x' * 2**20 * 50\nwhile True: pass"


@pytest.fixture(autouse=True)
def without_a_gpu(local: LocalStage) -> None:
    if not local.backend.inventory()[0].emulated:
        pytest.skip("this machine has real GPUs")


def test_emulated_devices_say_so_and_keep_their_names(local: LocalStage) -> None:
    devices = (
        LocalBackend(local.var, emulated_devices=3, emulated_model="Test", emulated_memory_mb=7).inventory()[0].devices
    )
    assert [(device.index, device.model, device.memory_mb, device.emulated) for device in devices] == [
        (index, "Test", 7, True) for index in range(3)
    ]
    assert {device.uuid for device in devices} < {device.uuid for device in local.backend.inventory()[0].devices}


def test_a_busy_job_is_seen_busy_on_each_of_its_devices(local: LocalStage) -> None:
    held = local.backend.inventory()[0].devices[:2]
    slices = tuple(SliceGrant(device.uuid, device.index, 1000) for device in held)
    launch = local.begin(f'python -c "{BUSY}" & python -c "{BUSY}" & wait', places=(local.place(*slices),), cpus=1000)

    def busy_reading():  # type: ignore[no-untyped-def]
        found = local.backend.readings([launch.attempt_id])
        return found[0] if found and (found[0].cpu or 0) > 0.3 else None

    reading = until(busy_reading)
    assert reading.cpu <= 1.2, "it was granted one core"
    assert reading.processes == 3
    assert 100 < reading.memory_mb < 200
    assert time.time() - reading.at < 3
    (first, busy, memory), (second, *_) = reading.devices
    assert (first, second) == (held[0].uuid, held[1].uuid)
    assert 10 < busy <= 50
    assert memory == pytest.approx(reading.memory_mb / 2, abs=0.1)
    assert local.said(launch) == []


def test_observing_twenty_attempts_is_cheap(local: LocalStage) -> None:
    launches = [local.begin("sleep 600") for _ in range(20)]
    ids = [launch.attempt_id for launch in launches]
    times = []
    for _ in range(10):
        began = time.perf_counter()
        local.backend.observe(ids)
        times.append(time.perf_counter() - began)
    assert min(times) < 0.003
