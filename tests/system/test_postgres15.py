"""An external PostgreSQL 15 with TLS: the same rows as on the embedded one, or one plain error."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import psycopg
import pytest
from cryptography import x509
from psycopg.conninfo import conninfo_to_dict

from sqs2pg.cli.embedded.sample_logins import logins
from sqs2pg.postgres.dsn import network_address
from sqs2pg.postgres.workers import certificate_expiry
from tests.logins import send
from tests.system.conftest import Tls

pytestmark = pytest.mark.system

Row = tuple[Any, ...]
ROWS = """SELECT user_id, device_type, masked_ip, masked_device_id, locale, app_version, create_date
FROM user_logins"""
SET_ASIDE = 'SELECT reason, detail, attempts FROM sqs2pg.quarantine ORDER BY reason COLLATE "C", 2'
DATED = "2024-02-29"
EDGES: tuple[dict[str, Any], ...] = (
    {},
    {"ip": None, "locale": None, "device_id": None, "app_version": None, "device_type": None},
    {"ip": "2001:db8::1"},
    {"ip": "2001:0DB8:0:0:0:0:0:1"},
    {"ip": "::ffff:203.0.113.9"},
    {"ip": "203.0.113.9"},
    {"device_id": "ﬁ-é-é-😀"},
    {"locale": "tab\tnewline\nbackslash\\N", "device_type": "\\."},
    {"app_version": "2146.999.999"},
    {"create_date": "2023-12-31T23:30:00-05:00"},
    {"create_date": "0001-01-01"},
    {"extra": {"deep": [1, 2, 3]}},
)


def bodies() -> list[str]:
    """Generated logins, malformed ones among them, and edge cases; each second one is dated."""
    known = {"app_version": "2.3.0", "ip": "199.172.111.135", "device_id": "593-47-5928"}
    made = list(logins(300, seed=15, bad_share=0.05))
    made += [json.dumps({"user_id": f"edge {i:02}"} | known | e) for i, e in enumerate(EDGES)]
    return [dated(body) if index % 2 else body for index, body in enumerate(made)]


def dated(body: str) -> str:
    """The same login with a date of its own, where it is a login and has none."""
    try:
        login = json.loads(body)
    except ValueError:
        return body
    return json.dumps({"create_date": DATED} | login) if "user_id" in login else body


def rows_of(dsn: str, statement: str) -> list[Row]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()


def without_days(rows: list[Row], days: tuple[date, date]) -> list[Row]:
    """The sorted rows, all days of sending made equal: midnight may fall between the runs."""
    return sorted(((*row[:-1], "sent" if row[-1] in days else row[-1]) for row in rows), key=repr)


def test_same_messages_give_the_same_rows_as_on_the_embedded_servers(
    make_shell: Callable[[str], Any],
    database: str,
    postgres15: str,
    sqs_client: Any,
    queue_url: str,
) -> None:
    lines = bodies()
    first_day = datetime.now(UTC).date()
    embedded, system = make_shell(database), make_shell(postgres15)
    totals = []
    for shell in (embedded, system):
        shell("migrate")
        send(sqs_client, queue_url, lines)
        totals.append(shell("run", "--drain", "--json").last)
        assert shell("verify", "--json").last["ok"] is True
    counts = [
        {name: one[name] for name in ("received", "written", "quarantined")} for one in totals
    ]
    assert counts == [{"received": 312, "written": 297, "quarantined": 15}] * 2

    days = (first_day, datetime.now(UTC).date())
    ours, theirs = (without_days(rows_of(dsn, ROWS), days) for dsn in (database, postgres15))
    assert theirs == ours
    assert rows_of(postgres15, SET_ASIDE) == rows_of(database, SET_ASIDE)

    dates = Counter(row[-1] for row in theirs)
    assert dates[date(2024, 2, 29)] > 100
    assert dates["sent"] > 100
    assert dates[date(2024, 1, 1)] == 1
    assert all(re.fullmatch("v1_[0-9a-f]{32}", row[2]) for row in theirs if row[2] is not None)
    by_user = {row[0]: row for row in theirs}
    assert by_user["edge 01"][1:-1] == (None,) * 5
    assert by_user["edge 02"][2] == by_user["edge 03"][2]
    assert by_user["edge 04"][2] == by_user["edge 05"][2] != by_user["edge 00"][2]
    assert by_user["edge 07"][4] == "tab\tnewline\nbackslash\\N"
    assert by_user["edge 08"][5] == 2_146_999_999


def test_which_rows_a_partitioned_table_holds_is_followed(
    make_shell: Callable[[str], Any], postgres15: str, sqs_client: Any, queue_url: str
) -> None:
    shell = make_shell(postgres15)
    shell.environment |= {
        "SQS2PG_SINK__KEY": "user_id",
        "SQS2PG_SINK__DIGEST": "true",
        "SQS2PG_SINK__PARTITION_BY": "create_date",
    }
    shell("migrate")
    send(sqs_client, queue_url, bodies())
    shell("run", "--drain", "--json")
    assert shell("verify", "--deep", "--json").last["ok"] is True
    shell("partition", "--convert")
    kept = {"SQS2PG_SINK__PARTITION_RETENTION_DAYS": "400"}
    shell("migrate", **kept)
    shell("partition", **kept)
    assert shell("verify", "--deep", "--json").last["ok"] is True
    with psycopg.connect(postgres15) as owner:
        owner.execute("UPDATE user_logins SET user_id = 'another' WHERE user_id = 'edge 00'")
    assert shell("verify", "--json").last["ok"] is True
    assert shell("verify", "--deep", "--json", code=1).last["ok"] is False
    shell("verify", "--deep", "--accept", "--reason", "corrected by hand")


def test_the_server_is_version_15_and_every_connection_of_the_pipeline_is_encrypted(
    make_shell: Callable[[str], Any], cluster: Any, postgres15: str
) -> None:
    name = str(conninfo_to_dict(postgres15)["dbname"])
    make_shell(postgres15)("migrate")
    [(version,)] = rows_of(postgres15, "SHOW server_version")
    assert version.startswith("15.")
    assert rows_of(postgres15, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == [
        (True,)
    ]
    with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
        psycopg.connect(cluster.dsn(name, sslmode="disable"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sslrootcert": "{other_authority}"}, "TLS with PostgreSQL"),
        ({"sslrootcert": "/nowhere/database/ca.pem"}, "TLS with PostgreSQL"),
        ({"sslrootcert": "{key}"}, "TLS with PostgreSQL"),
        ({"host": "elsewhere.example", "hostaddr": "127.0.0.1"}, "TLS with PostgreSQL"),
        ({"sslmode": "disable"}, "pg_hba.conf of 127.0.0.1"),
        ({"password": "canary-15"}, "refused the login"),
        ({"password": "canary-15", "sslmode": "prefer"}, "refused the login"),
        ({"user": "nobody-here"}, "refused the login"),
        ({"dbname": "no_such_database"}, "does not exist"),
    ],
)
def test_a_connection_that_is_refused_is_one_error_and_one_hint(
    make_shell: Callable[[str], Any], cluster: Any, options: dict[str, str], words: str
) -> None:
    named = {name: value.format_map(vars(cluster.tls)) for name, value in options.items()}
    said = make_shell(cluster.dsn("postgres", **named)).error("run", "--drain", code=1)
    assert words in said
    assert "canary-15" not in said
    assert cluster.password not in said


@pytest.mark.parametrize("command", ["migrate", "verify"])
def test_no_command_talks_to_a_server_of_another_authority(
    make_shell: Callable[[str], Any], cluster: Any, command: str
) -> None:
    other = str(cluster.tls.other_authority)
    said = make_shell(cluster.dsn("postgres", sslrootcert=other)).error(command, code=1)
    assert "TLS with PostgreSQL" in said
    assert "sslrootcert" in said


def test_a_first_reveal_on_a_quiet_server_is_answered_at_once(
    make_shell: Callable[[str], Any], postgres15: str
) -> None:
    """Before PostgreSQL 17 no session can flush the log: the request's own commit is durable."""
    make_shell(postgres15)("migrate")
    with psycopg.connect(postgres15, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        with connection.transaction():
            [(number, asked_at)] = connection.execute(
                "SELECT sequence, pg_current_wal_insert_lsn()"
                " FROM pii.request_reveal('v1_x', NULL, 1, 'why')"
            ).fetchall()
            connection.execute("SET LOCAL synchronous_commit = off")
        [(durable,)] = connection.execute(
            "SELECT pg_current_wal_flush_lsn() > %s::pg_lsn", [asked_at]
        ).fetchall()
        assert durable
        connection.execute("SET statement_timeout = '2s'")
        assert connection.execute("SELECT FROM pii.fetch_reveal(%s)", [number]).fetchall() == []


async def test_when_the_servers_certificate_expires_is_read(postgres15: str, tls: Tls) -> None:
    address = network_address(postgres15)
    assert address is not None
    [served, *_] = x509.load_pem_x509_certificates(tls.certificate.read_bytes())
    assert await certificate_expiry(*address) == served.not_valid_after_utc.timestamp()
