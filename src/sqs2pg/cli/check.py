"""`sqs2pg check`: run the doctor's checks (`cli/doctor/`) in order and print their findings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import config_option, counted, json_option, print_json, run_async
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import Sqs2pgError

if TYPE_CHECKING:
    from sqs2pg.cli.doctor import attack_masks, dry_run
    from sqs2pg.cli.doctor.context import Context
    from sqs2pg.cli.doctor.finding import DoctorCheck, Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


# What `--column` needs of them. It may be used on a database that we have not migrated.
_FOR_A_COLUMN = ("settings", "database")


@click.command()
@config_option
@click.option(
    "--attack", "with_attack", is_flag=True, help="Report how long each mask withstands an attack."
)
@click.option("--column", "place", help="Attack an existing column, `table.column`, for real.")
@click.option(
    "--limit-s",
    type=click.FloatRange(min=0.1),
    default=60.0,
    show_default=True,
    help="Longest search of --column.",
)
@click.option(
    "--sample",
    "count",
    metavar="N",
    type=click.IntRange(1, 100),
    help="Show what N messages would become, masked; nothing is written or deleted.",
)
@click.option("--emit-iam", is_flag=True, help="Print only the IAM policy it needs.")
@click.option("--emit-sql", is_flag=True, help="Print only the SQL grants it needs.")
@json_option
def check(
    config: Path | None,
    with_attack: bool,
    place: str | None,
    limit_s: float,
    count: int | None,
    emit_iam: bool,
    emit_sql: bool,
    as_json: bool,
) -> int:
    """Examine settings, keys, masking, queue and database; exit 1 where something fails."""
    from sqs2pg.cli.doctor import attack_masks
    from sqs2pg.cli.doctor.checks import CHECKS
    from sqs2pg.cli.doctor.context import Context
    from sqs2pg.cli.doctor.finding import DoctorCheck

    if emit_iam or emit_sql:
        run_async(_emit(Context(config), emit_iam, emit_sql))
        return 0
    checks = [one for one in CHECKS if not place or one.name in _FOR_A_COLUMN]
    estimates: list[attack_masks.Estimate] = []
    if with_attack:
        checks.append(
            DoctorCheck(
                "attack", lambda context: attack_masks.check_attack(context, estimates), limit_s=120
            )
        )
    if place:
        checks.append(_column_check(place, limit_s))
    taken: list[dry_run.DryRun] = []
    if count:
        checks.append(_sample_check(count, taken))
    findings = run_async(_run(checks, Context(config), quiet=as_json))
    failed = sum(finding.status == "fail" for finding in findings)
    if as_json:
        report = {"ok": not failed, "checks": msgspec.to_builtins(findings)}
        more = {"attack": msgspec.to_builtins(estimates)} if with_attack else {}
        if taken:
            more["sample"] = msgspec.to_builtins(taken[0])
        print_json(report | more)
    else:
        for one in taken:
            for row in one.rows:
                print(json.dumps(row, ensure_ascii=True))
        warned = sum(finding.status == "warn" for finding in findings)
        print(f"{counted(len(findings), 'check')}: {failed} failed, {warned} to look at")
    return 1 if failed else 0


def _sample_check(count: int, taken: list[dry_run.DryRun]) -> DoctorCheck:
    from sqs2pg.cli.doctor import dry_run
    from sqs2pg.cli.doctor.finding import DoctorCheck, ok, warn

    async def look(context: Context) -> Finding:
        found = await dry_run.take_sample(context, count)
        taken.append(found)
        aside = ", ".join(f"{n} {code}" for code, n in sorted(found.faults.items()))
        detail = (
            f"{counted(found.messages, 'message')} would become {counted(len(found.rows), 'row')}"
        )
        if aside:
            remedy = f"`sqs2pg config test --sample {count}` names messages, reasons and fields"
            return warn("sample", f"{detail}; set aside: {aside}", remedy)
        return ok("sample", detail)

    return DoctorCheck("sample", look, limit_s=60)


async def _emit(context: Context, iam: bool, sql: bool) -> None:
    """Print the grants that are needed, with the queue's ARN if the queue can be reached."""
    from sqs2pg.cli.doctor import required_grants

    async with context:
        settings = context.load_settings()
        if iam:
            print(json.dumps(required_grants.iam_policy(settings, await _arn(context)), indent=2))
        if sql:
            print(";\n".join(required_grants.sql_grants(settings)) + ";")


async def _arn(context: Context) -> str:
    queue = context.settings.source.queue
    if queue.startswith("arn:"):
        return queue
    try:
        url = await context.find_queue()
        client, _ = await context.queue()
        return (await client.attributes(url, ["QueueArn"]))["QueueArn"]
    except (Sqs2pgError, KeyError):
        return f"arn:aws:sqs:REGION:ACCOUNT:{queue.rstrip('/').rsplit('/', 1)[-1]}"


def _column_check(place: str, limit_s: float) -> DoctorCheck:
    from sqs2pg.cli.doctor import check_column_hashes
    from sqs2pg.cli.doctor.finding import DoctorCheck

    async def look(context: Context) -> Finding:
        progress = check_column_hashes.Progress()

        def state() -> tuple[int, int | None, dict[str, int]]:
            return progress.tried, progress.total or None, {"reversed": progress.reversed}

        async with Ticker("trying values", state):
            return await check_column_hashes.check_column(context, place, limit_s, progress)

    return DoctorCheck("column", look, limit_s=limit_s + 60)


async def _run(checks: list[DoctorCheck], context: Context, *, quiet: bool) -> list[Finding]:
    from sqs2pg.cli.doctor.runner import run

    findings = []
    async with context:
        async for finding in run(checks, context):
            findings.append(finding)
            if not quiet:
                show(finding)
    return findings


def show(finding: Finding) -> None:
    """Print a finding for people, with its remedy below."""
    from rich.console import Console
    from rich.text import Text

    console = Console(soft_wrap=True, highlight=False)
    console.print(
        Text(f"{finding.status:4}", style=_COLOURS[finding.status]),
        Text(f" {finding.name}: {finding.detail}"),
        sep="",
    )
    if finding.remedy and finding.status != "ok":
        console.print(Text(f"     -> {finding.remedy}", style="dim"))
