"""`sqs2pg keys rewrap` and `keys rekey`: bring stored data under the new keys of a rotation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    counted,
    json_option,
    listed,
    load_settings,
    print_json,
    run_async,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.vault.rekey import Rekeyer
    from sqs2pg.vault.rewrap import Rewrapper

SHOWN_MAX = 20
"""References in a message; `--json` has them all."""


@click.command()
@config_option
@json_option
def rewrap(config: Path | None, as_json: bool) -> None:
    """Wrap every data key of the vault under the active vault root; no value is touched.

    Safe to interrupt and to repeat, and to run while messages come in.
    """
    work = run_async(_rewrap(load_settings(config)))
    damaged = sorted(work.damaged)
    if as_json:
        needed = [body.sealed_under for body in work.bodies]
        done = {"rewrapped": work.rewrapped, "still_needed": needed}
        print_json({**done, "damaged": len(damaged), "damaged_references": damaged})
        return
    print(f"rewrapped {counted(work.rewrapped, 'data key')}")
    _print_damaged(damaged)
    for body in work.bodies:
        print(
            f"{counted(body.count, 'quarantined body needs', 'quarantined bodies need')} "
            f"{body.sealed_under.replace(':', ' v')} still, the newest of {body.newest:%Y-%m-%d}: "
            "keep that root until none is left"
        )


@click.command()
@config_option
@json_option
def rekey(config: Path | None, as_json: bool) -> None:
    """Give old rows the tokens of the active pseudonym root, through the vault.

    Where the key of a state table is masked, rows that get one key are merged by `newer`.

    Safe to interrupt and to repeat, and to run while messages come in.
    """
    work = run_async(_rekey(load_settings(config)))
    report, damaged = work.report, sorted(work.damaged)
    if as_json:
        print_json({**msgspec.to_builtins(report), "damaged_references": damaged})
        return
    print(f"{counted(report.values, 'value')} and {counted(report.rows, 'row')} have new tokens")
    if report.rows_merged:
        print(f"{counted(report.rows_merged, 'row')} went into another row of the same key")
    if report.rows_deleted:
        print(
            f"{counted(report.rows_deleted, 'row')} had been deleted since, and "
            f"{'is' if report.rows_deleted == 1 else 'are'} gone"
        )
    if report.values_damaged:
        print(
            f"{counted(report.values_damaged, 'sealed value does', 'sealed values do')} not open "
            "and stayed as before"
        )
    _print_damaged(damaged)
    if report.rows_left:
        print(
            f"{counted(report.rows_left, 'cell keeps', 'cells keep')} an old token, for which no "
            "value is sealed: it does not join with new rows"
        )


def _print_damaged(references: list[str]) -> None:
    if references:
        print(
            f"{counted(len(references), 'data key does', 'data keys do')} not open: subject "
            f"{listed(references, SHOWN_MAX)}. Restore their rows of pii.subject_key "
            "from a backup, or erase those people"
        )


async def _rewrap(settings: Settings) -> Rewrapper:
    from sqs2pg.runners.connect import connected, database_and_keys
    from sqs2pg.vault.rewrap import Rewrapper

    async with (
        database_and_keys(settings) as (session, _, keyring),
        connected(settings) as beside,
    ):
        work = Rewrapper(session, keyring, beside)
        async with Ticker("rewrapping", lambda: (work.rewrapped, work.total, {})):
            await work.run()
        return work


async def _rekey(settings: Settings) -> Rekeyer:
    from sqs2pg.runners.compile_subjects import recoverable_columns
    from sqs2pg.runners.connect import connected, database_and_keys
    from sqs2pg.vault.rekey import Rekeyer

    async with (
        database_and_keys(settings) as (session, _, keyring),
        connected(settings) as beside,
    ):
        columns = recoverable_columns(settings, keyring)
        work = Rekeyer(session, keyring, columns, settings.targets, [beside])

        def state() -> tuple[int, int | None, dict[str, int]]:
            return work.report.values, work.total, {"rows": work.report.rows}

        async with Ticker("rekeying", state):
            await work.run()
        return work
