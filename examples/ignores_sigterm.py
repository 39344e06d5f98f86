"""Ignore the request to end, as a job with a careless signal handler does: it is killed after its grace period."""

from __future__ import annotations

import signal
import time


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: print("asked to end; going on regardless", flush=True))
    for second in range(1, 601):
        print(f"second {second} of 600", flush=True)
        time.sleep(1)


if __name__ == "__main__":
    main()
