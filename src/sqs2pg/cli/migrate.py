"""`sqs2pg migrate`."""

from __future__ import annotations

from pathlib import Path

import click

from sqs2pg import migrate as work
from sqs2pg.assembly import connect
from sqs2pg.cli.options import config_option, run_async
from sqs2pg.settings import Settings, load


@click.command()
@config_option
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
def migrate(config: Path | None, sql: bool) -> None:
    """Create or upgrade our tables, the target table and the ledger's days."""
    settings = load(config)
    if sql:
        for migration in work.migrations():
            print(migration.text)
        print(f"-- Only where the target does not exist yet.\n{work.target_ddl(settings)};")
        print(work.roles_sql())
        print("\n".join(f"{grant};" for grant in work.target_grants(settings)))
        return
    for line in run_async(_migrate(settings)) or ["nothing to do: the database is up to date"]:
        print(line)


async def _migrate(settings: Settings) -> list[str]:
    session = await connect(settings)
    try:
        return await work.migrate(session, settings)
    finally:
        await session.close()
