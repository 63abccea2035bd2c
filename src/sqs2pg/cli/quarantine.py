"""`sqs2pg quarantine list | show`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.table import Table

from sqs2pg import assembly
from sqs2pg import quarantine as work
from sqs2pg.cli.options import config_option, json_option, print_json, run_async
from sqs2pg.settings import Settings, load


@click.group()
def quarantine() -> None:
    """List and look at messages that were set aside."""


@quarantine.command("list")
@config_option
@click.option("--reason", help="Only entries with this reason code.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 100_000))
@json_option
def list_(config: Path | None, reason: str | None, limit: int, as_json: bool) -> None:
    """List open entries, newest first, and how many there are by reason."""
    found, by_reason = run_async(_list(load(config), reason, limit))
    if as_json:
        print_json(
            [
                {
                    "id": entry.id,
                    "message_id": entry.message_id,
                    "reason": entry.reason,
                    "detail": entry.detail,
                    "attempts": entry.attempts,
                    "received_at": entry.received_at.isoformat(),
                }
                for entry in found
            ]
        )
        return
    table = Table("id", "message id", "reason", "detail", "attempts", "received at", box=None)
    for entry in found:
        when = f"{entry.received_at:%Y-%m-%d %H:%M:%S%z}"
        table.add_row(
            str(entry.id), entry.message_id, entry.reason, entry.detail, str(entry.attempts), when
        )
    Console().print(table)
    for name, count in by_reason.items():
        print(f"{count:>8,}  {name}")
    print(f"{sum(by_reason.values()):>8,}  in all")


@quarantine.command()
@click.argument("number", metavar="ID", type=int)
@config_option
@json_option
def show(config: Path | None, number: int, as_json: bool) -> None:
    """Show what is known of one entry; its body stays sealed."""
    entry = run_async(_show(load(config), number))
    tree = msgspec.to_builtins(entry)
    if as_json:
        print_json(tree)
    else:
        for name, value in tree.items():
            print(f"{name.replace('_', ' '):14} {'-' if value is None else value}")


async def _list(
    settings: Settings, reason: str | None, limit: int
) -> tuple[list[work.Entry], dict[str, int]]:
    async with assembly.database(settings) as (session, pipeline):
        found = await work.entries(session, pipeline, reason=reason, limit=limit)
        return found, await work.counts(session, pipeline)


async def _show(settings: Settings, number: int) -> work.Entry:
    async with assembly.database(settings) as (session, pipeline):
        return await work.entry(session, pipeline, number)
