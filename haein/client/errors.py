"""What can go wrong between a program and a Haein: one class for each thing that its reader would do about it."""

from __future__ import annotations

from collections.abc import Mapping


class HaeinError(Exception):
    """Everything that this package raises on purpose. Its text is one sentence, meant for a person."""


class BadFiles(HaeinError):
    """Files that can't be sent or can't be written: the sentence names the one that is at fault."""


class Refused(HaeinError):
    """The server answered, and it was no. `status` is HTTP's, `code` the server's word for it ("" without one)."""

    def __init__(self, sentence: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(sentence)
        self.status = status
        self.code = code


class NotSignedIn(Refused):
    """There is no token, or the server does not know it (any longer)."""


class Forbidden(Refused):
    """The token is good, but not for this: a scope is missing, or the role."""


class NotFound(Refused):
    """No such thing, or not for this reader: the two can't be told apart."""


class Conflict(Refused):
    """The thing is not in a state for this, as a cancel of a job that has ended."""


class Invalid(Refused):
    """What was asked for can't be. `fields` maps the API's name of each field to its sentence."""

    def __init__(self, sentence: str, *, status: int = 422, code: str = "invalid", fields: Mapping[str, str]) -> None:
        super().__init__(sentence, status=status, code=code)
        self.fields = dict(fields)


class TooManyRequests(Refused):
    """Asked too often, for longer than the client's patience. `retry_after` is in seconds."""

    def __init__(self, sentence: str, *, status: int, code: str, retry_after: float) -> None:
        super().__init__(sentence, status=status, code=code)
        self.retry_after = retry_after


class ServerFault(Refused):
    """The server failed, or something that is no Haein answered in its place."""


class ServerAway(HaeinError):
    """Nobody answered in time, or the server said that it can't at the moment."""
