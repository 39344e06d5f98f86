"""The operator's pages of replays: start, watch, compare, cancel, delete; nobody else finds them."""

from __future__ import annotations

import csv
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from channels.db import database_sync_to_async
from django.core.files.uploadedfile import SimpleUploadedFile

from haein.lib import clock
from haein.tenants.models import AuditEntry
from jobs import replaying, replays
from jobs.models import Replay
from tests.cast import Person
from tests.dashboard import crowd
from tests.sockets import Socket, fragment, run

pytestmark = pytest.mark.usefixtures("big")
MURI = "job_id,num_gpu,submit_time,duration\n0,8,0,10000\n1,16,5000,20000\n2,1,6000,1000\n"


def form(**changed: Any) -> dict[str, Any]:
    today = clock.now().date()
    return {
        "source": "own",
        "since": today - timedelta(days=29),
        "until": today,
        "policies": ["bestfit", "haein"],
        "own": "on",
        "nodes": "2",
        "kind": "ours",
        **changed,
    }


def upload(text: str, name: str = "trace.csv") -> SimpleUploadedFile:
    return SimpleUploadedFile(name, text.encode())


def started(oda: Person, **changed: Any) -> Replay:
    answer = oda.client.post("/operator/replays/", form(**changed))
    assert answer.status_code == 302, answer.context["form"].errors
    return Replay.objects.latest("created_at")


def finished(oda: Person, **changed: Any) -> Replay:
    replay = started(oda, **changed)
    assert replaying.run_next(ending=lambda: False)
    replay.refresh_from_db()
    assert replay.state == "done", replay.problem
    return replay


def result(replay: Replay) -> dict[str, Any]:
    found: dict[str, Any] = replay.result or {}
    return found


def lines(oda: Person, replay: Replay, what: str) -> list[dict[str, str]]:
    answer = oda.client.get(f"/operator/replays/{replay.pk}/{what}.csv")
    assert answer["Content-Type"].startswith("text/csv")
    return list(csv.DictReader(StringIO(answer.getvalue().decode())))


def test_our_own_month_is_replayed_side_by_side(alice: Person, oda: Person) -> None:
    crowd.gather(alice, 50)
    replay = finished(oda)
    page = oda.client.get(f"/operator/replays/{replay.pk}/")
    rows = page.context["table"]["rows"]
    assert [(row["policy"], row["size"]) for row in rows] == [
        ("bestfit", "our cluster"),
        ("haein", "our cluster"),
        ("bestfit", "2 nodes"),
        ("haein", "2 nodes"),
    ]
    found = lines(oda, replay, "runs")
    assert {int(line["jobs"]) for line in found} == {result(replay)["jobs"]} != {0}
    # 4 USD an hour for half a device: what it costs is the same everywhere, what is idle is not.
    seconds = sum(run["charged"]["B200"] for run in result(replay)["runs"][:1]) / 1000
    assert float(found[0]["cost"]) == pytest.approx(seconds * 4 / 3600, abs=1e-5)
    assert float(found[2]["idle_cost"]) > float(found[0]["idle_cost"])


def test_the_curves_add_up_to_what_the_table_says(oda: Person) -> None:
    replay = finished(oda, source="file", trace=upload(MURI), policies=["packed"], nodes="")
    (line,) = lines(oda, replay, "runs")
    # 0 runs 0-10 on all eight, 2 runs 10-11 on one; 1 asks for more than the node has.
    assert (line["jobs"], line["refused"], line["makespan_s"]) == ("2", "1", "11")
    steps = lines(oda, replay, "curves")
    held = sum(float(step["gpus_held"]) for step in steps)
    assert held == pytest.approx(81) == pytest.approx(float(line["utilization"]) * 8 * 11)


def test_what_a_gpu_without_a_price_costs_is_not_known(oda: Person) -> None:
    kind = {"kind": "other", "gpus": "8", "model": "T4", "cpus": "96", "memory_gb": "512"}
    replay = finished(oda, source="file", trace=upload(MURI), own="", nodes="2", **kind)
    page = oda.client.get(f"/operator/replays/{replay.pk}/")
    assert {cells[-1][1] for cells in (row["cells"] for row in page.context["table"]["rows"])} == {"n/a"}
    assert {line["cost"] for line in lines(oda, replay, "runs")} == {""}
    assert not page.context["result"]["emulated"]


@pytest.mark.parametrize(
    ("changed", "field", "words"),
    [
        ({"policies": []}, "policies", "required"),
        ({"own": "", "nodes": ""}, "nodes", "write one number of nodes"),
        ({"nodes": "12, x"}, "nodes", "whole numbers with commas"),
        ({"nodes": "0"}, "nodes", "from 1 to 10000"),
        ({"nodes": "1 2 3 4 5 6"}, "policies", "makes 14 runs, and 12 are the most"),
        ({"nodes": "10000", "kind": "other", "gpus": 64, "model": "X", "cpus": 1, "memory_gb": 1}, "nodes", "100000"),
        ({"kind": "other", "gpus": "", "model": "X", "cpus": 1, "memory_gb": 1}, "gpus", "Say it"),
        ({"since": ""}, "since", "Choose a day"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "until", "before the first"),
        ({"since": "2020-01-01"}, "until", "At most 366 days"),
        ({"source": "file"}, "trace", "Choose a file"),
    ],
)
def test_what_can_not_be_replayed_is_said_beside_its_field(
    oda: Person, changed: dict[str, Any], field: str, words: str
) -> None:
    answer = oda.client.post("/operator/replays/", form(**changed))
    assert answer.status_code == 422
    errors = answer.context["form"].errors
    assert words in " ".join(errors[field])
    assert list(errors) == [field]
    assert not Replay.objects.exists()


def test_what_does_not_belong_to_what_was_chosen_is_not_looked_at(oda: Person) -> None:
    assert started(oda, gpus="many", memory_gb="1.123456", trace=upload("no trace at all")).file_name == ""
    assert started(oda, source="file", since="once", until="", trace=upload(MURI)).file_name == "trace.csv"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("job_id,num_gpu\n", "trace.csv, line 1, column name: it is missing"),
        (MURI.replace("2,1,6000", "2,1,soon"), "trace.csv, line 4, column submit_time: &#x27;soon&#x27; is no whole"),
        ("name,cpu_milli,memory_mib,num_gpu,gpu_milli\nx,1,1,1,1000\n", "line 1, column creation_time: it is missing"),
    ],
)
def test_a_fault_of_a_file_is_named_by_line_and_column(oda: Person, text: str, words: str) -> None:
    answer = oda.client.post("/operator/replays/", form(source="file", trace=upload(text)))
    assert answer.status_code == 422
    assert words in answer.content.decode()


def test_a_fault_far_down_a_file_is_named_on_the_replay_s_page(oda: Person) -> None:
    rows = "".join(f"{number},1,{number},1000\n" for number in range(10, 9000))
    replay = started(oda, source="file", trace=upload(MURI + rows + "x,0,1,1\n"))
    replaying.run_next(ending=lambda: False)
    page = oda.client.get(f"/operator/replays/{replay.pk}/").content.decode()
    assert "trace.csv, line 8995, column num_gpu: &#x27;0&#x27; is no whole number from 1 to 1024; write one." in page


def test_a_span_without_jobs_is_a_sentence(oda: Person) -> None:
    replay = started(oda)
    replaying.run_next(ending=lambda: False)
    assert "No job that asks for a GPU ran" in oda.client.get(f"/operator/replays/{replay.pk}/").content.decode()


def test_it_is_cancelled_and_deleted_and_audited(oda: Person) -> None:
    replay = started(oda)
    assert oda.client.post(f"/operator/replays/{replay.pk}/cancel/").status_code == 302
    assert "It was cancelled." in oda.client.get(f"/operator/replays/{replay.pk}/").content.decode()
    twice = oda.client.post(f"/operator/replays/{replay.pk}/cancel/", follow=True)
    assert "It has ended already." in twice.content.decode()
    assert oda.client.post(f"/operator/replays/{replay.pk}/delete/", follow=True).status_code == 200
    assert not Replay.objects.exists()
    written = AuditEntry.objects.filter(target=str(replay.pk)).order_by("pk").values_list("action", "actor_name")
    assert list(written) == [(f"replay.{verb}", oda.user.email) for verb in ("start", "cancel", "delete")]


def test_a_long_list_has_pages_newest_first(oda: Person) -> None:
    asked = replays.Asked(policies=("haein",)).as_json()
    ended = {"state": "done", "ended_at": clock.now(), "by": oda.user, "asked": asked, "result": {"runs": []}}
    Replay.objects.bulk_create(Replay(**ended, file_name=f"{number}.csv") for number in range(45))
    page = oda.client.get("/operator/replays/", {"page": "3"}, headers={"HX-Request": "true"})
    assert [row["title"] for row in page.context["rows"]] == [f"{number}.csv" for number in (4, 3, 2, 1, 0)]


@pytest.mark.django_db(transaction=True)
def test_the_page_moves_while_it_runs(oda: Person) -> None:
    replay = started(oda)
    found = replays.take(now=clock.now())
    assert found == replay
    client = oda.client

    async def story() -> None:
        async with Socket(client, f"/ws/replays/{replay.pk}/") as page:
            await page.until(fragment("replay-head", "0 % done"))
            await database_sync_to_async(replays.go_on)(found, progress=420, now=clock.now())
            await page.until(fragment("replay-head", "42 % done"), 3)
            await database_sync_to_async(replays.delete)(replay.pk, by=oda.user)
            assert (await page.until(lambda told: "closed" in told or told["type"] == "gone"))["type"] == "gone"

    run(story)
