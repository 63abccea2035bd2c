"""`sqs2pg init`: propose a settings file from a table, from messages, or from both."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sqs2pg.cli.doctor.sample_documents import SampleParameter
from sqs2pg.cli.options import config_option, counted, load_settings, run_async
from sqs2pg.errors import SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.cli.doctor.propose_mapping import Proposal
    from sqs2pg.cli.doctor.sample_documents import Sample as SampledDocuments


@click.command()
@config_option
@click.option("--from-table", metavar="T", help="Propose a field for each column of this table.")
@click.option(
    "--sample",
    metavar="N|FILE",
    type=SampleParameter(),
    help="Propose from up to N messages, which stay on the queue, or from an archive: JSON lines "
    "or CSV, plain or compressed.",
)
@click.option(
    "--explain", is_flag=True, help="Say above each field what was seen, in kinds and counts."
)
@click.option("--queue", help="The queue to look at; else source.queue.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A new file to write; else stdout.",
)
def init(
    config: Path | None,
    from_table: str | None,
    sample: int | Path | None,
    explain: bool,
    queue: str | None,
    output: Path | None,
) -> None:
    """Propose a settings file from a table, messages of the queue or an archive."""
    if from_table is None and sample is None:
        raise click.UsageError("give --from-table T, or --sample N, or both")
    if output is not None and output.exists():
        raise SettingsError(f"{output} is there already", hint="give another name with -o")
    settings = load_settings(config)
    text = run_async(
        _propose(settings, from_table, sample, queue or settings.source.queue, explain=explain)
    )
    if output is None:
        print(text, end="")
    else:
        write_whole(output, text)
        print(f"wrote {output}; read it, then run `sqs2pg migrate` and `sqs2pg check` with it")


def write_whole(output: Path, text: str) -> None:
    """Write the whole file or none of it. Raises SettingsError."""
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        if output.is_file():
            output.unlink()
        raise SettingsError(
            f"{output} cannot be written: {error.strerror}", hint="give another name with -o"
        ) from None


async def _propose(
    settings: Settings, table: str | None, sample: int | Path | None, queue: str, *, explain: bool
) -> str:
    from sqs2pg.cli.doctor import sample_documents
    from sqs2pg.cli.doctor.propose_table import of_table
    from sqs2pg.cli.doctor.write_proposal import write_toml

    columns: dict[str, Column] | None = None
    if table is not None:
        columns = await _columns(settings, table)
    if sample is None:
        assert table is not None
        assert columns is not None
        proposal = of_table(columns.values(), table)
        return write_toml(proposal, queue=queue, envelope={}, origin=f"table {table}")
    if isinstance(sample, Path):
        messages, faults = await asyncio.to_thread(sample_documents.lines_of, sample)
        messages = [one for one in messages if one.message_id not in faults]
        origin = sample.name
    else:
        messages, faults = await sample_documents.peek_at(queue, sample), {}
        origin = f"queue {queue}"
    found = sample_documents.sample_of(messages, origin)
    found.unread.update(fault.code for fault in faults.values())
    envelope = found.envelope
    if found.objects:
        found = await _of_objects(found, origin)
        envelope = {**envelope, **found.envelope, "layers": envelope["layers"]}
    what = counted(len(messages), "line" if isinstance(sample, Path) else "message")
    if found.unread:
        warn_of_unread(found.unread)
    proposal = await asyncio.to_thread(
        _settled, found, columns, table or _table_name(_source_name(sample, queue)), queue
    )
    return write_toml(
        proposal,
        queue=queue,
        envelope=envelope,
        origin=" and ".join([*([f"table {table}"] if table else []), what]),
        explain=explain,
    )


async def _of_objects(notified: SampledDocuments, origin: str) -> SampledDocuments:
    """Return the sample of the objects that notifications name."""
    from sqs2pg.cli.doctor import sample_documents
    from sqs2pg.cli.doctor.sample_objects import lines_in
    from sqs2pg.sqs.s3 import ObjectStore

    most = sample_documents.MESSAGES_MAX
    lines, faults = await asyncio.to_thread(lines_in, ObjectStore(), notified.objects, most)
    lines = [one for one in lines if one.message_id not in faults]
    if not lines:
        raise SettingsError(
            f"{origin} has notifications of S3, and none of their objects could be read",
            code="no_sample",
            hint="check that the objects exist and may be read; or give one as a file: "
            "--sample FILE",
        )
    found = sample_documents.sample_of(lines, "the objects of the notifications")
    found.unread.update(fault.code for fault in faults.values())
    return found


def _settled(
    found: SampledDocuments, columns: Mapping[str, Column] | None, table: str, queue: str
) -> Proposal:
    """Return a proposal that the sample itself passes. Blocking."""
    from sqs2pg.cli.doctor.propose_mapping import of_documents
    from sqs2pg.cli.doctor.propose_table import of_table_and_documents
    from sqs2pg.cli.doctor.write_proposal import settle

    if columns is not None:
        # The table is as it is: what it cannot take of the sample, `config test` shows.
        return of_table_and_documents(found.documents, columns, table)
    for explode in (True, False):
        proposal = of_documents(found.documents, table, explode=explode)
        if settle(proposal, found.envelope, queue, found.messages):
            return proposal
    return proposal


async def _columns(settings: Settings, table: str) -> dict[str, Column]:
    from sqs2pg.postgres.catalog import read_columns
    from sqs2pg.postgres.identifiers import quote_table
    from sqs2pg.runners.connect import connected

    async with connected(settings) as session:
        return await read_columns(session, quote_table(table))


def warn_of_unread(unread: Mapping[str, int]) -> None:
    """Say on stderr how many messages of a sample hold no document."""
    from sqs2pg.cli.doctor.sample_documents import about_unread

    print(f"warning: without a JSON object: {about_unread(unread)}", file=sys.stderr)


def _source_name(sample: int | Path, queue: str) -> str:
    return sample.name.split(".")[0] if isinstance(sample, Path) else queue


def _table_name(queue: str) -> str:
    name = queue.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".fifo")
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "events"
