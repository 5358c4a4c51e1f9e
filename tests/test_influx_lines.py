"""Line protocol: whatever a tag is called and whatever its numbers are, they come back as they were."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from twinloop.batch import Batch
from twinloop.records import Outputs
from twinloop.stores.influx.lines import Encoder, encoded, series
from twinloop.stores.rows import tables

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)


def parse(line: str) -> tuple[str, dict[str, str], dict[str, str], int]:
    """A line as InfluxDB reads it, by the rules of its documentation and by nothing of ours."""
    assert "\n" not in line
    key, fields, time = re.split(r"(?<!\\) ", line)
    measurement, *tags = re.split(r"(?<!\\),", key)

    def plain(text: str) -> str:
        return re.sub(r"\\([,= ])", r"\1", text)

    pairs = [re.split(r"(?<!\\)=", tag) for tag in tags]
    values = dict(field.split("=") for field in fields.split(","))
    return plain(measurement), {plain(key): plain(value) for key, value in pairs}, values, int(time)


def line(name: str, value: float, *, estimate: float = math.nan, unit: str = "degC", time: int = 1) -> str:
    nothing = [math.nan]
    batch = Batch.of(
        tag=[0], time=[time], value=[value], status=[0x8000_0000], reasons=[0xFFFF_FFFF], arrival=[time],
        estimate=[estimate], estimate_std=nothing, rate=nothing,
    )  # fmt: skip
    rows = tables([(7, Outputs(7, 0, batch.buffers()))])["samples"]
    lines = Encoder("twinloop", "demo", [name], [unit]).lines(rows)
    return lines.part(0, 1).decode().removesuffix("\n")


@settings(deadline=None)  # the first call loads what takes long
@given(name=NAMES, unit=NAMES)
@example("", "")
@example("R1.t\\", "")
@example("R1.t=1,x y", "%")
@example("R1.%41\n\r\t", "=")
@example("time", "SELECT")
def test_any_name_and_unit_comes_back(name: str, unit: str) -> None:
    measurement, tags, _, _ = parse(line(name, 1.0, unit=unit))
    assert measurement == "twinloop"
    assert tags["tag"] == encoded(name)
    assert tags["plant"] == "demo"
    assert tags.get("unit", "%FF") == encoded(unit)
    assert list(tags) == sorted(tags), "InfluxDB wants them in order"


@settings(deadline=None)  # the first call loads what takes long
@given(names=st.lists(NAMES, min_size=2, max_size=2, unique=True))
@example(["", "%FF"])
@example(["a\\", "a%5C"])
@example(["%41", "%2541"])
@example(["\n", "%0A"])
def test_no_two_names_become_one_series(names: list[str]) -> None:
    assert encoded(names[0]) != encoded(names[1])
    assert series("m", "p", names[0], "") != series("m", "p", names[1], "")


@settings(deadline=None)
@given(value=NUMBERS, estimate=NUMBERS, time=st.integers(-(2**63), 2**63 - 1))
@example(-0.0, 5e-324, -(2**63))
@example(1e23, 1.7976931348623157e308, 0)
def test_numbers_come_back_exact_and_what_is_no_number_is_left_out(
    value: float, estimate: float, time: int
) -> None:
    _, _, fields, when = parse(line("R1.t", value, estimate=estimate, time=time))
    assert when == time
    assert (fields["status"], fields["reasons"], fields["offset"]) == ("2147483648i", "4294967295i", "7i")
    assert float(fields["value"]) == value
    assert math.copysign(1, float(fields["value"])) == math.copysign(1, value)
    assert float(fields["estimate"]) == estimate
    assert "estimate_std" not in fields
    assert "value" not in parse(line("R1.t", math.inf))[2]


@pytest.mark.parametrize("size", [1, 200, 400, 10_000, 1 << 20])
def test_lines_are_cut_by_bytes_and_none_is_lost(size: int) -> None:
    n = 100
    batch = Batch.raw(tag=np.arange(n) % 3, time=np.arange(n), value=np.arange(n) / 7)
    rows = tables([(0, Outputs(0, 0, batch.buffers()))])["samples"]
    lines = Encoder("m", "p", ["a.x", "b.yy", "c.zzz"], ["", "bar", "1"]).lines(rows)
    portions = lines.portions(size)

    assert b"".join(lines.part(*each) for each in portions) == lines.part(0, n)
    assert all(len(lines.part(*each)) <= size or each[1] - each[0] == 1 for each in portions)
    assert lines.part(0, n).count(b"\n") == n
    assert (len(portions) == n) is (size == 1)


def test_no_rows_are_no_lines() -> None:
    lines = Encoder("m", "p", ["a.x"], [""]).lines(tables([])["samples"])
    assert (len(lines), lines.portions(100)) == (0, [])
