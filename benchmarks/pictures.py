"""Pictures of the status page, from a real run under load: `make pictures`.

Starts PostgreSQL and the C queue server, two pipelines of one fleet, and a sender whose rate
swings; after a while a headless Chromium (the system's) photographs the page in light, in dark and
at the width of a phone. Everything shown is measured; the logins are generated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import servers

QUEUE, DEAD = "login-queue", "login-queue-dead"
RATE_MEAN, RATE_SWING, SWING_S = 1_500, 900, 40.0
PACE_S = 0.5
SIZES = {"light": (1280, 1500), "dark": (1280, 1500), "phone": (390, 1500)}


@contextlib.contextmanager
def stage(folder: Path, *, workers: int = 2) -> Iterator[tuple[QueueServer, str]]:
    """Run the pipelines on servers of their own; yield the queue server and the page's address."""
    with servers(sqs=False) as local, QueueServer() as queue:
        queue.call("CreateQueue", {"QueueName": DEAD})
        policy = {
            "deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{DEAD}",
            "maxReceiveCount": 5,
        }
        attributes = {"RedrivePolicy": json.dumps(policy)}
        queue.call("CreateQueue", {"QueueName": QUEUE, "Attributes": attributes})
        environment = environment_of(local.database_url, queue.endpoint_url)
        _run(environment, folder, "keys", "init")
        _run(environment, folder, "migrate")
        ports = [free_port() for _ in range(workers)]
        running = [
            subprocess.Popen(
                command("run"),
                cwd=folder,
                env=environment | {"SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"},
                stderr=subprocess.DEVNULL,
            )
            for port in ports
        ]
        try:
            yield queue, f"http://127.0.0.1:{ports[0]}"
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait(30)


def feed(queue: QueueServer, seconds: float) -> None:
    """Send generated logins at a rate that swings, three in a hundred malformed, for a while."""
    began = time.monotonic()
    turn = 0
    while (now := time.monotonic() - began) < seconds:
        rate = RATE_MEAN + RATE_SWING * math.sin(2 * math.pi * now / SWING_S)
        # In the long troughs a burst, so that a backlog comes and goes.
        burst = 6_000 if turn % 50 == 35 else 0
        queue.fill(
            queue=QUEUE,
            count=int(rate * PACE_S) + burst,
            malformed_share=0.03,
            seed=turn,
            people=5_000,
        )
        turn += 1
        time.sleep(max(0.0, turn * PACE_S - (time.monotonic() - began)))


def photograph(address: str, folder: Path) -> None:
    """Write status-light.png, status-dark.png and status-phone.png."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for name, (width, height) in SIZES.items():
            context = browser.new_context(
                viewport={"width": width, "height": height},
                device_scale_factor=2 if name == "phone" else 1,
                color_scheme="dark" if name == "dark" else "light",
            )
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector("body[data-live]")
            page.wait_for_timeout(2_500)
            page.screenshot(path=folder / f"status-{name}.png", full_page=name != "phone")
            context.close()
        browser.close()


def find_chromium() -> str:
    """Return the system's Chromium. Raises SystemExit where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    sys.exit("error: no Chromium found\nhint: Debian: apt install chromium")


def free_port() -> int:
    """Return a port of loopback that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def command(*arguments: str) -> list[str]:
    """Return a `sqs2pg` command line that reads no settings file."""
    return [sys.executable, "-m", "sqs2pg", *arguments, "-c", "/dev/null"]


def _run(environment: dict[str, str], folder: Path, *arguments: str) -> None:
    line = [sys.executable, "-m", "sqs2pg", *arguments]
    subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)


def environment_of(database_url: str, endpoint_url: str) -> dict[str, str]:
    """Return the environment of a pipeline on these servers, and nothing else."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("AWS_", "PG", "SQS2PG_"))
    }
    return kept | {
        "DATABASE_URL": database_url,
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "pictures",
        "AWS_SECRET_ACCESS_KEY": "pictures",
        "SQS2PG_KEYS__FILE": "sqs2pg.keys",
        "SQS2PG_STATUS__POLL_S": "1",
    }


def main() -> None:
    """Run under load for `--seconds`, then photograph while the load goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=240, help="of load before the pictures")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, stage(Path(name)) as (queue, address):
        print(f"the page is at {address}; {options.seconds:g} s of load", flush=True)
        sender = threading.Thread(target=feed, args=(queue, options.seconds + 30), daemon=True)
        sender.start()
        time.sleep(options.seconds)
        photograph(address, options.out)
        sender.join()
    print(f"written: {', '.join(f'{options.out}/status-{size}.png' for size in SIZES)}")


if __name__ == "__main__":
    main()
