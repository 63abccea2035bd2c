"""A stub of the Lambda runtime API, for AWS's own client: it gives events and takes answers.

`/2018-06-01/runtime/invocation/next` blocks until there is an event, `…/ID/response` and
`…/ID/error` take what the function made of it. Source: AWS Lambda developer guide, "Using the
Lambda runtime API for custom runtimes".
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.forked_commands import ForkServer, fits

HANDLER = "sqs2pg.aws_lambda.handler"
WAIT_S = 120.0
PREFIX = "/2018-06-01/runtime/"
FUNCTION_ARN = "arn:aws:lambda:us-east-1:000000000000:function:sqs2pg"


@dataclass
class Answer:
    """What the function said to one event."""

    kind: str
    """`response`, `error` or `init`."""
    body: Any

    @property
    def failures(self) -> list[str]:
        """The MessageIds given back."""
        assert self.kind == "response", self.body
        return [one["itemIdentifier"] for one in self.body["batchItemFailures"]]


class RuntimeApi(ThreadingHTTPServer):
    """The stub; `invoke` hands out one event and waits for the answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.events: queue.Queue[tuple[str, float, bytes]] = queue.Queue()
        self.answers: queue.Queue[Answer] = queue.Queue()
        self._number = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def offer(self, event: Any, timeout_s: float) -> None:
        """Queue an event without waiting."""
        self._number += 1
        deadline_ms = (time.time() + timeout_s) * 1000
        self.events.put((f"request-{self._number}", deadline_ms, json.dumps(event).encode()))

    def invoke(self, event: Any, *, timeout_s: float = 30.0) -> Answer:
        """Hand out an event of a function with this timeout; return the answer."""
        self.offer(event, timeout_s)
        return self.answers.get(timeout=WAIT_S)


class _Handler(BaseHTTPRequestHandler):
    server: RuntimeApi

    def do_GET(self) -> None:
        request_id, deadline_ms, body = self.server.events.get()
        self.send_response(200)
        self.send_header("Lambda-Runtime-Aws-Request-Id", request_id)
        self.send_header("Lambda-Runtime-Deadline-Ms", str(int(deadline_ms)))
        self.send_header("Lambda-Runtime-Invoked-Function-Arn", FUNCTION_ARN)
        self.send_header("Content-Type", "application/json")
        self._body(body)

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) if length else self._chunks())
        self.server.answers.put(Answer(self.path.split("/")[-1], body))
        self.send_response(202)
        self._body(b"{}")

    def _chunks(self) -> bytes:
        read = b""
        while size := int(self.rfile.readline(), 16):
            read += self.rfile.read(size)
            self.rfile.readline()
        return read

    def _body(self, body: bytes) -> None:
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@dataclass
class Sandbox:
    """One execution environment: a process that runs AWS's runtime client and our handler."""

    api: RuntimeApi
    process: subprocess.Popen[Any]
    log_file: Path
    invoke: Any = field(init=False)

    def __post_init__(self) -> None:
        self.invoke = self.api.invoke

    @property
    def log(self) -> str:
        """Everything the function printed."""
        return self.log_file.read_text()


@contextmanager
def sandbox(
    folder: Path, environment: dict[str, str], forks: ForkServer | None = None
) -> Iterator[Sandbox]:
    """Start an execution environment, in an interpreter of its own or in a fork; end it."""
    api = RuntimeApi()
    threading.Thread(target=api.serve_forever, daemon=True).start()
    log_file = folder / f"lambda-{api.server_address[1]}.log"
    with log_file.open("wb") as log:
        variables = environment | {
            "AWS_LAMBDA_RUNTIME_API": api.address,
            "AWS_LAMBDA_FUNCTION_NAME": "sqs2pg",
            "AWS_LAMBDA_FUNCTION_VERSION": "1",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "LAMBDA_TASK_ROOT": str(folder),
            "PATH": os.environ["PATH"],
        }
        process: subprocess.Popen[Any]
        if forks is not None and fits(variables):
            process = forks.start(
                [HANDLER],
                folder=folder,
                environment=variables,
                stdout=log,
                stderr=log,
                text="import sys; from awslambdaric.__main__ import main; main(sys.argv)",
            )
        else:
            process = subprocess.Popen(
                [sys.executable, "-m", "awslambdaric", HANDLER],
                cwd=folder,
                env=variables,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
    try:
        yield Sandbox(api, process, log_file)
    finally:
        process.kill()
        process.wait()
        api.shutdown()
        api.server_close()


def record(message_id: str, body: str, *, queue: str = "login-queue", **attributes: Any) -> Any:
    """One record as Lambda's event spells it."""
    now_ms = str(int(time.time() * 1000))
    return {
        "messageId": message_id,
        "receiptHandle": "AQEB" + message_id,
        "body": body,
        "attributes": {
            "ApproximateReceiveCount": "1",
            "SentTimestamp": now_ms,
            "SenderId": "AIDAIENQZJOLO23YVJ4VO",
            "ApproximateFirstReceiveTimestamp": now_ms,
        }
        | {name: str(value) for name, value in attributes.items()},
        "messageAttributes": {
            "origin": {
                "stringValue": "web",
                "stringListValues": [],
                "binaryListValues": [],
                "dataType": "String",
            }
        },
        "md5OfBody": "e4e68fb7bd0e697a0ae8f1bb342846b3",
        "eventSource": "aws:sqs",
        "eventSourceARN": f"arn:aws:sqs:us-east-1:000000000000:{queue}",
        "awsRegion": "us-east-1",
    }
