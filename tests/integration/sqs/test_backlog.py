"""The age of the oldest message, from a real CloudWatch-compatible server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import botocore.session
import pytest

from sqs2pg.cli.embedded.sqs_server import REGION
from sqs2pg.errors import TransientFault
from sqs2pg.sqs.backlog import OldestMessage


def report(endpoint: str, queue: str, age_s: float, ago: timedelta) -> None:
    """Say what SQS tells CloudWatch every minute."""
    client = botocore.session.Session().create_client(
        "cloudwatch", region_name=REGION, endpoint_url=endpoint
    )
    client.put_metric_data(
        Namespace="AWS/SQS",
        MetricData=[
            {
                "MetricName": "ApproximateAgeOfOldestMessage",
                "Dimensions": [{"Name": "QueueName", "Value": queue}],
                "Timestamp": datetime.now(UTC) - ago,
                "Value": age_s,
                "Unit": "Seconds",
            }
        ],
    )


async def test_the_latest_age_of_this_queue_is_cloudwatchs(
    aws_environment: None, emulator_endpoint: str, queue_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", emulator_endpoint)
    name = queue_url.rsplit("/", 1)[-1]
    oldest = OldestMessage(queue_url, REGION)
    assert await oldest.age_s() is None, "nothing was reported"
    report(emulator_endpoint, name, 900.0, timedelta(minutes=4))
    report(emulator_endpoint, name, 37.0, timedelta(minutes=1))
    report(emulator_endpoint, "another", 5_000.0, timedelta(seconds=1))
    assert await oldest.age_s() == 37.0


async def test_a_cloudwatch_that_does_not_answer_is_a_transient_fault(
    aws_environment: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", "http://127.0.0.1:1")
    with pytest.raises(TransientFault) as caught:
        await OldestMessage("http://127.0.0.1:1/000000000000/q", REGION).age_s()
    assert caught.value.code == "cloudwatch_unavailable"
