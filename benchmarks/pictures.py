"""Takes pictures of the status pages during real runs under load: `make pictures`.

Starts PostgreSQL, the C queue server, pipelines and senders. Then the system's Chromium, headless,
takes screenshots in light and dark mode and at a phone's width, of three scenes: one pipeline in
two processes, fifty pipelines in one process, and both without their database. All figures shown
are measured; the rows are generated.
"""

from __future__ import annotations

import argparse
import base64
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders.pipeline import command
from benchmarks.environment import isolated
from benchmarks.queue_server import QueueServer
from sqs2pg.cli.embedded import Servers, servers

QUEUE, DEAD = "login-queue", "login-queue-dead"
RATE_MEAN, RATE_SWING, SWING_S = 1_500, 900, 40.0
PACE_S = 0.5
"""Between two turns of a sender: less than the second for which the charts have a point."""
FIFTY = 50
LOOKS: dict[str, dict[str, Any]] = {
    "light": {"width": 1280, "scheme": "light"},
    "dark": {"width": 1280, "scheme": "dark"},
    "phone": {"width": 390, "scheme": "light"},
    "phone-dark": {"width": 390, "scheme": "dark"},
}
EVENTS = (
    *("logins", "orders", "payments", "refunds", "clicks"),
    *("views", "searches", "carts", "shipments", "sessions"),
)
REGIONS = ("eu", "us", "ap", "sa", "af")
AWAY_S = 25
"""How long the database is away before that is photographed: the charts show the time itself."""
IN_DOCS = ("status-light.webp", "pipelines-light.webp")
HEIGHT_MAX = 3_000
QUALITY = 74  # of WebP: text stays sharp, and a picture has about 100 kB


@dataclass
class Scene:
    """What is photographed: the file's name, the page, who sends for so many seconds."""

    name: str
    address: str
    send: Callable[[float], None]
    detail: str = ""
    """The page of one of several pipelines."""


@contextlib.contextmanager
def running(folder: Path, *lines: tuple[list[str], dict[str, str]]) -> Iterator[None]:
    """Run command lines, each with its environment, until closed; they must end by themselves."""
    started = [
        subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
        for line, environment in lines
    ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(30)


@contextlib.contextmanager
def one_pipeline(folder: Path, local: Servers, *, workers: int = 2) -> Iterator[Scene]:
    """Run one pipeline in two processes, with a dead-letter queue."""
    with QueueServer() as queue:
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
        lines = [
            (command("run"), environment | {"SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"})
            for port in ports
        ]
        with running(folder, *lines):
            yield Scene("status", f"http://127.0.0.1:{ports[0]}", partial(feed, queue))


@contextlib.contextmanager
def fifty_pipelines(folder: Path, local: Servers) -> Iterator[Scene]:
    """Run fifty pipelines; one is paused, one gets bad messages, and one lacks its table."""
    names = [f"{what}-{where}" for what in EVENTS for where in REGIONS][:FIFTY]
    *good, late = names
    paused, poisoned = good[7], good[23]
    settings = folder / "pipelines"
    settings.mkdir()
    with QueueServer() as queue:
        environment = environment_of(local.database_url, queue.endpoint_url)
        for name in names:
            queue.call("CreateQueue", {"QueueName": name})
            table = name.replace("-", "_")
            text = f'[source]\nqueue = "{name}"\n[sink]\ntable = "{table}"\n'
            (settings / f"{name}.toml").write_text(text)
        (settings / f"{late}.toml").rename(folder / "late.toml")
        prepare(environment, folder, settings)
        (folder / "late.toml").rename(settings / f"{late}.toml")
        pause = ("pause", "--pipeline", paused, "--reason", "the table is being rebuilt")
        line = command(*pause, settings=settings)
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)
        port = free_port()
        run = command("run", settings=settings)
        with running(folder, (run, environment | {"SQS2PG_STATUS__BIND": f"127.0.0.1:{port}"})):
            address = f"http://127.0.0.1:{port}"
            sender = partial(feed_all, queue, names, poisoned)
            yield Scene("pipelines", address, sender, detail=f"{address}/pipelines/{good[0]}")


def prepare(environment: dict[str, str], folder: Path, settings: Path | str = "/dev/null") -> None:
    """Make the keys and the tables. Raises CalledProcessError."""
    for line in (command("keys", "init"), command("migrate", settings=settings)):
        subprocess.run(line, cwd=folder, env=environment, check=True, capture_output=True)


def feed(queue: QueueServer, seconds: float) -> None:
    """Send generated logins at a varying rate for `seconds`, 3% of them malformed."""
    for turn, now in paced(seconds):
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


def feed_all(queue: QueueServer, names: Sequence[str], poisoned: str, seconds: float) -> None:
    """Send each queue its share for `seconds`, some more than others; `poisoned` gets bad ones."""
    for turn, _ in paced(seconds):
        for place, name in enumerate(names):
            if (turn + place) % 5 == 0:
                bad = 0.9 if name == poisoned else 0.01
                count = 20 + place * 7 % 90
                queue.fill(queue=name, count=count, malformed_share=bad, seed=turn, people=500)


def paced(seconds: float) -> Iterator[tuple[int, float]]:
    """Yield the number of each turn and the seconds so far, every PACE_S for `seconds`."""
    began = time.monotonic()
    turn = 0
    while (now := time.monotonic() - began) < seconds:
        yield turn, now
        turn += 1
        time.sleep(max(0.0, turn * PACE_S - (time.monotonic() - began)))


def photograph(address: str, folder: Path, name: str, looks: Iterable[str] = LOOKS) -> list[Path]:
    """Write NAME-LOOK.webp of the page at `address` for each look; return the files."""
    from playwright.sync_api import sync_playwright

    written = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        for look in looks:
            width, scheme = LOOKS[look]["width"], LOOKS[look]["scheme"]
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                device_scale_factor=2 if width < 700 else 1,
                color_scheme=scheme,
            )
            page = context.new_page()
            page.goto(address)
            page.wait_for_selector("body[data-live]")
            page.wait_for_timeout(2_500)
            height = min(page.evaluate("document.documentElement.scrollHeight"), HEIGHT_MAX)
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            session = context.new_cdp_session(page)
            how = {"format": "webp", "quality": QUALITY, "captureBeyondViewport": True}
            picture = session.send("Page.captureScreenshot", {**how, "clip": clip})["data"]
            written.append(folder / f"{name}-{look}.webp")
            written[-1].write_bytes(base64.b64decode(picture))
            context.close()
        browser.close()
    return written


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


SCENES = {"one": one_pipeline, "fifty": fifty_pipelines}


def main() -> None:
    """Run each scene under load for `--seconds`, then take the pictures while the load goes on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=240, help="seconds of load before the pictures"
    )
    parser.add_argument("--scene", choices=SCENES, help="only this one")
    parser.add_argument("--out", type=Path, default=Path("build/pictures"), help="all of them")
    parser.add_argument("--docs", type=Path, default=Path("docs/images"), help="those of the docs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    written = []
    for scene_of in [SCENES[options.scene]] if options.scene else SCENES.values():
        with (
            tempfile.TemporaryDirectory() as name,
            servers(sqs=False) as local,
            scene_of(Path(name), local) as scene,
        ):
            print(f"the page is at {scene.address}; {options.seconds:g} s of load", flush=True)
            sender = threading.Thread(target=scene.send, args=(options.seconds + 40,), daemon=True)
            sender.start()
            time.sleep(options.seconds)  # the charts show this time of load
            written += photograph(scene.address, options.out, scene.name)
            assert local.postgres is not None
            local.postgres.stop()
            time.sleep(AWAY_S)
            written += photograph(scene.address, options.out, f"{scene.name}-away")
            if scene.detail:
                written += photograph(scene.detail, options.out, "pipeline-away", ["phone", "dark"])
            local.postgres.start()
            sender.join()
    for file in written:
        if file.name in IN_DOCS:
            shutil.copy(file, options.docs)
        print(f"{file.stat().st_size:8,} {file}")


if __name__ == "__main__":
    main()
