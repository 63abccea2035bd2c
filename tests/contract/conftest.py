"""The SQS-compatible servers, which the contract suite checks for the behaviour of AWS.

`sqs` runs a test once against each: `ministack`, which users get by default, and the queue server
of the benchmarks. Where ministack is known to differ from AWS, a test says precisely what it does
instead, through `sqs.is_ministack`; nothing is left unasserted for its sake.
"""

from __future__ import annotations

import dataclasses
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `benchmarks` is not installed

from benchmarks.queue_server import QueueServer
from tests.local_aws import aws_client


def connect(endpoint_url: str, **options: Any) -> Any:
    """A client that never retries, so that a test sees every answer."""
    return aws_client(
        "sqs",
        endpoint_url,
        config=Config(
            retries={"total_max_attempts": 1, "mode": "standard"},
            max_pool_connections=32,
            read_timeout=60,
        ),
        **options,
    )


@dataclasses.dataclass
class Sqs:
    """One server, its client, and the queues a test made."""

    client: Any
    endpoint_url: str
    is_ministack: bool
    urls: list[str] = dataclasses.field(default_factory=list)

    def queue(self, *, fifo: bool = False, **attributes: str) -> str:
        """URL of a fresh queue, deleted after the test."""
        name = f"contract-{secrets.token_hex(8)}" + (".fifo" if fifo else "")
        if fifo:
            attributes["FifoQueue"] = "true"
        url: str = self.client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
        self.urls.append(url)
        return url

    def arn(self, url: str) -> str:
        arn: str = self.attribute(url, "QueueArn")
        return arn

    def attribute(self, url: str, name: str) -> Any:
        answer = self.client.get_queue_attributes(QueueUrl=url, AttributeNames=[name])
        return answer["Attributes"][name]

    def send(self, url: str, body: str, **options: Any) -> Any:
        return self.client.send_message(QueueUrl=url, MessageBody=body, **options)

    def receive(self, url: str, *, wait: int = 0, most: int = 10, **options: Any) -> list[Any]:
        """The messages of one receive, with all system attributes."""
        options.setdefault("MessageSystemAttributeNames", ["All"])
        answer = self.client.receive_message(
            QueueUrl=url, WaitTimeSeconds=wait, MaxNumberOfMessages=most, **options
        )
        messages: list[Any] = answer.get("Messages", [])
        return messages

    def receive_one(self, url: str, *, wait: int = 0, **options: Any) -> Any:
        (message,) = self.receive(url, wait=wait, most=1, **options)
        return message

    def drain(self, url: str) -> list[Any]:
        """Everything visible now, in the order of delivery."""
        messages: list[Any] = []
        while batch := self.receive(url):
            messages += batch
        return messages

    def delete(self, url: str, message: Any) -> None:
        self.client.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    def change(self, url: str, message: Any, visibility_s: int) -> None:
        self.client.change_message_visibility(
            QueueUrl=url, ReceiptHandle=message["ReceiptHandle"], VisibilityTimeout=visibility_s
        )


@pytest.fixture(scope="session")
def queue_server() -> Iterator[QueueServer]:
    with QueueServer() as server:
        yield server


@pytest.fixture(scope="session", params=["queue_server", "ministack"])
def sqs_server(request: pytest.FixtureRequest) -> Iterator[tuple[Any, str, bool]]:
    is_ministack = request.param == "ministack"
    if is_ministack:
        endpoint_url = request.getfixturevalue("emulator_endpoint")
    else:
        endpoint_url = request.getfixturevalue("queue_server").endpoint_url
    client = connect(endpoint_url)
    yield client, endpoint_url, is_ministack
    client.close()


@pytest.fixture
def sqs(sqs_server: tuple[Any, str, bool]) -> Iterator[Sqs]:
    made = Sqs(*sqs_server)
    yield made
    for url in made.urls:
        made.client.delete_queue(QueueUrl=url)
