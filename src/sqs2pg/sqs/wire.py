"""The AWS JSON protocol of SQS: the bodies of requests and answers.

Place in the flow: between the client's methods and the bytes of HTTP. No I/O. Field names are
those of the SQS API reference (https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/).
Promises: a usual answer of ReceiveMessage becomes `Message`s in one pass over its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import msgspec
import structlog

from sqs2pg.errors import Stage, TransientFault
from sqs2pg.message import ALWAYS_ASKED, Message
from sqs2pg.settings import SYSTEM
from sqs2pg.sqs import odd_deliveries
from sqs2pg.sqs.errors import plain_name

CONTENT_TYPE = "application/x-amz-json-1.0"
BATCH_MAX = 10
"""Entries in one batch call, and messages in one receive (SQS API reference)."""
SEND_BYTES_MAX = 1_048_576
"""Bytes of one message, and of all messages of a batch together (SQS quotas since August 2025)."""

log = structlog.get_logger(__name__)


class Operation(msgspec.Struct, frozen=True, eq=False):
    """One call: its name in the protocol, and the stage that its faults belong to."""

    name: str
    stage: Stage = Stage.RECEIVE


RECEIVE = Operation("ReceiveMessage")
DELETE = Operation("DeleteMessageBatch", Stage.ACKNOWLEDGE)
CHANGE_VISIBILITY = Operation("ChangeMessageVisibilityBatch", Stage.ACKNOWLEDGE)
SEND = Operation("SendMessageBatch")
ATTRIBUTES = Operation("GetQueueAttributes")
QUEUE_URL = Operation("GetQueueUrl")
CREATE_QUEUE = Operation("CreateQueue")
OPERATIONS = (RECEIVE, DELETE, CHANGE_VISIBILITY, SEND, ATTRIBUTES, QUEUE_URL, CREATE_QUEUE)


class EntryFailure(msgspec.Struct, frozen=True, gc=False):
    """A failed entry of a batch call; `index` is its place in the arguments."""

    index: int
    code: str
    """The AWS error code, or `Unanswered` if the answer does not mention the entry."""
    sender_fault: bool
    """Whether sending the same entry again cannot help."""


class OutgoingMessage(msgspec.Struct, gc=False):
    """One message to send. Group and deduplication ids are for FIFO queues."""

    body: str
    group_id: str | None = None
    deduplication_id: str | None = None
    delay_s: int | None = None
    attributes: dict[str, str] | None = None
    """Message attributes of type String."""

    def __repr__(self) -> str:
        return "OutgoingMessage(…)"

    def __rich_repr__(self) -> Any:
        yield "…"


class SendResult(NamedTuple):
    """What became of a batch of sent messages."""

    message_ids: list[str | None]
    """One id per entry, in order; None if the entry failed."""
    failures: list[EntryFailure]


class _DeleteEntry(msgspec.Struct, rename="pascal", gc=False):
    id: str
    receipt_handle: str


class _DeleteRequest(msgspec.Struct, rename="pascal", gc=False):
    queue_url: str
    entries: list[_DeleteEntry]


class _VisibilityEntry(msgspec.Struct, rename="pascal", gc=False):
    id: str
    receipt_handle: str
    visibility_timeout: int


class _VisibilityRequest(msgspec.Struct, rename="pascal", gc=False):
    queue_url: str
    entries: list[_VisibilityEntry]


class _Successful(msgspec.Struct, rename="pascal", gc=False):
    id: str
    message_id: str | None = None


class _Failed(msgspec.Struct, rename="pascal", gc=False):
    id: str
    code: str = "Unknown"
    sender_fault: bool = False


class _BatchAnswer(msgspec.Struct, rename="pascal", gc=False):
    successful: list[_Successful] | None = None
    failed: list[_Failed] | None = None


class _ReceiveAnswer(msgspec.Struct, rename="pascal", gc=False):
    messages: list[Message] | None = None


class _QueueUrlAnswer(msgspec.Struct, rename="pascal", gc=False):
    queue_url: str


class _AttributesAnswer(msgspec.Struct, rename="pascal", gc=False):
    attributes: dict[str, str] | None = None


_IDS = tuple(str(index) for index in range(BATCH_MAX))
_ID_LISTS = [list(_IDS[:count]) for count in range(BATCH_MAX + 1)]
_ALL_DONE_BYTES_MAX = 4096
_COUNT_DIGITS_MAX = 15
_Answer = TypeVar("_Answer")
_encode = msgspec.json.Encoder().encode
_receive_answer = msgspec.json.Decoder(_ReceiveAnswer, strict=False)  # numbers arrive as text
_batch_answer = msgspec.json.Decoder(_BatchAnswer)
_queue_url_answer = msgspec.json.Decoder(_QueueUrlAnswer)
_attributes_answer = msgspec.json.Decoder(_AttributesAnswer)


def write_receive(
    queue_url: str,
    max_messages: int,
    wait_s: int,
    visibility_timeout_s: int | None,
    message_attributes: Sequence[str],
) -> bytes:
    """Write ReceiveMessage. Raises ValueError outside AWS's ranges (1-10 messages, 0-20 s wait).

    `message_attributes` may name system attributes, too, after SYSTEM.
    """
    if not 1 <= max_messages <= BATCH_MAX or not 0 <= wait_s <= 20:
        raise ValueError("max_messages must be 1 to 10 and wait_s 0 to 20")
    more = [n.removeprefix(SYSTEM) for n in message_attributes if n.startswith(SYSTEM)]
    asked = [name for name in message_attributes if not name.startswith(SYSTEM)]
    request: dict[str, Any] = {
        "QueueUrl": queue_url,
        "MaxNumberOfMessages": max_messages,
        "WaitTimeSeconds": wait_s,
        "MessageSystemAttributeNames": [*ALWAYS_ASKED, *more],
    }
    if visibility_timeout_s is not None:
        request["VisibilityTimeout"] = visibility_timeout_s
    if asked:
        request["MessageAttributeNames"] = asked
    return _encode(request)


def write_delete(queue_url: str, receipt_handles: Sequence[str]) -> bytes:
    """Write DeleteMessageBatch. Raises ValueError for no handle or more than 10."""
    _check_batch(receipt_handles)
    return _encode(_DeleteRequest(queue_url, list(map(_DeleteEntry, _IDS, receipt_handles))))


def write_change_visibility(
    queue_url: str, receipt_handles: Sequence[str], timeout_s: int
) -> bytes:
    """Write ChangeMessageVisibilityBatch, all to `timeout_s` (0 to 43,200) from now."""
    _check_batch(receipt_handles)
    timeouts = (timeout_s,) * len(receipt_handles)
    entries = list(map(_VisibilityEntry, _IDS, receipt_handles, timeouts))
    return _encode(_VisibilityRequest(queue_url, entries))


def write_send(queue_url: str, messages: Sequence[OutgoingMessage | str]) -> bytes:
    """Write SendMessageBatch. Raises ValueError for no message, over 10, or over 1 MiB in all."""
    _check_batch(messages)
    entries = []
    size = 0
    for index, given in enumerate(messages):
        message = OutgoingMessage(given) if isinstance(given, str) else given
        entry: dict[str, Any] = {"Id": _IDS[index], "MessageBody": message.body}
        size += len(message.body.encode())
        if message.group_id is not None:
            entry["MessageGroupId"] = message.group_id
        if message.deduplication_id is not None:
            entry["MessageDeduplicationId"] = message.deduplication_id
        if message.delay_s is not None:
            entry["DelaySeconds"] = message.delay_s
        if message.attributes:
            entry["MessageAttributes"] = {
                name: {"DataType": "String", "StringValue": value}
                for name, value in message.attributes.items()
            }
            size += sum(
                len(name.encode()) + len("String") + len(value.encode())
                for name, value in message.attributes.items()
            )
        entries.append(entry)
    if size > SEND_BYTES_MAX:
        raise ValueError(f"a batch holds at most {SEND_BYTES_MAX:,} bytes of messages")
    return _encode({"QueueUrl": queue_url, "Entries": entries})


def write_body(**fields: Any) -> bytes:
    """Write a request with these fields, leaving out those that are None."""
    return _encode({name: value for name, value in fields.items() if value is not None})


def read_messages(body: bytes) -> list[Message]:
    """Read ReceiveMessage's answer; messages that are odd come too (`odd_deliveries.py`).

    Raises TransientFault `aws_garbled_reply`, as every reader.
    """
    try:
        return _receive_answer.decode(body).messages or []
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # below, without the error: it may quote the body
    read = odd_deliveries.read_reply(body)
    messages, none = read or ([], 0)
    if not messages:
        raise _garbled(RECEIVE)
    if none:
        log.warning(
            "messages without a MessageId or a receipt handle are left on the queue",
            code="odd_delivery",
            messages=none,
        )
    return messages


def read_failures(body: bytes, count: int, operation: Operation) -> list[EntryFailure]:
    """Return the entries of a batch of `count` that failed or were not answered, in order."""
    answer = _read(_batch_answer, body, operation)
    done = [entry.id for entry in answer.successful or ()]
    if done == _ID_LISTS[count] and not answer.failed:
        return []  # the usual answer: every entry, in order
    return _failures(answer, count)


class DeleteAnswers:
    """Recognises the answers to deletes in which every entry succeeded.

    The answers to the same entry ids are the same bytes, so each is read once and then compared.
    """

    def __init__(self) -> None:
        self._all_done = [b""] * (BATCH_MAX + 1)  # by batch size: the last such answer

    def are_all_done(self, body: bytes, count: int) -> bool:
        """Return whether every entry of a batch of `count` succeeded."""
        if body == self._all_done[count]:
            return True
        try:
            answer = _batch_answer.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return False
        if answer.failed or [entry.id for entry in answer.successful or ()] != _ID_LISTS[count]:
            return False
        if len(body) <= _ALL_DONE_BYTES_MAX:
            self._all_done[count] = body
        return True


def read_sent(body: bytes, count: int) -> SendResult:
    """Read SendMessageBatch's answer to a batch of `count`."""
    answer = _read(_batch_answer, body, SEND)
    ids = {done.id: done.message_id for done in answer.successful or ()}
    return SendResult([ids.get(id_) for id_ in _IDS[:count]], _failures(answer, count))


def read_queue_url(body: bytes, operation: Operation) -> str:
    """Read the answer of GetQueueUrl or CreateQueue."""
    return _read(_queue_url_answer, body, operation).queue_url


def read_attributes(body: bytes) -> dict[str, str]:
    """Read GetQueueAttributes's answer; numbers stay text.

    An empty answer has none, as AWS's own clients read it: some emulators send that.
    """
    if not body.strip():
        return {}
    return _read(_attributes_answer, body, ATTRIBUTES).attributes or {}


def read_counts(attributes: Mapping[str, str], names: Sequence[str]) -> list[int]:
    """Return counts among a queue's attributes; one that it does not have is 0.

    Raises TransientFault `aws_garbled_reply` if it has none of them, or one that is no number.
    """
    given = [attributes.get(name) for name in names]
    if all(one is None for one in given) or not all(one is None or _is_count(one) for one in given):
        raise _garbled(ATTRIBUTES)
    return [int(one or 0) for one in given]


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _COUNT_DIGITS_MAX


def _check_batch(entries: Sequence[object]) -> None:
    if not 1 <= len(entries) <= BATCH_MAX:
        raise ValueError(f"a batch holds 1 to {BATCH_MAX} entries")


def _failures(answer: _BatchAnswer, count: int) -> list[EntryFailure]:
    done = {entry.id for entry in answer.successful or ()}
    failed = {entry.id: entry for entry in answer.failed or ()}
    failures = []
    for index, id_ in enumerate(_IDS[:count]):
        if entry := failed.get(id_):
            failures.append(EntryFailure(index, plain_name(entry.code), entry.sender_fault))
        elif id_ not in done:
            failures.append(EntryFailure(index, "Unanswered", False))
    return failures


def _read(decoder: msgspec.json.Decoder[_Answer], body: bytes, operation: Operation) -> _Answer:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):  # both may quote the body
        raise _garbled(operation) from None


def _garbled(operation: Operation) -> TransientFault:
    return TransientFault(
        f"{operation.name}: the answer is not the JSON that was asked for",
        code="aws_garbled_reply",
        stage=operation.stage,
        hint="check that the endpoint is SQS and speaks the AWS JSON protocol",
    )
