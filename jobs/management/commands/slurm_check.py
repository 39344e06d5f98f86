"""`manage.py slurm_check`: looks at everything that Haein needs of Slurm, tries it, and says what is wrong."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from haein.cluster import slurm_site
from haein.cluster.backends.base import BackendDown
from haein.cluster.backends.slurm import checking
from haein.cluster.backends.slurm.backend import SlurmBackend
from haein.cluster.backends.slurm.checking import Finding, Grade


class Command(BaseCommand):
    help = "Look at what Haein needs of Slurm, run a small job, and say what is wrong and what to do about it."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--every-node", action="store_true", help="run the small job on each node that takes work")

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.HAEIN_BACKEND != "slurm":
            raise CommandError("HAEIN_BACKEND is not slurm.")
        runner, gateway, site = slurm_site.runner(), slurm_site.gateway(), slurm_site.site()
        rest, accounts = bool(settings.HAEIN_SLURM_REST_URL), settings.HAEIN_SLURM_ACCOUNTS
        found = self._told(checking.read(runner, gateway, site, by_rest=rest, by_account=accounts))
        if not found:
            backend = SlurmBackend(gateway, site)
            try:
                nodes = checking.chosen(backend.inventory(), every=options["every_node"])
                found = self._told(checking.tried(backend, site, nodes, site.patience_s))
            except BackendDown as fault:
                raise CommandError(str(fault)) from fault
        if found:
            raise CommandError("1 thing is wrong." if found == 1 else f"{found} things are wrong.")

    def _told(self, findings: Iterable[Finding]) -> int:
        """How many of them are wrong."""
        wrong = 0
        for finding in findings:
            self.stdout.write(f"{finding.grade.value:<6}{finding.sentence}")
            self.stdout.flush()
            wrong += finding.grade is Grade.WRONG
        return wrong
