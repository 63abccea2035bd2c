"""The status of a pipeline on real servers: gauges, probes, the fleet's rows, access."""

from __future__ import annotations

import asyncio
import http.client
import json
import math
import re
import socket
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.postgres.connection import Session
from sqs2pg.postgres.dsn import network_address
from sqs2pg.postgres.workers import certificate_expiry
from sqs2pg.runners.pipeline import Pipeline
from sqs2pg.status.access import Access
from sqs2pg.status.listener import status_server
from sqs2pg.status.recorder import recording
from sqs2pg.telemetry.metrics import Metrics
from sqs2pg.telemetry.periodic import PeriodicReading, PeriodicReadings
from tests.integration.support import Assemble, metric, rows, send
from tests.logins import login
from tests.waiting import until

SOON = {"poll_s": 0.1}
TOKEN = "a-token-of-some-length"


def fetch(url: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, headers=named)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


@asynccontextmanager
async def serving(ready: Pipeline, access: Access | None = None) -> AsyncIterator[str]:
    with (
        recording(lambda: {ready.about.pipeline: ready.snapshot()}) as recorder,
        status_server(
            "127.0.0.1:0",
            ready.metrics.registry,
            ready.consumer.liveness.health,
            ready=ready.probes.ready,
            access=access,
            take=lambda: {ready.about.pipeline: ready.snapshot()},
            recorder=recorder,
        ) as address,
    ):
        yield address


async def test_the_watch_reads_queue_dead_letters_database_and_fleet(
    pipeline: Assemble, database: str, sqs_client: Any, queue_url: str
) -> None:
    dead = sqs_client.create_queue(QueueName=queue_url.rsplit("/", 1)[-1] + "-dead")["QueueUrl"]
    arn = sqs_client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = {"deadLetterTargetArn": arn["Attributes"]["QueueArn"], "maxReceiveCount": 5}
    sqs_client.set_queue_attributes(
        QueueUrl=queue_url, Attributes={"RedrivePolicy": json.dumps(policy)}
    )
    sqs_client.send_message(QueueUrl=dead, MessageBody="x")
    async with pipeline(status=SOON) as ready:
        await send(ready, [login(i) for i in range(7)])
        async with ready.periodic:
            await until(lambda: metric(ready, "queue_visible_messages") == 7)
            assert metric(ready, "queue_in_flight_messages") == 0
            await until(lambda: metric(ready, "dlq_visible_messages") == 1)
            await until(lambda: metric(ready, "queue_oldest_age_seconds") > 0)
            await until(lambda: metric(ready, "database_up") == 1)
            assert (
                1
                <= metric(ready, "database_connections")
                < metric(ready, "database_connections_max")
            )
            assert metric(ready, "database_size_bytes") > 1_000_000
            assert metric(ready, "fleet_workers") == 1
            assert metric(ready, "credential_expiry_timestamp_seconds") == math.inf
            await send(ready, ["not json", "{}"])
            await ready.consumer.run(drain_settle_s=0.3)
            await until(lambda: metric(ready, "queue_visible_messages") == 0)
            await until(lambda: metric(ready, "queue_oldest_age_seconds") == 0)
            await until(lambda: metric(ready, "quarantine_open_messages", reason="not_json") == 1)
            await until(
                lambda: (
                    rows(
                        database,
                        "SELECT received, written, quarantined, state FROM sqs2pg.worker",
                    )
                    == [(9, 7, 2, "running")]
                )
            )
        # The longest batch took no longer than all of them together.
        [(longest_s,)] = rows(database, "SELECT batch_s_max::float8 FROM sqs2pg.worker")
        stages = [metric(ready, "batch_seconds_sum", stage=s) for s in ("decode", "mask", "write")]
        assert 0 < longest_s <= sum(stages) + 0.001
        await ready.probes.leave()
        assert rows(database, "SELECT count(*) FROM sqs2pg.worker") == [(0,)]
    sqs_client.delete_queue(QueueUrl=dead)


async def test_a_worker_that_is_gone_is_not_counted_and_its_row_goes(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(status=SOON) as ready:
        rows(
            database,
            "INSERT INTO sqs2pg.worker (id, pipeline, host, pid, version, started_at,"
            " heartbeat_at, state) SELECT gen_random_uuid(), id, 'h', 1, '0', now(),"
            " now() - late, 'running' FROM sqs2pg.pipeline,"
            " unnest(ARRAY[interval '90 s', interval '2 h', interval '1 s']) AS late",
        )
        await ready.probes.read_database()
        assert metric(ready, "fleet_workers") == 2, "ours, and the one seen a second ago"
        assert rows(database, "SELECT count(*) FROM sqs2pg.worker") == [(3,)]


async def test_readiness_turns_with_the_database_and_clears_by_itself(
    pipeline: Assemble, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pipeline(status=SOON) as ready, serving(ready) as address:
        status, text, _ = await asyncio.to_thread(fetch, f"{address}/readyz")
        assert (status, json.loads(text)["ok"]) == (503, False), "nothing was read yet"
        async with ready.periodic:
            await until(lambda: fetch(f"{address}/readyz")[0] == 200)

            async def refuse(*_: Any, **__: Any) -> Session:
                raise TransientFault("away", code="postgres_08001")

            with monkeypatch.context() as away:
                away.setattr(Session, "connect", refuse)
                await until(lambda: fetch(f"{address}/readyz")[0] == 503)
                report = json.loads(fetch(f"{address}/readyz")[1])
                assert report["database"] == {"ok": False, "detail": "postgres_08001"}
                assert report["keys"]["ok"]
                assert report["schema"]["ok"]
                assert metric(ready, "database_up") == 0
                assert metric(ready, "faults_total", stage="status", code="postgres_08001") >= 1
            await until(lambda: fetch(f"{address}/readyz")[0] == 200)
            assert metric(ready, "database_up") == 1
            ready.consumer.liveness.paused = True
            assert fetch(f"{address}/readyz")[0] == 503
            assert metric(ready, "receiving_paused") == 1


async def test_another_active_key_or_a_missing_migration_is_not_ready(
    pipeline: Assemble, database: str
) -> None:
    async with pipeline(status=SOON) as ready:
        await ready.probes.read_database()
        assert ready.probes.ready()[0]
        rows(database, "UPDATE sqs2pg.key SET version = 7 WHERE series = 'pseudonym'")
        rows(database, "DELETE FROM sqs2pg.migration WHERE version = 1")
        await ready.probes.read_database()
        report = json.loads(ready.probes.ready()[1])
        assert not report["ok"]
        assert not report["keys"]["ok"]
        assert not report["schema"]["ok"]
        assert report["database"]["ok"]


async def test_a_reading_that_fails_or_hangs_keeps_the_others_going(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sqs2pg.telemetry.periodic.LIMIT_S", 0.1)
    monkeypatch.setattr("sqs2pg.telemetry.periodic.AGAIN_S", 0.01)
    metrics, turns = Metrics(), 0

    async def fail() -> None:
        raise ValueError("a value")

    async def hang() -> None:
        await asyncio.sleep(3600)

    async def count() -> None:
        nonlocal turns
        turns += 1

    def failures(code: str) -> float:
        labels = {"stage": "status", "code": code}
        return metrics.registry.get_sample_value("sqs2pg_faults_total", labels) or 0.0

    readings = [
        PeriodicReading("bad", 0.01, fail),
        PeriodicReading("slow", 0.01, hang),
        PeriodicReading("good", 0.01, count),
    ]
    async with PeriodicReadings(readings, metrics):
        await until(lambda: failures("unexpected_ValueError") >= 3)
        await until(lambda: failures("reading_timeout") >= 1)
        await until(lambda: turns >= 3)
    read = metrics.registry.get_sample_value
    assert read("sqs2pg_watch_timestamp_seconds", {"what": "good"})
    assert read("sqs2pg_watch_timestamp_seconds", {"what": "bad"}) is None


DESIGNED = (
    *("messages_received_total", "messages_outcome_total", "faults_total", "batch_rows"),
    *("batch_seconds", "commit_seconds", "in_flight_messages", "in_flight_bytes"),
    *("queue_visible_messages", "queue_in_flight_messages", "queue_oldest_age_seconds"),
    *("dlq_visible_messages", "lag_seconds", "lease_extensions_total", "leases_lost_total"),
    *("deletes_failed_total", "last_poll_timestamp_seconds", "last_commit_timestamp_seconds"),
    "credential_expiry_timestamp_seconds",
)


async def test_every_metric_of_the_design_is_served_in_both_formats(pipeline: Assemble) -> None:
    async with pipeline() as ready, serving(ready) as address:
        await send(ready, [login(1), "not json"])
        await ready.consumer.run(drain_settle_s=0.3)
        _, text, headers = await asyncio.to_thread(fetch, f"{address}/metrics")
        assert headers["Content-Type"].startswith("text/plain")
        for name in DESIGNED:
            assert re.search(rf"^sqs2pg_{name}(_bucket)?\b", text, re.MULTILINE), name
        for stage in ("receive", "decode", "mask", "write", "acknowledge"):
            found = re.search(rf'batch_seconds_count{{stage="{stage}"}} (\S+)', text)
            assert found, stage
            assert float(found[1]) >= 1, stage
        assert "sqs2pg_messages_deleted_total 2.0" in text
        assert metric(ready, "commit_seconds_sum") > 0
        _, text, headers = await asyncio.to_thread(
            fetch, f"{address}/metrics", Accept="application/openmetrics-text; version=1.0.0"
        )
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        assert text.endswith("# EOF\n")


async def test_a_page_of_another_site_gets_nothing(pipeline: Assemble) -> None:
    async with pipeline() as ready, serving(ready) as address:
        for path in ("/", "/metrics", "/state", "/events"):
            for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
                status, text, _ = await asyncio.to_thread(fetch, f"{address}{path}", **headers)
                assert status == 403
                assert "sqs2pg_" not in text
        assert (await asyncio.to_thread(fetch, f"{address}/livez", Host="10.0.0.1"))[0] == 200


async def test_with_a_token_a_form_gives_a_cookie(pipeline: Assemble) -> None:
    async with pipeline() as ready, serving(ready, Access(TOKEN)) as address:
        assert (await asyncio.to_thread(fetch, f"{address}/metrics"))[0] == 401
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        assert (await asyncio.to_thread(fetch, f"{address}/metrics", **bearer))[0] == 200
        assert (await asyncio.to_thread(fetch, f"{address}/readyz"))[0] == 503
        cookie = await asyncio.to_thread(log_in, address, TOKEN)
        assert (await asyncio.to_thread(fetch, f"{address}/state", Cookie=cookie))[0] == 200
        assert await asyncio.to_thread(log_in, address, "wrong") == ""


class _Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def log_in(address: str, token: str) -> str:
    """Post the form; return the cookie."""
    opener = urllib.request.build_opener(_Stay)
    with pytest.raises(urllib.error.HTTPError) as answer:
        opener.open(f"{address}/login", data=f"token={token}".encode(), timeout=60)
    with answer.value as redirect:
        assert redirect.code == 303
        return (redirect.headers["Set-Cookie"] or "").split(";", maxsplit=1)[0]


async def test_a_server_without_tls_has_no_certificate(database: str) -> None:
    address = network_address(database)
    assert address is not None
    assert await certificate_expiry(*address) is None
    assert await certificate_expiry("127.0.0.1", 1) is None


async def test_a_malformed_header_gets_an_answer(pipeline: Assemble) -> None:
    def status(address: str, method: str, path: str, *lines: str, version: str = "HTTP/1.1") -> int:
        host, port = urlsplit(address).netloc.split(":")
        with socket.create_connection((host, int(port)), 60) as connection:
            head = [f"{method} {path} {version}", *lines, "Connection: close"]
            connection.sendall("\r\n".join(head).encode("latin-1") + b"\r\n\r\n")
            return int(connection.makefile("rb").readline().split()[1])

    local = "Host: localhost"
    async with pipeline() as ready, serving(ready, Access(TOKEN)) as address:
        for lines in (
            ["Host: [::1"],
            ["Host: localhost:x"],
            [local, "Host: evil.example"],
            [local, "Origin: http://[::1"],
            [local, 'Cookie: sqs2pg_status="\\351"'],
        ):
            for call in (("GET", "/metrics"), ("POST", "/login")):
                assert await asyncio.to_thread(status, address, *call, *lines) == 400
        for version, code in (("HTTP/9.9", 505), ("HTTP", 400), ("one too many", 400)):
            call = partial(status, address, "GET", "/metrics", local, version=version)
            assert await asyncio.to_thread(call) == code
        odd = ["Content-Length: \xb2"]
        assert await asyncio.to_thread(status, address, "POST", "/login", local, *odd) == 403
        odd = ["Accept: application/openmetrics-text;version=x", f"Authorization: Bearer {TOKEN}"]
        assert await asyncio.to_thread(status, address, "GET", "/metrics", local, *odd) == 200


async def test_header_names_are_compared_without_case(pipeline: Assemble) -> None:
    def status(address: str, headers: dict[str, str]) -> int:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        connection.putrequest("GET", "/metrics", skip_host=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        try:
            return connection.getresponse().status
        finally:
            connection.close()

    async with pipeline() as ready:
        async with serving(ready) as address:
            assert await asyncio.to_thread(status, address, {"host": "rebound.example"}) == 403
            told = {"host": "localhost", "origin": "http://other.example"}
            assert await asyncio.to_thread(status, address, told) == 403
            assert await asyncio.to_thread(status, address, {"host": "localhost"}) == 200
        async with serving(ready, Access(token="a-token")) as address:
            told = {"host": "localhost", "authorization": "Bearer a-token"}
            assert await asyncio.to_thread(status, address, told) == 200
