"""A start that can't go on, told in one line."""


class Refusal(Exception):
    """The message is one sentence or two: what is in the way, and what to do about it."""
