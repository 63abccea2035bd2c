"""The AWS keys in use, and their renewal before they expire.

Place in the flow: the client compares `refresh_at` with the clock before each request. Everything
else happens in a thread, because botocore's providers (SSO, roles, IRSA, container, instance) do
blocking I/O.

Promises: requests use the present keys while new ones are fetched. They wait for new keys only if
the present ones are about to expire. Must never show a key, or a provider's exception text.
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
"""botocore renews 15 minutes ahead too, so asking it earlier would do nothing."""
WAIT_AHEAD_S = 60.0
"""If less than this is left, requests wait for the renewal."""
RETRY_AFTER_S = 30.0

log = structlog.get_logger(__name__)

Provided = tuple[AwsKeys, float | None]
"""Keys, and when they expire: seconds since the epoch, None if never or not known."""


class CredentialKeeper:
    """Keeps one set of keys fresh.

    `provide` fetches keys from the provider of the present ones. `resolve` walks the whole chain
    of providers again, if AWS called keys expired before their time. Both block.
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
        """When `renew` is due, seconds since the epoch."""

    async def renew(self) -> None:
        """Start a renewal; wait for it only if the present keys are about to expire.

        Raises TransientFault `aws_expired_credentials` if they have expired and there are no new
        ones.
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
                hint="renew the session (aws sso login), or check the role or token provider",
            )

    async def replace(self, refused: AwsKeys) -> bool:
        """AWS refused these keys as expired: fetch new ones; return whether the keys changed."""
        under_way = self._task is not None and not self._task.done()
        due = self._clock() >= self._tried_at + RETRY_AFTER_S
        if self.keys == refused and (under_way or due):
            await asyncio.shield(self._start(self._resolve))
        return self.keys != refused

    async def close(self) -> None:
        """Stop waiting for a renewal that is under way."""
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
            # The present keys stay in use; the next try is in RETRY_AFTER_S.
            log.warning("credentials_not_renewed", code="aws_expired_credentials")
            return
        self.refresh_at = max(self._next_refresh(), self._tried_at + RETRY_AFTER_S)

    def _next_refresh(self) -> float:
        return math.inf if self.expiry is None else self.expiry - REFRESH_AHEAD_S


def check_keys(access_key: str, secret_key: str, token: str | None) -> AwsKeys:
    """Return keys that fit into a header. Raises SettingsError for other characters."""
    for text in (access_key, secret_key, token or "x"):
        if not text.isascii() or not text.isprintable() or text != text.strip() or not text:
            raise SettingsError(
                "an AWS key or token has a blank, a line end or a character that is not ASCII",
                hint="remove it where the key is set; often a secret has a trailing newline",
            )
    return AwsKeys(access_key, secret_key, token or None)


def provider_of(credentials: Any, root_error: type[Exception]) -> Callable[[], Provided]:
    """Return the `provide` of botocore's credentials; `root_error` is its root exception."""

    def provide() -> Provided:
        try:
            frozen = credentials.get_frozen_credentials()
        except (root_error, RuntimeError, OSError, ValueError) as error:
            raise SettingsError(
                f"the AWS credentials could not be read ({type(error).__name__})",
                hint="check AWS_PROFILE, the SSO session (aws sso login) or the role",
            ) from None
        # botocore has no public way to ask when credentials expire.
        expiry = getattr(credentials, "_expiry_time", None)
        keys = check_keys(frozen.access_key or "", frozen.secret_key or "", frozen.token)
        return keys, expiry.timestamp() if expiry is not None else None

    return provide
