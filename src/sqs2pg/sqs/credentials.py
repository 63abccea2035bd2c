"""The AWS keys in use, and their renewal ahead of expiry.

Place in the flow: the client looks at `refresh_at` before each request, which costs one
comparison; everything else happens in a thread, since botocore's providers (SSO, roles, IRSA,
container, instance) do blocking I/O.

Promises: requests go on under the present keys while new ones are fetched; only keys about to
expire are waited for. Must never show a key, or a provider's exception text.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

import structlog

from sqs2pg.errors import SettingsError, Stage, TransientFault
from sqs2pg.sqs.signer import AwsKeys

REFRESH_AHEAD_S = 900.0
"""botocore renews 15 minutes ahead too; asking it earlier would do nothing."""
WAIT_AHEAD_S = 60.0
"""With less than this left, requests wait for the renewal."""
RETRY_AFTER_S = 30.0

log = structlog.get_logger(__name__)

Provided = tuple[AwsKeys, float | None]
"""AwsKeys, and when they expire (seconds since the epoch; None: never, as far as is known)."""


class CredentialKeeper:
    """Keeps one set of keys fresh.

    `provide` fetches them, blocking, from where the present ones came; `resolve` walks the
    whole chain of providers anew, for keys that AWS called expired before their time.
    """

    def __init__(
        self,
        provide: Callable[[], Provided],
        resolve: Callable[[], Provided] | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._provide = provide
        self._resolve = resolve or provide
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._tried_at = -math.inf
        self.keys, self.expiry = provide()
        self.refresh_at = self._next_refresh()
        """Seconds since the epoch; `renew` is due from then on."""

    async def renew(self) -> None:
        """Start a renewal; wait for it only where the present keys are about to expire.

        Raises TransientFault `aws_expired_credentials` when they have expired and no new ones
        could be had.
        """
        task = self._start(self._provide)
        if self.expiry is None or self._clock() < self.expiry - WAIT_AHEAD_S:
            return
        await asyncio.shield(task)
        if self._clock() >= self.expiry:
            raise TransientFault(
                "the AWS credentials expired and were not renewed",
                code="aws_expired_credentials",
                stage=Stage.RECEIVE,
                hint="renew the session (aws sso login), or see to the role or token provider",
            )

    async def replace(self, refused: AwsKeys) -> bool:
        """After AWS refused `refused` as expired: whether there are other keys now."""
        under_way = self._task is not None and not self._task.done()
        due = self._clock() >= self._tried_at + RETRY_AFTER_S
        if self.keys == refused and (under_way or due):
            await asyncio.shield(self._start(self._resolve))
        return self.keys != refused

    async def close(self) -> None:
        """Stop waiting for a renewal under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _start(self, fetch: Callable[[], Provided]) -> asyncio.Task[None]:
        if self._task is None or self._task.done():
            self._tried_at = self._clock()
            self.refresh_at = self._tried_at + RETRY_AFTER_S
            self._task = asyncio.create_task(self._fetch(fetch), name="aws-credentials")
        return self._task

    async def _fetch(self, fetch: Callable[[], Provided]) -> None:
        try:
            self.keys, self.expiry = await asyncio.to_thread(fetch)
        except Exception:  # noqa: BLE001 - a provider may raise anything
            # The present keys go on; the next try is in RETRY_AFTER_S.
            log.warning("credentials_not_renewed", code="aws_expired_credentials")
            return
        self.refresh_at = max(self._next_refresh(), self._tried_at + RETRY_AFTER_S)

    def _next_refresh(self) -> float:
        return math.inf if self.expiry is None else self.expiry - REFRESH_AHEAD_S


def check_keys(access_key: str, secret_key: str, token: str | None) -> AwsKeys:
    """AwsKeys fit for a header. Raises SettingsError for blanks or control characters in them."""
    for text in (access_key, secret_key, token or "x"):
        if not text.isascii() or not text.isprintable() or text != text.strip() or not text:
            raise SettingsError(
                "an AWS key or token has a blank, a line end or a character that is not ASCII",
                hint="remove it where the key is set, often a trailing newline in a secret",
            )
    return AwsKeys(access_key, secret_key, token or None)


def wrap(credentials: Any, mistrust: type[Exception]) -> Callable[[], Provided]:
    """A `provide` for a botocore credentials object; `mistrust` is botocore's root exception."""

    def provide() -> Provided:
        try:
            frozen = credentials.get_frozen_credentials()
        except (mistrust, RuntimeError, OSError, ValueError) as error:
            raise SettingsError(
                f"the AWS credentials could not be had ({type(error).__name__})",
                hint="check AWS_PROFILE, the SSO session (aws sso login) or the role",
            ) from None
        # botocore offers no public way to ask when credentials expire.
        expiry = getattr(credentials, "_expiry_time", None)
        keys = check_keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)
        return keys, expiry.timestamp() if expiry is not None else None

    return provide
