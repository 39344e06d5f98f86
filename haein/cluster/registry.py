"""The backend that this server drives, made once a process from the settings."""

from functools import cache

from django.conf import settings

from haein.cluster.backends.base import Backend
from haein.cluster.backends.local.backend import LocalBackend
from haein.cluster.backends.simulator.backend import SimulatorBackend


@cache
def backend() -> Backend:
    if settings.HAEIN_BACKEND == "simulator":
        return SimulatorBackend(
            settings.HAEIN_VAR,
            nodes=settings.HAEIN_SIM_NODES,
            devices=settings.HAEIN_SIM_DEVICES,
            model=settings.HAEIN_SIM_MODEL,
            device_memory_mb=settings.HAEIN_EMULATED_MEMORY_MB,
            speed=settings.HAEIN_SIM_SPEED,
            seed=settings.HAEIN_SIM_SEED,
            service_gid=settings.HAEIN_SERVICE_GID,
        )
    return LocalBackend(
        settings.HAEIN_VAR,
        emulated_devices=settings.HAEIN_EMULATED_DEVICES,
        emulated_model=settings.HAEIN_EMULATED_MODEL,
        emulated_memory_mb=settings.HAEIN_EMULATED_MEMORY_MB,
        service_gid=settings.HAEIN_SERVICE_GID,
        log_cap_mb=settings.HAEIN_LOG_MB,
        locks_off=settings.HAEIN_LOCKS_OFF,
    )
