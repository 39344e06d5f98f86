"""Asks a worker to look at the queue at once; a hint that may be lost, because every second finds the row anyway."""

from celery import current_app
from django.db import transaction

from haein.lib.hints import Hints

# One is on its way and one waits for it: the look that answers the second finds whatever was wished for meanwhile.
_hints = Hints("wakeup", most=2, rest_s=0.1)
_replays = Hints("replays", most=2)


def soon() -> None:
    """Once the present transaction has committed."""
    transaction.on_commit(lambda: _hints.send(_ask), robust=True)


def _ask() -> None:
    current_app.send_task("jobs.advance", expires=30)


def replay_soon() -> None:
    """The same for whoever runs replays, who looks by himself every few seconds."""
    transaction.on_commit(lambda: _replays.send(_ask_for_replay), robust=True)


def _ask_for_replay() -> None:
    current_app.send_task("jobs.replay", expires=30)
