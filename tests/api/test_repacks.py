"""An operator's program reads what is proposed and decides on it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from haein.lib import clock
from jobs import repacks
from jobs.models import Job, Repack
from tests.cast import Person, Program
from tests.jobs.repacking import scattered


@pytest.fixture
def proposed(db: None, alice: Person, submit: Callable[..., Job]) -> Repack:
    scattered(alice, submit)
    found = repacks.look(now=clock.now())
    assert found
    return found


def test_it_reads_what_would_move_and_moves_it(oda: Person, proposed: Repack) -> None:
    program = Program(oda)
    (shown,) = program.get("repacks").json()["results"]
    (move,) = shown["moves"]
    assert (shown["id"], shown["state"], shown["job"]["name"]) == (str(proposed.pk), "proposed", "large")
    assert (move["job"]["name"], move["step"], shown["step"]) == ("old", None, None)
    assert 0 < 2 * shown["lost_gpu_seconds"] < shown["gained_gpu_seconds"]
    answer = program.post(f"repacks/{proposed.pk}/approve")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["state"], told["decided_by"], told["step"]) == ("moving", oda.user.email, "waits")
    assert told["moves"][0]["step"] == "leaves"
    again = program.post(f"repacks/{proposed.pk}/approve")
    assert again.status_code == 409
    assert "not proposed any more" in again.json()["detail"]


def test_it_rejects_it(oda: Person, proposed: Repack) -> None:
    answer = Program(oda).post(f"repacks/{proposed.pk}/reject")
    assert (answer.status_code, answer.json()["state"]) == (200, "rejected")


def test_a_token_that_may_only_read_the_cluster_moves_nothing(oda: Person, proposed: Repack) -> None:
    program = Program(oda, "cluster:read")
    assert program.get("repacks").status_code == 200
    assert program.post(f"repacks/{proposed.pk}/approve").status_code == 403
    proposed.refresh_from_db()
    assert proposed.state == "proposed"


def test_nobody_else_is_told_of_any(alice: Person, proposed: Repack) -> None:
    program = Program(alice)
    assert program.get("repacks").json()["results"] == []
    assert program.post(f"repacks/{proposed.pk}/approve").status_code == 404
