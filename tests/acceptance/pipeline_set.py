"""A folder with the settings of several pipelines, their queues, and a process that runs them."""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import Popen
from typing import Any

from sqs2pg.cli.embedded.child_process import reserve_port
from tests.logins import send
from tests.shell import Shell
from tests.waiting import wait_until

ORDERS = """
[source]
queue = "{queue}"
drain_settle_s = 0
visibility_timeout_s = 3
[sink]
table = "orders"
[[field]]
source = "id"
column = "id"
type = "bigint"
required = true
mask = "keep"
"""
LOGINS = '[source]\nqueue = "{queue}"\ndrain_settle_s = 0\n'


class PipelineSet:
    """Two pipelines, `orders` and `logins`, and those that are added."""

    def __init__(self, shell: Shell, sqs: Any) -> None:
        self.shell, self.sqs = shell, sqs
        del shell.environment["SQS2PG_SOURCE__QUEUE"]
        shell.environment.pop("SQS2PG_SOURCE__DRAIN_SETTLE_S", None)  # each file has it
        shell.environment["SQS2PG_STATUS__POLL_S"] = "0.5"
        self.folder = shell.folder / "pipelines"
        self.folder.mkdir()
        self.options = ("-c", str(self.folder))
        self.urls: dict[str, str] = {}
        self.add("orders", ORDERS)
        self.add("logins", LOGINS)
        self.address = ""
        self.log = shell.folder / "run.log"

    def add(self, name: str, text: str = ORDERS) -> Path:
        """Write a pipeline's file, and create its queue."""
        queue = f"{name}-{uuid.uuid4().hex[:8]}"
        self.urls[name] = self.sqs.create_queue(QueueName=queue)["QueueUrl"]
        file = self.folder / f"{name}.toml"
        file.write_text(text.replace("{queue}", queue).replace('"orders"', f'"{name}"'))
        return file

    def send(self, name: str, bodies: list[str]) -> list[str]:
        return send(self.sqs, self.urls[name], bodies)

    def ids(self, name: str, first: int, count: int) -> None:
        self.send(name, [f'{{"id": {number}}}' for number in range(first, first + count)])

    @contextmanager
    def running(self, *arguments: str, **environment: str) -> Iterator[Popen[str]]:
        """Run the folder, or what `arguments` say, with its log in a file."""
        shell = self.shell
        with reserve_port() as hold, self.log.open("w") as log:
            bind = f"127.0.0.1:{hold.getsockname()[1]}"
            self.address = f"http://{bind}"
            process = shell.start(
                "run",
                *(arguments or self.options),
                log=log,
                **{"SQS2PG_STATUS__BIND": bind} | environment,
            )
            try:
                yield process
            finally:
                process.kill()
                process.wait()

    def stop(self, process: Popen[str], code: int = 0) -> None:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == code, self.log.read_text()

    def events(self, text: str = "") -> list[dict[str, Any]]:
        """The lines of the log whose event has this text."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [e for line in lines if text in (e := json.loads(line)).get("event", "")]

    def started(self) -> int:
        """How often a pipeline has started to consume; lines of progress have the same event."""
        return sum("queue" in event for event in self.events("consuming"))

    def get(self, path: str) -> tuple[int, str]:
        """The status and text at a path of the status server; 0 where nothing answers."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def ready(self) -> dict[str, bool]:
        """Whether each pipeline is ready."""
        status, text = self.get("/readyz")
        if not status:
            return {}
        report = json.loads(text)
        found = {name: one["ok"] for name, one in report["pipelines"].items()}
        assert report["ok"] is any(found.values()) is (status == 200)
        return found

    def all_ready(self, *names: str) -> None:
        wait_until(lambda: self.ready() == dict.fromkeys(names, True))
