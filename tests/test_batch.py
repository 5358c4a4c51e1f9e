"""Columns: equally long, rightly typed, and the same memory in NumPy, in Arrow and in bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from twinloop.batch import Batch


def batch_of(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Batch:
    n = len(values)
    return Batch.raw(tag=np.arange(n), time=np.arange(n) * 10**9, value=values)


@settings(deadline=None)  # the first Arrow array loads a library or two
@given(arrays.arrays(np.float64, st.integers(0, 40)))
def test_a_batch_survives_arrow_and_bytes_to_the_bit(
    values: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> None:
    batch = batch_of(values)
    assert Batch.from_arrow(batch.to_arrow()).buffers() == batch.buffers()
    assert Batch.from_buffers(batch.buffers()).buffers() == batch.buffers()


def test_arrow_looks_at_the_batch_s_own_memory_both_ways() -> None:
    batch = batch_of(np.arange(1000.0))
    there = batch.to_arrow()
    assert there.column("value").buffers()[1].address == batch.value.ctypes.data
    back = Batch.from_arrow(there)
    assert np.shares_memory(back.value, batch.value)


def test_columns_of_different_length_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="Batch columns differ in length"):
        Batch.raw(tag=[0, 1], time=[1], value=[1.0])
