"""Validation: nanoseconds a sample beside a plain-Python and a dense NumPy peer, on the same samples.

    python benchmarks/validate.py [--rounds N]

All three judge range, warn range, rate, spike, rolling z-score and stuck, one sample a tag and batch. The
peers do less (no duplicates, late samples, irregular batches, events or re-baseline): they are what one
would write first. "shuffled" is ours with the batch in random tag order, which the dense peer cannot take.
Figures are the median of the rounds; a ratio is the peer's to ours, in table order.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import Batch
from twinloop.stages.impute import ImputeStage
from twinloop.stages.validate import ValidateStage
from twinloop.tags import Tag, TagTable

F64 = npt.NDArray[np.float64]
S: Final = 1_000_000_000
LOW, HIGH, WARN_HIGH, RATE, SPIKE, Z, WINDOW, STUCK_S = -50.0, 400.0, 150.0, 5.0, 0.2, 3.0, 100, 600.0


class PythonTag:
    """One tag in plain Python, O(1) a sample: running sums over a ring."""

    def __init__(self) -> None:
        self.ring = [0.0] * WINDOW
        self.n = self.head = 0
        self.total = self.squares = 0.0
        self.good = self.good_s = self.held = self.changed = math.nan

    def judge(self, value: float, now: float) -> int:
        """Reason bits of one sample."""
        if not LOW <= value <= HIGH:
            return 1
        found = 2 if value > WARN_HIGH else 0
        if value != self.held:
            self.held, self.changed = value, now
        elif now - self.changed >= STUCK_S:
            found |= 4
        if self.n:
            step = abs(value - self.good)
            if step > RATE * (now - self.good_s):
                found |= 8
            if step > SPIKE * max(abs(self.good), 22.5):
                found |= 16
        if self.n >= 10:
            mean = self.total / self.n
            variance = max(self.squares / self.n - mean * mean, 0.0) * self.n / (self.n - 1)
            if abs(value - mean) > Z * math.sqrt(variance):
                found |= 32
        if not found:
            old = self.ring[self.head]
            self.n = min(self.n + 1, WINDOW)
            self.total += value - old
            self.squares += value * value - old * old
            self.ring[self.head] = value
            self.head = (self.head + 1) % WINDOW
            self.good, self.good_s = value, now
        return found


class NumpyTags:
    """All tags at once, dense: exactly one sample a tag and call."""

    def __init__(self, n: int) -> None:
        self.ring = np.zeros((WINDOW, n))
        self.every = np.arange(n)
        self.n = np.zeros(n, np.int64)
        self.head = np.zeros(n, np.int64)
        self.total, self.squares = np.zeros(n), np.zeros(n)
        self.good, self.good_s, self.held, self.changed = (np.full(n, np.nan) for _ in range(4))

    def judge(self, value: F64, now: float) -> npt.NDArray[np.int64]:
        """Reason bits of one sample of every tag."""
        found = np.where((value < LOW) | (value > HIGH), 1, 0)
        found |= np.where(value > WARN_HIGH, 2, 0)
        same = value == self.held
        found |= np.where(same & (now - self.changed >= STUCK_S), 4, 0)
        self.changed = np.where(same, self.changed, now)
        self.held = value
        step = np.abs(value - self.good)
        found |= np.where(step > RATE * (now - self.good_s), 8, 0)
        found |= np.where(step > SPIKE * np.maximum(np.abs(self.good), 22.5), 16, 0)
        count = np.maximum(self.n, 2)
        mean = self.total / count
        variance = np.maximum(self.squares / count - mean * mean, 0.0) * count / (count - 1)
        far = np.abs(value - mean) > Z * np.sqrt(variance)
        found |= np.where((self.n >= 10) & far, 32, 0)
        good = found == 0
        rows, head, new = self.every[good], self.head[good], value[good]
        old = self.ring[head, rows]
        self.ring[head, rows] = new
        self.total[rows] += new - old
        self.squares[rows] += new * new - old * old
        self.head[rows] = (head + 1) % WINDOW
        self.n[rows] = np.minimum(self.n[rows] + 1, WINDOW)
        self.good[rows], self.good_s[rows] = new, now
        return found


def tags(n: int) -> TagTable:
    """A table of like tags."""
    return TagTable(
        Tag(
            name=f"R{index}.temperature",
            asset=f"R{index}",
            low=LOW,
            high=HIGH,
            warn_high=WARN_HIGH,
            rate_limit=RATE,
            spike_fraction=SPIKE,
            zscore=Z,
            window=WINDOW,
            stuck_ns=int(STUCK_S * S),
        )
        for index in range(n)
    )


def median_ns(judge: Callable[[int], object], rounds: int, n: int) -> float:
    """Median time of a round, ns a sample."""
    taken = []
    for index in range(rounds):
        start = time.perf_counter_ns()
        judge(index)
        taken.append((time.perf_counter_ns() - start) / n)
    return statistics.median(taken)


def ours(
    table: TagTable, values: F64, order: npt.NDArray[np.int64], warm: int, rounds: int
) -> tuple[float, float]:
    """Validation and imputation, ns a sample, with the batch's tags in some order."""
    n = len(order)
    stage, fills = ValidateStage(table), ImputeStage(table)

    def batch(index: int) -> Batch:
        row = values[index % len(values)]
        return Batch.raw(tag=order, time=np.full(n, index * S), value=row[order])

    for index in range(warm):
        stage.step(batch(index), [])
    ready = [batch(warm + index) for index in range(rounds)]
    judged: list[Batch] = []
    stage_ns = median_ns(lambda i: judged.append(stage.step(ready[i], [])), rounds, n)
    return stage_ns, median_ns(lambda i: fills.step(judged[i]), rounds, n)


def compare(n: int, rounds: int) -> None:
    """Print one line for batches of `n` tags."""
    rng = np.random.default_rng(0)
    warm = WINDOW + 10
    values = 85 + 0.5 * rng.normal(size=(min(warm + rounds, 256), n))
    values[rng.random(values.shape) < 0.001] += 40
    table = tags(n)
    dense = NumpyTags(n)
    for index in range(warm):
        dense.judge(values[index % len(values)], float(index))
    dense_ns = median_ns(lambda i: dense.judge(values[(warm + i) % len(values)], float(warm + i)), rounds, n)
    ours_ns, fills_ns = ours(table, values, np.arange(n), warm, rounds)
    shuffled_ns, _ = ours(table, values, rng.permutation(n), warm, rounds)

    few = min(n, 1000)
    plain = [PythonTag() for _ in range(few)]
    lists = [row[:few].tolist() for row in values]

    def python_round(index: int) -> None:
        for tag, value in zip(plain, lists[index % len(lists)], strict=True):
            tag.judge(value, float(index))

    for index in range(warm):
        python_round(index)
    plain_ns = median_ns(lambda i: python_round(warm + i), rounds, few)
    print(
        f"{n:>8} {ours_ns:>9.0f} {shuffled_ns:>9.0f} {fills_ns:>9.0f} {dense_ns:>12.0f}"
        f" {dense_ns / ours_ns:>7.1f}x {plain_ns:>13.0f} {plain_ns / ours_ns:>7.1f}x"
    )


def main() -> None:
    """Compare at three sizes."""
    parser = argparse.ArgumentParser(description="Validation beside two peers, ns a sample.")
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    peers = f"{'NumPy dense':>12} {'':>8} {'plain Python':>13}"
    print(f"{'tags':>8} {'validate':>9} {'shuffled':>9} {'impute':>9} {peers}")
    for n in (1_000, 10_000, 100_000):
        compare(n, rounds)


if __name__ == "__main__":
    main()
