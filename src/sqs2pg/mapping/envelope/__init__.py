"""Envelope: what a message's body is wrapped in, taken off before its records are read.

    body ─▶ s3, sns, eventbridge, content_encoding, base64, gzip, zstd ─▶ one, array, lines

Layers are declared, outermost first, or found one by one under `auto`: a layer is taken off only
where its signature cannot be anything else, and a payload that only half looks like one is a fault.
No I/O: the S3 object that a pointer names is fetched before (`pipeline/large_payloads.py`).

Must never do: guess in silence. A body that does not fit the declared layers is quarantined.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from sqs2pg.errors import PermanentFault
from sqs2pg.mapping.envelope import compression, formats
from sqs2pg.mapping.envelope.formats import Pointer
from sqs2pg.mapping.envelope.records import Records, read_records
from sqs2pg.message import Message
from sqs2pg.settings import CONTENT_ENCODING, EnvelopeSettings

LAYERS_MAX = 8
"""Most layers that `auto` takes off: SNS in SNS in … must come to an end."""

Payload = str | bytes


class Opened(msgspec.Struct, gc=False):
    """The content of a message, without its envelope."""

    records: Records
    attributes: dict[str, str]
    """What the layers add: `sns.TopicArn`, `eventbridge.time`, an attribute of SNS."""

    def __repr__(self) -> str:
        return f"Opened({len(self.records.texts)})"


class _NotFetched(Exception):
    """A pointer whose object has not been fetched."""

    def __init__(self, pointer: Pointer) -> None:
        super().__init__()
        self.pointer = pointer


class Envelope:
    """Compiled from `[envelope]`."""

    def __init__(self, settings: EnvelopeSettings) -> None:
        self._layers = settings.layers
        self._auto = "auto" in settings.layers
        self._records = settings.records
        self._bytes_max = settings.decompressed_bytes_max
        self._buckets = frozenset(settings.s3_buckets)
        self.is_plain = not settings.layers and settings.records == "one"
        """A body is its message's one record, as it stands."""

    def open(self, message: Message) -> Opened:
        """Return what the message holds.

        Raises PermanentFault: `not_base64`, `not_gzip`, `not_zstd`, `decompressed_too_large`,
        `not_sns`, `sns_confirmation`, `not_eventbridge`, `unknown_encoding`,
        `ambiguous_envelope`, `too_many_layers`, `payload_bucket`, `payload_missing`, `too_deep`,
        and those of the records.
        """
        attributes: dict[str, str] = {}
        # Not kept in a variable here: a payload is freed as soon as its text is made.
        return Opened(read_records(self._payload(message, attributes), self._records), attributes)

    def content(self, message: Message) -> Payload | None:
        """Return what is in the message's layers, its records not yet read; None where `open`
        raises for them.
        """
        try:
            return self._unwrap(message, {})
        except (PermanentFault, _NotFetched):
            return None

    def _payload(self, message: Message, attributes: dict[str, str]) -> Payload:
        try:
            return self._unwrap(message, attributes)
        except _NotFetched:
            pass
        raise PermanentFault("payload_missing")  # the object is gone, or the caller fetches none

    def pointer(self, message: Message) -> Pointer | None:
        """Return the object that the message points to; None where the message has its own body.

        None too where it points to a bucket that the settings do not allow: nobody may ask for it.
        """
        packed = self._auto or set(self._layers) & {"base64", "gzip", "zstd", "content_encoding"}
        if not (packed or formats.may_point(message.body)):
            return None
        try:
            self._unwrap(msgspec.structs.replace(message, payload=None), {})
        except _NotFetched as missing:
            return missing.pointer
        except PermanentFault:
            pass  # `open` raises it again
        return None

    def _unwrap(self, message: Message, attributes: dict[str, str]) -> Payload:
        given = {
            name: attribute.string_value or ""
            for name, attribute in (message.message_attributes or {}).items()
        }
        payload: Payload = message.body
        if self._auto:
            return self._unwrap_found(message, payload, given, attributes)
        for layer in self._layers:
            payload = self._take_off(layer, message, payload, given, attributes)
        return payload

    def _take_off(
        self,
        layer: str,
        message: Message,
        payload: Payload,
        given: dict[str, str],
        attributes: dict[str, str],
    ) -> Payload:
        if layer == "s3":
            pointer = formats.pointer(payload)
            if pointer is None:
                return payload
            self._check_bucket(pointer)
            return _fetched(message, pointer, attributes)
        if layer == "sns":
            payload, about, inner = formats.sns(payload)
        elif layer == "eventbridge":
            payload, about, inner = formats.eventbridge(payload)
        elif layer == "content_encoding":
            return self._decode(payload, given)
        else:
            return compression.decode(layer, payload, self._bytes_max)
        attributes.update(about)
        attributes.update(inner)
        given.clear()  # the outer message's attributes do not describe the inner one
        given.update(inner)
        return payload

    def _check_bucket(self, pointer: Pointer) -> None:
        """Refuse a pointer whose bucket is not one of the settings' own.

        Whoever can send messages could name any. Where no bucket is listed, the layer `s3` follows
        a pointer to any bucket, and `auto` follows none.
        """
        if self._buckets or self._auto:
            allowed = pointer.bucket in self._buckets
        else:
            allowed = formats.may_be_bucket(pointer.bucket)
        if not allowed:
            raise PermanentFault("payload_bucket")

    def _decode(self, payload: Payload, given: Mapping[str, str]) -> Payload:
        """Undo the encodings that an attribute names, the last one first (RFC 9110, 8.4)."""
        named = given.get(CONTENT_ENCODING, "")
        for encoding in reversed([one.strip().lower() for one in named.split(",") if one.strip()]):
            if encoding != "identity":
                payload = compression.decode(encoding, payload, self._bytes_max)
        return payload

    def _unwrap_found(
        self,
        message: Message,
        payload: Payload,
        given: dict[str, str],
        attributes: dict[str, str],
    ) -> Payload:
        for _ in range(LAYERS_MAX):
            if given.get(CONTENT_ENCODING):
                payload = self._decode(payload, given)
                given.clear()
                continue
            layer = formats.signature(payload) or compression.signature(payload)
            if layer is None:
                return payload
            payload = self._take_off(layer, message, payload, given, attributes)
        raise PermanentFault("too_many_layers")


def _fetched(message: Message, pointer: Pointer, attributes: dict[str, str]) -> Payload:
    if message.payload is None:
        raise _NotFetched(pointer)
    attributes.update({"s3.bucket": pointer.bucket, "s3.key": pointer.key})
    return message.payload
