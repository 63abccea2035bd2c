"""`sqs2pg tap`: watch a sample of the masked rows that a running pipeline writes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import config_option, json_option, print_json
from sqs2pg.cli.top import StatusClient, status_at
from sqs2pg.errors import FatalFault

if TYPE_CHECKING:
    from sqs2pg.postgres.tap import TappedRow

_EVERY_S = 1.0


@click.command()
@click.argument("url", required=False)
@click.option("--count", type=click.IntRange(min=1), help="End after so many rows.")
@config_option
@json_option
def tap(url: str | None, count: int | None, config: Path | None, as_json: bool) -> None:
    """Show masked rows as they are written, a few of each batch, until Ctrl-C.

    URL is the status address; by default that of the settings. The pipeline must have status.tap
    and a token: give it as SQS2PG_STATUS__TOKEN, or in the settings.
    """
    status = status_at(url, config)
    try:
        _follow(status, count, as_json=as_json)
    except KeyboardInterrupt:
        return


def _follow(status: StatusClient, count: int | None, *, as_json: bool) -> None:
    left, since = count, 0.0
    while left is None or left > 0:
        rows = _read(status, since)
        for row in rows[:left]:
            print_json(msgspec.to_builtins(row)) if as_json else print(_line(row))
        sys.stdout.flush()
        since = max([since, *(row.at for row in rows)])
        left = None if left is None else left - len(rows)
        if left is None or left > 0:
            time.sleep(_EVERY_S)


def _read(status: StatusClient, since: float) -> list[TappedRow]:
    from sqs2pg.postgres.tap import TappedRows

    try:
        return msgspec.json.decode(status.rows(since), type=TappedRows).rows
    except msgspec.DecodeError:
        raise FatalFault(
            f"what answers at {status.address} is not a tap of this version",
            code="status_unknown",
            hint="use the version of sqs2pg that runs there",
        ) from None


def _line(row: TappedRow) -> str:
    """Return a row for people. A text is quoted as JSON, so that it stays on its line."""
    cells = (
        f"{name}={'NULL' if text is None else msgspec.json.encode(text).decode()}"
        for name, text in row.row.items()
    )
    clock = time.strftime("%H:%M:%S", time.localtime(row.at))
    return f"{clock} {row.table} {' '.join(cells)}"
