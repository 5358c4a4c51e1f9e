"""Answers drawn: samples by status with their estimate, windows with their spread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twinloop.errors import QueryError
from twinloop.optional import needed

__all__ = ["plot"]

F64 = npt.NDArray[np.float64]

_MARKS: Final = {1: ("Uncertain", "o", "tab:orange"), 2: ("Bad", "x", "tab:red")}
_FIXED_UNITS: Final = {
    "percent_good": "%",
    "percent_bad": "%",
    "duration_good": "ms",
    "duration_bad": "ms",
    "count": "samples",
}
_INTEGRALS: Final = ("total", "total2")


def plot(table: pa.Table, kind: str, tag: str, unit: str, ax: Any) -> Any:
    """Draw an answer; returns the Axes, or an array of them where it has several units.

    Args:
        table: the answer, its status as codes.
        kind: which query's.
        tag, unit: of the one tag that windows are of.
        ax: where to draw; None for a new figure.

    Raises:
        ImportError: matplotlib is not installed.
        QueryError: there is nothing to draw in an answer of this kind, or one Axes is too few for it.
    """
    if kind == "range":
        return _plot_range(table, ax)
    if kind == "window":
        return _plot_window(table, tag, unit, ax)
    raise QueryError(f"there is nothing to draw in an answer to `{kind}`: draw a `range` or a `window`")


def _plot_range(table: pa.Table, ax: Any) -> Any:
    parts = {tag: table.filter(pc.equal(table["tag"], tag)) for tag in table["tag"].unique().to_pylist()}
    units = {tag: part["unit"][0].as_py() for tag, part in parts.items()}
    axes = _axes(list(dict.fromkeys(units.values())) or [""], ax)
    for tag, part in parts.items():
        _draw_samples(axes[units[tag]], tag, part)
    return _finished(axes, [(f"{tag} ({unit})" if unit else tag, unit) for tag, unit in units.items()])


def _draw_samples(ax: Any, tag: str, part: pa.Table) -> None:
    time, value, status = _time(part), _numbers(part["value"]), part["status"].to_numpy()
    level = np.minimum(status >> 30, 2)
    estimate, std = _numbers(part["estimate"]), _numbers(part["estimate_std"])
    (drawn,) = ax.plot(time, np.where(level < 2, value, np.nan), ".-", lw=0.5, ms=3, alpha=0.6, label=tag)
    if np.isfinite(estimate).any():
        ax.plot(time, estimate, lw=1.5, color=drawn.get_color(), label=f"{tag} estimate")
        ax.fill_between(
            time,
            estimate - 2 * std,
            estimate + 2 * std,
            color=drawn.get_color(),
            alpha=0.2,
            lw=0,
            label=f"{tag} estimate, 2 sigma",
        )
    _mark(ax, time, value, level)


def _mark(ax: Any, time: npt.NDArray[Any], value: F64, level: npt.NDArray[Any]) -> None:
    """Mark what is not Good: at its value, or at the foot where it has none."""
    known = {text.get_label() for text in ax.get_lines()}
    for severity, (word, mark, colour) in _MARKS.items():
        there = level == severity
        if not there.any():
            continue
        label = word if word not in known else "_"
        ax.plot(time[there], value[there], mark, color=colour, ms=5, mfc="none", ls="none", label=label)
        bare = there & ~np.isfinite(value)
        if bare.any():
            foot = np.full(int(bare.sum()), 0.01)
            ax.plot(time[bare], foot, mark, color=colour, ms=4, transform=ax.get_xaxis_transform())


def _plot_window(table: pa.Table, tag: str, unit: str, ax: Any) -> Any:
    if "tag" in table.column_names:
        raise QueryError("windows of several tags are drawn one by one: filter a tag first")
    if "mean" in table.column_names:
        axes = _axes([unit], ax)
        time, ax = _time(table), axes[unit]
        (drawn,) = ax.plot(time, _numbers(table["mean"]), ".-", label="mean")
        low, high = _numbers(table["min"]), _numbers(table["max"])
        ax.fill_between(time, low, high, color=drawn.get_color(), alpha=0.2, lw=0, label="min to max")
        return _finished(axes, [(f"{tag} ({unit})" if unit else tag, unit)])
    names = [name for name in table.column_names if f"{name}_status" in table.column_names]
    units = {name: _unit_of(name, unit) for name in names if name != "worst_quality"}
    if not units:
        raise QueryError("a status is no curve: there is nothing to draw")
    axes = _axes(list(dict.fromkeys(units.values())), ax)
    for name, own in units.items():
        value = _numbers(table[name])
        axes[own].plot(_time(table), value, ".-", label=name)
        level = np.minimum(table[f"{name}_status"].to_numpy() >> 30, 2)
        _mark(axes[own], _time(table), value, np.where(np.isfinite(value), level, 0))
    return _finished(axes, [(f"{tag} ({own})" if own else tag, own) for own in axes])


def _unit_of(name: str, unit: str) -> str:
    if name in _INTEGRALS:
        return f"{unit} s".strip()
    return _FIXED_UNITS.get(name, unit)


def _axes(units: list[str], ax: Any) -> dict[str, Any]:
    """An Axes for each unit, one below the other."""
    pyplot = needed("matplotlib.pyplot")
    if ax is not None:
        if len(units) > 1:
            raise QueryError(f"one Axes is too few for {len(units)} units: {', '.join(units)}")
        return {units[0]: ax}
    _, made = pyplot.subplots(len(units), 1, sharex=True, squeeze=False, layout="constrained")
    return dict(zip(units, made[:, 0], strict=True))


def _finished(axes: dict[str, Any], labels: list[tuple[str, str]]) -> Any:
    dates = needed("matplotlib.dates")
    for unit, ax in axes.items():
        ax.set_ylabel(", ".join(dict.fromkeys(text for text, own in labels if own == unit)))
        locator = dates.AutoDateLocator()
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="best", fontsize="small")
    last = list(axes.values())[-1]
    last.set_xlabel("time (UTC)")
    return last if len(axes) == 1 else np.array(list(axes.values()), object)


def _time(table: pa.Table) -> npt.NDArray[np.datetime64]:
    return np.asarray(table["time"].cast(pa.int64()).to_numpy().view("datetime64[ns]"))


def _numbers(column: pa.ChunkedArray) -> F64:
    return np.asarray(column.cast(pa.float64()).to_numpy(), np.float64)
