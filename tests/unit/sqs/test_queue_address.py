"""Queues by name, URL and ARN: their parts, and whether requests would go where they say."""

from __future__ import annotations

import botocore.session
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.endpoint import parse_endpoint
from sqs2pg.sqs.queue_address import check_queue, split_queue

EU = "https://sqs.eu-west-1.amazonaws.com"


@pytest.mark.parametrize(
    ("queue", "parts"),
    [
        ("login-queue", ("login-queue", "", "", "")),
        ("logins.fifo", ("logins.fifo", "", "", "")),
        (
            "arn:aws:sqs:eu-west-1:123456789012:login-queue",
            ("login-queue", "123456789012", "eu-west-1", "aws"),
        ),
        (
            "arn:aws-cn:sqs:cn-north-1:123456789012:q.fifo",
            ("q.fifo", "123456789012", "cn-north-1", "aws-cn"),
        ),
        (f"{EU}/123456789012/q", ("", "", "eu-west-1", "")),
        ("https://sqs-fips.us-gov-west-1.amazonaws.com/1/q", ("", "", "us-gov-west-1", "")),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", ("", "", "cn-north-1", "")),
        ("https://sqs.eu-west-1.api.aws/1/q", ("", "", "eu-west-1", "")),
        ("https://eu-west-1.queue.amazonaws.com/1/q", ("", "", "eu-west-1", "")),
        ("https://cn-north-1.queue.amazonaws.com.cn/1/q", ("", "", "cn-north-1", "")),
        ("https://vpce-0-1.sqs.us-east-1.vpce.amazonaws.com/1/q", ("", "", "us-east-1", "")),
        ("https://queue.amazonaws.com/1/q", ("", "", "us-east-1", "")),
        ("http://127.0.0.1:4566/000000000000/q", ("", "", "", "")),
        ("http://sqs.eu-west-1.amazonaws.com.evil.example/1/q", ("", "", "", "")),
    ],
)
def test_a_queue_name_url_or_arn_is_split(queue: str, parts: tuple[str, ...]) -> None:
    assert tuple(split_queue(queue)) == parts


@pytest.mark.parametrize(
    "queue",
    [
        *("", "a b", "q" * 81, "arn:aws:sns:eu-west-1:123456789012:q", "ftp://h/q", "q.fif"),
        *("https://", "https://h", "https://h/", "https://h:port/1/q", "https://u:p@h/1/q"),
        *("https://h/1/q?x=1", "https://h/1/a b", "http://[::1/1/q"),
    ],
)
def test_a_malformed_queue_is_refused(queue: str) -> None:
    with pytest.raises(SettingsError):
        split_queue(queue)


@pytest.mark.parametrize(
    ("queue", "endpoint"),
    [
        # The endpoint's own host.
        (f"{EU}/1/q", EU),
        ("http://127.0.0.1:4566/000000000000/q", "http://127.0.0.1:4566"),
        ("http://localhost:4566/000000000000/q", "http://127.0.0.1:4566"),
        ("http://[::1]:4566/q", "http://localhost:4566/"),
        (
            "https://vpce-0-1.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            "https://vpce-0-1.sqs.eu-west-1.vpce.amazonaws.com",
        ),
        (
            "https://sqs-fips.eu-west-1.amazonaws.com/1/q",
            "https://sqs-fips.eu-west-1.amazonaws.com",
        ),
        # The URL that SQS gives, while the environment names another way to it.
        (f"{EU}/1/q", "https://vpce-0-1.sqs.eu-west-1.vpce.amazonaws.com"),
        (f"{EU}/1/q", "https://sqs.eu-west-1.api.aws"),
        (f"{EU}/1/q", "http://127.0.0.1:4566"),
        ("https://eu-west-1.queue.amazonaws.com/1/q", EU),
        ("q", "http://127.0.0.1:4566"),
        ("arn:aws:sqs:eu-west-1:123456789012:q", EU),
    ],
)
def test_a_queue_that_agrees_with_the_endpoint(queue: str, endpoint: str) -> None:
    assert check_queue(queue, parse_endpoint(endpoint), "eu-west-1") == split_queue(queue)


@pytest.mark.parametrize(
    ("queue", "endpoint", "remedy"),
    [
        ("http://127.0.0.1:4566/0/q", EU, "AWS_ENDPOINT_URL_SQS=http://127.0.0.1:4566"),
        ("http://[::1]:4566/0/q", EU, "AWS_ENDPOINT_URL_SQS=http://[::1]:4566"),
        (
            "http://localhost:4567/0/q",
            "http://localhost:4566",
            "AWS_ENDPOINT_URL_SQS=http://localhost:4567",
        ),
        (
            "https://localhost/0/q",
            "http://localhost:4566",
            "AWS_ENDPOINT_URL_SQS=https://localhost",
        ),
        ("http://sqs.eu-west-1.amazonaws.com/1/q", EU, "AWS_ENDPOINT_URL_SQS=http://sqs.eu-west-1"),
        (
            "https://vpce-0-1.sqs.eu-west-1.vpce.amazonaws.com/1/q",
            EU,
            "AWS_ENDPOINT_URL_SQS=https://vpce-0-1.sqs.eu-west-1.vpce.amazonaws.com",
        ),
        ("https://sqs-fips.eu-west-1.amazonaws.com/1/q", EU, "AWS_USE_FIPS_ENDPOINT=true"),
        ("https://sqs.eu-west-1.api.aws/1/q", EU, "AWS_USE_DUALSTACK_ENDPOINT=true"),
        (
            "https://sqs-fips.eu-west-1.api.aws/1/q",
            EU,
            "AWS_USE_FIPS_ENDPOINT=true and AWS_USE_DUALSTACK_ENDPOINT=true",
        ),
        ("https://queue.example/1/q", EU, "AWS_ENDPOINT_URL_SQS=https://queue.example"),
    ],
)
def test_a_url_whose_host_nobody_would_ask_is_refused(
    queue: str, endpoint: str, remedy: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        check_queue(queue, parse_endpoint(endpoint), "eu-west-1")
    assert remedy in caught.value.hint


@pytest.mark.parametrize(
    ("queue", "region", "what"),
    [
        ("https://cn-north-1.queue.amazonaws.com.cn/1/q", "us-east-1", "cn-north-1"),
        ("https://queue.amazonaws.com/1/q", "eu-west-1", "us-east-1"),
        ("arn:aws:sqs:eu-west-1:123456789012:q", "us-east-1", "eu-west-1"),
        ("arn:aws:sqs:cn-north-1:123456789012:q", "cn-north-1", "aws-cn"),
        ("arn:aws-cn:sqs:us-east-1:123456789012:q", "us-east-1", "aws-cn"),
        ("arn:aws:sqs:us-gov-west-1:123456789012:q", "us-gov-west-1", "aws-us-gov"),
        ("arn:aws:sqs:us-iso-east-1:123456789012:q", "us-iso-east-1", "aws-iso"),
    ],
)
def test_another_region_or_partition_is_refused(queue: str, region: str, what: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_queue(queue, parse_endpoint(f"https://sqs.{region}.amazonaws.com"), region)
    assert what in caught.value.what


def test_the_hosts_and_partitions_are_those_that_botocore_knows() -> None:
    session = botocore.session.Session()
    regions = {
        region: partition
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("sqs", partition_name=partition)
    }
    assert len(set(regions.values())) >= 5
    by_vpc = parse_endpoint("https://vpce-0-1.sqs.us-east-1.vpce.amazonaws.com")
    for region, partition in regions.items():
        arn = f"arn:{partition}:sqs:{region}:123456789012:q"
        assert check_queue(arn, by_vpc, region).partition == partition
    keys = {"aws_access_key_id": "AK", "aws_secret_access_key": "sk"}
    for region in {partition: region for region, partition in regions.items()}.values():
        url = session.create_client("sqs", region_name=region, **keys).meta.endpoint_url
        # The URL that SQS gives, whatever the way to it.
        assert check_queue(f"{url}/1/q", by_vpc, region).region == region
