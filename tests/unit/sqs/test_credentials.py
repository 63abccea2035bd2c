"""Credentials: renewed ahead in a thread, waited for only near their expiry, never shown."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from sqs2pg.errors import SettingsError, TransientFault
from sqs2pg.sqs.credentials import (
    REFRESH_AHEAD_S,
    RETRY_AFTER_S,
    CredentialKeeper,
    Provided,
    check_keys,
    provider_of,
)
from sqs2pg.sqs.signer import AwsKeys

OLD, NEW = AwsKeys("OLD", "s"), AwsKeys("NEW", "s")
HOUR = 3600.0


class Provider:
    """Provides OLD first, then what it is told; blocks while its gate is shut."""

    def __init__(self, first: Provided) -> None:
        self.next: Provided | Exception = first
        self.gate = threading.Event()
        self.gate.set()
        self.calls = 0
        self.threads: set[int] = set()

    def __call__(self) -> Provided:
        self.calls += 1
        self.threads.add(threading.get_ident())
        assert self.gate.wait(30)
        if isinstance(self.next, Exception):
            raise self.next
        return self.next


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def keeper(
    clock: Clock, first: Provided, resolve: Callable[[], Provided] | None = None
) -> tuple[CredentialKeeper, Provider]:
    provider = Provider(first)
    return CredentialKeeper(provider, resolve, clock=clock), provider


def renewals() -> list[asyncio.Task[Any]]:
    """Return the renewals under way."""
    return [task for task in asyncio.all_tasks() if task.get_name() == "aws-credentials"]


def test_lasting_keys_are_never_renewed(clock: Clock) -> None:
    made, _ = keeper(clock, (OLD, None))
    assert (made.keys, made.expiry, made.refresh_at) == (OLD, None, math.inf)


async def test_keys_are_renewed_ahead_without_waiting(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    assert made.refresh_at == clock.now + HOUR - REFRESH_AHEAD_S
    clock.now = made.refresh_at
    provider.gate.clear()
    provider.next = (NEW, clock.now + 2 * HOUR)
    await made.renew()
    assert made.keys is OLD  # requests go on meanwhile
    assert made.refresh_at == clock.now + RETRY_AFTER_S
    await made.renew()
    provider.gate.set()
    [renewal] = renewals()
    await renewal
    assert made.keys is NEW
    assert made.refresh_at == clock.now + 2 * HOUR - REFRESH_AHEAD_S
    assert provider.calls == 2
    assert len(provider.threads) == 2  # the second one not on the event loop's thread


async def test_requests_wait_for_renewal_near_the_expiry(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    clock.now += HOUR - 30
    provider.next = (NEW, clock.now + HOUR)
    await asyncio.gather(*(made.renew() for _ in range(10)))
    assert made.keys is NEW
    assert provider.calls == 2


async def test_a_failed_renewal_keeps_the_keys_until_they_expire(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    clock.now += HOUR - 30
    provider.next = SettingsError("secret-text")
    with capture_logs() as logs:
        await made.renew()
        assert made.keys is OLD
        clock.now += 31
        with pytest.raises(TransientFault) as caught:
            await made.renew()
    assert caught.value.code == "aws_expired_credentials"
    assert "secret-text" not in f"{caught.value} {caught.value.hint} {logs}"
    assert [log["event"] for log in logs] == ["credentials_not_renewed"] * 2
    provider.next = (NEW, clock.now + HOUR)
    await made.renew()
    assert made.keys is NEW


async def test_any_exception_of_a_provider_is_survived(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    clock.now += HOUR - 30
    provider.next = KeyError("Expiration")
    with capture_logs():
        await made.renew()
    assert made.keys is OLD


async def test_one_callers_cancellation_leaves_the_renewal_alone(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    clock.now += HOUR - 30
    provider.gate.clear()
    provider.next = (NEW, clock.now + HOUR)
    first, second = asyncio.create_task(made.renew()), asyncio.create_task(made.renew())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    provider.gate.set()
    await second
    assert made.keys is NEW


async def test_refused_keys_are_replaced_from_the_whole_provider_chain(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, None), lambda: (NEW, clock.now + HOUR))
    assert await asyncio.gather(made.replace(OLD), made.replace(OLD)) == [True, True]
    assert (made.keys, made.expiry) == (NEW, clock.now + HOUR)
    assert await made.replace(OLD)  # a request that was still under way
    assert provider.calls == 1


async def test_the_chain_is_not_asked_again_at_once(clock: Clock) -> None:
    calls = 0

    def resolve() -> Provided:
        nonlocal calls
        calls += 1
        return OLD, None

    made, _ = keeper(clock, (OLD, None), resolve)
    assert [await made.replace(OLD) for _ in range(3)] == [False] * 3
    assert calls == 1
    clock.now += RETRY_AFTER_S
    assert not await made.replace(OLD)
    assert calls == 2


async def test_close_does_not_wait_for_a_provider(clock: Clock) -> None:
    made, provider = keeper(clock, (OLD, clock.now + HOUR))
    await made.close()
    clock.now += HOUR - REFRESH_AHEAD_S
    provider.gate.clear()
    await made.renew()
    [renewal] = renewals()
    await made.close()
    assert renewal.cancelled()
    provider.gate.set()


@pytest.mark.parametrize(
    ("access_key", "secret_key", "token"),
    [("", "s", None), ("A", "", None), ("A\n", "s", None), ("A", " s", None), ("A", "s", "é")],
)
def test_keys_unfit_for_a_header(access_key: str, secret_key: str, token: str | None) -> None:
    with pytest.raises(SettingsError):
        check_keys(access_key, secret_key, token)


def test_an_empty_session_token_counts_as_absent() -> None:
    assert check_keys("A", "s", "") == AwsKeys("A", "s", None)


class Frozen(NamedTuple):
    access_key: str
    secret_key: str
    token: str | None


class BotocoreLike:
    """The two members of botocore's credentials that are used."""

    def __init__(self, error: Exception | None = None, expiry: datetime | None = None) -> None:
        self._error = error
        self._expiry_time = expiry

    def get_frozen_credentials(self) -> Frozen:
        if self._error:
            raise self._error
        return Frozen("A", "s", "t")


def test_botocore_credentials_are_wrapped() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    assert provider_of(BotocoreLike(), LookupError)() == (AwsKeys("A", "s", "t"), None)
    assert provider_of(BotocoreLike(expiry=moment), LookupError)()[1] == moment.timestamp()


@pytest.mark.parametrize(
    "error", [LookupError("secret"), RuntimeError("secret"), OSError("secret")]
)
def test_a_fault_hides_the_provider_s_message(error: Exception) -> None:
    with pytest.raises(SettingsError) as caught:
        provider_of(BotocoreLike(error), LookupError)()
    assert "secret" not in str(caught.value)
    assert caught.value.__suppress_context__
