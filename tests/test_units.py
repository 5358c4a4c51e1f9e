"""Units become each other by one exact factor and offset, and mean what a plant means by them."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.units import check_unit, conversion, delta_factor

FAMILIES = [
    ["degC", "degF", "K", "°C", "°F", "ºC", "degR", "deg C"],
    ["bar", "psi", "mbar", "kPa", "MPa", "Pa", "mmHg", "mmH2O", "inH2O", "barg", "psig", "kPag", "atm"],
    ["L/min", "l/min", "lpm", "gpm", "m3/h", "m^3/h", "m**3/h", "m³/h", "cfm", "L.s-1"],
    ["Nm3/h", "NL/min", "Nm³/h"],
    ["W/(m2 K)", "W/m2/K", "kW.m-2.K-1"],
    ["%", "1", "-", "", "ppm", "%RH"],
    ["mA", "A", "uA", "µA"],
]


def affine(value: float, source: str, target: str) -> float:
    factor, offset = conversion(source, target)
    return value * factor + offset


def test_the_fixed_points_of_the_temperature_scales_convert_exactly() -> None:
    assert affine(32, "degF", "degC") == 0
    assert affine(212, "degF", "degC") == pytest.approx(100, abs=1e-12)
    assert affine(100, "degC", "degF") == 212
    assert conversion("degC", "K") == (1.0, 273.15)
    assert conversion("K", "degC") == (1.0, -273.15)


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (1, "bar", "Pa", 1e5),
        (1, "psi", "bar", 0.06894757293168361),
        (1, "m3/h", "L/min", 1000 / 60),
        (1, "gpm", "L/min", 3.785411784),
        (1, "cfm", "m3/h", 0.3048**3 * 60),
        (50, "%", "1", 0.5),
        (60, "rpm", "rad/s", 6.283185307179586),
        (1, "kg.m-3", "g/L", 1.0),
        (1, "kW h", "MJ", 3.6),
        (1, "Nm", "kNm", 1e-3),
        (1, "mm/s2", "m/s^2", 1e-3),
        (2, "degC/min", "degF/s", 2 * 1.8 / 60),
        (1, "mil", "mm", 0.0254),
        (1, "sccm", "slpm", 1e-3),
    ],
)
def test_units_are_written_as_plants_write_them(
    value: float, source: str, target: str, expected: float
) -> None:
    assert affine(value, source, target) == pytest.approx(expected, rel=1e-15, abs=0)


def test_gauge_pressure_stands_one_standard_atmosphere_above_absolute() -> None:
    assert affine(0, "barg", "bar") == 1.01325
    assert affine(1.01325, "bar", "barg") == 0
    assert affine(0, "psig", "kPa") == pytest.approx(101.325, abs=1e-12)
    assert affine(100, "psig", "barg") == pytest.approx(6.894757293168361, rel=1e-15)
    assert conversion("barg/s", "bar/s") == (1.0, 0.0)


def test_a_difference_ignores_the_offset() -> None:
    assert delta_factor("degC", "degF") == 1.8
    assert delta_factor("barg", "bar") == 1


@given(
    st.sampled_from(FAMILIES).flatmap(lambda f: st.tuples(st.sampled_from(f), st.sampled_from(f))),
    st.floats(-1e6, 1e6),
)
def test_there_and_back_again_is_where_one_started(pair: tuple[str, str], value: float) -> None:
    source, target = pair
    there = affine(value, source, target)
    _, offset = conversion(source, target)
    back = affine(there, target, source)
    slack = abs(offset * conversion(target, source)[0]) + abs(value)
    assert back == pytest.approx(value, abs=1e-14 * slack + 1e-300)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("bar", "degC"),
        ("pH", "1"),
        ("rpm", "Hz"),
        ("Nm3/h", "m3/h"),
        ("scfm", "cfm"),
        ("dBm", "W"),
        ("", "degC"),
    ],
)
def test_units_of_different_things_are_refused(source: str, target: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot become|unknown"):
        conversion(source, target)


@pytest.mark.parametrize(
    ("unit", "hint"),
    [
        ("C", "write degC"),
        ("F", "write degF"),
        ("ton", "short_ton"),
        ("Mpa", "did you mean 'MPa'"),
        ("celcius", "did you mean 'celsius'"),
        ("dgeC", "did you mean 'degC'"),
        ("J/kg.K", "parentheses"),
        ("(m", "do not match"),
        ("m)", "do not match"),
        ("m/", "too early"),
        ("m**99", "no place"),
        ("3 bar", "no place"),
        ("km**9**9**9", "no place"),
        ("m" * 41, "longer than 40"),
    ],
)
def test_a_unit_nobody_can_be_sure_of_is_refused_with_what_to_write(unit: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=r"unknown unit") as caught:
        check_unit(unit)
    assert hint in str(caught.value)


@given(st.one_of(st.text(max_size=60), st.text("m3kKbar/*^()-. °%19", max_size=45)))
def test_any_text_is_a_unit_or_a_refusal(text: str) -> None:
    try:
        check_unit(text)
    except ConfigError:
        return
    assert conversion(text, text + " ") == (1.0, 0.0)


def test_equal_units_cost_no_import_of_pint() -> None:
    code = (
        "import sys; from twinloop.units import conversion; conversion('bar', 'bar'); "
        "assert 'pint' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("unit", ["mdegC", "kg mdB", "kdegF", "dcycle**-9kdelta_degRe", "degC-2", "d0"])
@pytest.mark.parametrize("target", ["degC", "bar", "dB"])
def test_a_unit_that_pint_reads_and_cannot_reckon_with_is_refused_in_words(unit: str, target: str) -> None:
    with pytest.raises(ConfigError, match="unit"):
        conversion(unit, target)
