"""`sqs2pg check`: the doctor."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from sqs2pg import log
from sqs2pg.check import attack, basics, column, keys, masking, reach
from sqs2pg.check.context import Context
from sqs2pg.check.finding import Check, Finding
from sqs2pg.check.runner import run
from sqs2pg.cli.options import config_option, json_option, print_json, run_async
from sqs2pg.cli.progress import Ticker

# In this order: the cause before what follows from it. Each has its own limit; none stops the
# others.
CHECKS = (
    Check("settings", basics.check_settings),
    Check("versions", basics.check_versions),
    Check("keys", keys.check_keys),
    Check("masking policy", masking.check_masking),
    Check("queue", reach.check_queue),
    Check("database", reach.check_database),
    Check("schema", reach.check_schema),
    Check("keys on record", keys.check_key_record),
)

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


# What `--column` needs of the others; it may be asked of a database that is not ours yet.
_FOR_A_COLUMN = ("settings", "database")


@click.command()
@config_option
@click.option("--attack", "with_attack", is_flag=True, help="Say how long each mask withstands.")
@click.option("--column", "place", help="Attack an existing column, `table.column`, for real.")
@click.option(
    "--limit-s",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Longest search of --column.",
)
@json_option
def check(
    config: Path | None, with_attack: bool, place: str | None, limit_s: float, as_json: bool
) -> int:
    """Examine settings, keys, masking, queue and database; exit 1 where something fails."""
    log.configure()
    checks = [one for one in CHECKS if not place or one.name in _FOR_A_COLUMN]
    estimates: list[attack.Estimate] = []
    if with_attack:
        checks.append(
            Check("attack", lambda context: attack.check_attack(context, estimates), limit_s=120)
        )
    if place:
        checks.append(_column_check(place, limit_s))
    findings = run_async(_run(checks, Context(config), quiet=as_json))
    failed = sum(finding.status == "fail" for finding in findings)
    if as_json:
        report = {"ok": not failed, "checks": msgspec.to_builtins(findings)}
        print_json(report | ({"attack": msgspec.to_builtins(estimates)} if with_attack else {}))
    else:
        warned = sum(finding.status == "warn" for finding in findings)
        print(f"{len(findings)} checks: {failed} failed, {warned} to look at")
    return 1 if failed else 0


def _column_check(place: str, limit_s: float) -> Check:
    async def look(context: Context) -> Finding:
        progress = column.Progress()

        def state() -> tuple[int, int | None, dict[str, int]]:
            return progress.tried, progress.total or None, {"reversed": progress.reversed}

        async with Ticker("trying values", state):
            return await column.check_column(context, place, limit_s, progress)

    return Check("column", look, limit_s=limit_s + 60)


async def _run(checks: list[Check], context: Context, *, quiet: bool) -> list[Finding]:
    findings = []
    async with context:
        async for finding in run(checks, context):
            findings.append(finding)
            if not quiet:
                show(finding)
    return findings


def show(finding: Finding) -> None:
    """Print a finding for people: the remedy stands under what it is for."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(
        Text(f"{finding.status:4}", style=_COLOURS[finding.status]),
        Text(f" {finding.name}: {finding.detail}"),
        sep="",
    )
    if finding.remedy and finding.status != "ok":
        console.print(Text(f"     -> {finding.remedy}", style="dim"))
