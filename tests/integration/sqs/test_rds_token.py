"""The login token equals the one that boto3 makes, and becomes a connection's password."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import boto3
import psycopg
import pytest

from sqs2pg.errors import TransientFault
from sqs2pg.runners.connect import connect
from sqs2pg.settings import Settings, load
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


async def test_each_server_of_a_string_gets_a_token_of_its_own(
    database: str, aws_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, int, str]] = []
    where = urlsplit(database)
    assert where.port

    def token(*login: str | int) -> str:
        asked.append(login)  # type: ignore[arg-type]  # compared below
        return where.password or ""

    monkeypatch.setattr("sqs2pg.sqs.rds_token.login_token", token)

    def chosen(second: int) -> Settings:
        dsn = f"postgresql://{where.username}@127.0.0.1:1,127.0.0.1:{second}{where.path}"
        given = {"sink": {"dsn": f"{dsn}?application_name=books", "iam_auth": True}}
        return load(environ={}, overrides=given, discover=False)

    session = await connect(chosen(where.port))
    try:
        [(name,)] = await session.execute("SELECT current_setting('application_name')")
    finally:
        await session.close()
    assert name == "books"
    assert [port for _, port, _ in asked] == [1, where.port]
    with pytest.raises(TransientFault, match=r"127\.0\.0\.1:2/"):
        await connect(chosen(2))
