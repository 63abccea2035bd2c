"""Turns an AWS error answer into one of our faults: its route, its code and its hint.

Place in the flow: the client passes on every answer that is not a success. No I/O.
Promises: a fault holds the AWS error code, the HTTP status and the request id, each checked to be a
plain name. Must never hold the answer's message, which quotes what was sent.
"""

from __future__ import annotations

import re

import msgspec

from sqs2pg.errors import FatalFault, Sqs2pgError, Stage, TransientFault
from sqs2pg.sqs.connection import Reply

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,100}")

# Error codes by what to do about them. Sources: "Common error types" and the errors of each
# action in the SQS API reference; retry behavior in the AWS SDKs and Tools reference guide.
THROTTLED = frozenset({
    "BandwidthLimitExceeded",
    "EC2ThrottledException",
    "KmsThrottled",
    "LimitExceededException",
    "PriorRequestNotComplete",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "SlowDown",
    "ThrottledException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
})  # fmt: skip
_TIMED_OUT = frozenset({"RequestTimeout", "RequestTimeoutException"})
_OVER_LIMIT = frozenset({"OverLimit"})
EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException"})
_SKEWED = frozenset({"RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"})
_SIGNATURE = frozenset({
    "AuthFailure",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidSignature",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
})  # fmt: skip
_UNKNOWN_KEYS = frozenset({
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
})  # fmt: skip
_DENIED = frozenset({
    "AccessDenied",
    "AccessDeniedException",
    "NotAuthorized",
    "OptInRequired",
    "UnauthorizedOperation",
})  # fmt: skip
_MISSING = frozenset({
    "AWS.SimpleQueueService.NonExistentQueue",
    "InvalidAddress",
    "NonExistentQueue",
    "QueueDeletedRecently",
    "QueueDoesNotExist",
})  # fmt: skip
_KMS = frozenset({
    "KmsAccessDenied",
    "KmsDisabled",
    "KmsInvalidKeyUsage",
    "KmsInvalidState",
    "KmsNotFound",
    "KmsOptInRequired",
})  # fmt: skip

_TRANSIENT = (
    (
        THROTTLED,
        "aws_throttled",
        "AWS asks for fewer requests per second from this account or queue",
    ),
    (_TIMED_OUT, "aws_timeout", ""),
    (_OVER_LIMIT, "aws_over_limit", "too many messages in flight on the queue (120,000)"),
    (EXPIRED, "aws_expired_credentials", "renew the session: aws sso login, or a new token"),
    (_SKEWED, "aws_clock_skew", "set this machine's clock (NTP)"),
)
_FATAL = (
    (_MISSING, "aws_queue_missing", "check source.queue, AWS_REGION and the account"),
    (_DENIED, "aws_access_denied", "grant the actions that `sqs2pg check --emit-iam` prints"),
    (
        _SIGNATURE,
        "aws_bad_credentials",
        "the secret key does not belong to the access key, or the clock is wrong",
    ),
    (_UNKNOWN_KEYS, "aws_bad_credentials", "check AWS_ACCESS_KEY_ID, AWS_PROFILE or the role"),
    (
        _KMS,
        "aws_kms_refused",
        "grant kms:Decrypt on the queue's key, and check that the key is enabled",
    ),
)
MAYBE_SKEWED = _SKEWED | _SIGNATURE
"""Codes that a wrong clock can cause. If the server's Date is far from ours, it is the clock, not
the key."""


class _ErrorAnswer(msgspec.Struct):
    type: str = msgspec.field(name="__type", default="")


class _Request(msgspec.Struct):
    name: str = msgspec.field(name="QueueName", default="")
    url: str = msgspec.field(name="QueueUrl", default="")


_decoder = msgspec.json.Decoder(_ErrorAnswer)
_request_decoder = msgspec.json.Decoder(_Request)


def plain_name(text: str) -> str:
    """Return a plain name (letters, digits, dot, dash, underscore) as it is, else `Unknown`."""
    return text if _PLAIN.fullmatch(text) else "Unknown"


def read_code(reply: Reply) -> str:
    """Return the AWS error code of an answer; `Unknown` if it has none.

    It is in `__type` in the body, after the namespace and `#`, else in the headers
    `x-amzn-errortype` or `x-amzn-query-error`.
    """
    try:
        name = _decoder.decode(reply.body).type
    except (msgspec.DecodeError, UnicodeDecodeError):
        name = ""
    name = name or reply.header("x-amzn-errortype")
    name = name or reply.header("x-amzn-query-error").partition(";")[0]
    return plain_name(name.rpartition("#")[2].partition(":")[0])


def read_date(reply: Reply) -> float | None:
    """Return the server's clock from an answer, seconds since the epoch; None if it has none."""
    from email.utils import parsedate_to_datetime  # 15 modules; most answers are no errors

    try:
        return parsedate_to_datetime(reply.header("date")).timestamp()
    except ValueError:
        return None


def _queue_of(request: bytes) -> str:
    """Return the name of the queue that a request is about; "" where it names none."""
    try:
        asked = _request_decoder.decode(request)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    name = asked.name or asked.url.rstrip("/").rpartition("/")[2]
    return name if _PLAIN.fullmatch(name) else ""


def locate(fault: Sqs2pgError, operation: str, host: str) -> None:
    """Have a fault of the network say which call it was, and to which host."""
    if not fault.what.startswith(operation) and host not in fault.what:
        fault.what = f"{operation} at {host}: {fault.what}"


def read_fault(
    reply: Reply, operation: str, stage: Stage, request: bytes = b"", host: str = ""
) -> Sqs2pgError:
    """Return the fault for an answer other than 200 to `request` from `host`."""
    name = read_code(reply)
    request_id = plain_name(reply.header("x-amzn-requestid") or "none")
    queue = _queue_of(request)
    about = (f" of queue {queue}" if queue else "") + (f" at {host}" if host else "")
    what = f"{operation}{about}: SQS answered {name} (HTTP {reply.status}, request {request_id})"
    for names, code, hint in _TRANSIENT:
        if name in names:
            return TransientFault(what, code=code, hint=hint, stage=stage)
    for names, code, hint in _FATAL:
        if name in names:
            return FatalFault(what, code=code, hint=hint)
    if reply.status in (429, 509):
        return TransientFault(what, code="aws_throttled", stage=stage)
    if reply.status >= 500:
        return TransientFault(what, code="aws_5xx", stage=stage)
    return FatalFault(
        what,
        code="aws_request_refused",
        hint="check that the endpoint is SQS and that the queue's settings allow this call",
    )
