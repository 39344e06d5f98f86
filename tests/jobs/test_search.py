"""A list finds what was asked for, and only within the reader's reach."""

from collections.abc import Callable
from typing import Any

import pytest

from jobs import search, services
from jobs.models import Job
from tests.cast import Person

pytestmark = pytest.mark.usefixtures("big")
Submit = Callable[..., Job]


@pytest.fixture
def jobs(alice: Person, bob: Person, charlie: Person, submit: Submit) -> None:
    submit(alice, name="digits", command="python digits.py --fast", tags=["vision", "nightly"])
    submit(bob, name="Words", command="python words.py", tags=["text"], priority=9)
    services.cancel(submit(alice, name="digits again", command="python digits.py", tags=["vision"]), scope=bob.scope)
    submit(charlie, name="digits of Charlie", tags=["vision"])


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({}, ["digits again", "Words", "digits"]),
        ({"words": "DIGITS"}, ["digits again", "digits"]),
        ({"words": "digits fast"}, ["digits"]),
        ({"words": "100%"}, []),
        ({"state": "open"}, ["Words", "digits"]),
        ({"state": "cancelled"}, ["digits again"]),
        ({"state": "no-such-state"}, ["digits again", "Words", "digits"]),
        ({"tag": "vision"}, ["digits again", "digits"]),
        ({"tag": "vis"}, []),
        ({"sort": "created_at"}, ["digits", "Words", "digits again"]),
        ({"sort": "-priority"}, ["Words", "digits again", "digits"]),
        ({"sort": "team__name"}, ["digits again", "Words", "digits"]),
        ({"words": "digits", "state": "open", "tag": "nightly"}, ["digits"]),
    ],
)
def test_it_finds_what_was_asked_for(jobs: None, vera: Person, asked: dict[str, Any], names: list[str]) -> None:
    assert [job.name for job in search.find(scope=vera.scope, **asked)] == names
