"""Whether and when a call is retried: the AWS SDKs' retry modes.

Place in the flow: the client asks after each transient fault. No I/O; the client does the waiting.

The modes are those of "Retry behavior" in the AWS SDKs and Tools Reference Guide
(https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html), with botocore's
numbers, so that AWS_RETRY_MODE and AWS_MAX_ATTEMPTS mean the same as in boto3:
legacy has 5 attempts; standard has 3 attempts and a retry quota. Delays have full jitter.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from sqs2pg.errors import Sqs2pgError, TransientFault

BACKOFF_S_MAX = 20.0
RETRIED = frozenset({
    "aws_5xx",
    "aws_connection",
    "aws_dns",
    "aws_garbled_reply",
    "aws_proxy",
    "aws_throttled",
    "aws_timeout",
    "aws_tls",
    "aws_unreachable",
})  # fmt: skip
"""Fault codes that are retried at once. An over-limit queue or an expired token is not."""
NOT_TAKEN = frozenset({"aws_dns", "aws_proxy", "aws_throttled", "aws_tls", "aws_unreachable"})
"""Fault codes that mean that AWS did not act on the request, so that repeating it is safe."""
_QUOTA_MAX = 500
_RETRY_COST = 5
_TIMEOUT_RETRY_COST = 10
_SUCCESS_REFUND = 1


class RetrySettings(msgspec.Struct, frozen=True):
    """`mode` is legacy or standard; `attempts_max` counts the first attempt."""

    mode: str = "legacy"
    attempts_max: int = 5


class Retries:
    """The retry state that all calls of one client share."""

    def __init__(
        self, settings: RetrySettings, *, draw: Callable[[], float] = random.random
    ) -> None:
        self._settings = settings
        self._draw = draw
        self._quota = _QUOTA_MAX
        self._metered = settings.mode != "legacy"

    def plan(self, fault: Sqs2pgError, attempt: int) -> tuple[float, int] | None:
        """Return how long to wait after attempt `attempt` (from 1) failed, and the quota cost.

        The wait is in seconds. None means: give up. If a later attempt succeeds, pass the cost to
        `succeed`.
        """
        if attempt >= self._settings.attempts_max:
            return None
        if not isinstance(fault, TransientFault) or fault.code not in RETRIED:
            return None
        cost = 0
        if self._metered:
            cost = _TIMEOUT_RETRY_COST if fault.code == "aws_timeout" else _RETRY_COST
            if cost > self._quota:
                return None
            self._quota -= cost
        return self._draw() * min(2.0 ** (attempt - 1), BACKOFF_S_MAX), cost

    def succeed(self, cost: int) -> None:
        """Restore quota after a success: the last retry's cost, or 1 if there was no retry."""
        if self._quota < _QUOTA_MAX:
            self._quota = min(_QUOTA_MAX, self._quota + (cost or _SUCCESS_REFUND))
