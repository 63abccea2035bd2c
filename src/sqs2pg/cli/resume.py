"""`sqs2pg resume`: end a pause, on record."""

from __future__ import annotations

from pathlib import Path

import click

from sqs2pg.cli.options import config_option, json_option, load_settings, print_json, run_async
from sqs2pg.cli.pause_report import needing_grant, report_of
from sqs2pg.settings import Settings


@click.command()
@config_option
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes to the audit.")
@json_option
def resume(config: Path | None, reason: str, as_json: bool) -> None:
    """Let the workers of a paused pipeline receive again. They notice within 5 seconds.

    It ends a pause of either kind: an operator's, and one that the pipeline began by itself.
    """
    settings = load_settings(config)
    with needing_grant("resume"):
        report = run_async(resume_pipeline(settings, reason))
    if as_json:
        print_json(report)
    elif report["changed"]:
        print(f"{report['pipeline']} is resumed: its workers receive again within 5 s")
    else:
        print(f"{report['pipeline']} was not paused")


async def resume_pipeline(settings: Settings, reason: str) -> dict[str, object]:
    """Resume the settings' pipeline; return what the command reports. Raises as `pauses.resume`."""
    from sqs2pg.postgres import pauses
    from sqs2pg.runners.connect import database

    async with database(settings) as (session, number):
        changed = await pauses.resume(session, number, reason)
        return report_of(settings, await pauses.read(session, number), changed=changed)
