"""Laws of the memory of a process that runs for months."""

from __future__ import annotations

import gc

from twinloop.memory import settled


class _Loop:
    """Something that only the collector can free."""

    alive = 0

    def __init__(self) -> None:
        self.itself = self
        _Loop.alive += 1

    def __del__(self) -> None:
        _Loop.alive -= 1


def test_what_was_there_is_not_looked_at_again_and_what_comes_after_is() -> None:
    before = gc.get_freeze_count()
    with settled():
        assert gc.get_freeze_count() > before + 1_000
        _Loop()
        gc.collect()
        assert _Loop.alive == 0
    assert gc.get_freeze_count() == 0


def test_what_could_be_freed_before_is_not_kept_for_good() -> None:
    _Loop()
    with settled():
        assert _Loop.alive == 0
