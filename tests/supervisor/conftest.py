"""Every test here may have a house."""

from collections.abc import Iterator

import pytest

from tests.house import House, made


@pytest.fixture
def house() -> Iterator[House]:
    with made() as mine:
        yield mine
