"""Identifiers that sort by the time they were made, so that an index on them stays compact."""

import os
import time
from uuid import UUID


def new() -> UUID:
    """A version 7 UUID of this moment."""
    return made(time.time_ns() // 1_000_000, int.from_bytes(os.urandom(10), "big"))


def made(milliseconds: int, noise: int) -> UUID:
    """A version 7 UUID (RFC 9562, section 5.7): 48 bits of milliseconds since the epoch, then 74 of noise's 80 bits."""
    value = (milliseconds & 0xFFFF_FFFF_FFFF) << 80 | noise
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return UUID(int=value)


def short(identifier: UUID) -> str:
    """The last eight digits: what people say aloud; random, so two of one team rarely meet."""
    return identifier.hex[-8:]
