"""What `sqs2pg config test --sample` prints: the rows, and what would be quarantined and why.

Exit codes: 0 where every message would become rows, 1 where one would be quarantined, 2 where the
settings are wrong or there is nothing to try. Rows are masked; of a message that would be
quarantined only its id, the reason and the field are shown.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path

import msgspec

from sqs2pg.cli.doctor import dry_run, sample_documents
from sqs2pg.cli.doctor.context import Context
from sqs2pg.cli.options import counted, print_json, read_settings, run_async
from sqs2pg.errors import PermanentFault, SettingsError

SHOWN_MAX = 1_000
"""Rows that are printed."""


def report_sample(config: Path | None, sample: int | Path, *, as_json: bool) -> int:
    """Try a sample and print the report; return the exit code. Raises Sqs2pgError."""
    found, missing = run_async(_try(config, sample))
    ok = not found.quarantined
    if as_json:
        report = msgspec.to_builtins(found)
        report["rows"] = report["rows"][:SHOWN_MAX]
        print_json({"ok": ok, **report, "without": missing})
        return 0 if ok else 1
    for row in found.rows[:SHOWN_MAX]:
        print(json.dumps(row, ensure_ascii=True))
    for one in found.quarantined:
        record = "" if one.record is None else f" record {one.record}"
        print(f"QUARANTINE {one.message_id}: {one.code}{record} {one.field}".rstrip())
    if missing:
        print(f"note: tried without the {' and the '.join(missing)}", file=sys.stderr)
    print(
        f"{counted(found.messages, 'message')}: {counted(len(found.rows), 'row')}, "
        + (f"{counted(found.dropped, 'record')} dropped, " if found.dropped else "")
        + f"{len(found.quarantined)} would be quarantined"
    )
    return 0 if ok else 1


async def _try(config: Path | None, sample: int | Path) -> tuple[dry_run.DryRun, list[str]]:
    async with Context(config, partial(read_settings, config)) as context:
        settings = context.load_settings()
        mapping, missing = await dry_run.mapping_of(context)
        unread: dict[str, PermanentFault] = {}
        if isinstance(sample, Path):
            form = dry_run.form_of(settings, mapping)
            messages, unread = await asyncio.to_thread(sample_documents.lines_of, sample, form)
            place = str(sample)
        else:
            await context.find_queue()
            waiting = await dry_run.look(context, sample)
            messages, unread = await dry_run.with_lines(settings, mapping, waiting, sample)
            place = f"queue {settings.source.queue}"
        if not messages:
            raise SettingsError(
                f"{place} has no message to try",
                code="no_sample",
                hint="send some first, or write an [[example]] beside the mapping",
            )
        return await dry_run.try_messages(settings, mapping, messages, unread), missing
