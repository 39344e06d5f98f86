"""Records what a real house of this release answers, for the clients of later ones: python -m tests.records.record

Each release's folder stays as it is; the newest client is tested on all of them. Every request is the client's own.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from haein.client import Client, HaeinError, JobSpec
from haein.client.version import version
from tests.e2e.conftest import setup_link
from tests.house import House, made, until
from tests.rows import Rows
from tests.tokens import token_of
from tests.visitor import Visitor

HEADERS = (
    "content-type", "etag", "location", "accept-ranges", "www-authenticate", "retry-after", "idempotency-replayed",
)  # fmt: skip
ADDRESS = "http://haein.test"
SMALL = JobSpec("digits", "true", gpus=1, share=100, cpus=0.1, memory_mb=128)
MISSING = "00000000-0000-7000-8000-000000000000"


UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Recorder:
    """Writes each exchange of a client, once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: set[str] = set()

    def watch(self, client: Client) -> None:
        client.transport._http.event_hooks["response"] = [self._keep]

    def _keep(self, answer: httpx.Response) -> None:
        request = answer.request
        path = request.url.path.removeprefix("/api/v1/")
        query = dict(request.url.params)
        name = f"{request.method} {path} {json.dumps(query) if query else ''}"
        if name in self.seen:
            return
        self.seen.add(name)
        name = re.sub(r"[^\w.-]+", "-", UUID.sub("JOB", name)).strip("-")
        answer.read()
        text = answer.text.replace(f"http://{request.url.netloc.decode()}", ADDRESS)
        body: Any = text
        with suppress(ValueError):
            body = json.loads(text) if "json" in answer.headers.get("Content-Type", "").replace("ndjson", "") else text
        exchange = {
            "request": {"method": request.method, "path": path, "query": query},
            "status": answer.status_code,
            "headers": {key: answer.headers[key] for key in HEADERS if key in answer.headers},
            "body": body,
        }
        place = self.folder / f"{len(self.seen):02}-{name}.json"
        place.write_text(json.dumps(exchange, indent=1, ensure_ascii=False) + "\n")


def record(house: House, folder: Path) -> None:
    house.up()
    url = f"http://localhost:{house.port}"
    Visitor(url).come_in(setup_link(house))
    ((email,),) = Rows(house.var).ask("SELECT email FROM tenants_user")
    recorder = Recorder(folder)
    with Client(url, token_of(house, email)) as haein:
        good = haein.submit(
            replace(SMALL, command="mkdir out; echo hello | tee out/model.txt; sleep 2", tags=["example"])
        )
        haein.wait(good.id)
        until(lambda: bool(haein.prices() and list(haein.usage())), "it is metered")
        recorder.watch(haein)
        calls: list[Callable[[], Any]] = [
            haein.me, haein.environments, haein.nodes, haein.prices,
            lambda: haein.quote(SMALL), lambda: list(haein.jobs()), lambda: haein.job(good.id),
            lambda: list(haein.logs(good.id)), lambda: list(haein.logs(good.id, follow=True)),
            lambda: list(haein.logs(good.id, tail=1)), lambda: list(haein.files(good.id)),
            lambda: haein.download(good.id, "out/model.txt", folder / "downloaded"),
            lambda: haein.attempts(good.id), lambda: haein.events(good.id), lambda: haein.cost(good.id),
            lambda: list(haein.usage()), haein.usage_summary,
            lambda: haein.job(MISSING), lambda: haein.cancel(good.id),
            lambda: haein.upload(Path(__file__).with_name("__init__.py"), idempotency_key="recorded-upload"),
            lambda: haein.submit(SMALL, idempotency_key="recorded"),
            haein.revoke_token,
        ]  # fmt: skip
        for call in calls:
            with suppress(HaeinError):  # a refusal is an answer too
                call()
    (folder / "downloaded").unlink()


def main() -> None:
    release = sys.argv[1] if len(sys.argv) > 1 else version()
    folder = Path(__file__).parent / f"api-{release}"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    with made() as house:
        record(house, folder)
    print(f"{len(list(folder.glob('*.json')))} answers are in {folder}")


if __name__ == "__main__":
    main()
