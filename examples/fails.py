"""Fail as real jobs do: some lines of progress, then a traceback that says what is wrong, and exit code 1."""

from __future__ import annotations

import time


def main() -> None:
    print("loading the data set")
    for step in range(1, 4):
        time.sleep(0.3)
        print(f"step {step}: loss {2.3 / step:.3f}", flush=True)
    load_labels({"images": 1797, "classes": 10})


def load_labels(data: dict[str, int]) -> int:
    if "labels" not in data:
        raise KeyError(f"the data set has no 'labels'; it has {', '.join(sorted(data))}")
    return data["labels"]


if __name__ == "__main__":
    main()
