"""`sqs2pg check`: run the doctor's checks (`cli/doctor/`) in order and print their findings."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    configs_option,
    counted,
    json_option,
    named_pipeline,
    print_json,
    run_async,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.cli.several import for_each, raise_if_failed
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.settings import Settings, chosen, is_several, load_named, load_pipeline, load_pipelines

if TYPE_CHECKING:
    from sqs2pg.cli.doctor import attack_masks, dry_run
    from sqs2pg.cli.doctor.context import Context
    from sqs2pg.cli.doctor.finding import DoctorCheck, Finding

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "bold red"}


# What `--column` needs of them. It may be used on a database that we have not migrated.
_FOR_A_COLUMN = ("settings", "database")


@click.command()
@configs_option
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
    configs: tuple[Path, ...],
    with_attack: bool,
    place: str | None,
    limit_s: float,
    count: int | None,
    emit_iam: bool,
    emit_sql: bool,
    as_json: bool,
) -> int:
    """Examine settings, keys, masking, queue and database; exit 1 where something fails."""
    from sqs2pg.cli.doctor.checks import CHECKS

    found = _contexts(configs)
    if emit_iam or emit_sql:
        acts = {name: partial(_emit_alone, one, iam=emit_iam, sql=emit_sql) for name, one in found}
        _, failed = for_each(acts)
        raise_if_failed(failed)
        return 0
    reports = []
    for name, context in found:
        if len(found) > 1 and not as_json:
            print(f"{name}:")
        checks = [one for one in CHECKS if not place or one.name in _FOR_A_COLUMN]
        estimates: list[attack_masks.Estimate] = []
        if with_attack:
            checks.append(_attack_check(estimates))
        if place:
            checks.append(_column_check(place, limit_s))
        taken: list[dry_run.DryRun] = []
        if count:
            checks.append(_sample_check(count, taken))
        findings = run_async(_run(checks, context, quiet=as_json))
        if not as_json:
            _summarise(findings, taken)
        ok = all(finding.status != "fail" for finding in findings)
        report = {"ok": ok, "checks": [finding.shown for finding in findings]}
        report |= {"attack": msgspec.to_builtins(estimates)} if with_attack else {}
        report |= {"sample": msgspec.to_builtins(taken[0])} if taken else {}
        reports.append({"pipeline": name, **report} if len(found) > 1 else report)
    ok = all(report["ok"] for report in reports)
    if as_json:
        print_json({"ok": ok, "pipelines": reports} if len(found) > 1 else reports[0])
    return 0 if ok else 1


def _contexts(configs: Sequence[Path]) -> list[tuple[str, Context]]:
    """Return the pipelines to examine, by name; by file where its settings cannot be read.

    Raises SettingsError where files do not go together, or none has the name that is asked for.
    """
    from sqs2pg.cli.doctor.context import Context

    named, files = named_pipeline(), chosen(configs)
    if not is_several(files):
        file = files[0] if files else None
        return [("", Context(file, partial(load_pipeline, file, named)))]
    refused: dict[Path, SettingsError] = {}
    good = load_pipelines(files, unusable=refused.__setitem__)

    def read(file: Path) -> Settings:
        if file in refused:
            raise refused[file]
        return good[file]

    names = {file: one.pipeline_name for file, one in good.items()}
    if named:
        load_named(files, named)  # it says why there is none
        names = {file: name for file, name in names.items() if name == named}
    else:
        names |= {file: str(file) for file in refused}
    return [
        (name, Context(file, partial(read, file)))
        for file, name in sorted(names.items(), key=lambda item: str(item[0]))
        if file
    ]


def _summarise(findings: Sequence[Finding], taken: Sequence[dry_run.DryRun]) -> None:
    for one in taken:
        for row in one.rows:
            print(json.dumps(row, ensure_ascii=True))
    failed = sum(finding.status == "fail" for finding in findings)
    warned = sum(finding.status == "warn" for finding in findings)
    print(f"{counted(len(findings), 'check')}: {failed} failed, {warned} to look at")


def _attack_check(estimates: list[attack_masks.Estimate]) -> DoctorCheck:
    from sqs2pg.cli.doctor import attack_masks
    from sqs2pg.cli.doctor.finding import DoctorCheck

    def look(context: Context) -> Awaitable[list[Finding]]:
        return attack_masks.check_attack(context, estimates)

    return DoctorCheck("attack", look, limit_s=120)


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
        if found.dropped:
            detail += f", {counted(found.dropped, 'record')} dropped"
        if aside:
            remedy = f"`sqs2pg config test --sample {count}` names messages, reasons and fields"
            return warn("sample", f"{detail}; set aside: {aside}", remedy)
        return ok("sample", detail)

    return DoctorCheck("sample", look, limit_s=60)


def _emit_alone(context: Context, *, iam: bool, sql: bool) -> None:
    run_async(_emit(context, iam, sql))


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
