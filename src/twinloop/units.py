"""Engineering units: factor and offset from one to another, worked out once by pint and cached.

A unit is written as plants write it: `degC`, `m3/h`, `kg.m-3`, `kW h`, `W/(m2 K)`. The text is read by the
small grammar below, not by pint, because it may come from anybody's message: at most 40 characters, powers
up to 9, no numbers, no arithmetic. pint then only ever sees names and small powers, and works in exact
fractions, so that a factor is rounded once, to the nearest float64.

Where pint reads something other than a plant means, the plant's meaning wins or the unit is refused:

- `pH` is a unit of its own (pint: picohenry), as are `dB`, `NTU`, and the normal and standard volumes
  (`Nm3`, `NL`, `Sm3`, `scf`, `slpm`): each converts only within its own family. `%RH` is percent.
- Gauge pressures (`barg`, `mbarg`, `kPag`, `MPag`, `psig`) stand one standard atmosphere (101325 Pa)
  above absolute ones, as degC stands 273.15 above K.
- `C` and `F` (pint: coulomb, farad) and `ton` (three different masses) are refused with what to write.
- Rotation (`rpm`, `rad/s`) does not become frequency (`Hz`): pint would say 1 rpm = 0.105 Hz.
"""

from __future__ import annotations

import difflib
import re
from collections import defaultdict, deque
from collections.abc import Mapping
from fractions import Fraction
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Final

from twinloop.errors import ConfigError

if TYPE_CHECKING:
    import pint

__all__ = ["check_unit", "conversion", "delta_factor"]

MAX_LENGTH: Final = 40
CACHE_SIZE: Final = 4096

_DEFINITIONS: Final = (
    "ph_value = []",
    "decibel_level = []",
    "turbidity_unit = []",
    "normal_cubic_meter = [normal_volume]",
    "normal_liter = normal_cubic_meter / 1000",
    "standard_cubic_meter = [standard_volume]",
    "standard_liter = [standard_liter_volume]",
    "standard_cubic_centimeter = standard_liter / 1000",
    "standard_cubic_foot = [standard_foot_volume]",
    "volt_ampere_reactive = volt * ampere = VAr",
    "bar_gauge = 100000 * pascal; offset: 101325",
    "millibar_gauge = 100 * pascal; offset: 101325",
    "kilopascal_gauge = 1000 * pascal; offset: 101325",
    "megapascal_gauge = 1000000 * pascal; offset: 101325",
    "psi_gauge = 8896443230521 / 1290320000 * pascal; offset: 101325",
)
"""What plants use and pint does not know. A bare `[]` makes a unit that converts only to itself."""

_SYNONYMS: Final[dict[str, str]] = {
    "degree_Celsius": "degC|degc|DEGC|DegC|°C|ºC|˚C|℃|Celsius|Deg C|deg C|degrees C|° C",
    "degree_Fahrenheit": "degF|degf|DEGF|DegF|°F|ºF|˚F|℉|Fahrenheit|Deg F|deg F|degrees F|° F",
    "kelvin": "degK|°K|ºK|Kelvin|deg K",
    "dimensionless": "|-|--|1|none|None|unitless",
    "percent": "%|pct|Percent|PERCENT|%RH|%rh|% RH|%rH|%r.H.|RH",
    "thou": "mil|mils",
    "ph_value": "pH|PH|ph",
    "decibel_level": "dB|dBA|dB(A)|DB",
    "turbidity_unit": "NTU|FNU|FTU",
    "ohm": "Ohm|OHM|Ohms",
    "hertz": "HZ|hz",
    "volt": "Volt|Volts|VOLT",
    "ampere": "Ampere|Amp|Amps|AMP",
    "watt": "Watt|Watts|WATT",
    "kilowatt": "KW|Kw",
    "kilogram": "KG|Kg",
    "volt_ampere_reactive": "var|VAr|VAR",
    "revolutions_per_minute": "RPM|Rpm|r/min|rev/min|U/min",
    "bar": "Bar|BAR|bara|barA|bar(a)|bar a|BARA",
    "millibar": "mBar|mbara|mbar(a)",
    "kilopascal": "KPA|KPa|Kpa|kpa|kPaa|kPa(a)",
    "megapascal": "MPAa|MPa(a)|MPaa",
    "pound_force_per_square_inch": "PSI|Psi|psia|psi(a)|PSIA|psi a",
    "bar_gauge": "barg|barG|bar(g)|bar g|BARG",
    "millibar_gauge": "mbarg|mbarG|mbar(g)|mbar g",
    "kilopascal_gauge": "kPag|kPaG|kPa(g)|kPa g|KPAG",
    "megapascal_gauge": "MPag|MPaG|MPa(g)|MPa g",
    "psi_gauge": "psig|psiG|psi(g)|psi g|PSIG",
    "millimeter_H2O": "mmWC|mmWS|mmCE",
    "inch_H2O": "inWC|inwc|in WC",
    "meter_H2O": "mWC|mWS|mH2O",
    "newton*meter": "Nm",
    "kilonewton*meter": "kNm",
    "millinewton*meter": "mNm",
    "liter/minute": "lpm|LPM|Lpm|L/M",
    "gallon/minute": "gpm|GPM|usgpm|USGPM",
    "gallon/hour": "gph|GPH",
    "gallon/day": "gpd|GPD",
    "foot**3/minute": "cfm|CFM|acfm|ACFM",
    "foot**3/hour": "cfh|CFH",
    "normal_cubic_meter": "Nm3|Nm^3|m3(N)",
    "normal_cubic_meter/hour": "Nm3h|NCMH",
    "normal_liter": "NL|Nl",
    "normal_liter/minute": "NLPM|nlpm|Nlpm",
    "standard_cubic_meter": "Sm3|Sm^3|m3(S)",
    "standard_cubic_foot": "scf|SCF",
    "standard_cubic_foot/minute": "scfm|SCFM",
    "standard_cubic_foot/hour": "scfh|SCFH",
    "standard_liter/minute": "slpm|SLPM|slm|SLM",
    "standard_cubic_centimeter/minute": "sccm|SCCM",
}
_REFUSED: Final[dict[str, str]] = {
    "C": "C is coulomb, an electric charge; for temperature write degC, for charge write coulomb",
    "F": "F is farad, a capacitance; for temperature write degF, for capacitance write farad",
    "ton": "ton is a different mass in different countries; write t (1000 kg), short_ton or long_ton",
    "tons": "ton is a different mass in different countries; write t (1000 kg), short_ton or long_ton",
}
_ALIASES: Final[dict[str, str]] = {
    written: meant for meant, names in _SYNONYMS.items() for written in names.split("|")
}
_SUGGESTED: Final = re.findall(
    r"\S+",
    """degC degF K bar mbar barg Pa kPa MPa hPa psi psig mmHg mmH2O inH2O L/min L/h m3/h m3/s kg/h kg/s t/h
    gpm lpm cfm Nm3/h % ppm pH rpm Hz mA A mV V W kW MW kWh m mm cm in ft m3 L kg g t s min h m/s mm/s
    mol/L mol/m3 g/L mg/L kg/m3 cP mPa.s uS/cm mS/cm celsius fahrenheit kelvin""",
)
"""Offered before pint's own names when a unit is not known."""

_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻", "0123456789-")
_TOKEN: Final = re.compile(
    r"""(?:
        (?P<name> [°º˚]?[^\W\d]\w* | %(?:RH|rh)? | ° )   # a name, perhaps with its power: m3
        (?: (?:\^|\*\*)? (?P<power> (?<=[\^*])[+-]?\d | [+-]\d ) )?   # m^3, m**3, s-1
      | (?P<one> 1(?=\s*/) )                             # 1/min
      | (?P<times> [*.·⋅] )
      | (?P<over> / )
      | (?P<open> \( )
      | (?P<close> \) )
    )\s*""",
    re.VERBOSE,
)
_NAME_AND_POWER: Final = re.compile(r"(?P<name>\w*[^\W\d])(?P<power>\d)")


# What pint raises for texts it takes as units and then cannot reckon with: `mdegC`, powers of 0 or of
# what has an offset. Their own texts are not to be had: formatting them fails on fractions.
_PINT_ERRORS: Final = (TypeError, ValueError, ArithmeticError, AttributeError, LookupError)


class _RefusedError(Exception):
    """Why a text is no unit, in words."""


def conversion(source: str, target: str) -> tuple[float, float]:
    """Factor and offset, each the float64 nearest the truth: `in_target = in_source * factor + offset`.

    Worked out once for a pair and cached, refusals too: ask for every batch, not for every sample.

    >>> conversion("psi", "psi"), conversion("m3/h", "L/min")
    ((1.0, 0.0), (16.666666666666668, 0.0))

    Raises:
        ConfigError: a unit is unknown, or they do not measure the same thing.
    """
    if source == target:
        return 1.0, 0.0
    answer = _converted(source, target)
    if isinstance(answer, str):
        raise ConfigError(answer)
    return answer


def delta_factor(source: str, target: str) -> float:
    """Factor for a difference (a step, a rate, a deviation): 10 degC of change are 18 degF of change.

    >>> delta_factor("degC", "degF")
    1.8

    Raises:
        ConfigError: as for `conversion`.
    """
    return conversion(source, target)[0]


def check_unit(unit: str) -> None:
    """Return when the unit is known.

    Raises:
        ConfigError: it is not; the message names the nearest unit that is.
    """
    refusal = _parsed(unit)[1]
    if refusal:
        raise ConfigError(refusal)


@lru_cache(CACHE_SIZE)
def _converted(source: str, target: str) -> tuple[float, float] | str:
    """Factor and offset, or why there are none."""
    try:
        return _worked_out(source, target)
    except _PINT_ERRORS:
        return f"unit {source!r} cannot become {target!r}"


def _worked_out(source: str, target: str) -> tuple[float, float] | str:
    start, refusal = _parsed(source)
    end, second_refusal = _parsed(target)
    if start is None or end is None:
        return refusal or second_refusal
    registry = _registry()
    if start.dimensionality != end.dimensionality:
        return _unlike(source, target, start.dimensionality, end.dimensionality)
    roots = [registry.get_root_units(unit)[1] for unit in (start, end)]
    if roots[0] != roots[1]:  # radian, count and pH have no dimension, and yet are no plain numbers
        return f"unit {source!r} cannot become {target!r}: {roots[0]} is not {roots[1]}"
    try:
        zero, one, two = (registry.convert(Fraction(x), start, end) for x in (0, 1, 2))
    except (TypeError, ValueError, ArithmeticError):  # pint's logarithms do not take fractions
        return f"unit {source!r} cannot become {target!r}: a factor and an offset do not do it"
    if two - one != one - zero:
        return f"unit {source!r} cannot become {target!r}: a factor and an offset do not do it"
    return float(one - zero), float(zero)


@lru_cache(CACHE_SIZE)
def _parsed(unit: str) -> tuple[pint.Unit | None, str]:
    """What pint makes of a unit and an empty text, or None and why it is refused."""
    shown = repr(unit[: MAX_LENGTH + 1])
    try:
        return _registry().parse_units(_canonical(unit)), ""
    except _RefusedError as refusal:
        return None, f"unknown unit {shown}{refusal}"
    except _PINT_ERRORS:
        return None, f"unknown unit {shown}: a prefix or a power has no place there"


def _canonical(text: str) -> str:
    """A unit in names that pint knows and small powers, safe to hand on.

    Raises:
        _RefusedError: a name is unknown, or the text is not built like a unit.
    """
    text = text.strip().translate(_SUPERSCRIPTS)
    if len(text) > MAX_LENGTH:
        raise _RefusedError(f": longer than {MAX_LENGTH} characters")
    if text in _ALIASES:
        return _ALIASES[text]
    tokens: deque[re.Match[str]] = deque()
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise _RefusedError(f": {text[position]!r} has no place there")
        tokens.append(token)
        position = token.end()
    canonical = _product(tokens)
    if tokens:
        raise _RefusedError(": the parentheses do not match")
    return canonical


def _product(tokens: deque[re.Match[str]]) -> str:
    """`factor { [* or /] factor }`, up to a closing parenthesis or the end; a space multiplies."""
    canonical = _factor(tokens)
    divided = False
    while tokens and not tokens[0]["close"]:
        operator = "*"
        if tokens[0]["times"] or tokens[0]["over"]:
            operator = "/" if tokens.popleft()["over"] else "*"
        if divided and operator == "*":
            raise _RefusedError(": a product after a slash; put it in parentheses, as in J/(kg K)")
        divided = divided or operator == "/"
        canonical += operator + _factor(tokens)
    return canonical


def _factor(tokens: deque[re.Match[str]]) -> str:
    """`name [power]`, the 1 of `1/min`, or `( product )`."""
    if not tokens:
        raise _RefusedError(": it ends too early")
    token = tokens.popleft()
    if token["name"]:
        return _named(token["name"], token["power"])
    if token["one"]:
        return "dimensionless"
    if not token["open"]:
        raise _RefusedError(f": {token[0].strip()!r} has no place there")
    canonical = _product(tokens)
    if not tokens:
        raise _RefusedError(": the parentheses do not match")
    tokens.popleft()
    return f"({canonical})"


def _named(name: str, power: str | None) -> str:
    """One name with its power, as pint reads it; `m3` is m to the power 3 unless it is a name itself."""
    meant = _meaning(name)
    split = _NAME_AND_POWER.fullmatch(name)
    if meant is None and power is None and split:
        meant, power = _meaning(split["name"]), split["power"]
    if meant is None:
        raise _RefusedError(_nearest(name))
    return meant if power is None else f"({meant})**{int(power)}"


def _meaning(name: str) -> str | None:
    """A name as pint knows it, or None.

    Raises:
        _RefusedError: the name means different things to different people.
    """
    if name in _REFUSED:
        raise _RefusedError(f": {_REFUSED[name]}")
    if name in _ALIASES:
        return _ALIASES[name]
    return name if _registry().parse_unit_name(name) else None


def _nearest(name: str) -> str:
    """`; did you mean 'bar'?`, or nothing where no unit is near."""
    word = name.lower()
    suggested = {known.lower(): known for known in _SUGGESTED}
    for names, cutoff in ((suggested, 0.6), (_by_initial().get(word[0], {}), 0.75)):
        near = difflib.get_close_matches(word, names, n=1, cutoff=cutoff)
        if near:
            return f"; did you mean {names[near[0]]!r}?"
    return ""


@cache
def _by_initial() -> dict[str, dict[str, str]]:
    """All of pint's names by their first letter, then lower case: messages may ask often, so not of all."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in _registry():
        found[name[0].lower()][name.lower()] = name
    return dict(found)


def _unlike(source: str, target: str, start: Mapping[str, object], end: Mapping[str, object]) -> str:
    """Why two units do not mix: what each measures, as `[length]^3 [time]^-1`."""
    texts = [
        " ".join(name if power == 1 else f"{name}^{power}" for name, power in sorted(powers.items()))
        for powers in (start, end)
    ]
    first, second = (text or "a plain number" for text in texts)
    return f"unit {source!r} cannot become {target!r}: {first} is not {second}"


@cache
def _registry() -> pint.UnitRegistry[Fraction]:
    """The one registry; made when first asked for, because importing pint takes a third of a second."""
    import pint

    registry: pint.UnitRegistry[Fraction] = pint.UnitRegistry(
        non_int_type=Fraction, autoconvert_offset_to_baseunit=True
    )
    for definition in _DEFINITIONS:
        registry.define(definition)
    return registry
