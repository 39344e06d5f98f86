"""The secrets of an embedded Haein: made once, readable by the service's account alone."""

import os
from pathlib import Path

from haein.supervisor.layout import Layout


def secret(layout: Layout, name: str, *, digits: int = 64) -> str:
    """The named secret, made on first use: so many hexadecimal digits."""
    path = layout.secrets / name
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        layout.write(path, os.urandom(digits // 2).hex() + "\n")
        return path.read_text().strip()


def write_environment(layout: Layout, values: dict[str, str]) -> Path:
    """Leaves the addresses and keys where haein/settings.py reads them."""
    path = layout.secrets / "haein.env"
    layout.write(path, "".join(f"{name}={value}\n" for name, value in values.items()))
    return path
