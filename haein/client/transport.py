"""HTTP with manners: deadlines, one way to try again, and every refusal turned into the error that names it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx

from haein.client import errors

CONNECT_S = 10.0
ANSWER_S = 30.0
PATIENCE_S = 20.0
_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 5.0
# What a proxy says for a server that is away, and the server itself when its database is.
_AWAY = frozenset({502, 503, 504})
# Nothing has reached the server: to ask again is to ask for the first time.
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)


class Transport:
    """One connection pool to one server. `patience` is in seconds: how long it tries again before it gives up."""

    def __init__(self, url: str, token: str, *, version: str, patience: float = PATIENCE_S,
                 waiting: Callable[[str], None] | None = None) -> None:  # fmt: skip
        self.url = url.rstrip("/")
        self.patience = patience
        self._waiting = waiting
        headers = {"User-Agent": f"haein-client/{version}", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        self._http = httpx.Client(
            base_url=f"{self.url}/api/v1/", headers=headers, timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S)
        )

    def close(self) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        """The whole answer. Raises a HaeinError for every answer that is not a success."""
        with self.stream(method, path, **request) as answer:
            try:
                answer.read()
            except httpx.TransportError as fault:
                raise self._away(fault) from fault
            return answer

    @contextmanager
    def stream(self, method: str, path: str, *, params: Mapping[str, Any] | None = None, body: Any = None,
               content: Callable[[], Any] | None = None, headers: Mapping[str, str] | None = None,
               timeout: float | None = None, patience: float | None = None) -> Iterator[httpx.Response]:  # fmt: skip
        """The answer before its body was read; the body's own faults are httpx's.

        `content` makes the body anew for every try. What is not a GET and carries no Idempotency-Key is only sent
        again when it can't have arrived. Raises a HaeinError for every answer that is not a success.
        """
        headers = dict(headers or {})
        safe = method == "GET" or "Idempotency-Key" in headers
        tries = _Tries(self.patience if patience is None else patience, self._waiting)
        while True:
            request = self._http.build_request(
                method, path.lstrip("/"), params=params, json=body, content=content() if content else None,
                headers=headers, timeout=timeout or httpx.USE_CLIENT_DEFAULT,
            )  # fmt: skip
            try:
                answer = self._http.send(request, stream=True)
            except httpx.TransportError as fault:
                if (safe or isinstance(fault, _NOT_SENT)) and tries.again(None, f"{self.url} does not answer"):
                    continue
                raise self._away(fault) from fault
            try:
                asked_too_often = answer.status_code == 429
                if (asked_too_often or (safe and answer.status_code in _AWAY)) and tries.again(
                    _retry_after(answer), f"{self.url} asks for a pause"
                ):
                    continue
                if not answer.is_success and answer.status_code != 304:
                    raise self._refusal(answer)
                yield answer
                return
            finally:
                answer.close()

    def json(self, method: str, path: str, **request: Any) -> Any:
        """The answer's JSON; None for an empty one."""
        answer = self.ask(method, path, **request)
        if answer.status_code == 204:
            return None
        try:
            return answer.json()
        except ValueError:
            raise errors.ServerFault(
                f"{self.url} answers, but not as Haein does: is the address right?", status=answer.status_code
            ) from None

    def _away(self, fault: httpx.TransportError) -> errors.ServerAway:
        what = str(fault) or type(fault).__name__
        return errors.ServerAway(f"The server at {self.url} does not answer ({what}). Is it up, is the address right?")

    def _refusal(self, answer: httpx.Response) -> errors.HaeinError:
        try:
            answer.read()
            told = answer.json()
        except (ValueError, httpx.TransportError):
            told = None
        status = answer.status_code
        if not isinstance(told, dict) or "detail" not in told:
            return self._strange(answer)
        sentence, code = str(told["detail"]), str(told.get("code", ""))
        if status == 422 and code != "idempotency_mismatch":
            return errors.Invalid(sentence, status=status, code=code, fields=_fields(told))
        if status == 429:
            return errors.TooManyRequests(sentence, status=status, code=code, retry_after=_retry_after(answer) or 0)
        if status in _AWAY:
            return errors.ServerAway(sentence)
        kind = errors.ServerFault if status >= 500 else _BY_STATUS.get(status, errors.Refused)
        return kind(sentence, status=status, code=code)

    def _strange(self, answer: httpx.Response) -> errors.HaeinError:
        status = answer.status_code
        if answer.is_redirect:
            return errors.ServerFault(
                f"{self.url} sends on to {answer.headers.get('Location', '')}: give that address instead.",
                status=status,
            )
        if status in _AWAY:
            return errors.ServerAway(f"What stands before {self.url} says that it is away (status {status}).")
        kind = errors.ServerFault if status >= 500 else _BY_STATUS.get(status, errors.ServerFault)
        return kind(f"{self.url} answered with status {status}, and not as Haein does: is the address right?",
                    status=status)  # fmt: skip


_BY_STATUS: Mapping[int, type[errors.Refused]] = {
    401: errors.NotSignedIn,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    422: errors.Conflict,
}


class _Tries:
    def __init__(self, patience: float, waiting: Callable[[str], None] | None) -> None:
        self.deadline = time.monotonic() + patience
        self.pause = _FIRST_PAUSE_S
        self.waiting = waiting

    def again(self, asked_for: float | None, why: str) -> bool:
        """Waits for its turn; False when that would be longer than the patience."""
        # Jitter, so that many clients of a server that comes back don't come back at once.
        pause = asked_for if asked_for is not None else self.pause * random.uniform(0.5, 1.5)
        if time.monotonic() + pause > self.deadline:
            return False
        if self.waiting:
            self.waiting(why)
        time.sleep(pause)
        self.pause = min(self.pause * 2, _LONGEST_PAUSE_S)
        return True


def _retry_after(answer: httpx.Response) -> float | None:
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdecimal() else None


def _fields(told: Mapping[str, Any]) -> dict[str, str]:
    listed = told.get("errors")
    if not isinstance(listed, list):
        return {}
    found: dict[str, str] = {}
    for one in listed:
        if isinstance(one, dict):
            name, sentence = str(one.get("field", "")), str(one.get("detail", ""))
            found[name] = f"{found[name]} {sentence}" if name in found else sentence
    return found
