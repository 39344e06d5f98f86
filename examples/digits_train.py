"""Train a small network on scikit-learn's handwritten digits, and go on from the last checkpoint when started again.

Real data (1,797 images that come with scikit-learn), real training, about 20 seconds on one core. Prints one line per
epoch and keeps its checkpoint in the folder it runs in.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import log_loss
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

CHECKPOINT = Path("digits-checkpoint.joblib")
DIGITS = np.arange(10)
SHIFTS = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)]


def main() -> None:
    arguments = parse_arguments()
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(images / 16.0, labels, test_size=0.25, random_state=0)
    train_x, train_y = with_shifted_copies(train_x, train_y)
    model, done = load_checkpoint(arguments.fresh)
    device = os.environ.get("HAEIN_DEVICES", "cpu")
    print(f"{len(train_x):,} training images, {len(test_x):,} test images, device {device}")
    if done:
        print(f"going on after epoch {done}")
    for epoch in range(done + 1, arguments.epochs + 1):
        began = time.perf_counter()
        train_one_epoch(model, train_x, train_y, seed=epoch)
        loss = log_loss(test_y, model.predict_proba(test_x), labels=DIGITS)
        accuracy = model.score(test_x, test_y)
        took = time.perf_counter() - began
        print(
            f"epoch {epoch:3d}/{arguments.epochs}  loss {loss:.4f}  accuracy {accuracy:.4f}  {took:.2f} s", flush=True
        )
        if epoch % arguments.save_every == 0 or epoch == arguments.epochs:
            save_checkpoint(model, epoch)
    print(f"done: {CHECKPOINT} is kept in this job's folder")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--save-every", type=int, default=5, metavar="EPOCHS")
    parser.add_argument("--fresh", action="store_true", help="begin anew, whatever checkpoint there is")
    return parser.parse_args()


def with_shifted_copies(images: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each image as it is and moved by one pixel in four directions: five times the data, and a better model."""
    squares = images.reshape(-1, 8, 8)
    moved = [np.roll(squares, shift, axis=(1, 2)).reshape(-1, 64) for shift in SHIFTS]
    return np.concatenate(moved), np.tile(labels, len(SHIFTS))


def train_one_epoch(model: MLPClassifier, images: np.ndarray, labels: np.ndarray, seed: int) -> None:
    order = np.random.default_rng(seed).permutation(len(images))
    for batch in np.array_split(order, len(order) // 64):
        model.partial_fit(images[batch], labels[batch], classes=DIGITS)


def load_checkpoint(fresh: bool) -> tuple[MLPClassifier, int]:
    """The model and how many epochs it has seen."""
    if CHECKPOINT.exists() and not fresh:
        kept = joblib.load(CHECKPOINT)
        return kept["model"], kept["epoch"]
    return MLPClassifier((320, 160), solver="sgd", learning_rate_init=0.01, random_state=0), 0


def save_checkpoint(model: MLPClassifier, epoch: int) -> None:
    # Written aside and renamed: a job that is stopped in the middle keeps the checkpoint before.
    aside = CHECKPOINT.with_suffix(".new")
    joblib.dump({"model": model, "epoch": epoch}, aside)
    aside.replace(CHECKPOINT)
    print(f"checkpoint after epoch {epoch}: {CHECKPOINT.stat().st_size / 1e6:.1f} MB", flush=True)


if __name__ == "__main__":
    main()
