"""Identifiers sort by when they were made."""

import time
from uuid import RFC_4122

from haein.lib import ids


def test_an_id_is_a_version_7_uuid() -> None:
    made = ids.new()
    assert (made.version, made.variant) == (7, RFC_4122)


def test_an_id_carries_the_millisecond_it_was_made_in() -> None:
    before = time.time_ns() // 1_000_000
    made = ids.new()
    assert before <= made.int >> 80 <= time.time_ns() // 1_000_000


def test_later_ids_sort_after_earlier_ones() -> None:
    made = []
    for _ in range(20):
        made.append(ids.new())
        this = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == this:
            pass
    assert made == sorted(made)


def test_no_two_are_alike() -> None:
    assert len({ids.new() for _ in range(10_000)}) == 10_000


def test_the_short_form_is_the_random_end() -> None:
    made = ids.new()
    assert made.hex.endswith(ids.short(made))
    assert len(ids.short(made)) == 8


def test_an_id_of_another_moment_is_of_that_moment_and_of_its_noise() -> None:
    earlier, later = ids.made(1_000, 2**80 - 1), ids.made(1_001, 0)
    assert (earlier.version, later.version) == (7, 7)
    assert earlier < later < ids.new()
    assert ids.made(1_000, 5) != ids.made(1_000, 6)
