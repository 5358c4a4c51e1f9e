"""The command `twinloop`: what it takes, what it prints, and what it exits with.

Exit codes: 0 done, 1 it ran and something failed, 2 usage or plant file refused. Results go to stdout,
messages to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NoReturn

from twinloop.cli.logsetup import configure
from twinloop.cli.options import (
    add_export_options,
    add_import_options,
    add_window_options,
)
from twinloop.errors import ConfigError, QueryError, TwinloopError
from twinloop.leaving import left_at_once

__all__ = ["main", "parser"]

DONE: Final = 0
FAILED: Final = 1
REFUSED: Final = 2
_CHECK_WITHIN_S: Final = 10.0

_log = logging.getLogger("twinloop")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line and where to read on, as every other message of ours."""
        self.exit(REFUSED, f"{self.prog}: {message}\ntry `{self.prog} --help`\n")


def parser() -> argparse.ArgumentParser:
    """The command line; `tests/test_docs.py` holds the documentation against it."""
    top = _Parser(prog="twinloop", description="A live digital twin of a process plant.")
    top.add_argument("--version", action="version", version=f"twinloop {version('twinloop')}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)

    demo = _command(commands, "demo", _demo, "the simulated plant and its twin, live")
    demo.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds; default: never")
    demo.add_argument("--reactors", type=_whole(1, 500), default=2, metavar="N", help="how many; default 2")
    demo.add_argument(
        "--port", type=_whole(0, 65535), default=8800, metavar="P", help="web port; default 8800"
    )

    run = _command(commands, "run", _run, "run the twin of a plant until SIGINT or SIGTERM")
    run.add_argument("plant", type=Path, metavar="PLANT.yaml")
    run.add_argument("--seconds", type=_positive, metavar="N", help="end after N seconds")

    check = _command(commands, "check", _check, "validate the plant file, connect, read each tag once")
    check.add_argument("plant", type=Path, metavar="PLANT.yaml")

    trust = _command(commands, "trust", _trust, "show the certificates of OPC UA servers, and pin them")
    trust.add_argument("plant", type=Path, metavar="PLANT.yaml")
    trust.add_argument("source", nargs="?", metavar="SOURCE", help="default: every source with security")

    _query_command(commands)

    export = _command(commands, "export", _export, "write history to files, also while `run` is running")
    add_export_options(export)
    text = "take history from files in, also while `run` is running"
    add_import_options(_command(commands, "import", _import, text))

    _refeed_command(commands)

    _replay_command(commands)

    diff = _command(commands, "diff", _diff, "say what differs between two data or replay directories")
    diff.add_argument("a", type=Path, metavar="DIR_A")
    diff.add_argument("b", type=Path, metavar="DIR_B")
    diff.add_argument("--format", choices=("table", "json"), default="table")

    text = "make of a password the hash that `web` takes, from the terminal or standard input"
    _command(commands, "password", _password, text)

    _command(commands, "schema", _schema, "print the JSON Schema of the plant file")
    return top


def _command(
    commands: argparse._SubParsersAction[_Parser],
    name: str,
    function: Callable[[argparse.Namespace], int],
    text: str,
) -> _Parser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(function=function)
    command.add_argument(
        "--log-format", choices=("text", "json"), default="text", help="of messages on stderr"
    )
    command.add_argument("--debug", action="store_true", help="also debug messages, and tracebacks")
    return command


def _query_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    from twinloop.present import FORMATS

    query = _command(commands, "query", _query, "ask the store, also while `run` is running")
    query.add_argument("plant", type=Path, metavar="PLANT.yaml")
    query.add_argument(
        "what",
        choices=("latest", "range", "window", "events", "dead", "snapshots"),
        metavar="WHAT",
        help="latest [TAG ...] | range TAG | window TAG --every 1m | events | dead | snapshots [ASSET]",
    )
    query.add_argument("names", nargs="*", metavar="TAG", help="full tag names, ASSET.tag")
    query.add_argument("--start", metavar="T", help="ISO 8601, or relative to now: -1h; included")
    query.add_argument("--end", metavar="T", help="the same; not included")
    query.add_argument("--every", metavar="D", help="width of a window: 10s, 1m, 1h")
    query.add_argument("--uncertain-as-good", action="store_true", help="windows count Uncertain values too")
    add_window_options(query)
    query.add_argument("--summary", action="store_true", help="dead: count by source, origin and reason")
    query.add_argument("--all", action="store_true", help="dead: also those that were fed again")
    query.add_argument("--format", choices=FORMATS, default="table")
    query.add_argument("--output", type=Path, metavar="FILE", help="write there instead of stdout")


def _refeed_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    from twinloop.records import DeadReason

    text = "feed dead letters again that the mended plant file can read, also while `run` is running"
    refeed = _command(commands, "refeed", _refeed, text)
    refeed.add_argument("plant", type=Path, metavar="PLANT.yaml")
    reasons = [each.value for each in DeadReason]
    refeed.add_argument("--reason", action="append", default=[], choices=reasons, metavar="REASON")
    refeed.add_argument("--source", action="append", default=[], metavar="NAME", help="by the plant file")
    refeed.add_argument("--origin", action="append", default=[], metavar="TOPIC", help="* is any text")
    refeed.add_argument("--start", metavar="T", help="arrived from then on: ISO 8601, or -1h")
    refeed.add_argument("--end", metavar="T", help="the same; not included")
    refeed.add_argument("--dry-run", action="store_true", help="say what would be done")
    refeed.add_argument("--format", choices=("table", "json"), default="table")


class _FromLog(argparse.Action):
    """`--from-log` takes the place of files: none need be named then."""

    def __init__(self, files: argparse.Action, **rest: Any) -> None:
        super().__init__(nargs=0, **rest)
        self._files = files

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, *_: object) -> None:
        del parser
        setattr(namespace, self.dest, True)
        self._files.nargs = "*"
        self._files.required = False


def _replay_command(commands: argparse._SubParsersAction[_Parser]) -> None:
    text = "fold samples from CSV or Parquet files, or the recorded log again"
    replay = _command(commands, "replay", _replay, text)
    replay.usage = (
        "twinloop replay PLANT.yaml FILE... [options]\n       twinloop replay --from-log PLANT.yaml [options]"
    )
    replay.add_argument("plant", type=Path, metavar="PLANT.yaml")
    files = replay.add_argument(
        "files", type=Path, nargs="+", metavar="FILE", help="time, tag, value[, status]"
    )
    replay.add_argument(
        "--speed", type=_speed, default=0.0, metavar="max|N", help="recorded seconds a second; default max"
    )
    replay.register("action", "from-log", partial(_FromLog, files))
    replay.add_argument(
        "--from-log",
        action="from-log",
        default=False,
        help="fold what `run` recorded into a directory of its own, also while `run` is running",
    )
    replay.add_argument("--start", metavar="T", help="keep outputs from then on: ISO 8601, or -1h")
    replay.add_argument("--end", metavar="T", help="the same; not included")
    replay.add_argument("--config", type=Path, metavar="OTHER.yaml", help="fold by this plant file's rules")
    replay.add_argument("--into", type=Path, metavar="DIR", help="default DATA_DIR/replays/TIME")


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number greater than 0, got {text!r}")
    return value


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and low <= int(text) <= high):
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text!r}")
        return int(text)

    return read


def _speed(text: str) -> float:
    return 0.0 if text == "max" else _positive(text)


def _joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--start -1h` as `--start=-1h`: argparse takes a dash for an option.

    >>> _joined(["range", "--start", "-1h", "--format", "csv"])
    ['range', '--start=-1h', '--format', 'csv']
    """
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in {"--start", "--end"} and argument[:1] == "-" and argument[1:2].isdigit():
            joined[-1] = f"{joined[-1]}={argument}"
        else:
            joined.append(argument)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code and never shows a traceback for a user's mistake."""
    options = parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    configure(options.log_format, debug=options.debug)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        function: Callable[[argparse.Namespace], int] = options.function
        return function(options)
    except (ConfigError, QueryError) as error:
        return _say(error, REFUSED, options)
    except TwinloopError as error:
        return _say(error, FAILED, options)
    except BrokenPipeError:
        # The reader of our output went away (`| head`): that is its right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        return 130


def _say(error: TwinloopError, code: int, options: argparse.Namespace) -> int:
    if options.debug:
        _log.exception("%s", error)
    else:
        _log.error("%s", error)
    return code


def _run(options: argparse.Namespace) -> int:
    return asyncio.run(_run_until_stopped(options.plant, options.seconds))


async def _run_until_stopped(path: Path, seconds: float | None) -> int:
    async with AsyncExitStack() as stack:
        with left_at_once():  # the first start compiles for long
            from twinloop.running import running

            twin = await stack.enter_async_context(running(path, os.environ))
        stop = _signalled()
        _log.info("running %s; SIGINT or SIGTERM stops it", path)
        if seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stop.set)
        if not await _either(twin.wait(), stop):
            _log.info("stopping: folding and storing what was received")
    _log.info("%s", twin.summary())
    return DONE


def _signalled() -> asyncio.Event:
    """An event that SIGINT and SIGTERM set."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _either(end: Coroutine[Any, Any, None], stop: asyncio.Event) -> bool:
    """Wait for the end or for the stop; whether the end came, with its error if it has one."""
    ended = asyncio.create_task(end)
    stopped = asyncio.create_task(stop.wait())
    await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if ended.done():
        ended.result()
        return True
    ended.cancel()
    return False


def _replay(options: argparse.Namespace) -> int:
    if options.from_log:
        return _replay_log(options)
    given = [name for name in ("start", "end", "config", "into") if getattr(options, name) is not None]
    if given:
        raise ConfigError(f"--{given[0]} goes with --from-log only")
    return asyncio.run(_replay_files(options.plant, tuple(options.files), options.speed))


async def _replay_files(path: Path, files: tuple[Path, ...], speed: float) -> int:
    from twinloop.build import Replay
    from twinloop.running import running

    for file in files:
        if not file.is_file():
            raise ConfigError(f"{file}: no such file")
    stop = _signalled()
    async with running(path, os.environ, replay=Replay(files, speed)) as twin:
        whole = await _either(twin.wait(), stop)
    _log.info("%s", twin.summary())
    if not whole:
        _log.warning("stopped before the end of the files; what was read is stored")
    return FAILED if twin.metrics.dead_letters or not whole else DONE


def _replay_log(options: argparse.Namespace) -> int:
    from twinloop.cli.replay import replay_with_progress
    from twinloop.replaying import Recording
    from twinloop.timetext import parse_time

    if options.files:
        raise ConfigError("--from-log folds the recorded log: it takes no files")
    now = time.time_ns()
    recording = Recording(
        plant=options.plant,
        config=options.config,
        start_ns=parse_time(options.start, now) if options.start else None,
        end_ns=parse_time(options.end, now) if options.end else None,
        into=options.into,
        speed=options.speed,
    )
    asyncio.run(replay_with_progress(recording))
    return DONE


def _refeed(options: argparse.Namespace) -> int:
    from twinloop.cli.refeed import render_refed
    from twinloop.refeeding import Selection, refeed
    from twinloop.timetext import parse_time

    now = time.time_ns()
    selection = Selection(
        sources=tuple(options.source),
        origins=tuple(options.origin),
        reasons=tuple(options.reason),
        start_ns=parse_time(options.start, now) if options.start else None,
        end_ns=parse_time(options.end, now) if options.end else None,
    )
    report = asyncio.run(refeed(options.plant, os.environ, selection, dry_run=options.dry_run))
    terminal = sys.stdout.isatty()
    sys.stdout.write(render_refed(report, options.format, dry_run=options.dry_run, terminal=terminal))
    return FAILED if report.waiting or report.refused or report.set_aside else DONE


def _export(options: argparse.Namespace) -> int:
    from twinloop.cli.export import export_with_progress

    export_with_progress(options)
    return DONE


def _import(options: argparse.Namespace) -> int:
    from twinloop.cli.importing import import_with_progress, render_imported

    report = asyncio.run(import_with_progress(options))
    terminal = sys.stdout.isatty()
    sys.stdout.write(render_imported(report, options.format, dry_run=options.dry_run, terminal=terminal))
    wrong = report.buried or report.differ or report.waiting or report.stopped or report.set_aside
    return FAILED if wrong else DONE


def _diff(options: argparse.Namespace) -> int:
    from twinloop.cli.diff import render_difference
    from twinloop.compare import compare

    terminal = sys.stdout.isatty()
    sys.stdout.write(render_difference(compare(options.a, options.b), options.format, terminal=terminal))
    return DONE


def _check(options: argparse.Namespace) -> int:
    from twinloop.cli.check import check

    return FAILED if asyncio.run(check(options.plant, os.environ, sys.stdout, _CHECK_WITHIN_S)) else DONE


def _trust(options: argparse.Namespace) -> int:
    from twinloop.cli.trust import trust

    failed = asyncio.run(trust(options.plant, os.environ, options.source, sys.stdout))
    return FAILED if failed else DONE


def _query(options: argparse.Namespace) -> int:
    from twinloop.cli.query import answer

    answer(options)
    return DONE


def _password(options: argparse.Namespace) -> int:  # noqa: ARG001 - every command has the same form
    from twinloop.cli.password import make_hash

    print(make_hash(sys.stdin))  # noqa: T201 - the command's result
    return DONE


def _schema(options: argparse.Namespace) -> int:  # noqa: ARG001 - every command has the same form
    from twinloop.config.schema import json_schema

    print(json.dumps(json_schema(), indent=2))  # noqa: T201 - the command's result
    return DONE


def _demo(options: argparse.Namespace) -> int:
    return asyncio.run(_demonstrate(options.seconds, options.reactors, options.port))


async def _demonstrate(seconds: float | None, reactors: int, port: int) -> int:
    from twinloop.running import running
    from twinloop.simulate.demo import run_demo

    return await run_demo(seconds, reactors, port, lambda path: running(path, os.environ))
