"""Windows over the API: members read what concerns them, operators make and cancel."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from haein.lib import clock
from jobs.models import Window
from tests.cast import Person, Program, fields_of

pytestmark = pytest.mark.usefixtures("big")


@pytest.fixture
def times() -> dict[str, str]:
    now = clock.now()
    hour = timedelta(hours=1)
    return {"starts_at": (now + hour).isoformat(), "ends_at": (now + 3 * hour).isoformat(), "reason": "new disks"}


def test_an_operator_takes_nodes_out_reserves_and_cancels(
    oda: Person, alice: Person, bob: Person, times: dict[str, str]
) -> None:
    program = Program(oda)
    out = program.post("windows", {**times, "nodes": ["node1"]})
    assert out.status_code == 201, out.content
    assert out.json() | {"id": "", "starts_at": "", "ends_at": ""} == {
        "id": "",
        "kind": "maintenance",
        "state": "coming",
        "reason": "new disks",
        "starts_at": "",
        "ends_at": "",
        "team": None,
        "gpus": 0,
        "model": "",
        "nodes": ["node1"],
        "made_by": "oda@oda.example",
    }
    assert program.post(f"windows/{out.json()['id']}/cancel").status_code == 204
    again = program.post(f"windows/{out.json()['id']}/cancel")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")
    kept = program.post("windows", {**times, "team": str(alice.team.pk), "gpus": 3, "model": "B200"})
    assert kept.status_code == 201, kept.content
    (seen,) = Program(bob).get("windows").json()["results"]
    assert (seen["kind"], seen["gpus"], seen["model"], seen["nodes"]) == ("reservation", 3, "B200", ["node1"])
    assert (seen["team"], seen["made_by"]) == ({"id": str(alice.team.pk), "name": "Vision"}, None)


def test_a_window_is_made_once_for_a_key(oda: Person, times: dict[str, str]) -> None:
    program = Program(oda)
    answers = [program.post("windows", {**times, "nodes": ["node1"]}, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert Window.objects.count() == 1


def test_what_is_refused_names_its_field(oda: Person, alice: Person, times: dict[str, str]) -> None:
    program, team = Program(oda), {"team": str(alice.team.pk)}
    asks: list[tuple[dict[str, Any], set[str]]] = [
        ({**times}, {"nodes"}),
        ({**times, "nodes": ["nodeX"]}, {"nodes"}),
        ({**times, "nodes": ["node1"], "gpus": 2}, {"gpus"}),
        ({**times, **team, "gpus": 2, "model": "B200", "nodes": ["node1"]}, {"nodes"}),
        ({**times, **team, "gpus": 9, "model": "B200"}, {"gpus"}),
        ({**times, "nodes": ["node1"], "node": 1}, {"node"}),
        ({"nodes": ["node1"]}, {"starts_at", "ends_at", "reason"}),
    ]
    for body, fields in asks:
        assert fields_of(program.post("windows", body)) == fields
    assert not Window.objects.exists()


def test_whoever_is_no_operator_makes_none(alices: Program, times: dict[str, str]) -> None:
    assert alices.post("windows", {**times, "nodes": ["node1"]}).status_code == 403
    assert not Window.objects.exists()


def test_a_token_needs_the_scope_to_write(oda: Person, times: dict[str, str]) -> None:
    reads, writes = Program(oda, "cluster:read"), Program(oda, "cluster:write")
    assert reads.get("windows").status_code == writes.get("windows").status_code == 200
    answer = reads.post("windows", {**times, "nodes": ["node1"]})
    assert (answer.status_code, "cluster:write" in answer.json()["detail"]) == (403, True)
    assert writes.post("windows", {**times, "nodes": ["node1"]}).status_code == 201
