"""S3 objects: the payloads that messages point to, and archives. botocore's client, in threads.

Not on the hot path: one large object is fetched at a time, while the queue's calls are many and
small. Only the status and the error code of an error answer are read.
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

# Error codes by what to do about them: "Error responses" in the Amazon S3 API reference.
_GONE = ("NoSuchKey", "404", "NoSuchVersion")
_NO_BUCKET = ("NoSuchBucket", "InvalidBucketName")
_DENIED = ("AccessDenied", "403", "AllAccessDisabled", "InvalidObjectState")
_CREDENTIALS = (
    *("ExpiredToken", "InvalidAccessKeyId", "InvalidToken", "RequestExpired"),
    *("RequestTimeTooSkewed", "SignatureDoesNotMatch", "TokenRefreshRequired"),
)
_BUSY = ("OperationAborted", "RequestTimeout", "SlowDown", "Throttling", "TooManyRequests")
_PIECE = 2**20
_KEY_BYTES_MAX = 1024
T = TypeVar("T")


class StoredObject(NamedTuple):
    """One object of a listing."""

    key: str
    etag: str
    size: int
    """Bytes."""
    modified: datetime


class ObjectStore:
    """A client of S3 for the AWS environment as boto3 would read it."""

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
        """Return a whole object that a message names.

        Raises PermanentFault `payload_missing`, also where the bucket does not exist: what a
        message names is the message's matter. `payload_too_large` over `bytes_max`. Raises
        TransientFault if S3 is away or refuses: `s3_denied` and `s3_refused` may be about this
        object alone.
        """
        if not _may_be_key(key):
            raise PermanentFault("payload_missing", "s3Key")
        try:
            return await asyncio.to_thread(self._fetch, bucket, key, bytes_max)
        except FatalFault:
            pass  # there is no such bucket; raised below, without context
        raise PermanentFault("payload_missing", "s3BucketName")

    def _fetch(self, bucket: str, key: str, bytes_max: int) -> bytes:
        answer = self._call(lambda: self._client.get_object(Bucket=bucket, Key=key))
        whole = bytearray()
        with answer["Body"] as body:
            # Not all servers give the length.
            if answer.get("ContentLength", 0) <= bytes_max:
                while piece := self._call(lambda: body.read(_PIECE)):
                    whole += piece
                    if len(whole) > bytes_max:
                        break
                else:
                    return bytes(whole)
        raise PermanentFault("payload_too_large")

    async def delete(self, bucket: str, key: str) -> None:
        """Delete an object. May be repeated. Raises TransientFault and FatalFault as `listing`."""
        await asyncio.to_thread(
            self._call, lambda: self._client.delete_object(Bucket=bucket, Key=key)
        )

    def listing(self, bucket: str, prefix: str) -> Iterator[StoredObject]:
        """Yield the objects under a prefix, ordered by key. Blocking.

        Raises TransientFault if S3 is away or refuses, FatalFault `s3_no_bucket`.
        """
        pages = self._client.get_paginator("list_objects_v2")
        found = iter(pages.paginate(Bucket=bucket, Prefix=prefix))
        while (page := self._call(lambda: next(found, None))) is not None:
            for entry in page.get("Contents", ()):
                etag = entry["ETag"].strip('"')
                yield StoredObject(entry["Key"], etag, entry["Size"], entry["LastModified"])

    def pieces(self, bucket: str, key: str, etag: str) -> Iterator[bytes]:
        """Yield the bytes of an object's version with this ETag, in pieces. Blocking.

        Raises as `listing`; PermanentFault `payload_missing`, or `object_changed` if the object has
        another version now.
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
            status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
            fault = _fault(str(error.response.get("Error", {}).get("Code", "")), status)
        except (BotoCoreError, OSError) as error:
            fault = TransientFault(
                f"S3 is not reachable ({type(error).__name__})",
                code="s3_unreachable",
                stage=Stage.DECODE,
                hint="check AWS_ENDPOINT_URL_S3, AWS_REGION and the network",
            )
        # Raised outside the handlers, without their context: an answer of S3 quotes keys.
        try:
            raise fault
        finally:
            del fault


def _may_be_key(key: str) -> bool:
    try:
        return len(key.encode()) <= _KEY_BYTES_MAX
    except UnicodeError:
        return False


def _fault(code: str, status: int) -> Sqs2pgError:
    if code in _GONE:
        return PermanentFault("payload_missing")
    if code in ("PreconditionFailed", "412"):
        return PermanentFault("object_changed")
    if code in _NO_BUCKET:
        return FatalFault(
            "S3 has no such bucket", code="s3_no_bucket", hint="check its name and AWS_REGION"
        )
    said = f"S3 answered {plain_name(code)}"
    if code in _CREDENTIALS:
        return TransientFault(
            said,
            code="s3_bad_credentials",
            stage=Stage.DECODE,
            hint="renew the credentials, and check this machine's clock",
        )
    if code in _DENIED:
        # S3 answers the same for a missing object if the role may not list the bucket.
        return TransientFault(
            "S3 refuses access to the object",
            code="s3_denied",
            stage=Stage.DECODE,
            hint="grant s3:GetObject on the bucket's objects and s3:ListBucket on the bucket; "
            "`sqs2pg check --emit-iam` prints the policy",
        )
    if status >= 500 or status == 429 or code in _BUSY:
        return TransientFault(said, code="s3_error", stage=Stage.DECODE)
    return TransientFault(
        said,
        code="s3_refused",
        stage=Stage.DECODE,
        hint="check the object's region, its encryption key and AWS_ENDPOINT_URL_S3",
    )
