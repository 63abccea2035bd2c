"""The cost of monitoring: drains with all monitoring on and with all of it off, in turns.

`python -m benchmarks.overhead` drains the same number of generated logins again and again, with
monitoring off and on by turns. It compares the CPU time per message of the pipeline's process, all
threads, from the first poll to the last delete, which other work on the machine disturbs least. It
also reports messages per second. On: the status server with one viewer of its stream and one scrape
per second, the recorder, the periodic watch, one log line per batch, spans and metrics to an OTLP
collector. Off: none of these.

`--flood` sends malformed messages only, and turns the log lines of faults on and off.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from benchmarks.pictures import QUEUE, environment_of, free_port, prepare
from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import servers
from sqs2pg.pipeline.consumer import Consumer
from sqs2pg.telemetry.batch_log import BatchLog
from sqs2pg.telemetry.periodic import PeriodicReadings

# Code for the drain's process. The modules' names come from the classes, so that none goes stale.
TIMED = f"""
import time
from pathlib import Path
from {Consumer.__module__} import Consumer
run = Consumer.run
async def timed(self, **options):
    began = time.process_time()
    try:
        return await run(self, **options)
    finally:
        Path("cpu").write_text(str(time.process_time() - began))
Consumer.run = timed
"""
_RUN = "from sqs2pg.cli import main; main(['run', '--drain', '--json', '-c', '/dev/null'])"
NO_MONITORING = f"""
from {BatchLog.__module__} import BatchLog
from {PeriodicReadings.__module__} import PeriodicReadings
PeriodicReadings.__init__ = lambda self, readings, metrics: setattr(self, '_tasks', [])
async def nothing(self, *_): return self
PeriodicReadings.__aenter__ = PeriodicReadings.__aexit__ = nothing
BatchLog.committed = BatchLog.flush = lambda self, *_, **__: None
"""
NO_FAULT_LINES = f"""
from {BatchLog.__module__} import BatchLog
BatchLog.quarantined = lambda self, *_: None
"""


class Drained(NamedTuple):
    """One drain with monitoring on or off."""

    cpu_us: float
    """CPU of the pipeline's process, µs per message, without its start and end."""
    per_second: float
    log_bytes: int


def drain(
    queue: QueueServer,
    environment: dict[str, str],
    folder: Path,
    patch: str,
    options: dict[str, float],
) -> Drained:
    """Fill the queue and drain it with one process."""
    count = int(options["count"])
    queue.fill(queue=QUEUE, count=count, **{k: v for k, v in options.items() if k != "count"})
    log_file = folder / "log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", TIMED + patch + _RUN],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        assert process.stdout is not None
        last = process.stdout.read().strip().splitlines()[-1]
        process.wait()
    report = json.loads(last)
    settled = report["written"] + report["duplicate"] + report["quarantined"]
    if process.returncode or settled != count:
        raise RuntimeError(
            f"a drain of {count} messages settled {settled}, exit {process.returncode}"
        )
    cpu_s = float((folder / "cpu").read_text())
    return Drained(cpu_s / count * 1e6, report["messages_per_second"], log_file.stat().st_size)


@contextlib.contextmanager
def viewed(port: int) -> Iterator[None]:
    """Read the page's stream, and scrape once per second, while the status server runs."""
    done = threading.Event()

    def stream() -> None:
        while not done.is_set():
            with contextlib.suppress(OSError):
                request = f"http://127.0.0.1:{port}/events"
                with urllib.request.urlopen(request, timeout=2) as events:
                    while not done.is_set() and events.readline():
                        pass
            done.wait(0.1)

    def scrape() -> None:
        while not done.wait(1.0):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=2).close()

    threads = [threading.Thread(target=stream), threading.Thread(target=scrape)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def compare(messages: int, rounds: int, *, flood: bool) -> dict[str, float]:
    """Drain with monitoring off and on by turns; return the medians and the ratios."""
    options = {"count": float(messages), "malformed_share": 1.0 if flood else 0.02}
    found: dict[str, list[Drained]] = {"off": [], "on": []}
    with (
        tempfile.TemporaryDirectory() as name,
        servers(sqs=False) as local,
        QueueServer() as queue,
        collector() as endpoint,
    ):
        folder = Path(name)
        queue.call("CreateQueue", {"QueueName": QUEUE})
        base = environment_of(local.database_url, queue.endpoint_url)
        base |= {"SQS2PG_SOURCE__DRAIN_SETTLE_S": "0.2"}
        del base["SQS2PG_STATUS__POLL_S"]  # the pictures poll ten times as often as the default
        prepare(base, folder)
        port = free_port()
        on = base | {
            "SQS2PG_STATUS__BIND": f"127.0.0.1:{port}",
            "SQS2PG_TELEMETRY__TRACES": "true",
            "SQS2PG_TELEMETRY__METRICS": "true",
            "SQS2PG_TELEMETRY__EVERY_S": "5",
            "SQS2PG_TELEMETRY__ENDPOINT": endpoint,
        }
        if flood:
            on = base | {"SQS2PG_STATUS__BIND": ""}
        off = base | {"SQS2PG_STATUS__BIND": ""}
        patch = NO_FAULT_LINES if flood else NO_MONITORING
        drain(queue, off, folder, patch, options | {"count": messages / 10})  # warm up
        for turn in range(rounds):
            # The order alternates, so that the growing ledger affects both alike.
            for kind in ("off", "on") if turn % 2 else ("on", "off"):
                viewer = viewed(port) if kind == "on" and not flood else contextlib.nullcontext()
                with viewer:
                    done = drain(
                        queue,
                        on if kind == "on" else off,
                        folder,
                        "" if kind == "on" else patch,
                        options,
                    )
                found[kind].append(done)
                print(f"{kind:4} {done.cpu_us:7.1f} µs {done.per_second:8.0f}/s", file=sys.stderr)
    medians = {
        f"{kind}_{field}": round(statistics.median(getattr(d, field) for d in drains), 1)
        for kind, drains in found.items()
        for field in ("cpu_us", "per_second", "log_bytes")
    }
    pairs = list(zip(found["on"], found["off"], strict=True))
    return medians | {
        "cpu_ratio": round(statistics.median(a.cpu_us / b.cpu_us for a, b in pairs), 4),
        "throughput_ratio": round(
            statistics.median(a.per_second / b.per_second for a, b in pairs), 4
        ),
    }


@contextlib.contextmanager
def collector() -> Iterator[str]:
    """Run a process that accepts every POST; yield its address."""
    text = """
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_): pass
server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""
    process = subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Print the comparison as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flood", action="store_true")
    options = parser.parse_args()
    began = time.monotonic()
    result = compare(options.messages, options.rounds, flood=options.flood)
    print(json.dumps(result | {"seconds": round(time.monotonic() - began, 1)}))


if __name__ == "__main__":
    main()
