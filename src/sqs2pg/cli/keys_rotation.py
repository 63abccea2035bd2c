"""`sqs2pg keys rewrap` and `keys rekey`: bring stored data under the new keys of a rotation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import config_option, json_option, print_json, run_async
from sqs2pg.cli.progress import Ticker
from sqs2pg.settings import Settings, load

if TYPE_CHECKING:
    from sqs2pg.vault.rekey import Rekeyed
    from sqs2pg.vault.rewrap import Bodies


@click.command()
@config_option
@json_option
def rewrap(config: Path | None, as_json: bool) -> None:
    """Wrap every data key of the vault under the active vault root; no value is touched.

    Safe to interrupt and to repeat, and to run while messages come in.
    """
    count, bodies = run_async(_rewrap(load(config)))
    if as_json:
        needed = [body.sealed_under for body in bodies]
        print_json({"rewrapped": count, "still_needed": needed})
        return
    print(f"rewrapped {count:,} data keys")
    for body in bodies:
        print(
            f"{body.count:,} quarantined bodies still need {body.sealed_under.replace(':', ' v')}, "
            f"the newest of {body.newest:%Y-%m-%d}: keep that root until they are purged"
        )


@click.command()
@config_option
@json_option
def rekey(config: Path | None, as_json: bool) -> None:
    """Give old rows the tokens of the active pseudonym root, through the vault.

    Safe to interrupt and to repeat, and to run while messages come in.
    """
    report = run_async(_rekey(load(config)))
    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    print(f"{report.values:,} values and {report.rows:,} rows have new tokens")
    if report.values_damaged:
        print(f"{report.values_damaged:,} sealed values do not open and were left")
    if report.rows_left:
        print(
            f"{report.rows_left:,} cells keep an old token: no value is sealed for them, "
            "so they do not join with new rows"
        )


async def _rewrap(settings: Settings) -> tuple[int, list[Bodies]]:
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault.rewrap import Rewrapper

    async with database_and_keys(settings) as (session, _, keyring):
        work = Rewrapper(session, keyring)
        async with Ticker("rewrapping", lambda: (work.rewrapped, work.total, {})):
            return await work.run(), work.bodies


async def _rekey(settings: Settings) -> Rekeyed:
    from sqs2pg.runners.compile_subjects import recoverable_columns
    from sqs2pg.runners.connect import database_and_keys
    from sqs2pg.vault.rekey import Rekeyer

    async with database_and_keys(settings) as (session, _, keyring):
        work = Rekeyer(session, keyring, recoverable_columns(settings, keyring))

        def state() -> tuple[int, int | None, dict[str, int]]:
            return work.report.values, work.total, {"rows": work.report.rows}

        async with Ticker("rekeying", state):
            return await work.run()
