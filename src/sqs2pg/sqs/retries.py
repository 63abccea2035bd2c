"""When a call is tried again, and after how long: the AWS SDKs' retry modes.

Place in the flow: the client asks after each transient fault. No I/O but the waiting that
`RateLimit` and the caller do.

The modes are those of "Retry behavior" in the AWS SDKs and Tools Reference Guide
(https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html), with botocore's
numbers, so that AWS_RETRY_MODE and AWS_MAX_ATTEMPTS mean what they mean to boto3:
legacy: 5 attempts; standard: 3 attempts and a retry quota; adaptive: standard and a limit of
the rate, found as TCP CUBIC finds it (RFC 9438). Delays have full jitter.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
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
"""Fault codes worth another attempt at once. An over-limit queue or an expired token is not."""
NOT_TAKEN = frozenset({"aws_dns", "aws_proxy", "aws_throttled", "aws_tls", "aws_unreachable"})
"""Fault codes that say AWS did not act on the request, so that repeating it is safe."""
_QUOTA_MAX = 500
_RETRY_COST = 5
_TIMEOUT_RETRY_COST = 10
_SUCCESS_REFUND = 1


class RetrySettings(msgspec.Struct, frozen=True):
    """`mode` is legacy, standard or adaptive; `attempts_max` counts the first attempt."""

    mode: str = "legacy"
    attempts_max: int = 5


class Retries:
    """The retry state that one client's calls share."""

    def __init__(
        self, settings: RetrySettings, *, draw: Callable[[], float] = random.random
    ) -> None:
        self._settings = settings
        self._draw = draw
        self._quota = _QUOTA_MAX
        self._metered = settings.mode != "legacy"

    def plan(self, fault: Sqs2pgError, attempt: int) -> tuple[float, int] | None:
        """Seconds to wait after attempt number `attempt` (from 1) failed, and its quota cost.

        None: give up. The cost goes to `succeed` if a later attempt succeeds.
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
        """Give quota back after a success: the last retry's cost, or a little where none was."""
        if self._quota < _QUOTA_MAX:
            self._quota = min(_QUOTA_MAX, self._quota + (cost or _SUCCESS_REFUND))


class RateLimit:
    """The adaptive mode's limit on requests a second; open until the first throttling.

    `wait` comes before each attempt, `record` after each answer or fault.

    A throttled answer cuts the rate to 0.7 of it; success lets it grow back along a cubic curve
    that is flat near the rate that failed. Tokens are whole requests.
    """

    _BETA = 0.7
    _SCALE = 0.4
    _SMOOTHING = 0.8
    _WINDOW_S = 0.5
    _RATE_MIN = 0.5

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._enabled = False
        self._rate = math.inf
        self._tokens = 0.0
        self._filled_at = clock()
        self._failed_rate = 0.0
        self._failed_at = clock()
        self._flat_after_s = 0.0
        self._window = math.floor(clock() / self._WINDOW_S)
        self._count = 0
        self._measured = 0.0

    async def wait(self) -> None:
        """Return when one request may be sent."""
        while (pause_s := self.take()) > 0:  # noqa: ASYNC110 - it waits for time itself
            await asyncio.sleep(pause_s)

    def take(self) -> float:
        """Take one token; 0.0 when there was one, else seconds until there may be."""
        if not self._enabled:
            return 0.0
        self._fill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate

    def record(self, *, throttled: bool) -> None:
        """Take note of one answer."""
        now = self._clock()
        self._measure(now)
        if throttled:
            failed = min(self._measured, self._rate) if self._enabled else self._measured
            self._enabled = True
            self._failed_rate = failed
            self._failed_at = now
            self._flat_after_s = math.cbrt(failed * (1 - self._BETA) / self._SCALE)
            rate = failed * self._BETA
        else:
            since = now - self._failed_at - self._flat_after_s
            rate = self._SCALE * since**3 + self._failed_rate
        if self._enabled:
            self._fill()
            self._rate = max(self._RATE_MIN, min(rate, 2 * self._measured))
            self._tokens = min(self._tokens, max(self._rate, 1.0))

    def _fill(self) -> None:
        now = self._clock()
        if self._rate < math.inf:
            grown = self._tokens + (now - self._filled_at) * self._rate
            self._tokens = min(max(self._rate, 1.0), grown)
        self._filled_at = now

    def _measure(self, now: float) -> None:
        """Requests a second, smoothed over half-second windows."""
        self._count += 1
        window = math.floor(now / self._WINDOW_S)
        if window > self._window:
            current = self._count / ((window - self._window) * self._WINDOW_S)
            self._measured = current * self._SMOOTHING + self._measured * (1 - self._SMOOTHING)
            self._window = window
            self._count = 0
