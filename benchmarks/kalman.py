"""The filter bank beside two baselines: nanoseconds a sample, every tag once a batch.

    python benchmarks/kalman.py

The dense baseline is the same two-state filter as NumPy expressions over all tags: it needs exactly one
sample of every tag in each batch, and knows neither status, gate nor NIS. The plain baseline is the same
filter unrolled in Python floats, one sample after another.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from twinloop.batch import Batch
from twinloop.estimation.kalman import KalmanBank
from twinloop.tags import SECOND_NS, Tag, TagTable

F64 = npt.NDArray[np.float64]

NOISE, RATE_NOISE = 0.5, 0.025
R, Q = NOISE**2, RATE_NOISE**2


class Dense:
    """All filters at once, one sample each."""

    def __init__(self, first: F64) -> None:
        self.x, self.v = first.copy(), np.zeros_like(first)
        self.p00, self.p01, self.p11 = np.full_like(first, R), np.zeros_like(first), np.full_like(first, 25.0)

    def step(self, z: F64, dt: float) -> tuple[F64, F64]:
        """Values and deviations after one sample of every tag, `dt` seconds on."""
        p00 = self.p00 + dt * (2.0 * self.p01 + dt * self.p11) + Q * dt**3 / 3.0
        p01 = self.p01 + dt * self.p11 + Q * dt**2 / 2.0
        p11 = self.p11 + Q * dt
        predicted = self.x + dt * self.v
        innovation = z - predicted
        k0, k1 = p00 / (p00 + R), p01 / (p00 + R)
        self.x, self.v = predicted + k0 * innovation, self.v + k1 * innovation
        self.p00, self.p01, self.p11 = (1.0 - k0) * p00, (1.0 - k0) * p01, p11 - k1 * p01
        return self.x, np.sqrt(self.p00)


class Plain:
    """One filter after another in Python floats."""

    def __init__(self, first: F64) -> None:
        self.state = [(float(x), 0.0, R, 0.0, 25.0) for x in first]

    def step(self, z: F64, dt: float) -> tuple[F64, F64]:
        """Values and deviations after one sample of every tag, `dt` seconds on."""
        estimate, std = [], []
        for i, value in enumerate(z.tolist()):
            x, v, p00, p01, p11 = self.state[i]
            p00 += dt * (2.0 * p01 + dt * p11) + Q * dt * dt * dt / 3.0
            p01 += dt * p11 + Q * dt * dt / 2.0
            p11 += Q * dt
            x += dt * v
            innovation = value - x
            k0, k1 = p00 / (p00 + R), p01 / (p00 + R)
            x += k0 * innovation
            self.state[i] = (x, v + k1 * innovation, (1.0 - k0) * p00, (1.0 - k0) * p01, p11 - k1 * p01)
            estimate.append(x)
            std.append(self.state[i][2] ** 0.5)
        return np.array(estimate), np.array(std)


def best_ns(step: Callable[[int], object], samples: int, rounds: int) -> float:
    """Nanoseconds a sample in the fastest of some rounds."""
    taken = []
    for k in range(rounds):
        start = time.perf_counter_ns()
        step(k)
        taken.append(time.perf_counter_ns() - start)
    return min(taken) / samples


def compare(tags: int, *, given: bool) -> tuple[float, float, float]:
    """Ns a sample of bank, dense NumPy and plain Python, after checking that they agree."""
    random = np.random.default_rng(0)
    noise = {"noise": NOISE, "rate_noise": RATE_NOISE} if given else {}
    table = TagTable(Tag(name=f"A.t{i}", asset="A", **noise) for i in range(tags))  # type: ignore[arg-type]
    rounds = max(20, 200_000 // tags)
    values = random.normal(20.0, NOISE, (rounds + 1, tags))
    batches = [
        Batch.raw(tag=np.arange(tags), time=np.full(tags, k * SECOND_NS), value=values[k])
        for k in range(rounds + 1)
    ]
    bank, dense, plain = KalmanBank(table), Dense(values[0]), Plain(values[0])
    bank.step(batches[0])
    bank_ns = best_ns(lambda k: bank.step(batches[k + 1]), tags, rounds)
    dense_ns = best_ns(lambda k: dense.step(values[k + 1], 1.0), tags, rounds)
    plain_rounds = min(rounds, max(3, 30_000 // tags))
    plain_ns = best_ns(lambda k: plain.step(values[k + 1], 1.0), tags, plain_rounds)
    if given:
        np.testing.assert_allclose(bank.value, dense.x, rtol=1e-9)
    return bank_ns, dense_ns, plain_ns


def late_ns(tags: int, behind: int) -> float:
    """Ns a sample that comes after `behind` newer ones of its tag: they are folded again."""
    random = np.random.default_rng(0)
    bank = KalmanBank(TagTable(Tag(name=f"A.t{i}", asset="A", noise=NOISE) for i in range(tags)))
    every = np.arange(tags)
    for k in range(200):
        time_ns = np.full(tags, k * SECOND_NS)
        bank.step(Batch.raw(tag=every, time=time_ns, value=random.normal(20.0, NOISE, tags)))
    start = (199 - behind) * SECOND_NS + 1
    late = [
        Batch.raw(tag=every, time=np.full(tags, start + k), value=random.normal(20.0, NOISE, tags))
        for k in range(20)
    ]
    return best_ns(lambda k: bank.step(late[k]), tags, len(late))


def main() -> None:
    """Print one line a size, then what late samples cost."""
    print(f"{'tags':>8} {'noise':>10} {'bank ns':>9} {'dense ns':>9} {'plain ns':>9}  dense/bank  plain/bank")
    for tags in (1_000, 10_000, 100_000):
        for given in (True, False):
            bank, dense, plain = compare(tags, given=given)
            print(
                f"{tags:8,} {'given' if given else 'estimated':>10} {bank:9.1f} {dense:9.1f} {plain:9.1f}"
                f"  {dense / bank:10.2f}  {plain / bank:10.1f}"
            )
    for behind in (1, 10, 50):
        print(f"{1_000:8,} tags, each sample {behind:2} samples late: {late_ns(1_000, behind):7.0f} ns")


if __name__ == "__main__":
    main()
