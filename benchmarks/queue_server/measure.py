"""Measures the queue server itself: `python -m benchmarks.queue_server.measure`.

A bare client in C drains a filled queue; the server's CPU time is divided by the number of
messages. This shows that the server does not limit the benchmarks. Loopback only, a few seconds.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

from .server import BUILD, FLAGS, HERE, QueueServer, compiler

MESSAGES = 500_000
CONNECTIONS = 16
RUNS = 5


def run(messages: int, *options: str, pad_bytes: int = 0) -> tuple[float, float, float, float]:
    """Drain once; return messages/s, server CPU (us per message), fill messages/s, peak MB."""
    load = BUILD / "load"
    with QueueServer(*options) as server:
        created = {"QueueName": "drain"}
        server.call("CreateQueue", created)
        before = server.stats()["cpu_seconds"]
        server.fill("drain", messages, seed=1, malformed_share=0.01, pad_bytes=pad_bytes)
        filled = server.stats()["cpu_seconds"]
        command = [str(load), str(server.port), "drain", str(CONNECTIONS)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        count, seconds = done.stdout.split()
        stats = server.stats()
        if int(count) != messages or stats["deleted"] != messages:
            raise RuntimeError(f"{count} of {messages} messages came, {stats['deleted']} deleted")
        cpu_us = (stats["cpu_seconds"] - filled) * 1e6 / messages
        peak_mb = stats["peak_memory_bytes"] / 1e6
        return messages / float(seconds), cpu_us, messages / (filled - before), peak_mb


def main() -> None:
    load = BUILD / "load"
    BUILD.mkdir(exist_ok=True)
    source = HERE / "load" / "load.c"
    subprocess.run([*compiler(), *FLAGS, str(source), "-o", str(load)], check=True)
    for name, options in (
        ("as AWS: 284-character handles, MD5", ()),
        ("short: 32-character handles, no MD5", ("--handle-chars", "32", "--no-md5")),
    ):
        runs = [run(MESSAGES, *options) for _ in range(RUNS)]
        rate, cpu_us, fill, peak_mb = (
            statistics.median(column) for column in zip(*runs, strict=True)
        )
        sys.stdout.write(
            f"{name}: {rate:,.0f} messages/s, {cpu_us:.2f} us CPU per message (server), "
            f"fill {fill:,.0f}/s, peak {peak_mb:.0f} MB for {MESSAGES:,} messages\n"
        )


if __name__ == "__main__":
    main()
