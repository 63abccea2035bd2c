"""S3 objects: the payloads that messages point to, and archives. botocore's client, in threads.

Not on the hot path: one large object is fetched at a time, while the queue's calls are many and
small. Only the status and the error code of an error answer are read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
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
_BROKEN_MAX = 3
"""Connections in a row that may end early without a byte before the object counts as out of reach.
"""
T = TypeVar("T")


class StoredObject(NamedTuple):
    """One object of a listing."""

    key: str
    etag: str
    size: int
    """Bytes."""
    modified: datetime


class OpenedObject(NamedTuple):
    """One object that is being read."""

    etag: str
    version: str
    """Empty where the bucket keeps no versions."""
    size: int
    """Bytes."""
    modified: datetime
    pieces: Iterator[bytes]
    """Its content. Blocking; raises as `ObjectStore.open`."""


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

    def open(self, bucket: str, key: str, *, version: str = "", etag: str = "") -> OpenedObject:
        """Begin to read an object: its version of this id, else what has this ETag. Blocking.

        A connection that ends early is replaced by another one, which goes on at the same byte.
        Raises TransientFault if S3 is away or refuses; PermanentFault `payload_missing`, also where
        the bucket does not exist, and `object_changed` if the ETag is another one now.
        """
        which: dict[str, str] = {"Bucket": bucket, "Key": key}
        which |= {"VersionId": version} if version else {"IfMatch": f'"{etag}"'} if etag else {}
        if not _may_be_key(key):
            raise PermanentFault("payload_missing")
        answer = self._get(which)
        return OpenedObject(
            answer["ETag"].strip('"'),
            _version(answer),
            answer["ContentLength"],
            answer["LastModified"],
            self._whole(answer, which | ({} if version else {"IfMatch": answer["ETag"]})),
        )

    def _get(self, which: dict[str, str]) -> dict[str, Any]:
        try:
            return self._call(lambda: self._client.get_object(**which))
        except FatalFault:
            pass  # there is no such bucket; raised below, without context
        raise PermanentFault("payload_missing")

    def _whole(self, answer: dict[str, Any], which: dict[str, str]) -> Iterator[bytes]:
        at, end, broken = 0, answer["ContentLength"], 0
        while True:
            cut: TransientFault | None = None
            with answer["Body"] as body:
                try:
                    while piece := self._call(partial(body.read, _PIECE)):
                        at += len(piece)
                        broken = 0
                        yield piece
                except TransientFault as fault:
                    cut = fault
            if at >= end:
                return
            broken += 1
            if broken > _BROKEN_MAX:
                raise cut or TransientFault(
                    "S3 ended an object early", code="s3_unreachable", stage=Stage.DECODE
                )
            answer = self._get(which | {"Range": f"bytes={at}-"})

    def identify(self, bucket: str, key: str, etag: str = "") -> tuple[str, str]:
        """Return version and ETag of an object as it is now; without versions, the first is empty.

        `etag`: the object must have it. Blocking. Raises as `open`.
        """
        which = {"Bucket": bucket, "Key": key} | ({"IfMatch": f'"{etag}"'} if etag else {})
        answer = self._call(lambda: self._client.head_object(**which))
        return _version(answer), answer["ETag"].strip('"')

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


def _version(answer: dict[str, Any]) -> str:
    # An object of a time before the bucket kept versions has one that is called null.
    version = str(answer.get("VersionId", ""))
    return "" if version == "null" else version


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
