"""The command `haein`."""

from __future__ import annotations

import os
import sys


def main() -> None:
    from haein.client.cli import app

    for stream in (sys.stdout, sys.stderr):
        # A terminal that can't show a character of a job's log is no reason to stop showing it.
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        app()
    except BrokenPipeError:
        # As with `haein logs JOB | head`. Python would complain once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
