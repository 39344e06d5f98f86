"""A drain is a row of ours; the engine is told until it took it. What others drained there is theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from haein.cluster import services as cluster
from haein.cluster.backends.base import Drain
from haein.cluster.models import Node
from haein.lib import clock
from jobs import tasks
from tests.cast import Person
from tests.jobs.engine import Engine

pytestmark = pytest.mark.django_db


@pytest.fixture
def worker(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drives this engine, and looked at it a moment ago."""
    monkeypatch.setattr(tasks, "backend", lambda: engine)
    monkeypatch.setattr(tasks, "_drained", {})
    monkeypatch.setattr(tasks, "_inventory_due", 0.0)
    tasks._inventory()


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_inventory_due", 0.0)
    tasks._inventory()


def drain(oda: Person) -> None:
    cluster.drain(by=oda.user, node="node1", reason="a fan", now=clock.now())


@pytest.mark.usefixtures("worker")
def test_the_engine_is_told_with_the_next_tick(engine: Engine, oda: Person) -> None:
    drain(oda)
    assert engine.told == [], "whoever answers requests need have no rights over it"
    tasks._inventory()
    assert engine.drained == {"node1": Drain.OURS}
    assert cluster.undrain(by=oda.user, node="node1") == ""
    tasks._inventory()
    assert engine.drained == {}


@pytest.mark.usefixtures("worker")
def test_an_engine_that_was_away_is_told_until_it_took_it(
    engine: Engine, oda: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.away = True
    drain(oda)
    assert Node.objects.get(name="node1").drained_at is not None
    tasks._inventory()
    assert engine.drained == {}
    engine.away = False
    later(monkeypatch)
    later(monkeypatch)
    assert (engine.drained, engine.told) == ({"node1": Drain.OURS}, [("drain", "node1")])
    engine.away = True
    cluster.undrain(by=oda.user, node="node1")
    tasks._inventory()
    assert engine.drained == {"node1": Drain.OURS}
    engine.away = False
    later(monkeypatch)
    later(monkeypatch)
    assert (engine.drained, engine.told[1:]) == ({}, [("resume", "node1")])


def test_what_somebody_else_drained_there_stays_theirs(engine: Engine, oda: Person) -> None:
    engine.drained["node1"] = Drain.THEIRS
    cluster.hand_over(engine, engine.inventory())
    assert engine.told == []
    drain(oda)
    cluster.hand_over(engine, engine.inventory())
    Node.objects.filter(name="node1").update(problem="Drained in Slurm by root: bad cable.")
    still = cluster.undrain(by=oda.user, node="node1")
    assert still == (
        "Haein would use node1, but the cluster itself takes no work there: Drained in Slurm by root: bad cable."
    )
    assert engine.drained == {"node1": Drain.THEIRS}
    assert Node.objects.get(name="node1").drained_at is None
    assert cluster.undrain(by=oda.user, node="node1") == still, "and again"


def test_the_operator_reads_that_it_is_still_drained(engine: Engine, oda: Person) -> None:
    drain(oda)
    Node.objects.filter(name="node1").update(problem="Drained in Slurm by root: bad cable.")
    page = oda.client.post("/cluster/nodes/node1/undrain/", follow=True).content.decode()
    assert "the cluster itself takes no work there: Drained in Slurm by root: bad cable." in page
    assert "takes new work again" not in page


def test_a_node_that_is_not_reported_is_nobodys_to_tell(engine: Engine, oda: Person) -> None:
    drain(oda)
    engine.told.clear()
    cluster.hand_over(engine, [replace(fact, drain=None) for fact in engine.facts if fact.name != "node1"])
    assert engine.told == []
