"""The backend that this server drives, made once a process from the settings."""

import getpass
import shutil
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from haein.cluster.backends.base import Backend
from haein.cluster.backends.local.backend import LocalBackend
from haein.cluster.backends.simulator.backend import SimulatorBackend
from haein.cluster.backends.slurm.backend import Site, SlurmBackend, nobodys_account
from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner, Runner, SshRunner
from haein.cluster.backends.slurm.gateway import Gateway
from haein.cluster.backends.slurm.rest import RestGateway
from haein.cluster.backends.slurm.script import Terms
from haein.cluster.backends.slurm.tokens import FileTokens, MintedTokens, Tokens


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
            return SlurmBackend(gateway(), site())
    return LocalBackend(
        settings.HAEIN_VAR,
        emulated_devices=settings.HAEIN_EMULATED_DEVICES,
        emulated_model=settings.HAEIN_EMULATED_MODEL,
        emulated_memory_mb=settings.HAEIN_EMULATED_MEMORY_MB,
        service_gid=settings.HAEIN_SERVICE_GID,
        log_cap_mb=settings.HAEIN_LOG_MB,
        locks_off=settings.HAEIN_LOCKS_OFF,
    )


@cache
def runner() -> Runner:
    """Where Slurm's commands are run."""
    conf = Path(settings.HAEIN_SLURM_CONF) if settings.HAEIN_SLURM_CONF else None
    if settings.HAEIN_SLURM_SSH:
        return SshRunner(settings.HAEIN_SLURM_SSH, settings.HAEIN_VAR / "run", conf)
    return LocalRunner(conf)


@cache
def gateway() -> Gateway:
    """The way to Slurm: slurmrestd where the site has it, beside Slurm's commands where they are there too."""
    commands = CommandGateway(runner())
    if not settings.HAEIN_SLURM_REST_URL:
        return commands
    has_commands = settings.HAEIN_SLURM_CONF or settings.HAEIN_SLURM_SSH or shutil.which("squeue")
    return RestGateway(settings.HAEIN_SLURM_REST_URL, _tokens(), commands if has_commands else None)


def _tokens() -> Tokens:
    who = settings.HAEIN_SLURM_SELF or getpass.getuser()
    if settings.HAEIN_SLURM_JWT_KEY:
        return MintedTokens(Path(settings.HAEIN_SLURM_JWT_KEY), who)
    if settings.HAEIN_SLURM_TOKEN_FILE:
        return FileTokens(Path(settings.HAEIN_SLURM_TOKEN_FILE), who)
    raise ImproperlyConfigured(
        "HAEIN_SLURM_REST_URL is set, and no token for it: set HAEIN_SLURM_JWT_KEY or HAEIN_SLURM_TOKEN_FILE"
    )


def site() -> Site:
    # Celery's own file imports this one before there are models.
    from haein.cluster import accounts

    return Site(
        folder=settings.HAEIN_SLURM_FOLDER,
        user=settings.HAEIN_SLURM_USER,
        users=settings.HAEIN_SLURM_USERS,
        terms=Terms(
            partitions=settings.HAEIN_SLURM_PARTITIONS,
            account=settings.HAEIN_SLURM_ACCOUNT,
            qos=settings.HAEIN_SLURM_QOS,
            reservation=settings.HAEIN_SLURM_RESERVATION,
        ),
        account_of=accounts.Known().account_of if settings.HAEIN_SLURM_ACCOUNTS else nobodys_account,
        patience_s=settings.HAEIN_SLURM_PATIENCE_SECONDS,
        emulated=settings.HAEIN_SLURM_EMULATED,
        log_cap_mb=settings.HAEIN_LOG_MB,
        service_gid=settings.HAEIN_SERVICE_GID,
    )
