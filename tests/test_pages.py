from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twinloop.pages import PAGE_BYTES, PAGE_SHIFT, Pages, take_up, whole


def test_only_what_was_marked_counts_as_changed() -> None:
    pages = Pages("<i8", (3, PAGE_BYTES // 8))
    pages.array[1, 5] = 7
    pages.dirty[pages.array[:1].nbytes + 40 >> PAGE_SHIFT] = 1
    numbers, data = pages.changed()
    assert numbers.tolist() == [1]
    assert np.frombuffer(data, "<i8")[5] == 7
    pages.clean()
    assert not len(pages.changed()[0])


@given(st.integers(0, 5000), st.integers(0, 2**32))
def test_changed_pages_laid_over_zeros_give_the_array(size: int, seed: int) -> None:
    pages = Pages(np.uint8, size)
    pages.array[:] = np.random.default_rng(seed).integers(0, 256, size)
    pages.soil()
    numbers, data = pages.changed()
    laid = np.zeros(-(-size // PAGE_BYTES) * PAGE_BYTES, np.uint8)
    laid.reshape(-1, PAGE_BYTES)[numbers] = np.frombuffer(data, np.uint8).reshape(-1, PAGE_BYTES)
    assert laid[:size].tobytes() == pages.array.tobytes()
    assert not laid[size:].any()


class Part:
    def __init__(self) -> None:
        self.ring = Pages("<f8", 300)
        self.word = b""

    @property
    def pages(self) -> Mapping[str, Pages]:
        return {"ring": self.ring}

    def small(self) -> bytes:
        return self.word

    def adopt(self, small: bytes, arrays: Mapping[str, bytes | memoryview]) -> None:
        self.word = small
        self.ring.fill(arrays["ring"])


def test_a_part_taken_up_whole_is_as_it_was_and_clean() -> None:
    one, other = Part(), Part()
    one.ring.array[:] = np.arange(300.0)
    one.ring.soil()
    one.word = b"word"
    take_up(other, whole(one))
    assert whole(other) == whole(one)
    assert one.ring.dirty.all()
    assert not other.ring.dirty.any()


def test_bytes_of_another_length_or_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="2400 bytes cannot take up 3"):
        Part().ring.fill(b"abc")
    with pytest.raises(ValueError, match="not a paged state"):
        take_up(Part(), b"abc")
