"""The lab itself: a Slurm that takes jobs, gives them devices, keeps accounts, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from haein.slurmlab import Lab, LabFailed, processes
from haein.supervisor.layout import ROOT
from tests.house import until
from tests.slurmlab import lab_folder


def submit(lab: Lab, script: str, *options: str) -> str:
    """The id of a job that runs the script."""
    return lab.run("sbatch", "--parsable", "--output=/dev/null", *options, "--wrap", script).strip()


def state(lab: Lab, job: str) -> str:
    return lab.run("squeue", "-h", "-j", job, "-t", "all", "-o", "%T").strip()


def wait_for(lab: Lab, job: str, wanted: str) -> None:
    until(lambda: state(lab, job) == wanted, f"job {job} is {wanted}")


@pytest.mark.parametrize(
    ("gres", "visible"),
    [("gpu:b200:2", "0,1"), ("gpu:1g.23gb:3", "0,1,2"), ("shard:4", "0")],
)
def test_a_job_gets_the_devices_that_it_asked_for(slurm: Lab, gres: str, visible: str) -> None:
    told = slurm.folder / f"told-{gres}"
    told.touch()
    job = submit(slurm, f"echo $CUDA_VISIBLE_DEVICES > {told}", f"--gres={gres}", "--mem=100")
    wait_for(slurm, job, "COMPLETED")
    assert told.read_text().strip() == visible


def test_the_accounts_know_what_a_job_held(slurm: Lab) -> None:
    job = submit(slurm, "true", "--gres=gpu:b200:3", "--comment=ours", "--account=haein")
    wait_for(slurm, job, "COMPLETED")

    def look() -> str:
        return slurm.run("sacct", "-nXP", "-j", job, "-o", "state,account,comment,alloctres").strip()

    until(lambda: look().startswith("COMPLETED"), "slurmdbd has the job on record")
    record, account, comment, held = look().split("|")
    assert (record, account, comment) == ("COMPLETED", "haein", "ours")
    assert {"gres/gpu=3", "gres/gpu:b200=3"} <= set(held.split(","))


def test_urgent_work_takes_the_nodes_of_normal_work(slurm: Lab) -> None:
    whole = ("--gres=gpu:b200:8", "--nodelist=node007", "--mem=100")
    normal = submit(slurm, "sleep 600", *whole, "--no-requeue")
    wait_for(slurm, normal, "RUNNING")
    urgent = submit(slurm, "true", *whole, "--qos=urgent")
    wait_for(slurm, urgent, "COMPLETED")
    assert state(slurm, normal) == "PREEMPTED"


def test_slurmrestd_lets_in_who_has_a_token(slurm: Lab) -> None:
    token = slurm.run("scontrol", "token", "lifespan=60").strip().removeprefix("SLURM_JWT=")
    headers = {"X-SLURM-USER-NAME": slurm.user, "X-SLURM-USER-TOKEN": token}
    with urllib.request.urlopen(
        urllib.request.Request(f"{slurm.rest_url}/slurm/v0.0.38/ping", headers=headers)
    ) as told:
        assert json.load(told)["pings"][0]["status"] == 0


@pytest.mark.long
def test_a_node_that_lost_its_power_comes_back_without_its_job(own_slurm: Callable[..., Lab]) -> None:
    lab = own_slurm(nodes=2, gpus=2, node_timeout_s=10)
    job = submit(lab, "sleep 600", "--nodelist=node002", "--no-requeue")
    wait_for(lab, job, "RUNNING")
    lab.kill_node("node002")
    assert not processes.work(lab.folder)
    wait_for(lab, job, "NODE_FAIL")
    lab.start_node("node002")
    again = submit(lab, "true", "--nodelist=node002")
    wait_for(lab, again, "COMPLETED")


def test_a_controller_that_was_killed_finds_its_jobs_again(own_slurm: Callable[..., Lab]) -> None:
    lab = own_slurm(nodes=2, gpus=2)
    job = submit(lab, "sleep 600")
    wait_for(lab, job, "RUNNING")
    written = lab.folder / "state" / "job_state"
    until(lambda: written.exists() and b"node001" in written.read_bytes(), "what it was given is written down")
    lab.kill_controller()
    lab.start_controller()
    assert state(lab, job) == "RUNNING"


def test_a_starter_that_was_killed_leaves_nothing_that_the_next_start_does_not_end() -> None:
    with lab_folder() as folder:
        starter = subprocess.Popen(
            [sys.executable, "-m", "haein.slurmlab", str(folder), "--nodes", "2", "--gpus", "2"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert starter.stdout is not None
        assert starter.stdout.readline().startswith("Slurm answers: ")
        begun = folder / "begun"
        environ = {**os.environ, "SLURM_CONF": str(folder / "etc" / "slurm.conf")}
        # One that has left its job's session: Slurm itself would not end it.
        script = f"setsid sleep 600 & touch {begun}; sleep 600"
        subprocess.run(["sbatch", "--output=/dev/null", "--wrap", script], env=environ, check=True, capture_output=True)
        until(begun.exists, "the job runs")
        starter.send_signal(signal.SIGKILL)
        starter.communicate()
        assert processes.work(folder)

        lab = Lab(folder, nodes=2, gpus=2)
        lab.start()
        assert not processes.work(folder)
        lab.stop()


def test_asked_to_end_it_ends_all_of_it() -> None:
    with lab_folder() as folder:
        command = [sys.executable, "-m", "haein.slurmlab", str(folder), "--nodes", "2", "--gpus", "2"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as lab:
            assert lab.stdout is not None
            assert lab.stdout.readline().startswith("Slurm answers: ")
            lab.terminate()
        assert lab.returncode == 0
        assert not processes.daemons(folder)


def test_a_folder_too_deep_for_sockets_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(LabFailed, match="too deep for sockets"):
        Lab(tmp_path / ("deep" * 20)).start()
