"""The backlog: the dead-letter queue's depth, and the age of the queue's oldest message.

Place in the flow: beside it. The periodic readings ask every few seconds, the pipeline never. The
age comes from CloudWatch, if the role may read it; it is a minute or two old there.
Must never show a library's text.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from sqs2pg.errors import SettingsError, Stage, TransientFault
from sqs2pg.sqs.client import SqsClient
from sqs2pg.sqs.queue_address import QueueAddress, split_queue
from sqs2pg.sqs.wire import read_counts

DENIED_FOR_S = 3600.0
"""How long CloudWatch is not asked again after a refusal; permission may be granted later."""
_BACK_MINUTES = 10  # a queue that was idle reports late
_ENDPOINTS = ("AWS_ENDPOINT_URL_CLOUDWATCH",)
_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}


class DeadLetterQueue:
    """The dead-letter queue that a queue's redrive policy names, if any."""

    def __init__(self, client: SqsClient, queue_url: str) -> None:
        self._client = client
        self._queue_url = queue_url

    async def visible(self) -> int | None:
        """Return how many messages wait there; None if there is no dead-letter queue.

        The policy is read every time, because it may change while a pipeline runs. Raises
        TransientFault, or FatalFault if the attributes may not be read.
        """
        answer = await self._client.attributes(self._queue_url, ["RedrivePolicy"])
        address = _dead_letter_address(answer.get("RedrivePolicy", ""))
        if address is None:
            return None
        name = "ApproximateNumberOfMessages"
        # In the queue's own region, whatever the ARN says: emulators write others.
        url = await self._client.look_up(address.name, address.account)
        answer = await self._client.attributes(url, [name])
        return read_counts(answer, [name])[0]


def _dead_letter_address(policy: str) -> QueueAddress | None:
    try:
        return split_queue(str(msgspec.json.decode(policy)["deadLetterTargetArn"]))
    except (msgspec.DecodeError, KeyError, TypeError, SettingsError):
        return None


class OldestMessage:
    """CloudWatch's ApproximateAgeOfOldestMessage of one queue."""

    def __init__(self, queue_url: str, region: str) -> None:
        self._queue = queue_url.rstrip("/").rsplit("/", 1)[-1]
        self._region = region
        self._client: Any = None
        self._not_before = 0.0

    async def age_s(self) -> float | None:
        """Return the age in seconds; None if CloudWatch has none, or may not be read.

        Raises TransientFault if CloudWatch does not answer.
        """
        if time.monotonic() < self._not_before:
            return None
        return await asyncio.to_thread(self._read)

    def _read(self) -> float | None:
        import botocore.config  # slow to load, and an emulator has no CloudWatch
        import botocore.exceptions
        import botocore.session

        now = datetime.now(UTC)
        try:
            if self._client is None:
                self._client = botocore.session.Session().create_client(
                    "cloudwatch",
                    region_name=self._region,
                    config=botocore.config.Config(
                        connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 1}
                    ),
                )
            answer = self._client.get_metric_statistics(
                Namespace="AWS/SQS",
                MetricName="ApproximateAgeOfOldestMessage",
                Dimensions=[{"Name": "QueueName", "Value": self._queue}],
                StartTime=now - timedelta(minutes=_BACK_MINUTES),
                EndTime=now,
                Period=60,
                Statistics=["Maximum"],
            )
        except botocore.exceptions.ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _DENIED:
                self._not_before = time.monotonic() + DENIED_FOR_S
                return None
            raise _no_answer() from None
        except (botocore.exceptions.BotoCoreError, OSError, ValueError):
            raise _no_answer() from None
        points = sorted(answer.get("Datapoints", ()), key=lambda point: point["Timestamp"])
        return float(points[-1]["Maximum"]) if points else None


def has_cloudwatch(endpoint_host: str) -> bool:
    """Return whether there is a CloudWatch: the endpoint is AWS's, or one is configured."""
    aws = endpoint_host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
    return aws or any(map(os.environ.get, _ENDPOINTS))


def _no_answer() -> TransientFault:
    return TransientFault(
        "CloudWatch did not answer", code="cloudwatch_unavailable", stage=Stage.STATUS
    )
