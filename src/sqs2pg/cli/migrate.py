"""`sqs2pg migrate`: create or upgrade the tables, through `postgres/migrate.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from sqs2pg.cli.options import configs_option, counted, load_all, run_async
from sqs2pg.cli.several import for_each, raise_if_failed
from sqs2pg.settings import Settings


@click.command()
@configs_option
@click.option("--sql", is_flag=True, help="Print the SQL instead of running it.")
@click.option("--apply-additive", is_flag=True, help="Add columns that a target lacks.")
@click.option(
    "--change-mode",
    is_flag=True,
    help="Record another mode of a filled table, and count its rows anew for verify.",
)
def migrate(configs: tuple[Path, ...], sql: bool, apply_additive: bool, change_mode: bool) -> None:
    """Create or upgrade our tables, the target table and the ledger's days.

    Of several pipelines, one that fails keeps no other one from it.
    """
    from sqs2pg.postgres.migrate_script import migrate_script

    found = load_all(configs)
    if sql:
        print("\n".join(migrate_script(one, change_mode=change_mode) for one in found))
        return

    def act(settings: Settings) -> None:
        done = run_async(_migrate(settings, additive=apply_additive, change_mode=change_mode))
        where = f"{settings.pipeline_name}: " if len(found) > 1 else ""
        for line in done or ["nothing to do: the database is up to date"]:
            print(f"{where}{line}", flush=True)

    acts = {one.pipeline_name: partial(act, one) for one in found}
    _, failed = for_each(acts)
    raise_if_failed(failed)


async def _migrate(settings: Settings, *, additive: bool, change_mode: bool) -> list[str]:
    from sqs2pg.postgres import migrate as work
    from sqs2pg.postgres import partitions
    from sqs2pg.runners.connect import connected

    async with connected(settings) as session:
        done = await work.migrate(session, settings, additive=additive, change_mode=change_mode)
        attached = (await partitions.extend(session)).attached
        done += [f"attached {counted(attached, 'partition')}"] if attached else []
        built = await partitions.build_indexes(session, settings)
        return done + [f"built index {name}" for name in built]
