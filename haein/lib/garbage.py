"""Work that makes very many objects which all live to its end."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Do not look for cycles meanwhile: the collector would walk all that was made again and again and free nothing.

    A pass over 50,000 waiting jobs takes half as long so. Where several threads do it at once, the first that is done
    turns the collector on again.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
