"""`sqs2pg pause`: stop the workers of a pipeline from receiving, on record."""

from __future__ import annotations

from pathlib import Path

import click

from sqs2pg.cli.options import config_option, json_option, load_settings, print_json
from sqs2pg.cli.pause_acts import record, reported


@click.command()
@config_option
@click.option("--reason", default="", metavar="TEXT", help="Why; shown everywhere, and audited.")
@json_option
def pause(config: Path | None, reason: str, as_json: bool) -> None:
    """Stop receiving until `sqs2pg resume`. Workers notice within 5 seconds.

    What they hold is finished; what is left after shutdown_grace_s goes back to the queue. A
    pipeline that is paused already stays paused as it was recorded.
    """
    report = record(load_settings(config), "pause", reason)
    if as_json:
        print_json(report)
    elif report["changed"]:
        print(f"{report['pipeline']} is paused: its workers stop receiving within 5 s")
    else:
        print(f"{report['pipeline']} was paused before, {reported(report)}")
