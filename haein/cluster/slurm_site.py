"""The Slurm of this site, from the settings: the way to it, and what is to be known of it."""

import getpass
import shutil
from functools import cache
from pathlib import Path

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from haein.cluster import accounts
from haein.cluster.backends.slurm.backend import Site, nobodys_account
from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner, Runner, SshRunner
from haein.cluster.backends.slurm.gateway import Gateway
from haein.cluster.backends.slurm.rest import RestGateway
from haein.cluster.backends.slurm.script import Terms
from haein.cluster.backends.slurm.tokens import FileTokens, MintedTokens, Tokens


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
    """What the settings say of it."""
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
