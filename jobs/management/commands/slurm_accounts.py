"""`manage.py slurm_accounts`: brings Slurm's accounts in step with organizations, teams and quotas; shows how first."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from haein.cluster import accounts as kept
from haein.cluster import slurm_site
from haein.cluster.backends.slurm.accounts import Step, Taken
from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused
from haein.lib.errors import Problem
from jobs import accounts


class Command(BaseCommand):
    help = "Show what would be changed in Slurm's accounts, so that they are as Haein's organizations and teams are."

    def add_arguments(self, parser: ArgumentParser) -> None:
        verbs = parser.add_mutually_exclusive_group()
        verbs.add_argument("--apply", action="store_true", help="change it")
        verbs.add_argument("--undo", action="store_true", help="take back what was last changed")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            if options["undo"]:
                kept.undo(slurm_site.runner(), say=self.stdout.write)
            else:
                self._bring_in_step(change=options["apply"])
        except (Problem, SlurmDown, SlurmRefused, Taken) as fault:
            raise CommandError(str(fault)) from fault

    def _bring_in_step(self, *, change: bool) -> None:
        runner = slurm_site.runner()
        owners = accounts.wanted()
        steps = accounts.plan(kept.look(runner), owners)
        if change:
            kept.apply(runner, steps, owners, say=self.stdout.write)
        elif steps:
            self._show(steps)
        if not steps:
            self.stdout.write("Slurm's accounts are as they should be.")

    def _show(self, steps: list[Step]) -> None:
        for step in steps:
            self.stdout.write(step.sentence)
        self.stdout.write(f"{len(steps)} steps. Nothing was changed: --apply does it, and --undo takes it back.")
