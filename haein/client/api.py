"""The SDK: Haein's REST API as typed calls.

with Client() as haein:
    job = haein.submit(JobSpec(name="digits", command="python train.py"), files=Path("."))
    print(haein.wait(job.id).state)
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from haein.client import answers, archive, credentials, downloading, errors, following, git_source
from haein.client.answers import (
    Array,
    Attempt,
    Cost,
    Environment,
    Event,
    File,
    Job,
    LogLine,
    Me,
    Node,
    Price,
    Queue,
    Quota,
    Quote,
    Upload,
    UsageLine,
    UsageSummary,
    Window,
)
from haein.client.git_source import GitSource
from haein.client.spec import JobSpec
from haein.client.transport import PATIENCE_S, Transport
from haein.client.version import version

Kind = TypeVar("Kind")
PAGE = 200
BLOCK = 256 * 1024


class Client:
    """A signed-in connection to one Haein; a context manager.

    Without `url` and `token` they are HAEIN_URL and HAEIN_TOKEN, else what `haein login` has stored: NotSignedIn when
    there is nothing. `patience`: for how many seconds a server that is away is asked again. `waiting` is told why,
    each time. Every call raises a HaeinError: NotSignedIn, Forbidden, NotFound, Conflict, Invalid (with `fields`),
    TooManyRequests, ServerAway, ServerFault, or Refused for what is none of these.
    """

    def __init__(self, url: str | None = None, token: str | None = None, *, patience: float = PATIENCE_S,
                 waiting: Callable[[str], None] | None = None) -> None:  # fmt: skip
        if url is None or token is None:
            found = credentials.find(url)
            url, token = url or found.url, token or found.token
        self.transport = Transport(url, token, version=version(), patience=patience, waiting=waiting)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.transport.close()

    # What the typed calls below stand on, and what `--json` prints.

    def get(self, path: str, /, **params: Any) -> Any:
        """The API's own answer to a GET of a path below /api/v1/; parameters that are None are left out."""
        return self.transport.json("GET", path, params={k: v for k, v in params.items() if v is not None})

    def pages(self, path: str, /, **params: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page after page."""
        params = {"limit": PAGE, **params}
        while True:
            page = self.get(path, **params)
            yield from page["results"]
            if not page.get("next"):
                return
            # Only the place in the list is taken from the address: the token goes to no other host.
            params = dict(parse_qsl(urlsplit(page["next"]).query))

    def me(self) -> Me:
        return answers.read(Me, self.get("me"))

    def revoke_token(self) -> None:
        """End the token that this client asks with."""
        self.transport.json("DELETE", "token")

    def submit(self, spec: JobSpec, files: Path | GitSource | None = None, *, idempotency_key: str | None = None,
               progress: Callable[[int, int], None] | None = None) -> Job:  # fmt: skip
        """Submit a job, its files first; an array is told by its first job. Raises BadFiles before anything is sent.

        With the same `idempotency_key` (1 to 180 visible ASCII characters, kept for a day) the same job is submitted
        once, however often this is called. `progress` is told the bytes sent so far and their number.
        """
        key = idempotency_key or str(uuid.uuid4())
        body = spec.as_json()
        if files is not None:
            body["upload"] = self.upload(files, idempotency_key=f"{key}-files", progress=progress).id
        return answers.read(
            Job, self.transport.json("POST", "jobs", body=body, headers={"Idempotency-Key": f"{key}-job"})
        )

    def upload(self, files: Path | GitSource, *, idempotency_key: str | None = None,
               progress: Callable[[int, int], None] | None = None) -> Upload:  # fmt: skip
        """Send files for a job to come: a folder or a commit as a .tar.gz, a single file as it is. Raises BadFiles."""
        with _opened(files) as (file, name):
            size = os.fstat(file.fileno()).st_size

            def content() -> Iterator[bytes]:
                file.seek(0)
                sent = 0
                while block := file.read(BLOCK):
                    yield block
                    sent += len(block)
                    if progress:
                        progress(sent, size)

            headers = {
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Idempotency-Key": idempotency_key or str(uuid.uuid4()),
            }
            told = self.transport.json("POST", "uploads", params={"name": name}, content=content, headers=headers)
        return answers.read(Upload, told)

    def quote(self, spec: JobSpec) -> Quote:
        """What it would cost and when it would start. Raises Invalid when it could never run."""
        return answers.read(Quote, self.transport.json("POST", "quote", body=spec.as_json()))

    def jobs(
        self, *, state: str | None = None, tag: str | None = None, q: str | None = None, array: str | None = None
    ) -> Iterator[Job]:
        """Newest first. `state` may be "open" for all that have not ended; `q` looks for words in name and command."""
        for told in self.pages("jobs", state=state, tag=tag, q=q, array=array):
            yield answers.read(Job, told)

    def job(self, job: str) -> Job:
        return answers.read(Job, self.get(f"jobs/{job}"))

    def cancel(self, job: str) -> Job:
        """Ask for its end. Raises Conflict when it has ended, or its end was asked for before."""
        return answers.read(Job, self.transport.json("POST", f"jobs/{job}/cancel"))

    def array(self, array: str) -> Array:
        return answers.read(Array, self.get(f"arrays/{array}"))

    def cancel_array(self, array: str) -> Array:
        """Ask for the end of all its jobs that have not ended. Raises Conflict when there is none."""
        return answers.read(Array, self.transport.json("POST", f"arrays/{array}/cancel"))

    def retry(self, job: str) -> Job:
        """Queue an ended job once more, in the same folder. Raises Conflict while it has not ended."""
        return answers.read(Job, self.transport.json("POST", f"jobs/{job}/retry"))

    def wait(self, job: str, *, timeout: float | None = None) -> Job:
        """The job once it has ended, asked for every two seconds or sooner. Raises TimeoutError after `timeout` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = following.Poll()
        while (seen := following.look(self.transport, job)).is_open:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{seen.name} ({seen.short_id}) is still {seen.state} after {timeout:g} s.")
            poll.wait(left)
        return seen

    def wait_array(self, array: str, *, timeout: float | None = None) -> Array:
        """The array once all its jobs have ended. Raises TimeoutError after `timeout` s."""
        deadline = None if timeout is None else time.monotonic() + timeout
        poll = following.Poll()
        while (seen := following.look_at_array(self.transport, array)).is_open:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError(f"{seen.name} ({seen.short_id}) has not ended after {timeout:g} s.")
            poll.wait(left)
        return seen

    def attempts(self, job: str) -> list[Attempt]:
        """Newest first."""
        return [answers.read(Attempt, told) for told in self.pages(f"jobs/{job}/attempts")]

    def events(self, job: str) -> list[Event]:
        """Oldest first."""
        return [answers.read(Event, told) for told in self.pages(f"jobs/{job}/events")]

    def logs(
        self, job: str, *, follow: bool = False, attempt: int | None = None, tail: int | None = None
    ) -> Iterator[LogLine]:
        """The lines of the newest attempt, or of the one with that number; `tail`: only so many last ones.

        `follow` goes on until the job has ended, with the attempts that follow, and through cut connections without a
        line lost or doubled. Raises NotFound while there is no attempt, unless it follows.
        """
        return following.lines(self.log_records(job, follow=follow, attempt=attempt, tail=tail))

    def log_records(
        self, job: str, *, follow: bool = False, attempt: int | None = None, tail: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """The same as the API's own records."""
        return following.records(self.transport, job, attempt=attempt, follow=follow, tail=tail)

    def files(self, job: str, path: str = "") -> Iterator[File]:
        """What is in a folder of the job."""
        for told in self.get(f"jobs/{job}/files", path=path)["results"]:
            yield answers.read(File, told)

    def download(
        self, job: str, path: str, target: Path, *, progress: downloading.Progress | None = None
    ) -> list[Path]:
        """Bring a file or a whole folder ("" is all) to `target`; returns what was written. Raises BadFiles.

        As with cp, into `target` when that is a folder. A file that was cut off is gone on with, also by a later call.
        """
        path = path.strip("/")
        parent, _, name = path.rpartition("/")
        entry = next((file for file in self.files(job, parent) if file.name == name), None) if path else None
        if path and entry is None:
            raise errors.NotFound(f"There is no {path} in this job's folder.", status=404, code="not_found")
        if path and target.is_dir():
            target /= downloading.checked_name(name)
        written: list[Path] = []
        if entry is None or entry.type == "folder":
            wanted = downloading.tree(lambda where: self.files(job, where), path, target)
        else:
            wanted = iter([(path, target)])
        for there, place in wanted:
            downloading.fetch(self.transport, job, there, place, progress)
            written.append(place)
        return written

    def cost(self, job: str) -> Cost:
        return answers.read(Cost, self.get(f"jobs/{job}/cost"))

    def usage(self, *, month: str | None = None) -> Iterator[UsageLine]:
        """Newest first; `month` as 2026-11, by default the current one."""
        for told in self.pages("usage", month=month):
            yield answers.read(UsageLine, told)

    def usage_summary(self, *, month: str | None = None) -> UsageSummary:
        return answers.read(UsageSummary, self.get("usage/summary", month=month))

    def queue(self, *, limit: int | None = None) -> Queue:
        """Who waits and when they start; the first `limit` of them."""
        return answers.read(Queue, self.get("queue", limit=limit))

    def quotas(self, *, organization: str | None = None, team: str | None = None) -> Iterator[Quota]:
        """Those that you may see, the newest first; of an organization or a team by its id or its name."""
        for told in self.pages("quotas", organization=organization, team=team):
            yield answers.read(Quota, told)

    def set_quota(self, *, team: str = "", organization: str = "", member: str = "", pool: str = "",
                  **values: Any) -> Quota:  # fmt: skip
        """Set all of a quota: what is left out of `values` is no limit, and nothing guaranteed.

        Whose it is by ids or names, a member by id or e-mail address; `values` as in Quota. Raises Forbidden, Invalid.
        """
        whose = {"team": team, "organization": organization, "member": member, "pool": pool}
        return answers.read(Quota, self.transport.json("PUT", "quotas", body={**whose, **values}))

    def clear_quota(self, quota: str) -> None:
        self.transport.json("DELETE", f"quotas/{quota}")

    def nodes(self) -> list[Node]:
        return self._results(Node, "nodes")

    def windows(self) -> list[Window]:
        """What is reserved for your teams and what goes out for maintenance, now and to come."""
        return self._results(Window, "windows")

    def reserve(
        self, team: str, gpus: int, model: str, *, starts_at: datetime, ends_at: datetime, reason: str
    ) -> Window:
        """As an operator: keep whole GPUs for a team (its id). Raises Invalid with the nearest that is possible."""
        return self._window(starts_at, ends_at, reason, team=team, gpus=gpus, model=model)

    def maintain(
        self, nodes: Iterable[str] = (), *, rack: str = "", starts_at: datetime, ends_at: datetime, reason: str
    ) -> Window:
        """As an operator: take these nodes, or a whole rack, out."""
        return self._window(starts_at, ends_at, reason, nodes=list(nodes), rack=rack)

    def cancel_window(self, window: str) -> None:
        """As an operator. Raises Conflict when it is over."""
        self.transport.ask("POST", f"windows/{window}/cancel")

    def _window(self, starts_at: datetime, ends_at: datetime, reason: str, **more: Any) -> Window:
        body = {"starts_at": _in_utc(starts_at), "ends_at": _in_utc(ends_at), "reason": reason, **more}
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        return answers.read(Window, self.transport.json("POST", "windows", body=body, headers=headers))

    def prices(self) -> list[Price]:
        return self._results(Price, "prices")

    def environments(self) -> list[Environment]:
        return self._results(Environment, "environments")

    def _results(self, kind: type[Kind], path: str) -> list[Kind]:
        return [answers.read(kind, told) for told in self.get(path)["results"]]


def _in_utc(at: datetime) -> str:
    """A time without a zone is in the reader's own."""
    return at.astimezone(UTC).isoformat()


@contextmanager
def _opened(files: Path | GitSource) -> Iterator[tuple[IO[bytes], str]]:
    """What is sent, and the name that says how it is unpacked."""
    if isinstance(files, GitSource):
        with archive.packed(git_source.members(files)) as file:
            yield file, "files.tar.gz"
    elif files.is_dir():
        with archive.packed(archive.members(files)) as file:
            yield file, "files.tar.gz"
    else:
        try:
            opened = files.open("rb")
        except OSError as error:
            raise errors.BadFiles(f"{files} can't be sent: {error.strerror}.") from None
        with opened as file:
            yield file, files.name
