"""What validation keeps of each tag, as the compiled loops read and write it."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "CLOCK_BACK_NOTE",
    "NOTE",
    "NOT_JUDGED",
    "REBASELINED_NOTE",
    "RULE",
    "SEEN",
    "STATE",
    "STATUS_NOTE",
    "Memory",
    "Rows",
]

NOT_JUDGED: Final = 3
"""Severity of a tag that nothing has been said about yet."""

STATUS_NOTE: Final = 0
REBASELINED_NOTE: Final = 1
CLOCK_BACK_NOTE: Final = 2

RULE: Final = np.dtype(
    [
        ("low", "<f8"),
        ("high", "<f8"),
        ("warn_low", "<f8"),
        ("warn_high", "<f8"),
        ("rate_limit", "<f8"),  # per second; inf is off
        ("spike", "<f8"),  # inf is off
        ("spike_fraction", "<f8"),  # inf is off
        ("least_magnitude", "<f8"),  # what a fraction is taken of near zero; NaN: the window's RMS
        ("noise", "<f8"),  # 0 where not given
        ("noise_step", "<f8"),  # the largest step noise makes; NaN: _USUAL of the tag's usual steps
        ("zscore", "<f8"),  # inf is off
        ("stuck_ns", "<i8"),  # 0 is off
        ("stale_ns", "<i8"),  # 0 is off
        ("ring", "<i8"),  # where the tag's window begins in Memory.ring
        ("window", "<i8"),
        ("every_ns", "<i8"),
        ("suspects", "<i8"),  # where the tag's outliers begin in Memory.suspects
        ("rebaseline", "<i8"),  # 0 is off
        ("seen", "<i8"),  # where the tag's remembered samples begin in Memory.seen
        ("remember", "<i8"),
    ],
    align=True,
)

STATE: Final = np.dtype(
    [
        ("newest", "<i8"),  # newest time as received; NO_TIME before any sample
        ("newest_at", "<i8"),  # newest time given out: `newest`, or some ns later (SAME_TIME)
        (
            "highest",
            "<i8",
        ),  # largest time ever given out: `newest_at`, or of the clock before it was set back
        ("moved", "<i8"),  # the most any sample was moved by (SAME_TIME), ns
        ("lost", "<i8"),  # once a clock was set back: the largest time given out and forgotten, or later
        (
            "shift",
            "<i8",
        ),  # how far a time is moved that may have been given out; 0 before a clock was set back
        ("arrival", "<i8"),  # newest arrival, or renewal
        ("good_time", "<i8"),
        ("good_value", "<f8"),
        ("judged", "<i8"),  # time of the last sample compared with the last good one
        ("changed", "<i8"),  # since when the value is what it is
        ("held", "<f8"),
        ("origin", "<f8"),  # statistics are kept relative to this, so that an offset costs no digits
        ("mean", "<f8"),
        ("m2", "<f8"),  # sum of squared distances from the mean
        ("quantum", "<f8"),  # smallest change between good values ever seen; inf before any
        ("usual", "<f8"),  # mean size of a step from sample to sample, over about _STEPS
        ("pace", "<f8"),  # mean time between good values, ns, over about _PACES; 0 before any
        ("back_time", "<i8"),  # of the row of late samples that may prove a clock set back: the newest
        ("back_from", "<i8"),  # the first's time
        ("back_arrival", "<i8"),  # the first's arrival
        ("back_shift", "<i8"),  # `shift` when it is proved
        ("back_run", "<i4"),  # how many they are
        ("count", "<i4"),
        ("head", "<i4"),
        ("run", "<i4"),  # outliers in a row
        ("remembered", "<i4"),
        ("first", "<i4"),  # where among the tag's places in Memory.seen the oldest one remembered is
        ("reasons", "<u4"),  # of the last sample
        ("severity", "<u1"),  # of the last sample
        ("reported", "<u1"),  # the severity the last event spoke of
        ("stale", "<u1"),
        ("spare", "<u1"),  # no byte may be left undefined: states are compared by their bytes
    ],
    align=True,
)
assert STATE.itemsize == sum(STATE[name].itemsize for name in STATE.names or ())  # noqa: S101

SEEN: Final = np.dtype([("time", "<i8"), ("print", "<u8")])
"""A remembered sample: the time it was given out with, and a print of its value and status as received."""

NOTE: Final = np.dtype(
    [
        ("kind", "<i4"),
        ("tag", "<i4"),
        ("time", "<i8"),
        ("left", "<i8"),  # the newest time of the clock left
        ("reasons", "<u4"),
        ("before", "<f8"),  # severity, or the mean left
        ("after", "<f8"),  # severity, or the mean begun
    ],
    align=True,
)

_Void = npt.NDArray[np.void]
_F64 = npt.NDArray[np.float64]
_U8 = npt.NDArray[np.uint8]


class Rows(NamedTuple):
    """The columns of a batch; all but `tag` and `arrival` are written in place. Shapes (n,)."""

    tag: npt.NDArray[np.int32]
    time: npt.NDArray[np.int64]
    value: _F64
    status: npt.NDArray[np.uint32]
    reasons: npt.NDArray[np.uint32]
    arrival: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]


class Memory(NamedTuple):
    """What is kept between batches.

    Attributes:
        state: one `STATE` a tag.
        ring: good values of all tags, `window` of each.
        suspects: the outliers of the present run of all tags, `rebaseline` of each.
        seen: the remembered samples of all tags as `SEEN`, `remember` places of each, in a circle and in
            ascending time from `first` on.
        ring_dirty, suspects_dirty, seen_dirty: marks of the pages changed; see `twinloop.pages`.
    """

    state: _Void
    ring: _F64
    suspects: _F64
    seen: _Void
    ring_dirty: _U8
    suspects_dirty: _U8
    seen_dirty: _U8
