"""Windows by OPC UA Part 13: the standard's own examples, all of them, in value and status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from twinloop.aggregates import Configuration, Rows, aggregate
from twinloop.status import BAD, CALCULATED, GOOD, INTERPOLATED, PARTIAL, UNCERTAIN, StatusCode

VECTORS = Path("shared/data/opcua_part13/historian_vectors.json")
PATH = next((each / VECTORS for each in Path(__file__).parents if (each / VECTORS).exists()), VECTORS)
pytestmark = pytest.mark.skipif(not PATH.exists(), reason="the folder shared/data is not here")

SECOND = 1_000_000_000
NOON = 1_700_006_400 * SECOND  # any; the vectors count from 12:00:00
END = 100
TABLES = {
    "interpolative_5s": ("interpolative", 5),
    "average_5s": ("average", 5),
    "minimum_16s": ("minimum", 16),
    "maximum_16s": ("maximum", 16),
    "percentGood_16s_nodeopcua": ("percent_good", 16),
    "percentBad_16s_nodeopcua": ("percent_bad", 16),
}
WORDS = {
    "Good": GOOD,
    "Uncertain": UNCERTAIN,
    "Bad": BAD,
    "BadNoData": int(StatusCode.BAD_NO_DATA),
    "UncertainDataSubNormal": int(StatusCode.UNCERTAIN_DATA_SUB_NORMAL),
    "Calculated": CALCULATED,
    "Interpolated": INTERPOLATED,
    "Partial": PARTIAL,
}
# What these rows should be by the standard, and why. All others agree; there is none that does not apply.
CONTRADICTED = {
    ("historian1", "maximum_16s", "12:01:20"): (
        90.0,
        "Good|Calculated|Partial",
        "5.4.3.11: Calculated unless it is at the start of the window; 90 is at 12:01:30, as in historian 2",
    ),
    ("historian2", "maximum_16s", "12:00:48"): (
        50.0,
        "Good|Calculated",
        "5.4.3.11: the same; 50 is at 12:00:52. `Good` is the row of the minimum, which is at 12:00:48",
    ),
    ("historian1", "percentGood_16s_nodeopcua", "12:00:32"): (
        0.0,
        "Good|Calculated",
        "5.4.3.33: always Good; Annex A.29 has a DurationGood of 0 ms there. No value is node-opcua's own",
    ),
}


def seconds(clock: str) -> int:
    hours, minutes, rest = map(int, clock.split(":"))
    return (hours - 12) * 3600 + minutes * 60 + rest


def code(words: str) -> int:
    made = 0
    for word in words.split("|"):
        made |= WORDS[word]
    return made


def rows() -> list[tuple[str, str, str, float | None, str | None]]:
    """(historian, table, window, value, status) of every vector."""
    if not PATH.exists():
        return []
    data = json.loads(PATH.read_text())
    return [
        (historian, table, row[0], row[1], row[2] if len(row) > 2 else None)
        for historian, content in data.items()
        if historian != "note"
        for table in content
        if table not in {"config", "raw"}
        for row in content[table]
    ]


def answers(historian: str, table: str) -> dict[str, tuple[float, int]]:
    content: dict[str, Any] = json.loads(PATH.read_text())[historian]
    raw, said = content["raw"], content["config"]
    name, every = TABLES.get(table) or (table.rpartition("_")[0], int(table.rpartition("_")[2][:-1]))
    configuration = Configuration(
        treat_uncertain_as_bad=said["treatUncertainAsBad"],
        percent_data_good=said["percentDataGood"],
        percent_data_bad=said["percentDataBad"],
        use_sloped_extrapolation=said["useSlopedExtrapolation"],
        stepped=said["stepped"],
        resolution_ns=1_000_000,  # the examples' historian counts milliseconds
    )
    time_ns = np.array([NOON + seconds(clock) * SECOND for clock, _, _ in raw])
    value = np.array([np.nan if number is None else number for _, number, _ in raw], float)
    status = np.array([code(words) for _, _, words in raw], np.uint32)
    edges = np.array([*range(0, END, every), END]) * SECOND + NOON
    found = aggregate(Rows(time_ns, value, status), edges, [name], configuration, whole_ns=every * SECOND)[
        name
    ]
    return {
        f"12:{(at // 60):02}:{at % 60:02}": (float(v), int(s))
        for at, v, s in zip(range(0, END, every), found.value, found.status, strict=True)
    }


def agrees(found: tuple[float, int], value: float | None, status: str | None) -> bool:
    same = found[0] == pytest.approx(np.nan if value is None else value, abs=6e-4, nan_ok=True)
    return bool(same) and (status is None or found[1] == code(status))


@pytest.mark.parametrize(("historian", "table", "window", "value", "status"), rows())
def test_a_vector_of_annex_a(
    historian: str, table: str, window: str, value: float | None, status: str | None
) -> None:
    found = answers(historian, table)[window]
    contradicted = CONTRADICTED.get((historian, table, window))
    if contradicted is not None:
        assert not agrees(found, value, status), "no contradiction any more: remove it from the table"
        value, status, _ = contradicted
    assert agrees(found, value, status), (found[0], hex(found[1]), value, status)


# More of Annex A, for aggregates the vectors leave out: by window, `-` for Bad_NoData, u for
# Uncertain_DataSubNormal, c Calculated, i Interpolated, p Partial.
LETTERS = {"u": "UncertainDataSubNormal", "c": "Calculated", "i": "Interpolated", "p": "Partial"}
MORE = {
    ("historian1", "duration_good", 16): "6000cp 16000c 0c 14000c 0c 10001cp -",  # A.29
    ("historian2", "duration_good", 16): "14000cp 16000c 10000c 16000c 13000c 7001cp -",
    ("historian3", "duration_good", 16): "14000cp 16000c 10000c 16000c 13000c 7001cp -",
    ("historian1", "time_average", 5): "- - 12.5c 17.5c 22.5c 27.5c 32.5uc 37.5uc 42.5uc 47.5uc 52.5c 57.5c "
    "62.5uc 67.5uc 72.5uc 77.5uc 82.5c 87.5c 90uc 90uc",  # A.4
    ("historian1", "time_average2", 5): "- - 12.5c 17.5c 22.5c 27.5c 30uc 30uc - - 52.5c 57.5c 62.5uc 67.5uc "
    "72.5uc 77.5uc 82.5c 87.5c 90ucp -",  # A.5
    ("historian1", "start_bound", 16): "-p 16i 30ui - 64ui 80p -",  # A.25
    ("historian2", "start_bound", 16): "-p 16.087i 26.818i 40 56i -p -",
    ("historian3", "start_bound", 16): "-p 10i 25i 40 50i -p -",
}


@pytest.mark.parametrize(("historian", "name", "every"), MORE)
def test_another_table_of_annex_a(historian: str, name: str, every: int) -> None:
    found = list(answers(historian, f"{name}_{every}s").values())
    for (value, status), said in zip(found, MORE[historian, name, every].split(), strict=True):
        number = said.rstrip("ucip")
        words = [LETTERS[each] for each in said[len(number) :]]
        if number == "-":
            assert agrees((value, status), None, "|".join(["BadNoData", *words])), (said, value, hex(status))
        else:
            assert agrees((value, status), float(number), "|".join(["Good", *words])), (
                said,
                value,
                hex(status),
            )
