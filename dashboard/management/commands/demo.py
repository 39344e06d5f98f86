"""A Haein with people in it: on a simulated cluster with a month of history and kept alive, on a real one just come."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.urls import reverse

from dashboard.demo import founding, life, newcomers, people, work
from dashboard.demo.work import Wish
from haein.cluster.models import Device
from haein.cluster.registry import backend
from haein.lib import clock
from haein.lib.errors import Problem

LOOK_S = 0.1


class Command(BaseCommand):
    help = (
        "Settle made-up people: with a month of work behind them on a simulated cluster, where they go on for ever,"
        " or with a few first jobs on a Slurm of emulated devices."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--base-url", default=settings.HAEIN_URL, help="the address before the sign-in page")
        parser.add_argument("--password-file", type=Path, required=True, help="holds the password of all its people")

    def handle(self, *args: Any, **options: Any) -> None:
        password = options["password_file"].read_text().strip()
        match settings.HAEIN_BACKEND:
            case "simulator":
                going_on = [] if founding.begun() else self._begin(password)
                self._tell(options["base_url"], password)
                life.go_on(_from_now_on(), going_on, speed=settings.HAEIN_SIM_SPEED)
            case "slurm" if settings.HAEIN_SLURM_EMULATED:
                if not newcomers.begun():
                    self._come_in(password)
                self._tell(options["base_url"], password)
            case _:
                raise CommandError(
                    "The demonstration runs on the simulator or on a Slurm of emulated devices:"
                    " HAEIN_BACKEND=simulator, or slurm with HAEIN_SLURM_EMULATED=1."
                )

    def _tell(self, base_url: str, password: str) -> None:
        address = f"{base_url.rstrip('/')}{reverse('account_login')}"
        self.stdout.write(f"Sign in at {address} with the password {password}")
        self.stdout.write(f"  as {people.OPERATOR.email}, the operator,")
        self.stdout.write(f"  or as {people.DEVELOPER.email}, a developer.")

    def _come_in(self, password: str) -> None:
        _wait_for_devices()
        try:
            submitted = newcomers.begin(password=password)
        except Problem as problem:
            raise CommandError(problem.message) from None
        self.stdout.write(f"{newcomers.ORGANIZATION.name} has come in, and has submitted {submitted} jobs.")

    def _begin(self, password: str) -> list[Wish]:
        _wait_for_devices()
        begun = time.monotonic()
        gc.disable()  # half a million objects that all stay: looking through them again and again takes a fifth of it
        try:
            written, going_on = founding.begin(
                backend().inventory(), password=password, seed=settings.HAEIN_SIM_SEED, now=clock.now()
            )
        except Problem as problem:
            raise CommandError(problem.message) from None
        finally:
            gc.enable()
        founding.tidy()
        rows = ", ".join(f"{count:,} {name}" for name, count in written.items())
        self.stdout.write(f"A month of history is written ({time.monotonic() - begun:.1f} s): {rows}.")
        return going_on


def _wait_for_devices() -> None:
    while not Device.objects.exists():  # the worker has not asked the cluster yet
        time.sleep(LOOK_S)


def _from_now_on() -> Iterator[Wish]:
    """Other wishes after each start: nobody submits yesterday's work again."""
    now = clock.now()
    nodes = len(backend().inventory())
    return work.wishes(clock.whole_seconds(now), now, nodes=nodes, jobs_a_day=founding.JOBS_A_DAY_A_NODE * nodes)
