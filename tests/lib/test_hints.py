"""A hint may be lost; whoever gives it never waits and never fails."""

import time
from threading import Event

from haein.lib.hints import Hints
from tests.cast import until


def test_hints_are_sent_one_after_the_other() -> None:
    hints, sent = Hints("test", most=100), list[int]()
    for number in range(50):
        hints.send(lambda number=number: sent.append(number))  # type: ignore[misc]
    assert until(lambda: len(sent) == 50)
    assert sent == list(range(50))


def test_what_finds_the_queue_full_is_dropped_at_once() -> None:
    hints, go, sent = Hints("test", most=3), Event(), list[int]()
    started = time.monotonic()
    hints.send(lambda: go.wait(20))
    for number in range(100):
        hints.send(lambda number=number: sent.append(number))  # type: ignore[misc]
    assert time.monotonic() - started < 1
    go.set()
    until(lambda: len(sent) == 2)
    done = Event()
    hints.send(done.set)
    assert done.wait(20)
    assert sent == [0, 1]


def test_one_that_fails_is_not_heard_of_and_the_next_goes_out() -> None:
    hints, done = Hints("test", most=1), Event()

    def fail() -> None:
        raise OSError("nobody listens")

    hints.send(fail)

    def is_sent() -> bool:
        hints.send(done.set)  # the first may find no room yet
        return done.is_set()

    until(is_sent)
