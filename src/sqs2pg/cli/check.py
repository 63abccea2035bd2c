"""`sqs2pg check`: the doctor."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.text import Text

from sqs2pg import log
from sqs2pg.check import basics, keys, masking, reach
from sqs2pg.check.context import Context
from sqs2pg.check.finding import Check, Finding
from sqs2pg.check.runner import run
from sqs2pg.cli.options import config_option, json_option, print_json, run_async

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


@click.command()
@config_option
@json_option
def check(config: Path | None, as_json: bool) -> int:
    """Examine settings, keys, masking, queue and database; exit 1 where something fails."""
    log.configure()
    checks = list(CHECKS)
    findings = run_async(_run(checks, Context(config), quiet=as_json))
    failed = sum(finding.status == "fail" for finding in findings)
    if as_json:
        print_json({"ok": not failed, "checks": msgspec.to_builtins(findings)})
    else:
        warned = sum(finding.status == "warn" for finding in findings)
        print(f"{len(findings)} checks: {failed} failed, {warned} to look at")
    return 1 if failed else 0


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
