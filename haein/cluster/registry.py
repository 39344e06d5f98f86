"""The backend that this server drives, made once a process from the settings."""

from functools import cache

from django.conf import settings

from haein.cluster.backends.base import Backend
from haein.cluster.backends.local.backend import LocalBackend
from haein.cluster.backends.simulator.backend import SimulatorBackend


@cache
def backend() -> Backend:
    match settings.HAEIN_BACKEND:
        case "simulator":
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
        case "slurm":
            # Only here: it takes an HTTP client, which others need no memory for, and models, which Celery's own file
            # has not got yet when it imports this one.
            from haein.cluster import slurm_site
            from haein.cluster.backends.slurm.backend import SlurmBackend

            return SlurmBackend(slurm_site.gateway(), slurm_site.site())
    return LocalBackend(
        settings.HAEIN_VAR,
        emulated_devices=settings.HAEIN_EMULATED_DEVICES,
        emulated_model=settings.HAEIN_EMULATED_MODEL,
        emulated_memory_mb=settings.HAEIN_EMULATED_MEMORY_MB,
        service_gid=settings.HAEIN_SERVICE_GID,
        log_cap_mb=settings.HAEIN_LOG_MB,
        locks_off=settings.HAEIN_LOCKS_OFF,
    )
