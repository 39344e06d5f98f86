"""The check of an operator's Slurm: all is well on a good one, and what is wrong is said with what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.core.management import CommandError, call_command

from haein.cluster import slurm_site
from haein.cluster.backends.slurm import checking, tools
from haein.cluster.backends.slurm.backend import Site
from haein.cluster.backends.slurm.checking import Finding, Grade
from haein.cluster.backends.slurm.commands import CommandGateway, LocalRunner
from haein.cluster.backends.slurm.rest import RestGateway
from haein.cluster.backends.slurm.script import Terms
from haein.slurmlab.lab import Lab
from tests.contract.slurm_stage import JOBS_USER, SlurmStage

OWNER = UUID("01990000-0000-7000-8000-0000deadbeef")


@pytest.fixture
def stage(slurm: Lab) -> Iterator[SlurmStage]:
    stage = SlurmStage(slurm)
    yield stage
    stage.close()


def found(stage: SlurmStage, *, by_rest: bool = False, by_account: bool = False, **site: Any) -> list[Finding]:
    runner = LocalRunner(stage.lab.conf)
    asked = replace(stage.site, **site)
    return list(checking.read(runner, CommandGateway(runner), asked, by_rest=by_rest, by_account=by_account))


def said(findings: list[Finding], grade: Grade) -> str:
    return "\n".join(each.sentence for each in findings if each.grade is grade)


def test_a_good_site_has_nothing_wrong_and_is_told_what_its_jobs_can_reach(stage: SlurmStage) -> None:
    findings = found(stage, by_rest=True, by_account=True)
    assert said(findings, Grade.WRONG) == ""
    assert "8 nodes with 112 GPUs" in said(findings, Grade.GOOD)
    assert "slurmdbd answers" in said(findings, Grade.GOOD)
    assert "ConstrainDevices" in said(findings, Grade.DOUBTFUL)


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        (
            {"terms": Terms(partitions=("nowhere",))},
            "There is no partition nowhere: HAEIN_SLURM_PARTITIONS may name main",
        ),
        ({"folder": Path("/nowhere/at/all")}, "/nowhere/at/all (HAEIN_SLURM_FOLDER) is not there"),
        ({"user": "nobody-knows"}, "There is no user nobody-knows"),
        ({"users": {OWNER: "nobody-knows"}}, "There is no user nobody-knows"),
    ],
)
def test_what_is_wrong_is_said(stage: SlurmStage, site: dict[str, Any], sentence: str) -> None:
    assert sentence in said(found(stage, **site), Grade.WRONG)


def test_a_folder_that_jobs_can_t_reach_is_found(stage: SlurmStage, tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    tmp_path.chmod(0o700)
    findings = said(found(stage, folder=inner), Grade.WRONG)
    assert f"Others can't pass through {tmp_path}" in findings
    assert "no Python environment ready" in findings


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"SelectType": "select/linear"}, "SelectType is not select/cons_tres"),
        ({"SelectTypeParameters": "CR_CORE"}, "counts no memory"),
        ({"GresTypes": "(null)"}, "GresTypes has no gpu"),
        ({"MinJobAge": "5 sec"}, "MinJobAge is 5 s"),
        ({"AuthAltTypes": "(null)"}, "slurmrestd takes no tokens"),
        ({"AccountingStorageType": "accounting_storage/none"}, "Slurm keeps no accounting"),
        ({"AccountingStorageTRES": "cpu,mem"}, "has no gres/gpu"),
        ({"AccountingStorageEnforce": "associations"}, "has no limits"),
    ],
)
def test_what_slurm_is_set_to_is_judged(stage: SlurmStage, config: dict[str, str], sentence: str) -> None:
    runner = LocalRunner(stage.lab.conf)
    real = dict(tools.config(runner))
    findings = list(checking.of_config({**real, **config}, by_rest=True, by_account=True))
    assert sentence in "\n".join(each.sentence for each in findings)


def test_a_slurm_that_is_away_is_one_finding_and_the_rest_is_looked_at(tmp_path: Path) -> None:
    conf = tmp_path / "slurm.conf"
    conf.write_text("ClusterName=away\nSlurmctldHost=localhost(127.0.0.1)\nSlurmctldPort=1\n")
    runner = LocalRunner(conf)
    findings = list(checking.read(runner, CommandGateway(runner), Site(tmp_path), by_rest=False, by_account=False))
    assert len([each for each in findings if each.grade is Grade.WRONG]) == 2
    assert "no Python environment ready" in said(findings, Grade.WRONG)


@pytest.fixture
def set_up(stage: SlurmStage, settings: Any) -> Iterator[None]:
    """As the settings of a server have it."""
    settings.HAEIN_BACKEND, settings.HAEIN_SLURM_CONF = "slurm", str(stage.lab.conf)
    settings.HAEIN_SLURM_USER, settings.HAEIN_SLURM_FOLDER = JOBS_USER, stage.var
    settings.HAEIN_SLURM_EMULATED = True
    slurm_site.runner.cache_clear()
    slurm_site.gateway.cache_clear()
    yield
    begin_anew()
    slurm_site.runner.cache_clear()


def begin_anew() -> None:
    """What talks to Slurm is made from the settings again, as in a server that was started again."""
    gateway = slurm_site.gateway()
    if isinstance(gateway, RestGateway):
        gateway.close()
    slurm_site.gateway.cache_clear()


def test_the_command_runs_a_job_and_leaves_nothing(stage: SlurmStage, set_up: None) -> None:
    out = StringIO()
    call_command("slurm_check", stdout=out)
    assert f"a job ran as {JOBS_USER} on " in out.getvalue()
    assert "WRONG" not in out.getvalue()
    for folder in ("attempts", "work", "teams"):
        assert list((stage.var / folder).iterdir()) == []


def test_over_slurmrestd_it_tries_the_way_that_jobs_go(stage: SlurmStage, set_up: None, settings: Any) -> None:
    settings.HAEIN_SLURM_REST_URL, settings.HAEIN_SLURM_JWT_KEY = stage.lab.rest_url, str(stage.lab.jwt_key)
    out = StringIO()
    call_command("slurm_check", stdout=out)
    assert f"a job ran as {JOBS_USER} on " in out.getvalue()
    begin_anew()
    settings.HAEIN_SLURM_JWT_KEY = str(stage.lab.conf)
    with pytest.raises(CommandError, match="1 thing is wrong"):
        call_command("slurm_check", stdout=out)
    assert "(HAEIN_SLURM_JWT_KEY): is it slurmctld's key" in out.getvalue()


def test_on_every_node_where_that_is_asked_for(stage: SlurmStage, set_up: None) -> None:
    out = StringIO()
    call_command("slurm_check", "--every-node", stdout=out)
    ran = [line.split()[1] for line in out.getvalue().splitlines() if "a job ran as" in line]
    assert sorted(ran) == [f"{node.name}:" for node in stage.backend.inventory()]


def test_an_account_that_is_not_there_is_said_by_the_trial(stage: SlurmStage, set_up: None, settings: Any) -> None:
    settings.HAEIN_SLURM_ACCOUNT = "nowhere"
    out = StringIO()
    with pytest.raises(CommandError, match="1 thing is wrong"):
        call_command("slurm_check", stdout=out)
    assert "no account under which the user may run" in out.getvalue()


def test_it_is_for_slurm_alone() -> None:
    with pytest.raises(CommandError, match="HAEIN_BACKEND is not slurm"):
        call_command("slurm_check")
