"""`sqs2pg init`: propose a settings file from a table, from messages, or from both."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click
import msgspec

from sqs2pg.cli.options import config_option, run_async
from sqs2pg.errors import PermanentFault, SettingsError
from sqs2pg.mapping.columns import Column
from sqs2pg.mapping.envelope import Envelope
from sqs2pg.message import Message
from sqs2pg.settings import EnvelopeSettings, Settings, load

_decode = msgspec.json.Decoder(float_hook=Decimal).decode  # numbers exact


@click.command()
@config_option
@click.option("--from-table", metavar="T", help="Propose a field for each column of this table.")
@click.option(
    "--sample",
    metavar="N",
    type=click.IntRange(1, 1000),
    help="Propose from up to N messages; they stay on the queue.",
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
    sample: int | None,
    queue: str | None,
    output: Path | None,
) -> None:
    """Propose a settings file from an existing table or from messages of the queue."""
    if from_table is None and sample is None:
        raise click.UsageError("give --from-table T, or --sample N, or both")
    if output is not None and output.exists():
        raise SettingsError(f"{output} is there already", hint="give another name with -o")
    settings = load(config)
    text = run_async(_propose(settings, from_table, sample, queue or settings.source.queue))
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


async def _propose(settings: Settings, table: str | None, sample: int | None, queue: str) -> str:
    from sqs2pg.cli.doctor.propose_mapping import of_documents, of_table, write_toml
    from sqs2pg.postgres.catalog import read_columns
    from sqs2pg.postgres.identifiers import quote_table
    from sqs2pg.runners.connect import connected

    columns: dict[str, Column] | None = None
    origins: list[str] = []
    if table is not None:
        async with connected(settings) as session:
            columns = await read_columns(session, quote_table(table))
        origins.append(f"table {table}")
    envelope: dict[str, Any] = {}
    if sample is None:
        assert columns is not None
        proposed = of_table(columns.values())
    else:
        messages = await _peek(queue, sample)
        documents, envelope = _documents(messages, queue)
        origins.append(f"{len(messages)} messages")
        proposed = of_documents(documents, columns)
    return write_toml(
        proposed,
        queue=queue,
        table=table or _table_name(queue),
        envelope=envelope,
        origin=" and ".join(origins),
    )


async def _peek(queue: str, count: int) -> list[Message]:
    from sqs2pg.runners.connect import queue_client
    from sqs2pg.sqs.peek import peek

    async with queue_client() as client:
        return await peek(client, await client.queue_url(queue), count)


def _documents(messages: list[Message], queue: str) -> tuple[list[Any], dict[str, Any]]:
    """Return the documents of the messages, and the envelope settings that open them."""
    plain = Envelope(EnvelopeSettings(records="auto"))
    auto = Envelope(EnvelopeSettings(layers=("auto",), records="auto"))
    documents: list[Any] = []
    wrapped = several = False
    for message in messages:
        try:
            opened = auto.open(message)
        except PermanentFault:
            continue
        documents += [one for one in map(_decoded, opened.records.texts) if type(one) is dict]
        several = several or opened.records.several
        try:
            wrapped = wrapped or plain.open(message).records.texts != opened.records.texts
        except PermanentFault:
            wrapped = True
    if not documents:
        raise SettingsError(
            f"queue {queue} gave no JSON object to propose from",
            code="no_sample",
            hint="send some messages first, or use --from-table",
        )
    envelope: dict[str, Any] = {"layers": ["auto"]} if wrapped else {}
    return documents, envelope | ({"records": "auto"} if several else {})


def _decoded(text: str) -> Any:
    """Return the value of JSON; None where it is none."""
    try:
        return _decode(text)
    except (msgspec.DecodeError, UnicodeError, InvalidOperation):
        return None


def _table_name(queue: str) -> str:
    name = queue.rstrip("/").rsplit("/", 1)[-1].rsplit(":", 1)[-1].removesuffix(".fifo")
    return re.sub(r"[^a-z0-9_]+", "_", name.lower()).strip("_") or "events"
