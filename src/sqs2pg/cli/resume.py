"""`sqs2pg resume`: end a pause, on record."""

from __future__ import annotations

from pathlib import Path

import click

from sqs2pg.cli.options import config_option, json_option, load_settings, print_json
from sqs2pg.cli.pause_acts import record


@click.command()
@config_option
@click.option("--reason", default="", metavar="TEXT", help="Why; it goes to the audit.")
@json_option
def resume(config: Path | None, reason: str, as_json: bool) -> None:
    """Let the workers of a paused pipeline receive again. They notice within 5 seconds.

    It ends a pause of either kind: an operator's, and one that the pipeline began by itself.
    """
    report = record(load_settings(config), "resume", reason)
    if as_json:
        print_json(report)
    elif report["changed"]:
        print(f"{report['pipeline']} is resumed: its workers receive again within 5 s")
    else:
        print(f"{report['pipeline']} was not paused")
