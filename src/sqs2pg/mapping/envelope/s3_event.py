"""Notifications of S3: which objects a message names.

Sources: Amazon S3 user guide, "Event message structure", "Supported event types for SQS, SNS and
Lambda" and "EventBridge event message structure". SQS and SNS bring `Records`, EventBridge one
object in its `detail`. Keys are URL-encoded in the first, and as they are in the second. No I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.json_slices import UNREADABLE, too_deep, without_mark

CREATED = ("ObjectCreated", "ObjectRestore:Completed")
"""Events after which an object can be read."""
OTHERS = (
    *("ObjectRemoved", "ObjectRestore", "ObjectTagging", "ObjectAcl", "Replication"),
    *("ReducedRedundancyLostObject", "LifecycleExpiration", "LifecycleTransition"),
    *("IntelligentTiering", "ObjectAnnotation"),
)
"""Events that tell of no new content."""
_CREATED_DETAILS = ("Object Created", "Object Restore Completed")
"""The same as `detail-type` of EventBridge."""
DETAIL_TYPE = "eventbridge.detail-type"


class NamedObject(msgspec.Struct, frozen=True, gc=False):
    """An object as a notification names it."""

    bucket: str
    key: str
    version: str = ""
    """Empty where the bucket keeps no versions."""
    etag: str = ""
    """Without quotes; empty where the notification does not say."""
    size: int = 0
    """Stored bytes."""

    @property
    def place(self) -> str:
        """Its URL, for people. What is no printable character of a key is percent-encoded."""
        return f"s3://{self.bucket}/{printable(self.key)}"

    def __repr__(self) -> str:
        return "NamedObject(…)"


def printable(key: str) -> str:
    """Return a key for one line of a terminal: a producer may put line feeds into it, and more."""
    if key.isprintable():
        return key
    return "".join(c if c.isprintable() else _percent(c) for c in key)


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode())


class Notification(msgspec.Struct, frozen=True, gc=False):
    """What a message says."""

    objects: tuple[NamedObject, ...] = ()
    """Objects to read, each once."""
    ignored: int = 0
    """Events that tell of no new content."""
    test: bool = False
    """S3 sends one when notifications are switched on."""


class _Bucket(msgspec.Struct, gc=False):
    name: str


class _Object(msgspec.Struct, gc=False):
    key: str
    size: int = 0
    etag: str = msgspec.field(name="eTag", default="")
    version: str | None = msgspec.field(name="versionId", default=None)


class _Place(msgspec.Struct, gc=False):
    bucket: _Bucket
    object: _Object


class _Record(msgspec.Struct, gc=False):
    event_name: str = msgspec.field(name="eventName")
    event_source: str = msgspec.field(name="eventSource", default="aws:s3")
    s3: _Place | None = None


class _DetailObject(msgspec.Struct, gc=False):
    key: str
    size: int = 0
    etag: str = ""
    version: str | None = msgspec.field(name="version-id", default=None)


class _Detail(msgspec.Struct, gc=False):
    bucket: _Bucket
    object: _DetailObject


class _Body(msgspec.Struct, gc=False):
    records: list[_Record] | None = msgspec.field(name="Records", default=None)
    event: str = msgspec.field(name="Event", default="")
    service: str = msgspec.field(name="Service", default="")


_body = msgspec.json.Decoder(_Body).decode
_detail = msgspec.json.Decoder(_Detail).decode


def read_notification(
    payload: str | bytes, attributes: Mapping[str, str], *, removed: str = "ignore"
) -> Notification:
    """Return what a notification says. `attributes` are those that its layers add.

    `removed`: `quarantine` refuses events that tell of no new content. Raises PermanentFault
    `not_s3_event`, with the name of what it lacks, or `s3_no_content`.
    """
    if too_deep(payload):
        raise PermanentFault("too_deep")
    if (kind := attributes.get(DETAIL_TYPE)) is not None:
        return _of_detail(payload, kind, removed)
    body = _read(_body, payload)
    if body is None:
        raise PermanentFault("not_s3_event")
    if body.event == "s3:TestEvent" and body.records is None:
        return Notification(test=True)
    if not body.records:
        raise PermanentFault("not_s3_event", "Records")
    found: dict[NamedObject, None] = {}
    ignored = 0
    for record in body.records:
        if not record.event_source.endswith(":s3"):
            raise PermanentFault("not_s3_event", "eventSource")
        name = record.event_name.removeprefix("s3:")
        if _has_content(name, removed):
            found[_named(record.s3)] = None
        else:
            ignored += 1
    return Notification(tuple(found), ignored)


def _read(decode: Any, payload: str | bytes) -> Any:
    # Returns None, so that the caller's fault has no other error as its context.
    try:
        return decode(without_mark(payload))
    except UNREADABLE:
        return None


def _has_content(name: str, removed: str) -> bool:
    if _is_one_of(name, CREATED):
        return True
    if not _is_one_of(name, OTHERS):
        raise PermanentFault("not_s3_event", "eventName")
    if removed == "quarantine":
        raise PermanentFault("s3_no_content", "eventName")
    return False


def _is_one_of(name: str, kinds: tuple[str, ...]) -> bool:
    return any(name == kind or name.startswith(f"{kind}:") for kind in kinds)


def _named(place: _Place | None) -> NamedObject:
    if place is None:
        raise PermanentFault("not_s3_event", "s3")
    key = decoded_key(place.object.key)
    if not key or not place.bucket.name:
        raise PermanentFault("not_s3_event", "key" if place.bucket.name else "bucket")
    one = place.object
    return _object(place.bucket.name, key, one.version, one.etag, one.size)


def _of_detail(payload: str | bytes, kind: str, removed: str) -> Notification:
    if not kind.startswith("Object "):
        raise PermanentFault("not_s3_event", "detail-type")
    if kind not in _CREATED_DETAILS:
        if removed == "quarantine":
            raise PermanentFault("s3_no_content", "detail-type")
        return Notification(ignored=1)
    detail = _read(_detail, payload)
    if detail is None or not detail.object.key or not detail.bucket.name:
        raise PermanentFault("not_s3_event", "detail")
    one = detail.object
    return Notification((_object(detail.bucket.name, one.key, one.version, one.etag, one.size),))


def _object(bucket: str, key: str, version: str | None, etag: str, size: int) -> NamedObject:
    if "\0" in key:
        raise PermanentFault("not_s3_event", "key")
    # An object of a time before the bucket kept versions has one that is called null.
    kept = version if version and version != "null" else ""
    return NamedObject(bucket, key, kept, etag.strip('"'), max(0, size))


def decoded_key(key: str) -> str:
    """Return a key that is URL-encoded as in a form: `+` for a space, `%XX` for bytes of UTF-8.

    Empty where it is not: S3 has no such key.
    """
    raw = key.replace("+", " ").encode("utf-8", "surrogatepass")
    first, *rest = raw.split(b"%")
    found = [first]
    try:
        for part in rest:
            found += [bytes.fromhex(part[:2].decode("ascii")), part[2:]]
            if len(part) < 2 or part[:2].isspace():
                return ""
        return b"".join(found).decode()
    except (ValueError, UnicodeError):
        return ""
