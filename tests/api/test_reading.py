"""Lists by pages, single things with their ETag, logs, files and costs of jobs that really ran."""

from __future__ import annotations

import json
from typing import Any

import pytest

from billing import metering
from tests.cast import ASKED, Person, Program, fields_of


def test_a_list_is_read_to_its_end_page_by_page(alices: Program, submitted: Any) -> None:
    made = [submitted(name=f"job-{number}")["id"] for number in range(7)]
    seen, address = [], "jobs?limit=3"
    while address:
        page = alices.get(address.removeprefix("http://testserver")).json()
        seen.append([row["id"] for row in page["results"]])
        address = page["next"]
    assert seen == [made[:3:-1], made[3:0:-1], made[:1]]


def test_a_row_that_comes_meanwhile_moves_no_other(alices: Program, submitted: Any) -> None:
    made = [submitted()["id"] for _ in range(4)]
    first = alices.get("jobs?limit=2").json()
    submitted()
    second = alices.get(first["next"].removeprefix("http://testserver")).json()
    assert [row["id"] for row in second["results"]] == [made[1], made[0]]


def test_a_list_is_filtered(alices: Program, submitted: Any) -> None:
    submitted(name="one", tags=["red"])
    job = submitted(name="two", command="echo blue")
    alices.post(f"jobs/{job['id']}/cancel")

    def names(query: str) -> list[str]:
        return [row["name"] for row in alices.get(f"jobs?{query}").json()["results"]]

    assert names("state=open") == ["one"]
    assert names("state=cancelled") == ["two"]
    assert names("tag=red") == ["one"]
    assert names("q=blue") == ["two"]


@pytest.mark.parametrize(
    ("query", "field"),
    [("state=x", "state"), ("limit=0", "limit"), ("limit=x", "limit"), ("page=2", "page"), ("cursor=x", "cursor")],
)
def test_a_query_that_means_nothing_is_named(alices: Program, query: str, field: str) -> None:
    assert fields_of(alices.get(f"jobs?{query}")) == {field}


def test_what_has_not_changed_is_not_sent_again(alices: Program, submitted: Any) -> None:
    job = submitted()
    first = alices.get(f"jobs/{job['id']}")
    same = alices.get(f"jobs/{job['id']}", **{"If-None-Match": first["ETag"]})
    assert (same.status_code, same.content) == (304, b"")
    alices.post(f"jobs/{job['id']}/cancel")
    assert alices.get(f"jobs/{job['id']}", **{"If-None-Match": first["ETag"]}).status_code == 200


def test_an_address_that_is_none_is_a_problem_too(alices: Program) -> None:
    for path in ("nothing", "jobs/5", "jobs/01a21004-caeb-7cc7-a689-9ea5210c11e8"):
        answer = alices.get(path)
        assert (answer.status_code, answer["Content-Type"]) == (404, "application/problem+json")


def test_a_method_that_is_none_is_a_problem_too(alices: Program) -> None:
    answer = alices.ask("PUT", "jobs", {})
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")


@pytest.fixture
def ran(cluster: None, alice: Person, alices: Program, submit: Any, finish: Any) -> dict[str, Any]:
    """A job that printed, wrote files and failed."""
    command = "echo one; echo two >&2; mkdir sub; printf 0123456789 > sub/ten; ln -s /etc/passwd link; sleep 1; exit 3"
    finish(submit(alice, command=command, gpus=1))
    metering.pull()
    job: dict[str, Any] = alices.get("jobs").json()["results"][0]
    return job


def body(answer: Any) -> bytes:
    return b"".join(answer.streaming_content)


def test_what_it_leaves_behind_can_be_read(alices: Program, ran: dict[str, Any]) -> None:
    here = f"jobs/{ran['id']}"
    assert (ran["state"], ran["exit_code"], ran["signal"]) == ("failed", 3, None)
    assert sorted(body(alices.get(f"{here}/logs")).splitlines()) == [b"one", b"two"]

    (record,) = [json.loads(line) for line in body(alices.get(f"{here}/logs?format=ndjson")).splitlines()]
    assert sorted((stream, text) for _at, stream, text in record["lines"]) == [("err", "two"), ("out", "one")]
    assert body(alices.get(f"{here}/logs?offset={record['next']}")) == b""
    tail = body(alices.get(f"{here}/logs?tail=1&attempt=1", Accept="application/x-ndjson"))
    assert json.loads(tail)["attempt"] == 1

    names = {row["path"]: row["type"] for row in alices.get(f"{here}/files").json()["results"]}
    assert names == {"sub": "folder"}  # a link is not shown, as it is not followed
    (row,) = alices.get(f"{here}/files?path=sub").json()["results"]
    assert (row["path"], row["size"]) == ("sub/ten", 10)

    (attempt,) = alices.get(f"{here}/attempts").json()["results"]
    assert (attempt["number"], attempt["cause"], attempt["devices"][0]["share"]) == (1, "exited", 1000)
    kinds = [row["kind"] for row in alices.get(f"{here}/events").json()["results"]]
    assert kinds == ["submit", "place", "run", "fail"]

    cost = alices.get(f"{here}/cost").json()
    (line,) = alices.get("usage").json()["results"]
    assert cost["total"] == line["amount"] == alices.get("usage/summary").json()["total"]
    assert (line["job"]["id"], line["person"]) == (ran["id"], "alice@alice.example")
    assert alices.get("prices").json()["results"][0]["per_hour"] == "4.000000"
    assert alices.get(f"{here}/metrics").json()["emulated"] is True


@pytest.mark.parametrize(
    ("header", "status", "content", "part"),
    [
        ("", 200, b"0123456789", None),
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-2", 206, b"89", "bytes 8-9/10"),
        ("bytes=8-100", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=5-2", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
    ],
)
def test_a_download_can_be_resumed(
    alices: Program, ran: dict[str, Any], header: str, status: int, content: bytes | None, part: str | None
) -> None:
    path = f"jobs/{ran['id']}/files/content?path=sub/ten"
    answer = alices.get(path, **({"Range": header} if header else {}))
    assert answer.status_code == status
    assert answer.get("Content-Range") == part
    if content is not None:
        assert body(answer) == content
        assert int(answer["Content-Length"]) == len(content)
    if status == 206:
        same = alices.get(path, **{"Range": header, "If-Range": answer["ETag"]})
        other = alices.get(path, **{"Range": header, "If-Range": '"other"'})
        assert (same.status_code, other.status_code) == (206, 200)
        assert (body(same), body(other)) == (content, b"0123456789")


@pytest.mark.parametrize("path", ["link", "../x", "/etc/passwd", "sub", "sub/none", "sub/../link", "", "a\x00b"])
def test_a_path_that_leads_out_or_nowhere_gives_nothing(alices: Program, ran: dict[str, Any], path: str) -> None:
    from urllib.parse import urlencode

    answer = alices.get(f"jobs/{ran['id']}/files/content?{urlencode({'path': path})}")
    assert answer.status_code in {404, 422}


def test_before_it_starts_there_is_no_log(alices: Program, submitted: Any) -> None:
    job = submitted()
    for part in ("logs", "metrics"):
        answer = alices.get(f"jobs/{job['id']}/{part}")
        assert answer.status_code == 404
        assert "not been started" in answer.json()["detail"]


def test_a_file_that_was_sent_is_in_the_jobs_folder(
    cluster: None, alices: Program, alice: Person, submit: Any, finish: Any
) -> None:
    headers = {"Authorization": f"Bearer {alices.text}", "Idempotency-Key": "u1"}

    def send() -> Any:
        kind = "application/octet-stream"
        return alices.client.generic("POST", "/api/v1/uploads?name=x.txt", b"hello", content_type=kind, headers=headers)

    upload, again = send(), send()
    assert upload.status_code == 201
    assert upload.json() == again.json()
    told = alices.post("jobs", {**ASKED, "command": "cat x.txt", "upload": upload.json()["id"]}).json()
    from jobs.models import Job

    finish(Job.objects.get(pk=told["id"]))
    assert body(alices.get(f"jobs/{told['id']}/logs")) == b"hello\n"


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/../.b", "x\x01", "a" * 201])
def test_a_name_that_no_file_may_have_is_named(alices: Program, name: str) -> None:
    from urllib.parse import urlencode

    headers = {"Authorization": f"Bearer {alices.text}"}
    address = f"/api/v1/uploads?{urlencode({'name': name})}"
    answer = alices.client.generic("POST", address, b"x", content_type="application/octet-stream", headers=headers)
    assert fields_of(answer) <= {"name", "upload"}


def test_nodes_tell_whose_only_to_those_who_may_know(
    big: None, alices: Program, charlie: Person, oda: Person, submitted: Any
) -> None:
    from haein.lib import clock
    from jobs import scheduling

    job = submitted(name="secret-name", share=250)
    scheduling.run_pass(now=clock.now(), ready=frozenset({"python"}))

    def holders(program: Program) -> list[Any]:
        (node,) = program.get("nodes").json()["results"]
        return [holder for device in node["devices"] for holder in device["holders"]]

    held = {"share": 250, "profile": "", "start": None}
    assert holders(alices) == [{**held, "job": {"id": job["id"], "name": "secret-name"}}]
    assert holders(Program(charlie)) == [{**held, "job": None}]
    assert holders(Program(oda)) == holders(alices)
    (node,) = alices.get("nodes").json()["results"]
    assert sorted(device["state"] for device in node["devices"]) == ["free"] * 7 + ["partly"]
