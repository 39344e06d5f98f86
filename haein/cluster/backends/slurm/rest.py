"""Slurm over slurmrestd and its JSON Web Tokens."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from haein.cluster.backends.slurm import refusals, versions
from haein.cluster.backends.slurm.commands import CommandGateway
from haein.cluster.backends.slurm.gateway import Gateway, SlurmDown, SlurmRefused
from haein.cluster.backends.slurm.records import Held, JobRecord, NodeRecord, ReservationRecord, Submission
from haein.cluster.backends.slurm.tokens import Tokens

CONNECT_S = 5.0
# slurmctld answers late while its backfill pass runs: up to 7 s were seen with 5,000 jobs queued.
ANSWER_S = 30.0
CONNECTIONS = 20
# A name is 42 bytes and its comma three, and a request's first line must stay under 8 kB.
_NAMES_A_CALL = 150
# What a bad token is answered with, and much else: "Unspecified error" and "Zero Bytes were transmitted or received".
_MAYBE_THE_TOKEN = frozenset({0, 5005})
# What cancel() asks for is so already: not known any more, or at its end.
_GONE = frozenset({2017, 2021})


class RestGateway(Gateway):
    """Asks the slurmrestd at `url`. With `commands`, what they tell faster is asked of them: a text squeue takes a
    thirteenth of the time of the JSON of all jobs."""

    def __init__(self, url: str, tokens: Tokens, commands: CommandGateway | None = None) -> None:
        self._url = url.rstrip("/")
        self._tokens = tokens
        self._commands = commands
        self._http = httpx.Client(
            base_url=self._url,
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
            # An operator's proxy for the outside world has no part in this.
            trust_env=False,
        )
        self._choosing = threading.Lock()
        self._version: int | None = None
        self._looking = threading.Lock()
        self._jobs: Sequence[JobRecord] = ()
        self._jobs_at = 0

    def close(self) -> None:
        self._http.close()

    def nodes(self) -> Sequence[NodeRecord]:
        if self._commands:
            return self._commands.nodes()
        told = self._ask("GET", "/slurm/{version}/nodes")
        with refusals.understood("slurmrestd"):
            return sorted((versions.node(node) for node in told["nodes"]), key=lambda node: node.name)

    def reservations(self) -> Sequence[ReservationRecord]:
        if self._commands:
            return self._commands.reservations()
        told = self._ask("GET", "/slurm/{version}/reservations")
        with refusals.understood("slurmrestd"):
            return [versions.reservation(each) for each in told["reservations"]]

    def jobs(self) -> Sequence[JobRecord]:
        if self._commands:
            return self._commands.jobs()
        with self._looking:
            answer = self._send("GET", "/slurm/{version}/jobs", params={"update_time": self._jobs_at})
            if answer.status_code != httpx.codes.NOT_MODIFIED:
                told = self._read(answer)
                with refusals.understood("slurmrestd"):
                    self._jobs = [versions.job(job) for job in told["jobs"]]
                # Before 0.0.40 it does not say as of when that is, and then all are asked for every time.
                self._jobs_at = versions.number(told.get("last_update")) or 0
            return self._jobs

    def held(self, ids: Collection[int]) -> Mapping[int, Sequence[Held]]:
        if self._commands:
            return self._commands.held(ids)
        told: dict[int, Sequence[Held]] = {}
        for number in ids:
            jobs = self._ask_known("GET", f"/slurm/{{version}}/job/{number}").get("jobs") or ()
            with refusals.understood("slurmrestd"):
                # The id of an array stands for all its elements.
                holdings = [versions.held(job) for job in jobs if job["job_id"] == number]
            told.update((number, held) for held in holdings if held)
        return told

    def history(self, names: Collection[str], since: int) -> Sequence[JobRecord] | None:
        if self._commands:
            return self._commands.history(names, since)
        # slurmrestd reads it in a zone of its own.
        day = (datetime.fromtimestamp(since, UTC) - timedelta(days=1)).strftime("%Y-%m-%d")
        ordered = list(names)
        records: list[JobRecord] = []
        for first in range(0, len(ordered), _NAMES_A_CALL):
            params = {
                "job_name": ",".join(ordered[first : first + _NAMES_A_CALL]),
                "start_time": day,
                "skip_steps": "true",
            }
            if self._chosen() >= versions.WITH_NODE_STATES:
                # Before, every run was told.
                params["show_duplicates"] = "true"
            answer = self._send("GET", "/slurmdb/{version}/jobs", params=params)
            if answer.status_code == httpx.codes.NOT_FOUND:
                return None
            told = self._read(answer)
            with refusals.understood("slurmrestd"):
                records.extend(versions.past(run) for run in told["jobs"])
        return [record for record in records if record.submitted >= since]

    def submit(self, submission: Submission) -> int:
        body = versions.submission_body(self._chosen(), submission)
        answer = self._ask("POST", "/slurm/{version}/job/submit", body=body, user=submission.user)
        number = answer.get("job_id") or (answer.get("result") or {}).get("job_id")
        if not number:
            raise SlurmDown("slurmrestd answered a submission with neither a job's id nor an error.")
        return int(number)

    def cancel(self, ids: Collection[int]) -> None:
        if self._commands:
            self._commands.cancel(ids)
            return
        for number in ids:
            self._ask_known("DELETE", f"/slurm/{{version}}/job/{number}")

    def set_drained(self, node: str, reason: str) -> None:
        if self._commands:
            self._commands.set_drained(node, reason)
        else:
            # Slurm wants to be told whose reason it is where root asks.
            words = {"reason": " ".join(reason.split()), "reason_uid": self._tokens.user}
            self._set_state(node, {"state": ["DRAIN"], **words})

    def set_resumed(self, node: str) -> None:
        if self._commands:
            self._commands.set_resumed(node)
        else:
            self._set_state(node, {"state": ["UNDRAIN"]})

    def _set_state(self, node: str, body: Mapping[str, Any]) -> None:
        if self._chosen() < versions.WITH_NODE_STATES:
            raise SlurmRefused(
                f"This slurmrestd (v0.0.{self._chosen()}) can't drain nodes: Haein needs Slurm's commands for that, "
                "here (HAEIN_SLURM_CONF) or over SSH (HAEIN_SLURM_SSH)."
            )
        self._ask("POST", f"/slurm/{{version}}/node/{node}", body=body)

    # Talking

    def _chosen(self) -> int:
        """The version that is spoken: the newest that slurmrestd offers of those that are known here."""
        with self._choosing:
            if self._version is None:
                self._version = self._choose()
            return self._version

    def _choose(self) -> int:
        for path in ("/openapi/v3", "/openapi"):
            answer = self._request("GET", path)
            if answer.status_code == httpx.codes.NOT_FOUND:
                continue
            chosen = versions.newest(self._read(answer).get("paths") or ())
            if chosen is None:
                raise SlurmDown(
                    f"{self._url} speaks no version of Slurm's API that Haein knows: v0.0.{versions.OLDEST} to "
                    f"v0.0.{versions.NEWEST}."
                )
            return chosen
        raise SlurmDown(f"{self._url} is no slurmrestd: it has no OpenAPI document.")

    def _ask(self, method: str, path: str, *, body: Mapping[str, Any] | None = None, user: str = "") -> versions.Answer:
        return self._read(self._send(method, path, body=body, user=user))

    def _ask_known(self, method: str, path: str) -> versions.Answer:
        """The answer about one job; nothing where Slurm knows it no more."""
        try:
            return self._ask(method, path)
        except SlurmRefused as refusal:
            if refusal.number in _GONE:
                return {}
            raise

    def _send(self, method: str, path: str, *, body: Mapping[str, Any] | None = None,
              params: Mapping[str, Any] | None = None, user: str = "") -> httpx.Response:  # fmt: skip
        where = path.format(version=f"v0.0.{self._chosen()}")
        answer = self._request(method, where, body=body, params=params, user=user)
        if answer.status_code == httpx.codes.NOT_FOUND and not path.startswith("/slurmdb/") and not _is_told(answer):
            # Slurm was updated under us, and speaks another one now.
            self._version = None
            raise SlurmDown(f"{self._url} does not know {where} any more; Haein asks again what it speaks.")
        return answer

    def _request(self, method: str, path: str, *, body: Mapping[str, Any] | None = None,
                 params: Mapping[str, Any] | None = None, user: str = "") -> httpx.Response:  # fmt: skip
        headers = {"X-SLURM-USER-NAME": user or self._tokens.user, "X-SLURM-USER-TOKEN": self._tokens.token()}
        try:
            return self._http.request(method, path, json=body, params=params, headers=headers)
        except httpx.TimeoutException:
            raise SlurmDown(f"slurmrestd at {self._url} gave no answer within {ANSWER_S:.0f} s.") from None
        except httpx.TransportError as error:
            raise SlurmDown(f"slurmrestd at {self._url} can't be reached: {error}.") from error

    def _read(self, answer: httpx.Response) -> versions.Answer:
        """Its JSON. Raises what the answer says: every refusal of slurmrestd's is HTTP 500 with numbers of Slurm's."""
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise SlurmDown(f"slurmrestd does not let Haein in. {self._tokens.doubt}")
        try:
            told: versions.Answer = answer.json()
        except ValueError:
            raise SlurmDown(
                f"slurmrestd answered HTTP {answer.status_code} without JSON: {answer.text[:80].strip()!r}."
            ) from None
        if answer.is_success:
            # What stands under "errors" then are remarks: "Nothing found", "Job is in held state".
            return told
        found = versions.errors(told)
        number, message = found[0] if found else (0, f"HTTP {answer.status_code}")
        if answer.status_code >= 500 and found and {each for each, _ in found} <= _MAYBE_THE_TOKEN:
            raise SlurmDown(f"slurmrestd says: {message}. {self._tokens.doubt}")
        raise refusals.fault(number, message, "slurmrestd")


def _is_told(answer: httpx.Response) -> bool:
    """Whether the answer is Slurm's own and not only that the path is unknown."""
    return str(answer.headers.get("content-type", "")).startswith("application/json")
