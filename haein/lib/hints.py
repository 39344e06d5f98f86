"""Sends what may be lost from a thread of its own, so that a Redis that hangs never keeps a page waiting."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import BoundedSemaphore

import structlog

log = structlog.get_logger(__name__)


class Hints:
    """A queue of at most `most` sends, one at a time. What finds it full is dropped: receivers look by themselves.

    `rest_s` seconds lie between two sends, for hints of which one stands for many.
    """

    def __init__(self, name: str, *, most: int, rest_s: float = 0.0) -> None:
        self._name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._rest_s = rest_s
        self._room = BoundedSemaphore(most)

    def send(self, work: Callable[[], object]) -> None:
        """Do the work soon, or never; nothing is raised here."""
        if self._room.acquire(blocking=False):
            self._thread.submit(self._do, work)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # whatever the other side does, the row is written already
            log.warning("hint lost", hint=self._name, why=str(error) or type(error).__name__)
        finally:
            if self._rest_s:
                time.sleep(self._rest_s)
            self._room.release()
