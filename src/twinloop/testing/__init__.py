"""The laws every part keeps, as functions that the tests of your own parts can call; docs/EXTENDING.md.

>>> from twinloop.log.memory import MemoryLog
>>> check_log(lambda directory: MemoryLog(), durable=False)
"""

from __future__ import annotations

from twinloop.testing.laws import BrokenLawError
from twinloop.testing.logs import check_log
from twinloop.testing.sources import ScriptedIntake, check_source
from twinloop.testing.stages import check_stage, example_batches
from twinloop.testing.stores import check_store

__all__ = [
    "BrokenLawError",
    "ScriptedIntake",
    "check_log",
    "check_source",
    "check_stage",
    "check_store",
    "example_batches",
]
