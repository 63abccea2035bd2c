"""A queue that answers from a script, and clients of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.credentials import CredentialKeeper, Provided
from sqs2pg.sqs.endpoint import Endpoint
from sqs2pg.sqs.environment import AwsEnvironment
from sqs2pg.sqs.retries import Retries, RetrySettings
from sqs2pg.sqs.signer import AwsKeys

from .loopback import answer, read_request

URL = "http://127.0.0.1/000000000000/q"
SECRET = "424cdd21-secret"
MESSAGE = {
    "MessageId": "m-1",
    "ReceiptHandle": "h-1",
    "MD5OfBody": "5d41402abc4b2a76b9719d911017c592",
    "Body": "hello",
    "Attributes": {
        "SentTimestamp": "1795384388351",
        "ApproximateReceiveCount": "2",
        "MessageGroupId": "007",
        "SequenceNumber": "18849496460467696128999",
        "AWSTraceHeader": "Root=1",
    },
    "MessageAttributes": {"kind": {"DataType": "String", "StringValue": "login"}},
}


def ok(**fields: Any) -> bytes:
    return answer(json.dumps(fields).encode())


def error(name: str, status: int = 400, **headers: Any) -> bytes:
    body = json.dumps({"__type": f"com.amazonaws.sqs#{name}", "message": SECRET}).encode()
    return answer(body, f"{status} Error", x_amzn_RequestId="r-1", **headers)


CLOSE = b""
"""In a script: close without an answer."""
SILENCE = b"..."
"""In a script: no answer, until the client gives up."""


class Queue:
    """Answers requests from a script; the last answer repeats. Remembers what it was asked."""

    def __init__(self) -> None:
        self.script: list[bytes] = []
        self.requests: list[tuple[str, dict[str, str], Any]] = []
        self.connections = 0
        self.asked = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            line, headers, body = await read_request(reader)
            self.requests.append((line, headers, json.loads(body)))
            self.asked.set()
            said = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if said == CLOSE:
                return
            if said == SILENCE:
                await reader.read()
                return
            writer.write(said)

    @property
    def targets(self) -> list[str]:
        return [headers["x-amz-target"] for _, headers, _ in self.requests]


class Bench:
    """Makes clients of one scripted queue."""

    def __init__(self, port: int, queue: Queue) -> None:
        self.port = port
        self.queue = queue
        self.clients: list[SqsClient] = []
        self.credentials: CredentialKeeper
        """The keeper of the client made last."""

    def client(
        self,
        *script: bytes,
        mode: str = "legacy",
        attempts_max: int = 3,
        provide: Callable[[], Provided] = lambda: (AwsKeys("AK", "sk"), None),
        resolve: Callable[[], Provided] | None = None,
        draw: Callable[[], float] = lambda: 0.0,
        **options: Any,
    ) -> SqsClient:
        self.queue.script = list(script)
        settings = RetrySettings(mode, attempts_max)
        self.credentials = CredentialKeeper(provide, resolve)
        made = SqsClient(
            AwsEnvironment(
                region="us-east-1",
                endpoint=Endpoint("http", "127.0.0.1", self.port),
                credentials=self.credentials,
            ),
            retries=Retries(settings, draw=draw),
            **options,
        )
        self.clients.append(made)
        return made
