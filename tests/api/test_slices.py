"""Slices and gangs by the API: asked for, shown as they were asked for, and what an attempt holds of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from billing import prices
from haein.client.answers import Attempt as ReadAttempt
from haein.client.answers import Cost as ReadCost
from haein.client.answers import Job as ReadJob
from haein.client.answers import read
from haein.client.job_file import JobFile
from haein.client.spec import JobSpec
from haein.cluster import inventory, registry
from haein.cluster.models import Node
from haein.lib import clock
from haein.placement import mig
from jobs import scheduling
from jobs.models import Allocation, Attempt, Job
from tests.cast import ASKED, Person, Program, fields_of

ROOT = Path(__file__).parents[2]

SLICE = {"gpus": 2, "profile": "1g.23gb"}
SHARE = {"gpus": 1, "share": 250, "gpu_memory_mb": 40_960, "gpu_model": "B200|H200"}
GANG = {"gpus": 8, "cpus": 32.0, "memory_mb": 65_536, "workers": 4, "near": "rack", "near_required": True}


@pytest.fixture
def rehearsal(db: None, settings: Any, tmp_path: Path) -> Iterator[None]:
    """Six nodes of eight devices, simulated: a backend that can do all of it."""
    settings.HAEIN_BACKEND, settings.HAEIN_VAR, settings.HAEIN_SIM_NODES = "simulator", tmp_path, 6
    registry.backend.cache_clear()
    inventory.refresh(registry.backend().inventory(), now=clock.now())
    prices.fill_gaps()
    yield
    registry.backend.cache_clear()


@pytest.mark.parametrize("asked", [SLICE, SHARE, GANG], ids=["slice", "share", "gang"])
def test_a_job_is_shown_as_it_was_asked_for(rehearsal: None, alices: Program, asked: dict[str, Any]) -> None:
    made = alices.post("jobs", {**ASKED, **asked})
    assert made.status_code == 201, made.content
    (listed,) = alices.get("jobs").json()["results"]
    for told in (made.json(), alices.get(f"jobs/{made.json()['id']}").json(), listed):
        assert {name: told[name] for name in asked} == asked


def test_what_is_left_out_asks_for_nothing(rehearsal: None, alices: Program) -> None:
    told = alices.post("jobs", ASKED).json()
    assert {name: told[name] for name in ("gpu_memory_mb", "profile", "gpu_model", "workers", "near")} == {
        "gpu_memory_mb": 0, "profile": "", "gpu_model": "", "workers": 1, "near": "any"
    }  # fmt: skip
    assert (told["near_required"], told["pool"], told["labels"]) == (False, "", [])


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"profile": "1g.5gb"}, "profile"),
        ({"profile": "x" * 30}, "profile"),
        ({"profile": 1}, "profile"),
        ({"profile": "1g.23gb", "gpus": 0}, "profile"),
        ({"profile": "1g.23gb", "share": 500}, "share"),
        ({"profile": "1g.23gb", "gpu_memory_mb": 1024}, "gpu_memory_mb"),
        ({"gpu_memory_mb": 1024}, "gpu_memory_mb"),  # of a whole device
        ({"gpu_memory_mb": -1}, "gpu_memory_mb"),
        ({"gpu_model": "B200; DROP"}, "gpu_model"),
        ({"workers": 0}, "workers"),
        ({"workers": 1025}, "workers"),
        ({"workers": "4"}, "workers"),
        ({"near": "street"}, "near"),
        ({"near": None}, "near"),
        ({"near_required": 1}, "near_required"),
        ({"near_required": "true"}, "near_required"),
        ({"pool": "a b"}, "pool"),
        ({"labels": ["a b"]}, "labels"),
        ({"labels": "nvme"}, "labels"),
        ({"labels": ["x"] * 21}, "labels"),
    ],
)
def test_it_names_the_field_and_makes_nothing(
    rehearsal: None, alices: Program, wrong: dict[str, Any], field: str
) -> None:
    for where in ("jobs", "quote"):
        assert fields_of(alices.post(where, {**ASKED, **wrong})) == {field}
    assert not Job.objects.exists()


def test_a_profile_that_there_is_none_of_is_told_which_there_are(rehearsal: None, alices: Program) -> None:
    (error,) = alices.post("jobs", {**ASKED, "profile": "1g.5gb"}).json()["errors"]
    assert "1g.23gb" in error["detail"]


@pytest.mark.parametrize(
    ("asked", "field"), [({"workers": 2}, "workers"), ({"profile": "1g.23gb"}, "profile")], ids=["gang", "slice"]
)
def test_one_machine_refuses_what_it_has_not(cluster: None, alices: Program, asked: dict[str, Any], field: str) -> None:
    for where in ("jobs", "quote"):
        assert fields_of(alices.post(where, {**ASKED, **asked})) == {field}


@pytest.mark.parametrize(
    ("asked", "hour"),
    [(SLICE, "1.000000"), ({**SHARE, "gpu_model": ""}, "0.944000"), (GANG, "128.000000"), ({}, "4.000000")],
    ids=["slice", "share", "gang", "whole"],
)
def test_a_quote_is_for_all_that_is_asked_for(
    rehearsal: None, alices: Program, asked: dict[str, Any], hour: str
) -> None:
    told = alices.post("quote", {**ASKED, **asked}).json()
    assert told["per_hour"] == {"least": hour, "most": hour}
    assert told["starts"].startswith("Room is free")


def placed(alices: Program, **asked: Any) -> tuple[dict[str, Any], Any]:
    """The job's one attempt, as it is told after a pass, and the node of the device that each rank holds first."""
    job = alices.post("jobs", {**ASKED, **asked}).json()
    assert scheduling.run_pass(now=clock.now(), ready=frozenset({"python"})) == 1
    (told,) = alices.get(f"jobs/{job['id']}/attempts").json()["results"]
    return told, read(ReadAttempt, told)


def test_an_attempt_names_its_workers_and_what_each_holds(rehearsal: None, alices: Program) -> None:
    told, seen = placed(alices, **GANG)
    nodes = [worker["node"] for worker in told["workers"]]
    assert [worker["rank"] for worker in told["workers"]] == [0, 1, 2, 3]
    assert (len(set(nodes)), told["node"]) == (4, nodes[0])
    assert sorted(nodes) == ["sim-001", "sim-002", "sim-003", "sim-004"]  # the one rack of four
    assert [(held["rank"], held["device"]) for held in told["devices"]] == [
        (rank, f"{node}/gpu{index}") for rank, node in enumerate(nodes) for index in range(8)
    ]
    assert [(worker.rank, worker.node) for worker in seen.workers] == list(enumerate(nodes))


def test_a_share_tells_its_memory(rehearsal: None, alices: Program) -> None:
    told, seen = placed(alices, **{**SHARE, "gpu_model": ""})
    (held,) = told["devices"]
    assert held == {
        "rank": 0,
        "device": "sim-001/gpu0",
        "emulated": True,
        "share": 250,
        "profile": "",
        "start": None,
        "memory_mb": 40_960,
    }
    assert (told["workers"], seen.devices[0].memory_mb) == ([{"rank": 0, "node": "sim-001"}], 40_960)


def test_the_share_of_an_instance_is_what_it_costs(rehearsal: None, alices: Program, charlie: Person) -> None:
    told, seen = placed(alices, name="serve", gpus=1, profile="2g.45gb")
    (held,) = told["devices"]
    assert (held["share"], held["profile"], held["memory_mb"]) == (250, "2g.45gb", None)
    assert seen.devices[0].start == held["start"] in (0, 2, 4)
    for reader, name in ((alices, "serve"), (Program(charlie), None)):
        device = reader.get("nodes").json()["results"][0]["devices"][0]
        (holder,) = device["holders"]
        assert (device["used"], device["free"]) == (250, 750)
        assert (holder["share"], holder["profile"], holder["start"]) == (250, "2g.45gb", held["start"])
        assert (holder["job"] and holder["job"]["name"]) == name


def test_a_cost_names_the_instance(rehearsal: None, alices: Program) -> None:
    placed(alices, **SLICE)
    now = clock.now()
    Allocation.objects.update(billable_from=now - timedelta(hours=1), held_from=now - timedelta(hours=1))
    Attempt.objects.update(state="running", started_at=now - timedelta(hours=1))
    Job.objects.update(state="running", started_at=now - timedelta(hours=1))
    told = alices.get(f"jobs/{Job.objects.get().pk}/cost").json()
    assert told["per_hour"] == "1.000000"
    assert [(line["profile"], line["share"]) for line in told["lines"]] == [("1g.23gb", 125)] * 2
    assert [line.profile for line in read(ReadCost, told).lines] == ["1g.23gb"] * 2


def test_a_node_tells_by_which_words_it_is_asked_for(rehearsal: None, alices: Program) -> None:
    Node.objects.filter(name="sim-002").update(drained_at=clock.now())
    first, second = alices.get("nodes").json()["results"][:2]
    words = ("pool", "labels", "rack", "pod", "drained")
    assert [first[word] for word in words] == ["train", ["infiniband"], "rack-01", "pod-1", False]
    assert second["drained"] is True


def job_files() -> list[str]:
    """The job files that the page about jobs shows."""
    return re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs/jobs.md").read_text(), re.M | re.S)


@pytest.mark.parametrize("text", job_files(), ids=lambda text: text.partition("\n")[0])
def test_the_job_files_of_the_docs_are_accepted(rehearsal: None, alices: Program, tmp_path: Path, text: str) -> None:
    place = tmp_path / "job.yaml"
    place.write_text(text)
    spec = JobFile.read(place).spec()
    assert spec.as_json() != JobSpec(spec.name, spec.command).as_json()
    answer = alices.post("jobs", spec.as_json())
    assert answer.status_code == 201, answer.content
    job = read(ReadJob, answer.json())
    for name in ("gpus", "share", "gpu_memory_mb", "profile", "workers", "near", "near_required", "pool"):
        assert getattr(job, name) == getattr(spec, name)
    assert list(job.labels) == list(spec.labels)


def test_the_docs_name_every_profile() -> None:
    page = (ROOT / "docs/jobs.md").read_text()
    for model, profiles in mig.MODELS.items():
        if model in ("A100-80GB", "H100", "H200", "B200"):
            (row,) = re.findall(rf"^\| (?:.*, )?{model}(?:, .*)? \| (.*) \|$", page, re.M)
            assert set(re.findall(r"`(.*?)`", row)) == set(profiles)
