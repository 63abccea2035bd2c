"""Queue addresses: what `source.queue` may be, and whether it agrees with the client's endpoint.

A name or an ARN is looked up. A URL is used as it is: SQS reads the queue from its path, and
requests go to the client's endpoint. So a URL of another host would be a wish that nobody grants,
and is refused. No I/O.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from sqs2pg.errors import SettingsError
from sqs2pg.sqs.endpoint import Endpoint, is_loopback, parse_endpoint

_QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
_ARN = re.compile(r"arn:([a-z-]+):sqs:([a-z0-9-]+):(\d{12}|):([A-Za-z0-9_-]+(?:\.fifo)?)")

# Hosts of AWS: "Amazon SQS endpoints and quotas" in the AWS general reference. The second form is
# the one that SQS used first; without a region it is that of us-east-1.
_HOST = re.compile(
    r"(?P<vpc>vpce-.+\.)?sqs(?P<fips>-fips)?\.(?P<region>[a-z0-9-]+)\."
    r"(?:(?:vpce\.)?amazonaws\.(?:com(?:\.cn)?|eu)"
    r"|c2s\.ic\.gov|sc2s\.sgov\.gov|csp\.hci\.ic\.gov|cloud\.adc-e\.uk"
    r"|(?P<dual>api\.(?:aws|amazonwebservices\.(?:com\.cn|eu))))"
    r"|(?:(?P<first>[a-z0-9-]+)\.)?queue\.amazonaws\.com(?:\.cn)?"
)
# Partitions by the beginning of their regions' names: "AWS partitions" in the AWS general reference
# and botocore's endpoints.
_PARTITIONS = (
    ("cn-", "aws-cn"),
    ("us-gov-", "aws-us-gov"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
    ("eu-isoe-", "aws-iso-e"),
    ("us-iso-", "aws-iso"),
    ("eusc-", "aws-eusc"),
)


class QueueAddress(NamedTuple):
    """The parts of a queue's name, URL or ARN; "" for what it lacks."""

    name: str
    """Empty for a URL, which is used as it is."""
    account: str
    region: str
    partition: str


def split_queue(queue: str) -> QueueAddress:
    """Return the parts of a queue's name, URL or ARN. Raises SettingsError if it is none of them.

    Of a URL only the host is read. `check_url` checks the rest.
    """
    if queue.startswith(("http://", "https://")):
        match = _HOST.fullmatch(_endpoint_of(queue).host)
        region = (match["region"] or match["first"] or "us-east-1") if match else ""
        return QueueAddress("", "", region, "")
    if match := _ARN.fullmatch(queue):
        return QueueAddress(match[4], match[3], match[2], match[1])
    if not _QUEUE_NAME.fullmatch(queue):
        raise SettingsError(
            "the queue is not a name, a URL or an ARN of SQS",
            hint="a name has up to 80 letters, digits, dashes and underscores; FIFO ends in .fifo",
        )
    return QueueAddress(queue, "", "", "")


def check_queue(queue: str, endpoint: Endpoint, region: str) -> QueueAddress:
    """Return the parts of a queue's name, URL or ARN that agrees with the client's endpoint.

    Raises SettingsError if it is malformed, or names another region, partition or host.
    """
    address = split_queue(queue)
    if address.region and address.region != region:
        raise SettingsError(
            f"the queue is in region {address.region}, the client in {region}",
            hint=f"set AWS_REGION={address.region}, or correct source.queue",
        )
    if address.partition and address.partition != _partition(address.region):
        raise SettingsError(
            f"the queue's ARN has the partition {address.partition}; region {address.region} is in "
            f"{_partition(address.region)}",
            hint=f"correct source.queue: arn:{_partition(address.region)}:sqs:{address.region}:…",
        )
    if not address.name:
        _check_host(_endpoint_of(queue), endpoint)
    return address


def _partition(region: str) -> str:
    return next((name for start, name in _PARTITIONS if region.startswith(start)), "aws")


def _endpoint_of(url: str) -> Endpoint:
    """Return the endpoint that a queue's URL names. Raises SettingsError for a malformed URL."""
    try:
        endpoint = parse_endpoint(url)
    except SettingsError:
        endpoint = None
    if endpoint is None or not _QUEUE_NAME.fullmatch(endpoint.path.rpartition("/")[2]):
        raise SettingsError(
            "source.queue is not a URL like https://sqs.REGION.amazonaws.com/ACCOUNT/NAME",
            hint="correct it, or give the queue's name or ARN",
        )
    return endpoint


def _check_host(wanted: Endpoint, endpoint: Endpoint) -> None:
    """Refuse a URL whose host the requests would not go to."""
    if _same(wanted, endpoint):
        return
    match = _HOST.fullmatch(wanted.host)
    plain = match and wanted.secure and not (match["vpc"] or match["fips"] or match["dual"])
    if plain and wanted.port == 443:
        # SQS itself gives such URLs, whatever way the request came: by a VPC endpoint, a FIPS host
        # or a proxy that the environment names.
        return
    port = "" if wanted.port == (443 if wanted.secure else 80) else f":{wanted.port}"
    host = f"[{wanted.host}]" if ":" in wanted.host else wanted.host
    remedy = f"set AWS_ENDPOINT_URL_SQS={wanted.scheme}://{host}{port}"
    if match and match["fips"] and not match["vpc"]:
        remedy = "set AWS_USE_FIPS_ENDPOINT=true"
        if match["dual"]:
            remedy += " and AWS_USE_DUALSTACK_ENDPOINT=true"
    elif match and match["dual"]:
        remedy = "set AWS_USE_DUALSTACK_ENDPOINT=true"
    raise SettingsError(
        f"source.queue is a URL at {host}{port}, but requests go to {endpoint.host_header}",
        hint=f"{remedy}, or give the queue's name or ARN instead of its URL",
    )


def _same(one: Endpoint, other: Endpoint) -> bool:
    hosts = one.host == other.host or (is_loopback(one.host) and is_loopback(other.host))
    return hosts and (one.scheme, one.port) == (other.scheme, other.port)
