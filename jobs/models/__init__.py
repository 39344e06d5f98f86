"""The rows of jobs."""

from jobs.models.paper import Import, Pulse, Replay, Settled
from jobs.models.queue import Claim, Promise, Quota, Repack, Share, Spent, Window
from jobs.models.work import STATE_NAMES, Allocation, Attempt, Event, Job, Upload, Worker

__all__ = [
    "STATE_NAMES",
    "Allocation",
    "Attempt",
    "Claim",
    "Event",
    "Import",
    "Job",
    "Promise",
    "Pulse",
    "Quota",
    "Repack",
    "Replay",
    "Settled",
    "Share",
    "Spent",
    "Upload",
    "Window",
    "Worker",
]
