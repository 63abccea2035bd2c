"""The command line: one file per command, loaded only when it is called.

A command's functions import the driver, AWS and what stands on them themselves, so that its
`--help` and its usage errors load none of it.

Output rules: results on stdout; `error: …` then `hint: …` on stderr, no traceback. Exit codes:
0 done, 1 the check or the work failed, 2 wrong usage or settings.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import sys
import threading
from collections.abc import Callable
from functools import partial
from types import TracebackType
from typing import Any, NoReturn

import click

from sqs2pg import __version__
from sqs2pg.errors import Sqs2pgError, nearest, unforeseen

# Command -> module of this package; the module has a click command of the same name.
COMMANDS = {
    "demo": "Run the main job once on embedded servers: send, drain, verify, show.",
    "run": "Consume the queue until stopped, or until it is empty with --drain.",
    "send": "Put logins, the mapping's examples, or a file's lines on the queue.",
    "migrate": "Create or upgrade our tables, the target and the ledger's days.",
    "check": "Examine settings, keys, masking, queue and database; say what to put right.",
    "verify": "Reconcile ledger, tally, quarantine and target; exit 1 on any difference.",
    "quarantine": "List, look at, replay, amend, export and purge what was set aside.",
    "pause": "Stop a pipeline's workers from receiving, on record.",
    "resume": "Let the workers of a paused pipeline receive again.",
    "reveal": "Open one masked value, or one person's, for a recorded reason.",
    "forget": "Erase a person: keys, values, tokens and quarantined bodies.",
    "keys": "Make, list and rotate the keys that mask values.",
    "init": "Propose a settings file from a table, messages of the queue or an archive.",
    "partition": "Partitions of a target: attach, drop, and convert a plain table online.",
    "backfill": "Write archived records, from files or S3, and resume exactly.",
    "bench": "Measure throughput and CPU on this machine, in a few minutes.",
    "top": "Attach to a running pipeline by its status address.",
    "tap": "Watch a sample of the masked rows that a running pipeline writes.",
    "support-bundle": "Collect what is safe to attach to a public issue.",
    "config": "Show or test the settings, or print their JSON Schema.",
}


SUPERVISED = frozenset({"run", "backfill"})
"""Commands that a supervisor starts: off a terminal, their last error is a line of their log."""


class _LazyGroup(click.Group):
    """Imports a command's module when it is called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = nearest(cmd_name, COMMANDS, cutoff=0.5)
            ctx.fail(
                f"no such command {cmd_name!r}" + (f", did you mean {near!r}?" if near else "")
            )
        from sqs2pg.telemetry import log  # not at the top: `--help` must be quick

        # Set up again with its settings, once they are read.
        log.from_environment(supervised=cmd_name in SUPERVISED)
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f"sqs2pg.cli.{name}")
        command = getattr(module, name)
        assert isinstance(command, click.Command)
        _parse_short_options_first(command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _parse_short_options_first(command: click.Command) -> None:
    command.make_parser = partial(_parser, command.make_parser)  # type: ignore[method-assign]
    if isinstance(command, click.Group):
        for one in command.commands.values():
            _parse_short_options_first(one)


def _parser(make: Callable[[click.Context], Any], context: click.Context) -> Any:
    """Return a command's parser, which finds `-c` at once.

    click looks for it among the long options first; as it is none of them, it would load difflib
    and compare it with each, for a message that nobody sees.
    """
    parser = make(context)
    for name, option in getattr(parser, "_short_opt", {}).items():
        getattr(parser, "_long_opt", {}).setdefault(name, option)
    return parser


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)
@click.option("--version", is_flag=True, help="Show the version and exit; more of it with -v.")
@click.option("-v", "verbose", is_flag=True, hidden=True)
@click.pass_context
def cli(context: click.Context, *, version: bool, verbose: bool) -> None:
    """Read JSON events from SQS, mask the sensitive fields, write rows to PostgreSQL."""
    if verbose and not version:
        raise click.UsageError("-v stands behind the command, or beside --version")
    if version:
        click.echo(f"sqs2pg {__version__}")
        if verbose:
            from sqs2pg.cli.versions import versions

            click.echo("\n".join(versions()))
        context.exit()
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    _spare_the_collector()
    # A core dump would hold keys and bodies.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    _install_hooks()
    try:
        code = _run(arguments)
    finally:
        _flush_stdout()
    raise SystemExit(code)


def _run(arguments: list[str] | None) -> int:
    """Run a command and return its exit code. Raises SystemExit where it failed."""
    try:
        code = cli.main(args=arguments, prog_name="sqs2pg", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())  # as --help
        raise SystemExit(0) from None
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "sqs2pg"
        fail(error.format_message(), f"{command} --help", 2, "usage")
    except click.ClickException as error:
        fail(error.format_message(), "see --help", error.exit_code, "usage")
    except (click.Abort, KeyboardInterrupt):
        fail("interrupted", "what was committed stays; run it again", 130, "interrupted")
    except Sqs2pgError as error:
        fail(error.what, error.hint or _remedy_of(error.code), error.exit_code, error.code)
    except BrokenPipeError:  # the reader of our stdout has gone: leave quietly
        raise SystemExit(1) from None
    except Exception as error:  # noqa: BLE001  the last gate: no text of an exception passes it
        fail(*unforeseen(error), 1, "unexpected")
    return code if isinstance(code, int) else 0


def _flush_stdout() -> None:
    """Write what stdout still holds. If its reader has gone (`| head`), drop that.

    Otherwise the interpreter would flush at its end, and report the pipe as a fault of ours.
    """
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def fail(what: str, hint: str, exit_code: int, code: str = "") -> NoReturn:
    """Print one error and one hint on stderr, and exit. `code` is the fault code."""
    print_error(what, hint, code=code, exit_code=exit_code)
    raise SystemExit(exit_code)


def print_error(what: str, hint: str, *, code: str = "", exit_code: int | None = None) -> None:
    """Print one error and one hint on stderr, in the form of the log where that was set up."""
    if log := sys.modules.get("sqs2pg.telemetry.log"):
        log.report_error(what, hint, code=code, exit_code=exit_code)
        return
    print(f"error: {what}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def _remedy_of(code: str) -> str:
    """Return what to do about a fault whose error does not say it."""
    from sqs2pg.fault_codes import remedy_of

    return remedy_of(code)


def _spare_the_collector() -> None:
    """Let the cyclic collector run rarely, not for every 700 new objects as by default.

    Loading the modules of `run` makes 90,000 objects that stay: a sixth of the time was the
    collector's. A batch makes thousands of objects and no cycles. The collector ran dozens of times
    per batch, which was measured at a sixth of the CPU time per message.
    """
    gc.set_threshold(100_000, 20, 100)
    gc.enable()


def _install_hooks() -> None:
    """Keep uncaught exceptions of the process, a thread or a finalizer from printing their text.

    Tracebacks quote values in their last line (`ValueError: invalid literal … '593-47-5928'`).
    """

    def report(error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
            print_error(*unforeseen(error), code="unexpected")

    def excepthook(
        _kind: type[BaseException], error: BaseException, _trace: TracebackType | None
    ) -> None:
        report(error)

    sys.excepthook = excepthook
    threading.excepthook = lambda failed: report(failed.exc_value)
    sys.unraisablehook = lambda failed: report(failed.exc_value)
