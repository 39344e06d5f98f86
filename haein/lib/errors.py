"""The errors that a person is meant to read: each names the field and the way out."""

from collections.abc import Mapping


class Problem(Exception):
    """A request that can't be carried out.

    `message` is a translated sentence; `field` names what to change ("" for the whole request).
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class Invalid(Problem):
    """Several fields at once: `fields` maps each to its sentence."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__(" ".join(fields.values()), field=next(iter(fields), ""))
        self.fields = dict(fields)


class NotFound(Problem):
    """No such thing, or not for this reader: the two can't be told apart from outside."""


class Forbidden(Problem):
    """The reader may see the thing, and may not do this with it."""


class IllegalMove(Exception):
    """A state change that the table does not have: names the thing, its state and the event."""

    def __init__(self, thing: object, state: str, event: str) -> None:
        super().__init__(f"{thing} is {state}: it can't {event}")
