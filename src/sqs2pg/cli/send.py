"""`sqs2pg send`: put messages on the queue, for trials and tests."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from sqs2pg.cli.options import (
    config_option,
    counted,
    json_option,
    load_settings,
    print_json,
    run_async,
)
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import SettingsError, Sqs2pgError
from sqs2pg.settings import SYSTEM, Settings

if TYPE_CHECKING:
    from sqs2pg.sqs.producer import Sent
    from sqs2pg.sqs.wire import OutgoingMessage

_GROUP = "sqs2pg-send"
"""The message group on a FIFO queue: one for all, so that they keep their order."""


@click.command()
@config_option
@click.option(
    "--count",
    type=click.IntRange(min=1),
    help="Messages to send: generated logins [1000], or examples in turn [each once].",
)
@click.option(
    "--example", "examples", is_flag=True, help="Send the mapping's own [[example]] messages."
)
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages per second.")
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Send a file's lines instead, one message each; .gz is unpacked.",
)
@click.option("--seed", type=int, help="Seed of the generated logins, to repeat them.")
@json_option
def send(
    config: Path | None,
    count: int | None,
    examples: bool,
    rate: float | None,
    file: Path | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Put generated logins, the mapping's examples, or a file's lines on the queue.

    Logins are sent only where the mapping in use reads logins, such as the built-in one.
    """
    if file is not None and (count is not None or examples):
        raise click.UsageError("--file goes without --count and --example")
    settings = load_settings(config)
    messages: Iterable[str | OutgoingMessage]
    if file is not None:
        from sqs2pg.sqs.producer import read_lines

        messages, total = read_lines(file), None
    elif examples:
        of_mapping = _examples(settings)
        total = count or len(of_mapping)
        messages = islice(cycle(of_mapping), total)
    else:
        from sqs2pg.cli.embedded.sample_logins import logins

        _require_logins(settings)
        total = count or 1000
        messages = logins(total, seed=seed)
    result = run_async(send_bodies(settings, messages, total, rate))
    refused = sum(result.refused.values())
    if as_json:
        print_json({"sent": result.sent, "refused": refused})
    else:
        print(f"sent {counted(result.sent, 'message')}")
    if refused:
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(result.refused.items()))
        raise Sqs2pgError(
            f"{counted(refused, 'message was', 'messages were')} refused and not sent ({codes})",
            code="send_refused",
            hint="SQS takes bodies of 1 byte to 1 MiB, without control characters",
        )
    return 0


def _require_logins(settings: Settings) -> None:
    """Raise SettingsError where generated logins would only be quarantined."""
    from sqs2pg.cli.embedded.sample_logins import takes_logins

    if takes_logins(settings):
        return
    way = "`sqs2pg send --example` sends the mapping's own examples"
    if not settings.example:
        way = "add [[example]] messages to the settings and send them with `sqs2pg send --example`"
    raise SettingsError(
        f"the mapping into {settings.table_names} does not read logins, and without --file or "
        "--example those would be sent",
        hint=f"{way}; `--file FILE` sends the lines of a file",
    )


def _examples(settings: Settings) -> list[OutgoingMessage]:
    """Return the mapping's examples as messages to send. Raises SettingsError if there are none.

    One whose payload is in S3 is left out: only its object would make it complete.
    """
    from sqs2pg.mapping.examples import body_of
    from sqs2pg.sqs.wire import OutgoingMessage

    fifo = _is_fifo(settings)
    messages = [
        OutgoingMessage(
            body_of(example),
            attributes={k: v for k, v in example.attributes.items() if not k.startswith(SYSTEM)},
            group_id=example.attributes.get(f"{SYSTEM}MessageGroupId", _GROUP) if fifo else None,
        )
        for example in settings.example
        if example.payload is None
    ]
    if messages:
        return messages
    raise SettingsError(
        "the settings have no [[example]] that can be sent",
        hint="add one with its `input`; docs/reference/mapping.md shows how",
    )


def _is_fifo(settings: Settings) -> bool:
    return settings.source.queue.endswith(".fifo")


def _as_new(message: str | OutgoingMessage) -> OutgoingMessage:
    """Return the message as one that was not sent to the FIFO queue before."""
    from sqs2pg.sqs.wire import OutgoingMessage

    if isinstance(message, str):
        message = OutgoingMessage(message, group_id=_GROUP)
    return msgspec.structs.replace(message, deduplication_id=uuid.uuid4().hex)


async def send_bodies(
    settings: Settings,
    bodies: Iterable[str | OutgoingMessage],
    total: int | None,
    rate: float | None = None,
    *,
    told: Callable[[int], None] = lambda _: None,
    say: Callable[[str], None] | None = None,
) -> Sent:
    """Send bodies to the settings' queue, with progress; `total`: how many, where it is known.

    `told` is called with the number sent so far. `say` takes the progress off a terminal, in place
    of the log.
    """
    from sqs2pg.runners.queue_client import queue_client
    from sqs2pg.sqs.producer import send_all

    done = 0
    if fifo := _is_fifo(settings):
        bodies = map(_as_new, bodies)

    def progress(count: int) -> None:
        nonlocal done
        done = count
        told(count)

    async with queue_client() as client:
        queue_url = await client.queue_url(settings.source.queue)
        async with Ticker("sending", lambda: (done, total, {}), say):
            return await send_all(
                client,
                queue_url,
                bodies,
                rate=rate,
                in_order=fifo,
                progress=progress,
            )
