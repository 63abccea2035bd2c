"""The login token equals the one that boto3 makes, and becomes a connection's password."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg
import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.postgres.dsn import login_of
from sqs2pg.runners.connect import connect
from sqs2pg.settings import load
from sqs2pg.sqs.rds_token import login_token


def parts(token: str) -> tuple[str, dict[str, list[str]]]:
    address = urlsplit(f"https://{token}")
    query = parse_qs(address.query, strict_parsing=True)
    for changing in ("X-Amz-Date", "X-Amz-Signature"):
        assert len(query.pop(changing)) == 1
    return address.netloc, query


@pytest.mark.parametrize("user", ["etl", "an odd/user+name"])
def test_the_token_equals_the_one_that_boto3_makes(
    aws_environment: dict[str, str], user: str
) -> None:
    rds = boto3.client("rds", region_name=aws_environment["AWS_REGION"])
    theirs = rds.generate_db_auth_token("proxy.example.com", 5433, user)
    assert parts(login_token("proxy.example.com", 5433, user)) == parts(theirs)


async def test_the_token_is_the_password_of_each_connection(
    database: str, aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, str]] = []
    with psycopg.connect(database, autocommit=True) as admin:
        # RDS checks the token; this server can only have one made beforehand.
        admin.execute("CREATE ROLE by_token LOGIN PASSWORD 'the token'")
        port = admin.info.port

    def token(*login: str | int) -> str:
        asked.append(login)  # type: ignore[arg-type]  # compared below
        return "the token"

    monkeypatch.setattr("sqs2pg.sqs.rds_token.login_token", token)
    name = urlsplit(database).path
    settings = load(
        environ={},
        overrides={
            "sink": {"dsn": f"postgresql://by_token:wrong@127.0.0.1:{port}{name}", "iam_auth": True}
        },
        discover=False,
    )
    session = await connect(settings)
    try:
        assert await session.execute("SELECT session_user") == [("by_token",)]
    finally:
        await session.close()
        with psycopg.connect(database, autocommit=True) as admin:
            admin.execute("DROP ROLE by_token")
    assert asked == [("127.0.0.1", port, "by_token")]


def test_a_token_needs_a_host_and_a_user() -> None:
    assert login_of("postgresql://u@h/d", {}) == ("h", 5432, "u")
    assert login_of("", {"PGHOST": "h", "PGUSER": "u", "PGPORT": "6"}) == ("h", 6, "u")
    for dsn in ("postgresql://u@/d", "postgresql://h/d", ""):
        with pytest.raises(SettingsError, match="a host and a user"):
            login_of(dsn, {})
