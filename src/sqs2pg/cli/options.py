"""What commands share: options such as `-c FILE` and `--json`, input, and running coroutines."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from sqs2pg.errors import FatalFault, SettingsError
from sqs2pg.settings import Settings, load_named, load_pipeline, load_pipelines
from sqs2pg.telemetry import log

T = TypeVar("T")
C = TypeVar("C", bound=Callable[..., Any])

_PIPELINE = "sqs2pg.pipeline"
"""In the context of a command: the name given with --pipeline."""


def _note_pipeline(context: click.Context, _option: click.Parameter, name: str) -> None:
    context.meta[_PIPELINE] = name


def _with_pipeline(option: Callable[[C], C]) -> Callable[[C], C]:
    """Return a decorator that adds --pipeline beside an option."""
    named = click.option(
        "--pipeline",
        metavar="NAME",
        default="",
        expose_value=False,
        callback=_note_pipeline,
        help="Of several pipelines, the one with this name.",
    )
    return lambda command: option(named(command))


config_option = _with_pipeline(
    click.option(
        "-c",
        "--config",
        "config",
        type=click.Path(path_type=Path),
        help="Settings file, or a folder of them; else SQS2PG_CONFIG, else sqs2pg.toml here.",
    )
)
configs_option = _with_pipeline(
    click.option(
        "-c",
        "--config",
        "configs",
        multiple=True,
        type=click.Path(path_type=Path),
        help="Settings file, or a folder of them, one file per pipeline; may be repeated. Else "
        "SQS2PG_CONFIG, else sqs2pg.toml here.",
    )
)
json_option = click.option(
    "--json", "as_json", is_flag=True, help="End stdout with one JSON object."
)
ticket_option = click.option(
    "--ticket", default="", metavar="T", help="A reference to the request, such as a ticket."
)
MOMENT = click.DateTime(
    ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%S.%f%z"]
)
"""A time as people write it and as listings show it."""


class CommandGroup(click.Group):
    """A group whose help tells the whole first sentence of each command, on lines of its own."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands and what each does; click itself cuts that to one line."""
        found = ((name, self.get_command(ctx, name)) for name in self.list_commands(ctx))
        rows = [(name, one.get_short_help_str(1_000)) for name, one in found if one]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


LOCAL_KINDS = ("full", "fast")
"""The embedded queue servers: an emulator of SQS, S3 and more; our own, which has SQS only."""
verbose_option = click.option("-v", "--verbose", is_flag=True, help="Log more.")


def load_settings(config: Path | None, *, verbose: bool = False) -> Settings:
    """Return the effective settings of one pipeline, and log as they say.

    That is the file's, or the one of a folder that --pipeline names. `verbose` logs more than they
    say. Raises SettingsError.
    """
    if verbose:
        log.configure(level="debug")  # from here on: the settings may be wrong
    settings = read_settings(config)
    log.follow(settings.log, verbose=verbose)
    return settings


def read_settings(config: Path | None) -> Settings:
    """Return the effective settings of one pipeline, as `load_settings`, and leave the log."""
    return load_pipeline(config, named_pipeline())


def load_all(
    configs: Sequence[Path],
    *,
    verbose: bool = False,
    any_name: bool = False,
    refused: dict[Path, SettingsError] | None = None,
) -> list[Settings]:
    """Return the settings of all pipelines, as `load_by_file`, without their files."""
    found = load_by_file(configs, verbose=verbose, any_name=any_name, refused=refused)
    return list(found.values())


def load_by_file(
    configs: Sequence[Path],
    *,
    verbose: bool = False,
    any_name: bool = False,
    refused: dict[Path, SettingsError] | None = None,
) -> dict[Path | None, Settings]:
    """Return the settings of all pipelines, or of the one that --pipeline names; log as they say.

    They are keyed by their file, those of one that is named or that has no file by None.
    `any_name`: the name is that of a pipeline elsewhere. `refused` gets each of several files that
    cannot be used, where another one can. Raises SettingsError.
    """
    if verbose:
        log.configure(level="debug")
    found: dict[Path | None, Settings]
    if (name := named_pipeline()) and not any_name:
        found = {None: load_named(configs, name)}
    else:
        unusable = None if refused is None else refused.__setitem__
        found = load_pipelines(configs, unusable=unusable)
        if refused and not found:
            raise next(iter(refused.values()))
    log.follow(next(iter(found.values())).log, verbose=verbose)
    return found


def named_pipeline() -> str:
    """Return the name given with --pipeline; "" where none is."""
    context = click.get_current_context(silent=True)
    return context.meta.get(_PIPELINE, "") if context else ""


def stdin_lines(*, most: int) -> list[str]:
    """Return stdin's lines without line ends, blank lines left out: 1 to `most`.

    Raises SettingsError, which quotes none of them.
    """
    # Not splitlines(): a name with U+2028, U+0085 or the like would become two.
    lines = [line for line in sys.stdin.read().split("\n") if line.strip()]
    if not 1 <= len(lines) <= most:
        count = "1" if most == 1 else f"1 to {most:,}"
        raise SettingsError(
            f"stdin has {counted(len(lines), 'line')}", hint=f"give {count}, one name per line"
        )
    return lines


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return a count with its noun: `1 message`, `2,000 messages`.

    `plural` is given where it is more than an s: `people`, `bodies`.
    """
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def listed(names: Sequence[object], most: int) -> str:
    """Return the names with commas, of more than `most` the first and a count of the others."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(str, names[:most])) + more


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield each row as one line, its columns in line with the others', nothing cut or wrapped."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(map(str.ljust, row, widths)).rstrip()


def terminal_text(text: str) -> str:
    """Return a text unchanged for a pipe; for a terminal with its control characters escaped."""
    if not sys.stdout.isatty():
        return text
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on uvloop; return its result."""
    try:
        with _runner() as runner:
            return runner.run(work)
    finally:
        work.close()  # Ctrl-C may come before it has begun: Python would warn of it


@contextmanager
def _runner() -> Iterator[asyncio.Runner]:
    """Yield a runner on uvloop. Ctrl-C while its loop is made counts once the loop can be closed.

    Else the loop would stay open, and uvloop would log that as an error.
    """
    import uvloop

    interrupts: list[int] = []
    handler = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    is_held = in_main and handler is signal.default_int_handler
    if is_held:
        signal.signal(signal.SIGINT, lambda number, _: interrupts.append(number))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if is_held:
            signal.signal(signal.SIGINT, handler)
        if interrupts:
            raise KeyboardInterrupt
        yield runner


@contextmanager
def if_refused(hint: str) -> Iterator[None]:
    """Say what to do where the database refuses the block because the login lacks a right."""
    try:
        yield
    except FatalFault as fault:
        if fault.code == "postgres_42501":
            fault.hint = hint
        raise


def needing_role(role: str) -> AbstractContextManager[None]:
    """Name the role that a login needs, and whom to ask, where the database refuses the block."""
    return if_refused(
        "ask the owner of the schema sqs2pg, who runs `sqs2pg migrate`, to "
        f"GRANT {role} TO this login"
    )


def print_json(value: Any) -> None:
    """Print one line of JSON on stdout."""
    print(json.dumps(value, separators=(", ", ": "), default=str), flush=True)
