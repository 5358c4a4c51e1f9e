"""Tables and samples the laws of the filter bank are tried on."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from twinloop.batch import Batch
from twinloop.status import GOOD
from twinloop.tags import DEFAULT_REWIND_NS, SECOND_NS, Tag, TagTable

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]

START_NS: Final = 1_700_000_000 * SECOND_NS


def table(
    *,
    noise: float = 0.5,
    rate_noise: float = math.nan,
    tags: int = 1,
    rebaseline: int = 10,
    rewind_ns: int = DEFAULT_REWIND_NS,
) -> TagTable:
    return TagTable(
        Tag(
            name=f"A.t{i}",
            asset="A",
            noise=noise,
            rate_noise=rate_noise,
            rebaseline=rebaseline,
            rewind_ns=rewind_ns,
        )
        for i in range(tags)
    )


def samples(
    values: npt.ArrayLike, *, times: npt.ArrayLike | None = None, status: npt.ArrayLike = GOOD
) -> Batch:
    """Samples of tag 0, one a second unless told."""
    value = np.asarray(values, float)
    time = START_NS + np.arange(len(value)) * SECOND_NS if times is None else times
    return Batch.raw(
        tag=np.zeros(len(value)), time=time, value=value, status=np.broadcast_to(status, value.shape)
    )
