"""One pass over samples: what each tag's newest is, who was heard, what was judged how."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import NO_TIME
from twinloop.kernel import kernel
from twinloop.status import SEVERITY_SHIFT, Reason

__all__ = ["take_in"]

_LATE: Final = np.uint32(Reason.LATE)
_BACK: Final = np.uint32(Reason.CLOCK_BACK)
_NONE: Final = np.int64(NO_TIME)
_SHIFT: Final = np.uint32(SEVERITY_SHIFT)
_BAD: Final = np.uint32(2)
_ONE: Final = np.uint32(1)
_NOTHING: Final = np.uint32(0)

Rows = tuple[npt.NDArray[Any], ...]


@kernel
def take_in(  # noqa: PLR0917 - a compiled loop's state is passed, not captured
    rows: Rows,
    covers: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    now: Rows,
    heard: npt.NDArray[np.int64],
    severities: npt.NDArray[np.int64],
    reasons_seen: npt.NDArray[np.int64],
) -> None:
    """Take in samples in the order of the fold.

    A late one is no tag's newest, and its tag is heard only if it arrived after that; from one with
    CLOCK_BACK on, those before it are not compared with.

    Args:
        rows: columns `tag time arrival value estimate std status reasons` of n samples.
        covers, ends: of each output the offset it covers, and the row it ends before.
        now: columns `time arrival value estimate std status reasons` by tag, written.
        heard: by tag the newest offset it was heard at, written.
        severities: how often by tag and severity, shape (tags, 3), written.
        reasons_seen: how often by tag and bit, shape (tags, 32), written.
    """
    tag, time, arrival, value, estimate, std, status, reasons = rows
    now_time, now_arrival, now_value, now_estimate, now_std, now_status, now_reasons = now
    row = 0
    for output in range(len(covers)):
        while row < ends[output]:
            of, why = tag[row], reasons[row]
            severity = status[row] >> _SHIFT
            severities[of, min(_BAD, severity)] += 1
            bit, rest = 0, why
            while rest != _NOTHING:
                if rest & _ONE != _NOTHING:
                    reasons_seen[of, bit] += 1
                rest >>= _ONE
                bit += 1
            late = why & _LATE != _NOTHING
            if not late or arrival[row] >= now_arrival[of]:
                heard[of] = covers[output]  # outputs ascend
            if why & _BACK != _NOTHING:
                now_time[of] = _NONE
            if not late and time[row] > now_time[of]:
                now_time[of] = time[row]
                now_arrival[of] = arrival[row]
                now_value[of] = value[row]
                now_estimate[of] = estimate[row]
                now_std[of] = std[row]
                now_status[of] = status[row]
                now_reasons[of] = why
            row += 1
