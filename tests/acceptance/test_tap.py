"""`sqs2pg tap` and `/tap`: masked rows as they are written, for holders of the token alone."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.logins import CANARIES, canary_login
from tests.shell import Shell
from tests.waiting import wait_for_answer, wait_until

Send = Callable[[list[str]], list[str]]
TOKEN = "a-secret-token-of-ours"


@contextmanager
def running(shell: Shell, *arguments: str, tap: str = "true") -> Iterator[str]:
    """Run a pipeline; yield its status address once it is ready."""
    status = {"SQS2PG_STATUS__TOKEN": TOKEN, "SQS2PG_STATUS__TAP": tap}
    with shell.serving(*arguments, **status) as address:
        wait_for_answer(f"{address}/readyz", lambda text: '"ok":true' in text)
        yield address
    assert not any(value in shell.transcript[-1] for value in CANARIES)


def read(address: str, **headers: str) -> Any:
    asked = urllib.request.Request(f"{address}/tap", headers=headers)
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return json.load(answer)["rows"]


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.usefixtures("migrated_database")
def test_rows_are_shown_as_they_are_in_the_table(
    shell: Shell, send: Send, query: Callable[..., Any], workers: str
) -> None:
    with running(shell, "--workers", workers) as address:
        assert read(address, Authorization=f"Bearer {TOKEN}") == []
        stop = threading.Event()

        def keep_sending() -> None:
            number = 0
            while not stop.is_set():
                send([canary_login(number), f"not json {CANARIES[1]}"])
                number += 1

        sender = threading.Thread(target=keep_sending)
        sender.start()
        try:
            shown = shell("tap", "--count", "3", "--json").out
            for_people = shell.afresh("tap", address, "--count", "1").out
        finally:
            stop.set()
            sender.join()
        wait_until(lambda: query("SELECT count(*) FROM user_logins") != [(0,)])
    rows = [json.loads(line) for line in shown.splitlines()]
    assert len(rows) == 3
    assert "public.user_logins user_id=" in for_people
    for one in rows:
        assert one["table"] == "public.user_logins"
        names = list(one["row"])
        [(count,)] = query(
            "SELECT count(*) FROM user_logins WHERE "
            + " AND ".join(f"{name}::text IS NOT DISTINCT FROM %s" for name in names),
            *one["row"].values(),
        )
        assert count == 1, one
    assert not any(value in shown + for_people for value in CANARIES[1:])


@pytest.mark.usefixtures("migrated_database")
def test_nobody_without_the_token_sees_a_row_and_off_is_said(shell: Shell) -> None:
    with running(shell) as address:
        with pytest.raises(urllib.error.HTTPError, match="401") as refused:
            read(address)
        refused.value.close()
        assert "its token" in shell.error("tap", address, code=1, SQS2PG_STATUS__TOKEN="")
    with running(shell, tap="false") as address:
        with pytest.raises(urllib.error.HTTPError, match="404") as missing:
            read(address, Authorization=f"Bearer {TOKEN}")
        missing.value.close()
        assert "shows no rows" in shell.error("tap", address, code=1)


@pytest.mark.usefixtures("migrated_database")
def test_the_tap_needs_a_token(shell: Shell) -> None:
    environment = {"SQS2PG_STATUS__TAP": "true", "SQS2PG_STATUS__TOKEN": ""}
    assert "no token is set" in shell.error("run", code=2, **environment)
