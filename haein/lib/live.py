"""The one way a change leaves for the browsers: after the commit, as a hint, never as the truth.

A push that is lost costs a page a few seconds until it looks by itself; so nothing here waits and nothing raises. All
processes publish to one channel and every web process holds one subscription to it, whatever the number of browsers.
"""

from __future__ import annotations

import functools
import json
import threading

import redis
from django.conf import settings
from django.db import transaction

from haein.lib.hints import Hints

CHANNEL = "haein:live"
# The audience of the pages that show the whole cluster.
CLUSTER = "cluster"
# One message is on its way and one waits: whatever is pushed meanwhile goes with the second.
_hints = Hints("live", most=2, rest_s=0.01)
_pending: set[str] = set()
_lock = threading.Lock()


def group(kind: str, identifier: object) -> str:
    """The name of an audience, for example the pages that show one job."""
    return f"{kind}.{identifier}"


def push(*audiences: str) -> None:
    """Tell the pages of these audiences, once the present transaction has committed, that something changed."""
    transaction.on_commit(lambda: _soon(audiences), robust=True)


def _soon(audiences: tuple[str, ...]) -> None:
    with _lock:
        _pending.update(audiences)
    _hints.send(_publish)


@functools.cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.HAEIN_REDIS_URL, **settings.HAEIN_REDIS_OPTIONS)


def _publish() -> None:
    with _lock:
        audiences = sorted(_pending)
        _pending.clear()
    if audiences:
        _client().publish(CHANNEL, json.dumps(audiences))
