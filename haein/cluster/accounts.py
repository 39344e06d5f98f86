"""Which account of the engine below a launch is charged to, and the verbs that bring those accounts in step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from uuid import UUID

from django.db import connection, transaction

from haein.cluster.backends.slurm import accounts, tools
from haein.cluster.backends.slurm.accounts import Account, Step, There
from haein.cluster.backends.slurm.commands import Runner
from haein.cluster.backends.slurm.gateway import SlurmDown, SlurmRefused
from haein.cluster.models import AccountChange, EngineAccount
from haein.lib import clock
from haein.lib.errors import Problem
from haein.tenants import audit

Say = Callable[[str], object]
KNOWN_S = 5.0


class Known:
    """The accounts that launches name, read anew every few seconds."""

    def __init__(self) -> None:
        self._names: Mapping[UUID, str] = {}
        self._read_at = float("-inf")
        self._reading = threading.Lock()

    def account_of(self, organization_id: UUID | None, team_id: UUID) -> str:
        """The team's account, else its organization's; "" for one that the sync has not met yet."""
        with self._reading:
            if time.monotonic() - self._read_at > KNOWN_S:
                self._names = dict(EngineAccount.objects.filter(ready=True).values_list("owner", "name"))
                self._read_at = time.monotonic()
                if not connection.in_atomic_block:
                    connection.close()  # launches come in threads of their own, which end
        return self._names.get(team_id) or (self._names.get(organization_id, "") if organization_id else "")


def names(owners: Mapping[UUID, str]) -> Mapping[UUID, str]:
    """The account's name of each owner: the one it has, else one made of the word that is given for it."""
    had = EngineAccount.objects.filter(owner__in=owners).values_list("owner", "name")
    return {owner: accounts.name_of(word, owner) for owner, word in owners.items()} | dict(had)


def gone(owners: Collection[UUID]) -> list[str]:
    """The accounts whose owners are none of these."""
    return list(EngineAccount.objects.exclude(owner__in=owners).values_list("name", flat=True))


def look(runner: Runner) -> There:
    """What is there now. Raises SlurmDown, SlurmRefused."""
    cluster = tools.config(runner).get("ClusterName", "")
    found, associated, qos = (
        tools.ask(runner, "sacctmgr", *question)
        for question in (accounts.ACCOUNTS, accounts.associations(cluster), accounts.QOS)
    )
    return accounts.there(cluster, found, associated, qos)


def apply(runner: Runner, steps: Sequence[Step], owners: Mapping[UUID, Account], *, say: Say) -> None:
    """Take the steps, one after the other; what was done is written down with what takes it back.

    `owners` says whose each wanted account is. Raises Problem with Slurm's own words where a step fails; those before
    it stay done, and the next time goes on from there.
    """
    change = _begin(steps, owners)
    for number, step in enumerate(steps, 1):
        say(step.sentence)
        try:
            tools.ask(runner, "sacctmgr", "-i", *step.command)
        except (SlurmDown, SlurmRefused) as error:
            AccountChange.objects.filter(pk=change.pk).update(problem=str(error))
            raise Problem(f"{step.sentence}: {error}. {number - 1} of {len(steps)} steps were done.") from error
        AccountChange.objects.filter(pk=change.pk).update(done=number)
    EngineAccount.objects.filter(owner__in=owners).update(ready=True)


@transaction.atomic
def _begin(steps: Sequence[Step], owners: Mapping[UUID, Account]) -> AccountChange:
    rows = [EngineAccount(owner=owner, name=account.name) for owner, account in owners.items()]
    EngineAccount.objects.bulk_create(rows, ignore_conflicts=True)
    change = AccountChange.objects.create(begun_at=clock.now(), steps=[asdict(step) for step in steps])
    sentences = [step.sentence for step in steps]
    audit.record("accounts.apply", f"change {change.pk}", by=None, steps=sentences)
    return change


def undo(runner: Runner, *, say: Say) -> None:
    """Take the last change back that is not taken back yet, its last step first. May be called again where it failed.

    Raises Problem where there is none, and where Slurm refuses: it says why, an account with running jobs for one.
    """
    change = AccountChange.objects.filter(undone_at=None).order_by("-pk").first()
    if change is None:
        raise Problem("There is no change to take back.")
    # The step after those that were done may have been: a process that died between the two did not say so.
    taken = change.steps[: change.done + 1]
    # From here on no launch names an account that goes.
    EngineAccount.objects.filter(name__in=[step["made"] for step in taken]).delete()
    for step in reversed(taken):
        say("take back: " + step["sentence"])
        try:
            tools.ask(runner, "sacctmgr", "-i", *step["inverse"])
        except (SlurmDown, SlurmRefused) as error:
            raise Problem(f"{step['sentence']}: it can't be taken back now. {error}") from error
    with transaction.atomic():
        AccountChange.objects.filter(pk=change.pk).update(undone_at=clock.now())
        audit.record("accounts.undo", f"change {change.pk}", by=None)
