"""The table of a job's life: what it allows happens, everything else is refused by name."""

from itertools import product
from pathlib import Path

import pytest
from django.conf import settings

from haein.lib.errors import IllegalMove
from jobs import states
from jobs.states import ENDED, OPEN, TABLE, Event, State

LEGAL = [(state, event, TABLE[event][state]) for event in Event for state in TABLE[event]]
ILLEGAL = [(state, event) for state, event in product(State, Event) if state not in TABLE[event]]


@pytest.mark.parametrize(("state", "event", "after"), LEGAL)
def test_a_move_of_the_table_leads_where_it_says(state: State, event: Event, after: State) -> None:
    assert states.after(state, event) is after
    assert state in states.sources(event)


@pytest.mark.parametrize(("state", "event"), ILLEGAL)
def test_any_other_move_is_refused_with_thing_state_and_event(state: State, event: Event) -> None:
    with pytest.raises(IllegalMove, match=f"^job 7 is {state}: it can't {event}$"):
        states.after(state, event, thing="job 7")


def test_only_a_person_brings_an_ended_job_back() -> None:
    assert {event for state, event, _ in LEGAL if state in ENDED} == {Event.RETRY}


def test_every_state_is_open_or_ended() -> None:
    assert set(State) == OPEN | ENDED
    assert not OPEN & ENDED


def test_the_diagram_of_the_documentation_is_the_table() -> None:
    page = (Path(settings.BASE) / "docs/jobs.md").read_text()
    drawn = page.split("```mermaid\n")[1].split("\n```")[0]
    assert drawn == states.diagram()
