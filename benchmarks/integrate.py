"""How long 500 reactors take to look 60 s ahead, beside scipy integrating them one by one.

Run: python benchmarks/integrate.py [assets]
The peers get a right-hand side in scalar Python, the fastest they can be given, and a sample of the assets.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.integrate import solve_ivp

from twinloop.twin.integrate import Solution, integrate
from twinloop.twin.models import MODELS, parameter_values
from twinloop.twin.predict import Motion

F64 = npt.NDArray[np.float64]
HORIZON_S, RTOL, SAMPLE = 60.0, 1e-6, 40
SEBORG: dict[str, float | str] = {
    "mode": "continuous",
    "mass_kg": 100.0,
    "heat_capacity_j_per_kg_k": 239.0,
    "heat_transfer_w_per_k": 5e4 / 60,
    "pre_exponential_per_s": 7.2e10 / 60,
    "activation_energy_j_per_mol": 8750 * 8.314,
    "feed_temperature_k": 350.0,
    "flow_m3_per_s": 0.1 / 60,
}


def reactors(n: int, calm: bool) -> tuple[Motion, F64]:  # noqa: FBT001 - one of two cases
    """Reactors near their low steady state, or anywhere up to a runaway."""
    model, rng = MODELS["stirred_tank"], np.random.default_rng(0)
    values = parameter_values(model, SEBORG)
    p = {name: np.full(n, value) for name, value in values.items()}
    p["coolant_temperature_k"] = rng.uniform(295.0, 300.0 if calm else 310.0, n)
    u = np.stack([p[name] for name in model.input_parameters], axis=1)
    x = np.stack((rng.uniform(320.0, 325.0 if calm else 400.0, n), rng.uniform(850.0, 900.0, n)), axis=1)
    return Motion(model, u, p, np.zeros((n, 2), np.bool_), np.zeros((n, 2)), np.zeros(n)), x


def scalar_rhs(coolant_k: float) -> Callable[[float, F64], tuple[float, float]]:
    """The same reactor in plain Python floats."""

    def rhs(_: float, x: F64) -> tuple[float, float]:
        t, c = float(x[0]), float(x[1])
        r = 1.2e9 * math.exp(-8750.0 / t) * c
        flow = (0.1 / 60) / 0.1
        return (
            5e4 / 60 / 23900.0 * (coolant_k - t) + 50_000.0 / 239_000.0 * r + flow * (350.0 - t),
            flow * (1000.0 - c) - r,
        )

    return rhs


def ours(motion: Motion, x: F64, rtol: float) -> Solution:
    """All assets at once."""
    scales = np.array(motion.model.scales)
    return integrate(motion, x, [HORIZON_S], rtol=rtol, atol=rtol * scales)


def main() -> None:
    """Print times, ratios and errors."""
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for calm in (True, False):
        motion, x = reactors(n, calm)
        truth = ours(motion, x, 1e-11).x[0]
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            solution = ours(motion, x, RTOL)
            times.append(time.perf_counter() - begun)
        mine = min(times)
        error = np.abs(solution.x[0] - truth)[:, 0]
        kind = "near steady state" if calm else "up to runaway"
        print(f"{n} reactors, {HORIZON_S:.0f} s ahead, {kind}, rtol {RTOL:g}")
        print(
            f"  twinloop   {1e3 * mine:9.1f} ms   1.0 x   steps mean {solution.steps.mean():.0f}"
            f" max {solution.steps.max()}   error K median {np.median(error):.1e} max {error.max():.1e}"
        )
        for method in ("LSODA", "Radau", "BDF", "RK45"):
            peer(method, motion, x, truth, mine)


def peer(method: str, motion: Motion, x: F64, truth: F64, mine: float) -> None:
    """One of scipy's methods on a sample, scaled up to all assets."""
    count = min(SAMPLE, len(x))
    errors, begun = [], time.perf_counter()
    for i in range(count):
        rhs = scalar_rhs(float(motion.u[i, 0]))
        atol = RTOL * np.array(motion.model.scales)
        got = solve_ivp(rhs, (0.0, HORIZON_S), x[i], method=method, rtol=RTOL, atol=atol)
        errors.append(abs(got.y[0, -1] - truth[i, 0]))
    spent = (time.perf_counter() - begun) * len(x) / count
    print(
        f"  {method:10s} {1e3 * spent:9.1f} ms {spent / mine:5.1f} x"
        f"   error K median {np.median(errors):.1e} max {max(errors):.1e}"
    )


if __name__ == "__main__":
    main()
