"""`sqs2pg send`: put messages on the queue, for trials and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.cli.options import config_option, json_option, load_settings, print_json, run_async
from sqs2pg.cli.progress import Ticker
from sqs2pg.errors import Sqs2pgError
from sqs2pg.settings import Settings

if TYPE_CHECKING:
    from sqs2pg.sqs.producer import Sent


@click.command()
@config_option
@click.option("--count", type=click.IntRange(min=1), help="Generated logins to send.  [1000]")
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
    rate: float | None,
    file: Path | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Put generated logins, or a file's lines, on the queue."""
    from sqs2pg.sqs.producer import read_lines

    if file is not None and count is not None:
        raise click.UsageError("--count and --file exclude each other")
    bodies = read_lines(file) if file is not None else logins(count or 1000, seed=seed)
    total = None if file is not None else count or 1000
    result = run_async(send_bodies(load_settings(config), bodies, total, rate))
    refused = sum(result.refused.values())
    if as_json:
        print_json({"sent": result.sent, "refused": refused})
    else:
        print(f"sent {result.sent:,} messages")
    if refused:
        codes = ", ".join(f"{code}: {n}" for code, n in sorted(result.refused.items()))
        raise Sqs2pgError(
            f"{refused:,} messages were refused and not sent ({codes})",
            code="send_refused",
            hint="SQS takes bodies of 1 byte to 1 MiB, without control characters",
        )
    return 0


async def send_bodies(
    settings: Settings,
    bodies: Iterable[str],
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
    from sqs2pg.runners.connect import queue_client
    from sqs2pg.sqs.producer import send_all

    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done = count
        told(count)

    async with queue_client() as client:
        queue_url = await client.queue_url(settings.source.queue)
        async with Ticker("sending", lambda: (done, total, {}), say):
            return await send_all(client, queue_url, bodies, rate=rate, progress=progress)
