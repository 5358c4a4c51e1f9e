"""What the twin is told at each tick: the filters' beliefs, by tag index, in tag units."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Beliefs"]

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Beliefs:
    """Every tag as the filters and checks see it now; all arrays of shape (n_tags,).

    Attributes:
        value: filtered value in the tag's unit; NaN before the tag's first usable sample.
        std: its standard deviation; NaN where it has none.
        rate: its rate of change, tag units per second; NaN where not known.
        time_ns: time of the newest sample the filter used.
        nis: running mean NIS; 1 is expected, NaN before any.
        stale: 0 fresh, 1 and 2 silent for `stale` and for twice as long.
        severity: severity of the tag's newest sample, 0 Good, 1 Uncertain, 2 Bad; None counts as Good.
    """

    value: F64
    std: F64
    rate: F64
    time_ns: npt.NDArray[np.int64]
    nis: F64
    stale: npt.NDArray[np.uint8]
    severity: npt.NDArray[np.uint8] | None = None

    @property
    def usable(self) -> npt.NDArray[np.bool_]:
        """Where there is a value, not silent and not last called Bad, shape (n_tags,)."""
        known: npt.NDArray[np.bool_] = np.isfinite(self.value) & (self.stale == 0)
        return known if self.severity is None else known & (self.severity < 2)
