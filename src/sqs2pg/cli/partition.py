"""`sqs2pg partition`: the target's partitions, through `postgres/partitions.py`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    counted,
    json_option,
    load_settings,
    print_json,
    run_async,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.postgres import partitions as work


@click.command()
@config_option
@click.option("--convert", is_flag=True, help="Turn the plain target into a partitioned one.")
@json_option
def partition(config: Path | None, convert: bool, as_json: bool) -> None:
    """Attach the partitions to come, and drop those past their retention.

    With --convert, first turn the plain table into a partitioned one, online, period by period.
    """
    settings = load_settings(config)
    if not settings.sink.partition_by:
        raise SettingsError(
            "sink.partition_by is not set",
            code="partition_by",
            hint="name the date column to partition by, such as create_date, under [sink]",
        )
    table = settings.targets[0].table
    if convert:
        done = run_async(_convert(settings, table))
        if as_json:
            print_json(msgspec.to_builtins(done))
        else:
            print(
                f"{table}: {counted(done.rows, 'row')} moved to "
                f"{counted(done.periods, 'partition')}; "
                f"{done.left:,} without a date stay in the default one"
            )
        return
    upkeep = run_async(_extend(settings))
    if as_json:
        print_json(msgspec.to_builtins(upkeep))
    else:
        print(
            f"{table}: {counted(upkeep.attached, 'partition')} attached, {upkeep.dropped} dropped, "
            f"{counted(upkeep.rows_removed, 'row')} past retention removed from the default one"
        )


async def _convert(settings: Settings, table: str) -> work.Converted:
    from sqs2pg.postgres import partitions as work
    from sqs2pg.runners.connect import connected

    latest = work.Converted()

    def note(done: work.Converted) -> None:
        nonlocal latest
        latest = done

    def state() -> tuple[int, int | None, dict[str, int]]:
        return latest.rows, None, {"periods": latest.periods}

    async with connected(settings) as session, Ticker("moving rows", state):
        return await work.convert(session, settings, table, note)


async def _extend(settings: Settings) -> work.Extended:
    from sqs2pg.postgres import partitions as work
    from sqs2pg.runners.connect import connected

    async with connected(settings) as session:
        return await work.extend(session)
