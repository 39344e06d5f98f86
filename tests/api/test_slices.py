"""Slices and gangs by the API: asked for, shown as they were asked for, and what an attempt holds of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from billing import prices
from haein.client.answers import Attempt as ReadAttempt
from haein.client.answers import Job as ReadJob
from haein.client.answers import read
from haein.client.job_file import JobFile
from haein.client.spec import JobSpec
from haein.cluster import inventory, registry
from haein.cluster.models import Device, Node
from haein.lib import clock
from jobs.models import Allocation, Attempt, Job, Worker
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


def held(job: dict[str, Any], node: str, rank: int, **what: Any) -> None:
    """A slice of the node's first device, in the job's one attempt."""
    device = Device.objects.get(node__name=node, index=0)
    attempt, made = Attempt.objects.get_or_create(
        job_id=job["id"],
        number=1,
        defaults={"node": device.node, "cpus": 100, "memory_mb": 256, "placed_at": clock.now()},
    )
    if not made:
        Worker.objects.create(attempt=attempt, rank=rank, node=device.node)
    Allocation.objects.create(attempt=attempt, rank=rank, device=device, held_from=clock.now(), **what)


def test_an_attempt_names_its_workers_and_what_each_holds(rehearsal: None, alices: Program) -> None:
    job = alices.post("jobs", {**ASKED, "workers": 2}).json()
    held(job, "sim-002", 0, units=250, memory=40_960, weight=250)
    held(job, "sim-001", 1, units=250, memory=40_960, weight=250)
    (told,) = alices.get(f"jobs/{job['id']}/attempts").json()["results"]
    assert (told["node"], told["workers"]) == (
        "sim-002", [{"rank": 0, "node": "sim-002"}, {"rank": 1, "node": "sim-001"}]
    )  # fmt: skip
    share = {"share": 250, "profile": "", "start": None, "memory_mb": 40_960}
    assert told["devices"] == [
        {"rank": 0, "device": "sim-002/gpu0", **share}, {"rank": 1, "device": "sim-001/gpu0", **share}
    ]  # fmt: skip
    assert [(one.rank, one.node) for one in read(ReadAttempt, told).workers] == [(0, "sim-002"), (1, "sim-001")]


def test_the_share_of_an_instance_is_what_it_costs(rehearsal: None, alices: Program, charlie: Person) -> None:
    job = alices.post("jobs", {**ASKED, **SLICE}).json()
    held(job, "sim-001", 0, units=8, memory=7, profile="1g.23gb", start=6, weight=125)
    (told,) = alices.get(f"jobs/{job['id']}/attempts").json()["results"]
    assert told["devices"] == [
        {"rank": 0, "device": "sim-001/gpu0", "share": 125, "profile": "1g.23gb", "start": 6, "memory_mb": None}
    ]
    for reader, name in ((alices, job["name"]), (Program(charlie), None)):
        device = reader.get("nodes").json()["results"][0]["devices"][0]
        (holder,) = device["holders"]
        assert (device["used"], device["free"]) == (125, 875)
        assert (holder["share"], holder["profile"], holder["start"]) == (125, "1g.23gb", 6)
        assert (holder["job"] and holder["job"]["name"]) == name


def test_a_node_tells_by_which_words_it_is_asked_for(rehearsal: None, alices: Program) -> None:
    Node.objects.filter(name="sim-001").update(
        pool="training", labels=["nvme"], rack="r1", pod="p1", drained_at=clock.now()
    )
    first, second = alices.get("nodes").json()["results"][:2]
    words = ("pool", "labels", "rack", "pod", "drained")
    assert [first[word] for word in words] == ["training", ["nvme"], "r1", "p1", True]
    assert second["drained"] is False


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
