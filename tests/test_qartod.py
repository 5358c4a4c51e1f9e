"""The QARTOD vectors of ioos_qc for the checks we share, and where we differ on purpose.

Our grades as their flags: Good is 1, Uncertain is suspect (3), Bad is fail (4), an empty value is
missing (9). docs/VALIDATION.md tells the differences in words; here each is listed row by row, so that
one more or one less fails.
"""

from __future__ import annotations

import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.batch import Batch
from twinloop.stages.validate import ValidateStage
from twinloop.status import severity
from twinloop.tags import Tag, TagTable

VECTORS = Path(__file__).parents[1] / ".." / "shared" / "data" / "ioos_qc" / "qartod_vectors.json"

pytestmark = pytest.mark.skipif(not VECTORS.exists(), reason="no QARTOD vectors beside the checkout")

GOOD, SUSPECT, FAIL, MISSING = 1, 3, 4, 9


@functools.cache
def vectors(function: str) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = json.loads(VECTORS.read_text())
    return [call for call in calls if call["fn"] == function]


def numbers(recorded: Any) -> list[float]:
    """A recorded array: a list or a tagged one; null, "NaN" and masked entries are NaN."""
    if isinstance(recorded, dict):
        recorded = recorded.get("__nd__", recorded.get("__ma__"))
    return [math.nan if isinstance(entry, dict | str | None) else float(entry) for entry in recorded]


def seconds(recorded: Any) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Recorded times as whole seconds since the epoch."""
    if isinstance(recorded, dict):
        return np.array(recorded["__dt__"], "datetime64[s]").astype(np.int64)
    return np.array(recorded, np.int64)


def flags(tag: Tag, values: list[float], time_s: np.ndarray[Any, np.dtype[np.int64]]) -> list[int]:
    """Our verdicts as QARTOD flags."""
    batch = Batch.raw(tag=[0] * len(values), time=time_s[: len(values)] * 1_000_000_000, value=values)
    out = ValidateStage(TagTable([tag])).step(batch, [])
    assert len(out) == len(values)
    graded = np.array([GOOD, SUSPECT, FAIL])[severity(out.status)]
    return np.where(np.isnan(out.value), MISSING, graded).tolist()  # type: ignore[no-any-return]


def plain(**rules: Any) -> Tag:
    """A tag with the one check under test; the level never counts as moved."""
    return Tag(name="A.t", asset="A", zscore=math.inf, rebaseline=0, **rules)


def differences(ours: list[int], theirs: list[int]) -> dict[int, tuple[int, int]]:
    """Rows that differ: (theirs, ours)."""
    assert len(ours) == len(theirs)
    return {row: (t, o) for row, (t, o) in enumerate(zip(theirs, ours, strict=True)) if t != o}


@pytest.mark.parametrize("case", range(8))
def test_gross_range_is_qartods(case: int) -> None:
    call = vectors("gross_range_test")[case]
    fail, suspect = call["args"]["fail_span"], call["args"]["suspect_span"]
    tag = plain(low=fail[0], high=fail[1], warn_low=suspect[0], warn_high=suspect[1])
    values = numbers(call["args"]["inp"])
    assert flags(tag, values, np.arange(len(values))) == call["flags"]["__ma__"]


ROUND_A_SPIKE = {
    2: (SUSPECT, GOOD),
    16: (GOOD, SUSPECT),
    17: (GOOD, SUSPECT),
    18: (GOOD, SUSPECT),
    19: (SUSPECT, GOOD),
}
"""QARTOD compares with the sample before, whatever it was; we with the last good one. So the way back
(rows 2 and 19) is no fault, and what stays up there (16 to 18) is still one."""

RATE_DIFFERENCES = {
    "test_rate_of_change": ROUND_A_SPIKE,
    # We have no second threshold: a rate makes a value doubtful, never Bad.
    "test_rate_of_change_fail_flag": {
        **ROUND_A_SPIKE,
        8: (FAIL, SUSPECT),
        15: (FAIL, SUSPECT),
        19: (FAIL, GOOD),
    },
    "test_rate_of_change_missing_values": {2: (SUSPECT, GOOD)},
    "test_rate_of_change_negative_values": {2: (SUSPECT, GOOD)},
}


@pytest.mark.parametrize("case", range(10))
def test_rate_of_change_is_qartods_but_for_the_way_back_from_a_spike(case: int) -> None:
    call = vectors("rate_of_change_test")[case]
    args = call["args"]
    ours = flags(plain(rate_limit=args["threshold"]), numbers(args["inp"]), seconds(args["tinp"]))
    expected = RATE_DIFFERENCES[call["test"].rpartition("::")[2]]
    assert differences(ours, call["flags"]["__ma__"]) == expected


FLAT_DIFFERENCES = {
    # We have no second threshold: a stuck value is doubtful, never Bad.
    "test_flat_line": {6: (FAIL, SUSPECT), 7: (FAIL, SUSPECT)},
    "test_flat_line_starting_from_beginning": {5: (FAIL, SUSPECT), 6: (FAIL, SUSPECT)},
    "test_flat_line_short_timeseries": {5: (FAIL, SUSPECT)},
    # They count the missing time before the first equal value as flat; we count from that value on.
    "test_flat_line_missing_values": {
        4: (SUSPECT, GOOD),
        5: (SUSPECT, GOOD),
        6: (FAIL, SUSPECT),
        7: (FAIL, SUSPECT),
    },
    # They slide a window of spread below the tolerance over a ramp; a deadband lets go of it.
    "test_flat_line_with_spike": {9: (SUSPECT, GOOD)},
}


@pytest.mark.parametrize("case", range(21))
def test_flat_line_is_qartods_through_a_deadband_but_for_its_fail_threshold(case: int) -> None:
    call = vectors("flat_line_test")[case]
    args, theirs = call["args"], call["flags"]["__ma__"]
    values, time_s = with_deadband(numbers(args["inp"]), args["tolerance"]), seconds(args["tinp"])
    # They count whole sampling intervals, rounding down; we measure the time that passed.
    interval = int(time_s[1] - time_s[0]) if len(time_s) > 1 else 1
    stuck_ns = args["suspect_threshold"] // interval * interval * 1_000_000_000
    expected = FLAT_DIFFERENCES[call["test"].rpartition("::")[2]]
    # One recorded test makes several calls: a difference shows only where they flag something.
    expected = {row: pair for row, pair in expected.items() if row < len(theirs) and theirs[row] != GOOD}
    assert differences(flags(plain(stuck_ns=stuck_ns), values, time_s), theirs) == expected


def with_deadband(values: list[float], tolerance: float) -> list[float]:
    """Values as a source with a deadband reports them: we call only an unchanged value stuck."""
    out: list[float] = []
    held = math.nan
    for value in values:
        if not math.isnan(value) and not abs(value - held) < tolerance:
            held = value
        out.append(math.nan if math.isnan(value) else held)
    return out


def test_without_a_deadband_the_smallest_change_says_that_the_sensor_is_alive() -> None:
    values = [2.0, 2.0001, 2.0, 2.0001, 2.0, 2.0001]
    assert flags(plain(stuck_ns=2_000_000_000), values, np.arange(6)) == [GOOD] * 6
