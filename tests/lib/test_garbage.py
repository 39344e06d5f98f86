"""The collector rests while it is asked to, and works again afterwards whatever happened."""

import gc

import pytest

from haein.lib.garbage import uncollected


def test_the_collector_rests_meanwhile_and_works_again_after_a_failure() -> None:
    assert gc.isenabled()

    def fail() -> None:
        assert not gc.isenabled()
        raise RuntimeError

    with pytest.raises(RuntimeError), uncollected():
        fail()
    assert gc.isenabled()
