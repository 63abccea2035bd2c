"""Takes pictures of the status page during a real run under load: `make pictures`.

Starts PostgreSQL, the C queue server, two pipelines of one fleet, and a sender with a varying rate.
Then the system's Chromium, headless, takes screenshots of the page in light and dark mode and at a
phone's width. All figures shown are measured; the logins are generated.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders.pipeline import command
from benchmarks.environment import isolated
from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import servers

QUEUE, DEAD = "login-queue", "login-queue-dead"
RATE_MEAN, RATE_SWING, SWING_S = 1_500, 900, 40.0
PACE_S = 0.5
SIZES = {"light": (1280, 1500), "dark": (1280, 1500), "phone": (390, 1500)}


@contextlib.contextmanager
def stage(folder: Path, *, workers: int = 2) -> Iterator[tuple[QueueServer, str]]:
    """Start servers and pipelines; yield the queue server and the page's address."""
    with servers(sqs=False) as local, QueueServer() as queue:
        queue.call("CreateQueue", {"QueueName": DEAD})
        policy = {
            "deadLetterTargetArn": f"arn:aws:sqs:us-east-1:000000000000:{DEAD}",
            "maxReceiveCount": 5,
        }
        attributes = {"RedrivePolicy": json.dumps(policy)}
        queue.call("CreateQueue", {"QueueName": QUEUE, "Attributes": attributes})
        environment = environment_of(local.database_url, queue.endpoint_url)
        prepare(environment, folder)
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


def prepare(environment: dict[str, str], folder: Path) -> None:
    """Make the keys and the tables. Raises CalledProcessError."""
    for arguments in (("keys", "init"), ("migrate",)):
        line = command(*arguments)
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)


def feed(queue: QueueServer, seconds: float) -> None:
    """Send generated logins at a varying rate for `seconds`, 3% of them malformed."""
    began = time.monotonic()
    turn = 0
    while (now := time.monotonic() - began) < seconds:
        rate = RATE_MEAN + RATE_SWING * math.sin(2 * math.pi * now / SWING_S)
        # A burst while the rate is low, so that a backlog comes and goes.
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
    """Return the path of the system's Chromium. Raises SystemExit if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    sys.exit("error: no Chromium found\nhint: Debian: apt install chromium")


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def environment_of(database_url: str, endpoint_url: str) -> dict[str, str]:
    """Return the environment of a pipeline that uses these servers and no other settings."""
    return isolated(endpoint_url, database_url) | {
        "SQS2PG_KEYS__FILE": "sqs2pg.keys",
        "SQS2PG_STATUS__POLL_S": "1",
    }


def main() -> None:
    """Run under load for `--seconds`, then take the pictures while the load continues."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=240, help="seconds of load before the pictures"
    )
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
