"""The one place that reads the time, so that every rule about time takes it as an argument."""

from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def from_epoch(seconds: float) -> datetime:
    """Seconds since the epoch as an aware moment in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def whole_seconds(moment: datetime) -> int:
    """Seconds since the epoch, rounded down: the grid on which everything is metered."""
    return int(moment.timestamp() // 1)
