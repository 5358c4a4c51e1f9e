"""A program that lives `twinloop run` many times and dies in each life, for the crash storm.

Started as a process of its own, it loads the program once. For each line on stdin it forks a child that runs
the ordinary command on the ordinary loop, with sizes and periods so short that a second holds many commits,
seals, merges, checkpoints and trims. The child is killed with SIGKILL: from outside after some time, or by
itself within a chosen region of the program after so many calls and returns there.
"""

from __future__ import annotations

import functools
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import twinloop.running  # noqa: F401 - loaded before the first fork
from twinloop import build
from twinloop.batch import Received
from twinloop.cli.main import main
from twinloop.config.plantfile import load
from twinloop.log import shelf
from twinloop.log.dictionary import Dictionary
from twinloop.log.local import LocalLog
from twinloop.loop import sync
from twinloop.loop.checkpoint import Checkpoints
from twinloop.loop.supervise import Supervisor
from twinloop.loop.sync import Loop
from twinloop.records import Samples, Tick
from twinloop.stores import merging
from twinloop.stores.local import LocalStore
from twinloop.stores.rows import tables
from twinloop.tags import Resolver
from twinloop.workplace import borrowed_workplace

__all__ = ["KEPT", "REGIONS", "hurry"]

T0_NS: Final = 1_700_000_000 * 10**9
KEPT: Final = "kept"
"""Beside the log: where its trimmed files stay, so that the whole log can be folded at the end."""


class Region(NamedTuple):
    """Part of the program to die in.

    Attributes:
        owner, name: the function.
        after: events count from the first call of this name within it; empty from its beginning.
        calls: how often it is about to be called in a second or two, at most.
    """

    owner: Any
    name: str
    after: str = ""
    calls: int = 3


REGIONS: Final = {
    "group commit": Region(LocalLog, "_commit", calls=60),
    "next log file": Region(LocalLog, "_change_file"),
    "log trim": Region(shelf, "remove_file", calls=2),
    "output sync": Region(LocalLog, "_sync_current", calls=10),
    "checkpoint": Region(Checkpoints, "save"),
    "checkpoint merge": Region(Checkpoints, "merge", calls=2),
    "removal of old checkpoints": Region(Checkpoints, "merge", after="unlink", calls=2),
    "store seal": Region(LocalStore, "seal", after="tables"),
    "merge": Region(merging, "merge", calls=2),
    "removal of the merged": Region(LocalStore, "_after_seal", after="unlink"),
    "fold": Region(Loop, "_step", calls=60),
    "durable, not acknowledged": Region(Supervisor, "_durable", calls=60),
    "log opening": Region(LocalLog, "_open_files", calls=2),
    "store opening": Region(LocalStore, "__init__", calls=1),
    "resume": Region(Loop, "_resume", calls=1),
    "dictionary": Region(Dictionary, "_insert", calls=1),
}


def hurry() -> None:
    """Make of minutes and megabytes what a second holds several of."""
    sync.CHECKPOINT_EVERY_S = 0.2  # type: ignore[misc]
    build.SEAL_AFTER_S = 0.1  # type: ignore[attr-defined]
    build._LOG_FILE_BYTES = 1 << 15  # type: ignore[misc]
    merging.MERGE_COUNT = 3  # type: ignore[misc]


def _keep_trimmed() -> None:
    """What is trimmed from the log of received records stays beside it under a second name."""
    unlink = Path.unlink

    def keep(path: Path, missing_ok: bool = False) -> None:  # noqa: FBT001, FBT002 - as `Path.unlink`
        kept = path.parent.parent / KEPT / path.name
        if path.parent.name == "log" and path.exists() and not kept.exists():
            kept.parent.mkdir(exist_ok=True)
            kept.hardlink_to(path)
        unlink(path, missing_ok=missing_ok)

    Path.unlink = keep  # type: ignore[method-assign,assignment]


def _die_in(region: Region, call: int, event: int, die: Callable[[], None]) -> None:
    """Die in the n-th call of a function, after so many calls and returns in it, or else at its end."""
    function = getattr(region.owner, region.name)
    seen = {"calls": 0}

    @functools.wraps(function)
    def dying(*arguments: Any, **keywords: Any) -> Any:
        left = {"events": event, "counting": not region.after}

        def count(frame: Any, kind: str, argument: Any) -> None:
            if not left["counting"]:
                name = argument.__name__ if kind == "c_call" else frame.f_code.co_name
                if kind not in {"c_call", "call"} or name != region.after:
                    return
                left["counting"] = True
                seen["calls"] += 1
            left["events"] -= 1
            if left["events"] <= 0 and seen["calls"] >= call:
                die()

        seen["calls"] += not region.after
        sys.setprofile(count)
        try:
            return function(*arguments, **keywords)
        finally:
            sys.setprofile(None)
            if left["counting"] and seen["calls"] >= call:
                die()

    setattr(region.owner, region.name, dying)


def _child(plant: str, order: dict[str, Any], messages: Path, tell: int) -> None:
    with messages.open("ab") as file:
        os.dup2(file.fileno(), 2)
    hurry()
    _keep_trimmed()
    if order["region"]:
        region = REGIONS[order["region"]]

        def die() -> None:
            os.write(tell, b"x")
            os.kill(os.getpid(), signal.SIGKILL)

        _die_in(region, order["call"], order["event"], die)
    os._exit(main(["run", plant]))


def _live(plant: str, order: dict[str, Any], messages: Path) -> dict[str, Any]:
    began = time.monotonic()
    hear, tell = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            _child(plant, order, messages, tell)
        finally:
            os._exit(70)
    os.close(tell)
    handle = os.pidfd_open(pid)
    poll = select.poll()
    poll.register(handle, select.POLLIN)
    poll.poll(1000 * order["within_s"])
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    aimed = bool(os.read(hear, 1))
    os.close(hear)
    os.close(handle)
    return {
        "killed": os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL,
        "status": status,
        "aimed": aimed,
        "seconds": time.monotonic() - began,
    }


def _warm(plant: str) -> None:
    """Load every kernel once for all lives, by folding a sample of each tag and some ticks in memory."""
    with borrowed_workplace(load(Path(plant), os.environ)) as place:
        resolver = Resolver(place.table, {"": str})
        fold = build._fold(place, resolver)
        series = [place.dictionary.index(("", name, "")) for name in place.table.names]
        for second in range(1, 5):
            at = [T0_NS + second * 10**9] * len(series)
            received = Received.of(
                series=series,
                source_time=at,
                server_time=at,
                arrival_time=at,
                value=[50.0 + second] * len(series),
                status=[0] * len(series),
                reasons=[0] * len(series),
            )
            fold.step(2 * second, Samples.pack(received))
            fold.step(2 * second + 1, Tick(at[0], [10**9]))
    tables([])  # pyarrow loads pandas at the first array, where it is installed


def _serve(plant: str, messages: Path) -> None:
    _warm(plant)
    print(json.dumps({"ready": True}), flush=True)  # noqa: T201 - the answer to who started us
    for line in sys.stdin:
        print(json.dumps(_live(plant, json.loads(line), messages)), flush=True)  # noqa: T201


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]))
