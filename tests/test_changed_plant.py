"""A changed plant file keeps the state of all that it does not change, bit for bit, through the files."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pytest

from test_fold import START, tick
from twinloop.batch import Batch, Received
from twinloop.build import build_fold
from twinloop.config.plantfile import load
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.fold import Fold
from twinloop.records import Outputs, Record, Samples
from twinloop.workplace import Workplace, workplace

SECOND: Final = 1_000_000_000
PLANT: Final = """
plant: changing
data_dir: ./data
sources:
  field:
    type: mqtt
    url: mqtt://127.0.0.1:1
    topics:
      "reactor/{asset}/sensor/{tag}": {format: json}
tags:
  temperature: {unit: degC, range: [-50, 400], warn_range: [0, 150], zscore: 4, stale: 3s, window: 12}
  pressure: {unit: bar, rate_limit: 5, fill: linear, noise: 0.01}
  flow_rate: {unit: L/min, spike: 20%, stuck: 5s, fill: model}
assets:
  R101:
    model: stirred_tank
    tags: {temperature: {}, pressure: {}, flow_rate: {}}
  R102:
    model: stirred_tank
    tags: {temperature: {}, pressure: {}, flow_rate: {}}
  V7: {tags: [pressure]}
web: off
"""
TAGS: Final = [
    *(f"{asset}.{tag}" for asset in ("R101", "R102") for tag in ("temperature", "pressure", "flow_rate")),
    "V7.pressure",
]


class Edit(NamedTuple):
    """What a user changes in the plant file, and which tags and assets that touches."""

    old: str
    new: str
    touched: tuple[str, ...]


SPANS: Final = ((0, 20), (20, 30), (30, 40))
"""Seconds before the edit, with it, and after it was taken back."""
R101: Final = "R101:\n    model: stirred_tank\n    tags: {temperature: {}, pressure: {}, flow_rate: {}}\n"
ALL_R101: Final = ("R101", "R101.temperature", "R101.pressure", "R101.flow_rate")


def of_r101(text: str, *touched: str) -> Edit:
    return Edit(R101, f"R101:\n    model: stirred_tank\n    {text}\n", touched)


EDITS: Final = {
    "nothing": Edit("web: off", "web: off", ()),
    "a tag added": of_r101("tags: {a: {}, temperature: {}, pressure: {}, flow_rate: {}}", "R101", "R101.a"),
    "a tag removed": of_r101("tags: {temperature: {}, flow_rate: {}}", "R101", "R101.pressure"),
    "tags in another order": of_r101("tags: {flow_rate: {}, pressure: {}, temperature: {}}"),
    "a rule": of_r101(
        "tags: {temperature: {range: [0, 90]}, pressure: {}, flow_rate: {}}", "R101", "R101.temperature"
    ),
    "a window": of_r101(
        "tags: {temperature: {window: 10}, pressure: {}, flow_rate: {}}", "R101", "R101.temperature"
    ),
    "a rebaseline": of_r101(
        "tags: {temperature: {rebaseline: 3}, pressure: {}, flow_rate: {}}", "R101", "R101.temperature"
    ),
    "a noise": of_r101(
        "tags: {temperature: {}, pressure: {noise: 0.5}, flow_rate: {}}", "R101", "R101.pressure"
    ),
    "a fill": of_r101(
        "tags: {temperature: {}, pressure: {fill: hold}, flow_rate: {}}", "R101", "R101.pressure"
    ),
    "another fill": of_r101(
        "tags: {temperature: {fill: linear}, pressure: {}, flow_rate: {}}", "R101", "R101.temperature"
    ),
    "a unit": of_r101(
        "tags: {temperature: {}, pressure: {unit: kPa}, flow_rate: {}}", "R101", "R101.pressure"
    ),
    "a parameter": of_r101(
        "parameters: {mass_kg: 700}\n    tags: {temperature: {}, pressure: {}, flow_rate: {}}",
        "R101",
        "R101.flow_rate",
    ),
    "no model": Edit(R101, "R101:\n    tags: {temperature: {}, pressure: {}, flow_rate: {}}\n", ALL_R101),
    "an asset renamed": Edit(
        "R101:", "R201:", (*ALL_R101, *(name.replace("R101", "R201") for name in ALL_R101))
    ),
    "an asset removed": Edit(f"  {R101}", "", ALL_R101),
    "an asset added": Edit(
        "  V7:", "  A1: {model: stirred_tank, tags: [temperature]}\n  V7:", ("A1", "A1.temperature")
    ),
    "a default of all": Edit("spike: 20%", "spike: 5%", ("R101", "R102", "R101.flow_rate", "R102.flow_rate")),
}


def records(place: Workplace, first: int, last: int) -> Iterator[tuple[int, Record]]:
    """Seconds of a plant with outliers, gaps, late and missing values; by offset."""
    for second in range(first, last):
        draw = np.random.default_rng(second)
        names = [name for name in TAGS if draw.random() < 0.8]
        series = [
            place.dictionary.index(("field", "reactor/{}/sensor/{}".format(*name.split(".")), ""))
            for name in names
        ]
        n = len(names)
        value = 85.0 + draw.normal(0.0, 0.5, n) + np.where(draw.random(n) < 0.05, 40.0, 0.0)
        value[draw.random(n) < 0.1] = np.nan
        time = START + second * SECOND - np.where(draw.random(n) < 0.05, 5 * SECOND, 0)
        received = Received.of(
            series=series,
            source_time=time,
            server_time=time,
            arrival_time=np.full(n, START + second * SECOND),
            value=value,
            status=np.zeros(n),
            reasons=np.zeros(n),
        )
        yield 2 * second, Samples.pack(received)
        yield 2 * second + 1, tick(second)


@contextmanager
def opened(folder: Path, text: str) -> Iterator[tuple[Workplace, Fold, Checkpoints]]:
    """The plant as a run finds it: its newest state is taken up."""
    path = folder / "plant.yaml"
    path.write_text(text)
    with workplace(load(path, {})) as place:
        fold = build_fold(place)
        checkpoints = Checkpoints(place.directory / "checkpoints", place.table.names)
        for checkpoint in checkpoints.load():
            fold.adopt(checkpoint.state)
            checkpoints.go_on_from(checkpoint)
            break
        yield place, fold, checkpoints


def told(names: list[str], outputs: list[Outputs], touched: tuple[str, ...]) -> list[str]:
    """All that was said of what is not touched, as text: NaN is like NaN."""
    lines = []

    def rows(kind: str, batch: Batch) -> None:
        for i, tag in enumerate(batch.tag.tolist()):
            if names[tag] not in touched:
                columns = [getattr(batch, name)[i] for name in Batch.DTYPES if name != "tag"]
                lines.append(f"{kind} {names[tag]} {columns}")

    for each in outputs:
        if each.samples:
            rows("sample", each.batch())
        if each.fills:
            rows("fill", each.filled())
        lines += [f"{event}" for event in each.events if event.subject not in touched]
        lines += [f"{shot}" for shot in each.snapshots if shot.asset not in touched]
    return lines


def run(folder: Path, text: str, first: int, last: int) -> tuple[list[str], list[Outputs]]:
    """Some seconds of a run by a plant file, and a checkpoint at the end; tag names and outputs."""
    with opened(folder, text) as (place, fold, checkpoints):
        made = [fold.step(offset, record) for offset, record in records(place, first, last)]
        checkpoints.save(2 * last - 1, fold.change())
        if checkpoints.is_merge_due():
            checkpoints.merge()
        return list(place.table.names), made


@pytest.fixture(scope="module")
def unedited(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str], list[list[Outputs]]]:
    """A data directory of before an edit, and all that a run without one goes on to say."""
    folder = tmp_path_factory.mktemp("plant")
    _, first = run(folder, PLANT, *SPANS[0])
    shutil.copytree(folder, folder / "kept")
    names, second = run(folder, PLANT, *SPANS[1])
    return folder / "kept", names, [first, second, run(folder, PLANT, *SPANS[2])[1]]


@pytest.mark.parametrize("what", EDITS)
def test_what_an_edit_does_not_touch_goes_on_bit_for_bit_and_so_after_it_is_taken_back(
    what: str, tmp_path: Path, unedited: tuple[Path, list[str], list[list[Outputs]]]
) -> None:
    edit, (kept, names, outputs) = EDITS[what], unedited
    edited = PLANT.replace(edit.old, edit.new)
    assert (edited == PLANT) == (what == "nothing")
    folder = shutil.copytree(kept, tmp_path / "plant")
    expected = [told(names, each, edit.touched) for each in outputs[1:]]
    assert len(expected[0]) > 40
    for text, span, wanted in zip((edited, PLANT), SPANS[1:], expected, strict=True):
        assert told(*run(folder, text, *span), edit.touched) == wanted


def test_an_asset_whose_parameter_is_edited_goes_on_from_where_its_model_was(
    tmp_path: Path, unedited: tuple[Path, list[str], list[list[Outputs]]]
) -> None:
    kept, _, outputs = unedited
    edit = EDITS["a parameter"]
    folder = shutil.copytree(kept, tmp_path / "plant")
    _, after = run(folder, PLANT.replace(edit.old, edit.new), SPANS[1][0], SPANS[1][0] + 1)
    was, now = (each[-1].snapshots[0] for each in (outputs[0], after))
    assert was.asset == now.asset == "R101"
    assert was.state["conversion"] > 0.01
    assert now.state["conversion"] == pytest.approx(was.state["conversion"], abs=0.02)
