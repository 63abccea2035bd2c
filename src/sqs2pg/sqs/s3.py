"""S3 objects: the payloads that messages point to, and archives. botocore's client, in threads.

Off the hot path: a message of megabytes is fetched once, where the queue's own calls are many and
small. Nothing of an answer but its status and error code is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from sqs2pg.errors import FatalFault, PermanentFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.sqs.environment import read_environment
from sqs2pg.sqs.errors import plain_name

_GONE = ("NoSuchKey", "404", "NoSuchVersion")
_DENIED = ("AccessDenied", "403", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken")
_PIECE = 2**20
T = TypeVar("T")


class Stored(NamedTuple):
    """An object of a listing."""

    key: str
    etag: str
    size: int
    """Bytes."""
    modified: datetime


class ObjectStore:
    """A client of S3, for the AWS environment as boto3 would read it."""

    def __init__(self) -> None:
        session = botocore.session.get_session()
        self._client: Any = session.create_client(
            "s3",
            region_name=read_environment().region,
            config=Config(
                retries={"mode": "standard", "max_attempts": 4},
                connect_timeout=10,
                read_timeout=30,
                max_pool_connections=16,
            ),
        )

    async def fetch(self, bucket: str, key: str, bytes_max: int) -> bytes:
        """Return an object whole.

        Raises PermanentFault `payload_missing`, or `payload_too_large` over `bytes_max`;
        TransientFault where S3 is away or refuses, which says nothing of the message.
        """
        return await asyncio.to_thread(self._fetch, bucket, key, bytes_max)

    def _fetch(self, bucket: str, key: str, bytes_max: int) -> bytes:
        answer = self._call(lambda: self._client.get_object(Bucket=bucket, Key=key))
        with answer["Body"] as body:
            if answer["ContentLength"] > bytes_max:
                raise PermanentFault("payload_too_large")
            whole: bytes = self._call(body.read)
        return whole

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object. May be repeated. Raises as `fetch`."""
        await asyncio.to_thread(
            self._call, lambda: self._client.delete_object(Bucket=bucket, Key=key)
        )

    def listing(self, bucket: str, prefix: str) -> Iterator[Stored]:
        """Yield the objects under a prefix, in the order of their keys. Blocking; raises as
        `fetch`.
        """
        pages = self._client.get_paginator("list_objects_v2")
        found = iter(pages.paginate(Bucket=bucket, Prefix=prefix))
        while (page := self._call(lambda: next(found, None))) is not None:
            for one in page.get("Contents", ()):
                yield Stored(one["Key"], one["ETag"].strip('"'), one["Size"], one["LastModified"])

    def pieces(self, bucket: str, key: str, etag: str) -> Iterator[bytes]:
        """Yield an object's bytes, a piece at a time, of just the version with this ETag. Blocking.

        Raises as `fetch`; PermanentFault `object_changed` where there is another version now.
        """
        answer = self._call(lambda: self._client.get_object(Bucket=bucket, Key=key, IfMatch=etag))
        with answer["Body"] as body:
            while piece := self._call(lambda: body.read(_PIECE)):
                yield piece

    def _call(self, work: Callable[[], T]) -> T:
        fault: Sqs2pgError
        try:
            return work()
        except ClientError as error:
            fault = _fault(str(error.response.get("Error", {}).get("Code", "")))
        except (BotoCoreError, OSError) as error:
            fault = TransientFault(
                f"S3 is not reachable ({type(error).__name__})",
                code="s3_unreachable",
                stage=Stage.DECODE,
                hint="check AWS_ENDPOINT_URL_S3, AWS_REGION and the network",
            )
        # Out here: an answer of S3 quotes keys.
        try:
            raise fault
        finally:
            del fault


def _fault(code: str) -> Sqs2pgError:
    if code in _GONE:
        return PermanentFault("payload_missing")
    if code in ("PreconditionFailed", "412"):
        return PermanentFault("object_changed")
    if code == "NoSuchBucket":
        return FatalFault(
            "S3 knows no such bucket", code="s3_no_bucket", hint="check its name and AWS_REGION"
        )
    if code in _DENIED:
        # A missing object looks like this too to who may not list the bucket: never the message's.
        return TransientFault(
            "S3 refuses access to the object",
            code="s3_denied",
            stage=Stage.DECODE,
            hint="grant s3:GetObject on the bucket's objects and s3:ListBucket on the bucket; "
            "`sqs2pg check --emit-iam` prints the policy",
        )
    return TransientFault(f"S3 answered {plain_name(code)}", code="s3_error", stage=Stage.DECODE)
