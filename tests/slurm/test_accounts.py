"""Slurm's accounts follow organizations, teams and quotas: shown first, taken step by step, taken back at once."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command
from django.db.models import F

from haein.cluster import accounts as kept
from haein.cluster import slurm_site
from haein.cluster.backends.slurm import accounts
from haein.cluster.backends.slurm.accounts import Account, Present, Taken, There
from haein.cluster.models import AccountChange, Device, EngineAccount
from haein.slurmlab.lab import Lab
from haein.tenants.models import AuditEntry, Team
from jobs.models import Quota
from tests.cast import Person, until
from tests.contract.slurm_stage import JOBS_USER, SlurmStage
from tests.slurm.test_work import AS_JOBS_USER

OWNER = UUID("01990000-0000-7000-8000-0000deadbeef")


@pytest.fixture
def site(slurm: Lab, settings: Any, db: None) -> Iterator[Lab]:
    """The shared Slurm as the settings name it, with its accounts as they were when the story is over."""
    settings.HAEIN_SLURM_CONF, settings.HAEIN_SLURM_USER = str(slurm.conf), JOBS_USER
    slurm_site.runner.cache_clear()
    yield slurm
    for name in EngineAccount.objects.order_by("-pk").values_list("name", flat=True):
        slurm.run("sacctmgr", "-i", "-Q", "delete", "account", name)
    slurm_site.runner.cache_clear()


def sync(*options: str) -> str:
    said = StringIO()
    call_command("slurm_accounts", *options, stdout=said)
    return said.getvalue()


def associations(lab: Lab) -> set[str]:
    """account|parent|user|limit of each that is Haein's."""
    listed = lab.run("sacctmgr", "-nP", "show", "assoc", "format=account,parentname,user,grptres").splitlines()
    return {line for line in listed if line.startswith(accounts.PREFIX)}


def limited(alice: Person, *, guaranteed: int, borrow: int | None) -> None:
    Quota.objects.update_or_create(
        organization=alice.team.organization,
        team=alice.team,
        defaults={"guaranteed": guaranteed, "borrow": borrow},
    )


def test_a_dry_run_says_what_apply_does_and_after_it_there_is_nothing_to_do(site: Lab, alice: Person) -> None:
    limited(alice, guaranteed=2000, borrow=1500)
    said = sync()
    assert "Nothing was changed" in said
    assert associations(site) == set()
    assert EngineAccount.objects.count() == 0
    applied = sync("--apply")
    assert said.splitlines()[:-1] == applied.splitlines()
    acme, vision = (accounts.name_of(name, pk) for name, pk in _owners(alice))
    assert associations(site) == {
        f"{acme}|root||",
        f"{acme}||{JOBS_USER}|",
        f"{vision}|{acme}||gres/gpu=4",
        f"{vision}||{JOBS_USER}|",
    }
    assert sync() == "Slurm's accounts are as they should be.\n"
    assert AuditEntry.objects.filter(action="accounts.apply").count() == 1


def _owners(alice: Person) -> list[tuple[str, UUID]]:
    return [("Acme", alice.team.organization.pk), ("Vision", alice.team.pk)]


@pytest.mark.long
def test_undo_takes_the_last_change_back_and_then_the_one_before(site: Lab, alice: Person) -> None:
    limited(alice, guaranteed=2000, borrow=0)
    sync("--apply")
    limited(alice, guaranteed=5000, borrow=0)
    sync("--apply")
    vision = accounts.name_of("Vision", alice.team.pk)
    assert any(line.startswith(vision) and line.endswith("gres/gpu=5") for line in associations(site))
    sync("--undo")
    assert any(line.startswith(vision) and line.endswith("gres/gpu=2") for line in associations(site))
    sync("--undo")
    assert associations(site) == set()
    assert EngineAccount.objects.count() == 0
    with pytest.raises(CommandError, match="no change to take back"):
        sync("--undo")


@pytest.mark.long
def test_a_rename_keeps_the_account_and_a_limit_that_is_gone_is_no_limit(site: Lab, alice: Person) -> None:
    limited(alice, guaranteed=2000, borrow=0)
    sync("--apply")
    Team.objects.filter(pk=alice.team.pk).update(name="Sight & Sound")
    limited(alice, guaranteed=2000, borrow=None)
    said = sync("--apply")
    vision = accounts.name_of("Vision", alice.team.pk)
    assert f'{vision}: described as "sight sound" instead of "vision"' in said
    assert f"{vision}: no limit instead of at most 2 GPUs" in said
    assert sync() == "Slurm's accounts are as they should be.\n"


@pytest.mark.long
def test_the_account_of_a_team_that_is_gone_stays_with_a_limit_of_none_at_all(site: Lab, alice: Person) -> None:
    other = Team.objects.create(organization=alice.team.organization, name="Speech")
    sync("--apply")
    name = accounts.name_of("Speech", other.pk)
    other.delete()
    assert "its owner is gone" in sync("--apply")
    assert any(line.startswith(f"{name}|") and line.endswith("gres/gpu=0") for line in associations(site))
    assert sync() == "Slurm's accounts are as they should be.\n"


@pytest.mark.long
def test_a_step_that_fails_says_so_and_the_next_time_goes_on_from_there(
    site: Lab, alice: Person, settings: Any
) -> None:
    settings.HAEIN_SLURM_ACCOUNT = "nowhere"
    with pytest.raises(CommandError, match=r"nowhere.* 0 of \d steps were done"):
        sync("--apply")
    change = AccountChange.objects.get()
    assert (change.done, "nowhere" in change.problem) == (0, True)
    assert kept.Known().account_of(alice.team.organization.pk, alice.team.pk) == ""
    settings.HAEIN_SLURM_ACCOUNT = ""
    sync("--apply")
    assert sync() == "Slurm's accounts are as they should be.\n"


@pytest.mark.long
def test_an_account_with_running_jobs_is_not_removed_before_they_have_ended(site: Lab, alice: Person) -> None:
    sync("--apply")
    vision = accounts.name_of("Vision", alice.team.pk)
    asked = (f"--account={vision}", "--mem=100", "--output=/dev/null", "--chdir=/", *AS_JOBS_USER)
    number = site.run("sbatch", "--parsable", *asked, "--wrap", "sleep 60").strip()
    until(lambda: "RUNNING" in site.run("sacct", "-X", "-n", "-j", number, "--format=State"))
    with pytest.raises(CommandError, match="can't be taken back now"):
        sync("--undo")
    assert kept.Known().account_of(None, alice.team.pk) == ""
    site.run("scancel", number)
    until(lambda: "CANCELLED" in site.run("sacct", "-X", "-n", "-j", number, "--format=State"))
    sync("--undo")
    assert associations(site) == set()


@pytest.mark.long
def test_a_step_that_was_taken_and_not_counted_is_taken_back_too(site: Lab, alice: Person) -> None:
    sync("--apply")
    AccountChange.objects.update(done=F("done") - 1)
    sync("--undo")
    assert associations(site) == set()


@pytest.mark.long
def test_a_qos_that_jobs_name_is_made_and_allowed(site: Lab, alice: Person, settings: Any) -> None:
    settings.HAEIN_SLURM_QOS = "haein-jobs"
    assert "add the QOS haein-jobs" in sync("--apply")
    listed = site.run("sacctmgr", "-nP", "show", "assoc", "format=account,qos").splitlines()
    vision = accounts.name_of("Vision", alice.team.pk)
    assert [line for line in listed if line.startswith(f"{vision}|haein-jobs")]
    assert sync() == "Slurm's accounts are as they should be.\n"
    sync("--undo")
    assert "haein-jobs" not in site.run("sacctmgr", "-nP", "show", "qos", "format=name").split()


def test_where_slurm_counts_instances_as_gpus_the_limit_is_as_many_times_wider(
    site: Lab, alice: Person, cluster: None
) -> None:
    limited(alice, guaranteed=1500, borrow=0)
    device = Device.objects.filter(present=True).first()
    assert device
    device.layout = [["1g.23gb", start] for start in range(7)]
    device.save()
    assert "at most 11 GPUs instead of no limit" in sync()


def test_each_organization_s_own_user_may_submit_under_its_accounts_alone(
    site: Lab, alice: Person, charlie: Person, settings: Any
) -> None:
    settings.HAEIN_SLURM_USERS = {alice.team.organization.pk: "root"}
    steps = sync().splitlines()
    may = [step for step in steps if "may submit" in step]
    assert may == [f"{accounts.name_of(word, pk)}: root may submit under it" for word, pk in _owners(alice)]


def test_a_launch_is_charged_to_its_team_s_account(site: Lab, alice: Person) -> None:
    sync("--apply")
    stage = SlurmStage(site, account_of=kept.Known().account_of)
    try:
        organization, team = alice.team.organization.pk, alice.team.pk
        launch = stage.begin("true", organization_id=organization, team_id=team)
        stage.end_of(launch)
        record = next(each for each in stage.gateway.jobs() if each.id == stage.number(launch))
        assert record.account == accounts.name_of("Vision", team)
    finally:
        stage.close()


def test_one_that_the_sync_has_not_met_is_charged_to_its_organization(site: Lab, alice: Person) -> None:
    sync("--apply")
    later = Team.objects.create(organization=alice.team.organization, name="Later")
    organization = alice.team.organization.pk
    assert kept.Known().account_of(organization, later.pk) == accounts.name_of("Acme", organization)
    assert kept.Known().account_of(None, later.pk) == ""


def test_what_is_not_haein_s_is_left_alone() -> None:
    name = accounts.name_of("Vision", OWNER)
    wanted = [Account(name, "root", "vision")]
    with pytest.raises(Taken, match="not Haein's"):
        accounts.steps(wanted, There("c", {name: Present("physics", "x", here=True)}))
    others = There(
        "c", {"physics": Present("physics", "x", here=True), "haein_old": Present("physics", "x", here=True)}
    )
    assert [step.made for step in accounts.steps(wanted, others, gone=["haein_old"])] == [name]


def test_names_are_plain_and_each_owner_s_own() -> None:
    assert accounts.name_of("Vision & Sound, Inc.", OWNER) == "haein_vision-sound-inc_deadbeef"
    assert accounts.name_of("비전", OWNER) == "haein_deadbeef"
    assert accounts.described("비전") == "unnamed"


def test_people_s_words_may_hold_the_sign_between_columns() -> None:
    said = accounts.there(
        "c", "haein_a|haein|one | two\n", "haein_a|||root|cpu=8,gres/gpu=3|normal,urgent\n", "normal\n"
    )
    found = said.accounts["haein_a"]
    assert (found.description, found.gpus, set(found.qos)) == ("one | two", 3, {"normal", "urgent"})
