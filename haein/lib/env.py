"""Reading the configuration: the process environment first, then the file that `make up` wrote."""

import os
from pathlib import Path


class Misconfigured(Exception):
    """A setting that can't be used: names it, its value and what it may be."""


class Environment:
    """Named values with types. Nothing is remembered beyond the file, which is read once."""

    def __init__(self, file: Path) -> None:
        self._file = _read(file)

    def text(self, name: str, default: str = "") -> str:
        return os.environ.get(name) or self._file.get(name) or default

    def number(self, name: str, default: int, *, least: int = 0) -> int:
        """A whole number, at least `least`. Raises Misconfigured."""
        value = self.text(name, str(default))
        try:
            number = int(value)
        except ValueError:
            raise Misconfigured(f"{name} is {value!r}: it must be a whole number") from None
        if number < least:
            raise Misconfigured(f"{name} is {number}: it must be at least {least}")
        return number

    def flag(self, name: str, default: bool = False) -> bool:
        """1 or 0. Raises Misconfigured."""
        value = self.text(name, "1" if default else "0")
        if value not in {"0", "1"}:
            raise Misconfigured(f"{name} is {value!r}: it must be 1 or 0")
        return value == "1"

    def words(self, name: str) -> list[str]:
        """Words with commas between them."""
        return [word.strip() for word in self.text(name).split(",") if word.strip()]


def _read(file: Path) -> dict[str, str]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}
