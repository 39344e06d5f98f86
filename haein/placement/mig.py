"""What MIG allows: profiles by name, where each may start, and tables over every occupancy of a device.

NVIDIA's MIG User Guide, "Supported MIG Profiles": one geometry on A100-80GB, H100, H200 and B200, 7 compute and 8
memory slices; an instance takes contiguous memory slices from one of its legal starts, and any instances that do not
overlap are legal together. The occupancy of a device is thus a mask of 8 bits, one for each memory slice. An agent that
can read the legal starts from the driver should hold them against this table: those of B200 were not tried on a board.
"+me" profiles (one slice with the media engines) are not offered.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

COMPUTE_SLICES, MEMORY_SLICES = 7, 8
# Law 2 counts both dimensions in units of a 56th: 7 slices of 8, and 8 slices of 7.
UNITS = 56
COMPUTE_UNITS, MEMORY_UNITS = UNITS // COMPUTE_SLICES, UNITS // MEMORY_SLICES
FULL = (1 << MEMORY_SLICES) - 1


@dataclass(frozen=True, slots=True)
class Profile:
    """The shape of an instance: its compute slices, its memory slices, and where it may start."""

    compute: int
    memory: int
    starts: tuple[int, ...]

    def bits(self, start: int) -> int:
        return ((1 << self.memory) - 1) << start

    def free_starts(self, mask: int) -> tuple[int, ...]:
        return tuple(start for start in self.starts if not mask & self.bits(start))


_ONE = Profile(1, 1, (0, 1, 2, 3, 4, 5, 6))
_ONE_WIDE = Profile(1, 2, (0, 2, 4, 6))
_TWO = Profile(2, 2, (0, 2, 4))
_THREE = Profile(3, 4, (0, 4))
_FOUR = Profile(4, 4, (0,))
_SEVEN = Profile(7, 8, (0,))
PROFILES = (_ONE, _ONE_WIDE, _TWO, _THREE, _FOUR, _SEVEN)


def _named(narrow: int, wide: int, half: int, all_of_it: int) -> Mapping[str, Profile]:
    return {
        f"1g.{narrow}gb": _ONE,
        f"1g.{wide}gb": _ONE_WIDE,
        f"2g.{wide}gb": _TWO,
        f"3g.{half}gb": _THREE,
        f"4g.{half}gb": _FOUR,
        f"7g.{all_of_it}gb": _SEVEN,
    }


_80, _141, _180 = _named(10, 20, 40, 80), _named(18, 35, 71, 141), _named(23, 45, 90, 180)
# A plain "A100" is missing on purpose: it may be the board of 40 GB, whose profiles are others.
MODELS: Mapping[str, Mapping[str, Profile]] = {
    "A100-80GB": _80,
    "H100": _80,
    "H100-80GB": _80,
    "H200": _141,
    "H200-141GB": _141,
    "B200": _180,
    "B200-180GB": _180,
}
NAMES = frozenset(name for table in MODELS.values() for name in table)

# Instances on one device, by profile and start.
Layout = tuple[tuple[str, int], ...]


@cache
def profiles(model: str) -> Mapping[str, Profile]:
    """The profiles of a device model, by name; none where the model has no MIG or is not known here.

    Drivers write "NVIDIA H100 80GB HBM3" or "NVIDIA A100-SXM4-80GB" for what is called H100 and A100-80GB here.
    """
    words = model.upper().replace("-", " ").split()
    if "H100" in words and "NVL" in words:
        return {}  # a board of 94 GB: its profiles have other names
    for name, table in MODELS.items():
        if all(word in words for word in name.split("-")):
            return table
    return {}


def legal_layouts() -> Iterator[frozenset[tuple[Profile, int]]]:
    """Every set of (profile, start) that can be on one device at once, the empty one too."""
    spots = [(profile, start) for profile in PROFILES for start in profile.starts]

    def grow(at: int, mask: int, layout: frozenset[tuple[Profile, int]]) -> Iterator[frozenset[tuple[Profile, int]]]:
        yield layout
        for index in range(at, len(spots)):
            profile, start = spots[index]
            if not mask & profile.bits(start):
                yield from grow(index + 1, mask | profile.bits(start), layout | {spots[index]})

    return grow(0, 0, frozenset())


@cache
def reachable(mask: int) -> tuple[int, int]:
    """The most compute slices, and the most memory slices, that more instances could still take beside this mask.

    What is free beyond that is unusable: two of 3g leave a compute slice that no profile reaches, seven of 1g a memory
    slice.
    """
    compute = memory = 0
    for profile in PROFILES:
        for start in profile.free_starts(mask):
            more_compute, more_memory = reachable(mask | profile.bits(start))
            compute = max(compute, profile.compute + more_compute)
            memory = max(memory, profile.memory + more_memory)
    return compute, memory


@cache
def is_legal(model: str, layout: Layout) -> bool:
    """Whether the model has these instances, and they can be on one device at once."""
    mask = 0
    for name, start in layout:
        profile = profiles(model).get(name)
        if profile is None or start not in profile.starts or mask & profile.bits(start):
            return False
        mask |= profile.bits(start)
    return True


@cache
def left_of(model: str, layout: Layout, mask: int) -> tuple[int, int]:
    """The compute slices, and the memory slices, of those of the instances that are not held by this mask."""
    table = profiles(model)
    left = [table[name] for name, start in layout if not mask & table[name].bits(start)]
    return sum(profile.compute for profile in left), sum(profile.memory for profile in left)


@cache
def copies(profile: Profile, mask: int) -> int:
    """How many instances of one profile fit beside this mask. Starts of one profile never overlap, so all free ones."""
    return len(profile.free_starts(mask))
