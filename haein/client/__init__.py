"""The `haein` command and the Python SDK; it stands alone, so that `pip install haein` is this and nothing else.

    from haein.client import Client, JobSpec

Names are looked up when first used: the command answers `--help` without loading the HTTP library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from haein.client.answers import (
        Array,
        ArrayPlace,
        Attempt,
        Cost,
        CostLine,
        Environment,
        Event,
        File,
        Job,
        LogChunk,
        LogLine,
        Me,
        Node,
        Price,
        Quota,
        Quote,
        Upload,
        UsageLine,
        UsageSummary,
        Window,
    )
    from haein.client.api import Client
    from haein.client.errors import (
        BadFiles,
        Conflict,
        Forbidden,
        HaeinError,
        Invalid,
        NotFound,
        NotSignedIn,
        Refused,
        ServerAway,
        ServerFault,
        TooManyRequests,
    )
    from haein.client.git_source import GitSource
    from haein.client.job_file import BadJobFile, JobFile
    from haein.client.spec import JobSpec

_HOMES = {
    "answers": (
        "Array", "ArrayPlace", "Attempt", "Cost", "CostLine", "Environment", "Event", "File", "Job", "LogChunk",
        "LogLine", "Me", "Node", "Price", "Quota", "Quote", "Upload", "UsageLine", "UsageSummary", "Window",
    ),
    "api": ("Client",),
    "errors": (
        "BadFiles", "Conflict", "Forbidden", "HaeinError", "Invalid", "NotFound", "NotSignedIn", "Refused",
        "ServerAway", "ServerFault", "TooManyRequests",
    ),
    "git_source": ("GitSource",),
    "job_file": ("BadJobFile", "JobFile"),
    "spec": ("JobSpec",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Array", "ArrayPlace", "Attempt", "BadFiles", "BadJobFile", "Client", "Conflict", "Cost", "CostLine",
    "Environment", "Event", "File", "Forbidden", "GitSource", "HaeinError", "Invalid", "Job", "JobFile", "JobSpec",
    "LogChunk", "LogLine", "Me", "Node", "NotFound", "NotSignedIn", "Price", "Quota", "Quote", "Refused",
    "ServerAway", "ServerFault", "TooManyRequests", "Upload", "UsageLine", "UsageSummary", "Window",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
