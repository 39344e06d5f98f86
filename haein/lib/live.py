"""The one way a change leaves for the browsers: after the commit, as a hint, never as the truth.

A push that is lost costs a page a few seconds until it looks by itself; so nothing here waits and nothing raises. All
processes publish to one channel and every web process holds one subscription to it, whatever the number of browsers.
"""

from __future__ import annotations

import functools
import json

import redis
from django.conf import settings
from django.db import transaction

from haein.lib.hints import Hints

CHANNEL = "haein:live"
_hints = Hints("live", most=1000)


def group(kind: str, identifier: object) -> str:
    """The name of an audience, for example the pages that show one job."""
    return f"{kind}.{identifier}"


def push(*audiences: str) -> None:
    """Tell the pages of these audiences, once the present transaction has committed, that something changed."""
    transaction.on_commit(lambda: _hints.send(lambda: _publish(audiences)), robust=True)


@functools.cache
def _client() -> redis.Redis:
    return redis.Redis.from_url(settings.HAEIN_REDIS_URL, **settings.HAEIN_REDIS_OPTIONS)


def _publish(audiences: tuple[str, ...]) -> None:
    _client().publish(CHANNEL, json.dumps(audiences))
