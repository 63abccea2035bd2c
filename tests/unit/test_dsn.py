"""A connection string is shown in part, and only where each part can be what it stands for."""

from __future__ import annotations

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.postgres.dsn import (
    describe,
    dsn_options,
    hosts,
    logins_of,
    network_address,
    secret_parts,
)

SECRET = "canary-41"


@pytest.mark.parametrize(
    ("dsn", "character"),
    [
        (f"postgresql://etl:Tr0ub@{SECRET}@127.0.0.1:5432/db", "%40"),
        (f"postgresql://etl:{SECRET}@@127.0.0.1/db", "%40"),
        (f"postgresql://me@corp:{SECRET}@h/db", "%40"),
        (f"postgresql://etl:a@b/{SECRET}@h/db", "%40"),
        (f"POSTGRES://etl:a@{SECRET}@h/db", "%40"),
        (f"postgresql://etl:12/{SECRET}@h:5432/db", "%2F"),
        (f"postgresql://etl:{SECRET}/34@h:5432/db", "%2F"),
        (f"postgresql://etl:a?{SECRET}/b@h/db", "%2F"),
        (f"postgresql://etl:100%{SECRET}@h/db", "%25"),
        (f"postgresql://etl:100%-{SECRET}@h/db", "%25"),
        (f"postgresql://etl:{SECRET}", "percent-encode"),
        (f"postgresql://h:{SECRET}/db", "percent-encode"),
        (f"postgresql://h:70000,{SECRET}/db", "percent-encode"),
        (f"host=etl:{SECRET}@h dbname=db", "percent-encode"),
        (f"host=h port={SECRET}", "percent-encode"),
        (f"hostaddr={SECRET}!", "percent-encode"),
        (f"postgresql://etl:{SECRET} b@h/db", "percent-encode"),
        (f"password={SECRET} b", "%40"),
        (f"jdbc:postgresql://h/db?password={SECRET}", "%40"),
    ],
)
def test_a_string_that_is_cut_in_the_wrong_place_is_refused_unquoted(
    dsn: str, character: str
) -> None:
    for reader in (describe, hosts, network_address, dsn_options, logins_of):
        with pytest.raises(SettingsError) as raised:
            reader(dsn, {})
        said = f"{raised.value.what} {raised.value.hint}"
        assert character in said or "cannot be parsed" in said
        assert SECRET not in said
    # What a support bundle strikes out, and looks for.
    pieces = [part for part in secret_parts(dsn) if part]
    assert "@" not in dsn or any(part in SECRET or SECRET in part for part in pieces)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PGHOST", f"postgresql://etl:{SECRET}@h/db"),
        ("PGHOSTADDR", f"etl:{SECRET}@h"),
        ("PGPORT", SECRET),
    ],
)
def test_a_whole_url_in_a_variable_of_libpq_is_refused_unquoted(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as raised:
        describe("", {variable: value})
    assert variable in raised.value.what
    assert SECRET not in f"{raised.value.what} {raised.value.hint}"
    assert describe("", {"PGDATABASE": f"postgresql://{SECRET}"}).endswith("/(database)")


@pytest.mark.parametrize(
    ("dsn", "shown", "leads_to"),
    [
        ("", "local socket:5432/(default database)", [""]),
        ("postgresql://u:p@h:5433/db", "h:5433/db", ["h"]),
        ("postgresql://u:p%40w%2F@h_1.x-y/db", "h_1.x-y:5432/db", ["h_1.x-y"]),
        ("postgresql://u:a:b#?@h/db", "h:5432/db", ["h"]),
        ("postgresql://h/db?user=me@realm", "h:5432/db", ["h"]),
        ("postgresql://[2001:db8::1]:5432/db", "2001:db8::1:5432/db", ["2001:db8::1"]),
        ("host=fe80::1%eth0", "fe80::1%eth0:5432/(default database)", ["fe80::1%eth0"]),
        ("postgresql://u@%2Fvar%2Frun/db", "/var/run:5432/db", ["/var/run"]),
        ("host=/cloudsql/p:r:i dbname=d", "/cloudsql/p:r:i:5432/d", ["/cloudsql/p:r:i"]),
        ("host=@abstract", "@abstract:5432/(default database)", ["@abstract"]),
        ("postgresql://u@a:1,b:2/db", "a,b:1,2/db", ["a", "b"]),
        ("host=name hostaddr=192.0.2.1", "name:5432/(default database)", ["192.0.2.1"]),
        ("host=h dbname=a@b:c", "h:5432/(database)", ["h"]),
        ("service=books", "service books", ["(service)"]),
    ],
)
def test_what_is_right_is_shown_without_user_and_password(
    dsn: str, shown: str, leads_to: list[str]
) -> None:
    assert describe(dsn, {}) == shown
    assert hosts(dsn, {}) == leads_to


def test_variables_of_libpq_count_where_the_string_says_nothing() -> None:
    environ = {"PGHOST": "h", "PGPORT": "5", "PGDATABASE": "d", "PGHOSTADDR": "192.0.2.1"}
    assert describe("", environ) == "h:5/d"
    assert describe("postgresql://other:7", environ) == "other:7/d"
    # libpq connects there, whatever the string's host is.
    assert hosts("postgresql://127.0.0.1/x", environ) == ["192.0.2.1"]
    assert network_address("postgresql://127.0.0.1/x", environ) == ("192.0.2.1", 5)
    assert hosts("", {"PGSERVICE": "books"}) == ["(service)"]


def test_each_server_of_a_string_has_a_login() -> None:
    logins = logins_of("postgresql://u:p@a:1,b:2/db?sslmode=require", {})
    assert [(one.host, one.port, one.user) for one in logins] == [("a", 1, "u"), ("b", 2, "u")]
    assert [describe(one.dsn, {}) for one in logins] == ["a:1/db", "b:2/db"]
    [alone] = logins_of("", {"PGHOST": "h", "PGUSER": "u", "PGPORT": "6"})
    assert alone[:3] == ("h", 6, "u")
    assert [one.port for one in logins_of("postgresql://u@a,b/db", {})] == [5432, 5432]
    with pytest.raises(SettingsError, match="one port per host"):
        logins_of("host=a,b,c port=1,2 user=u", {})


@pytest.mark.parametrize(
    "dsn", ["postgresql://u@/d", "postgresql://h/d", "", "host=/run user=u", "hostaddr=::1 user=u"]
)
def test_a_token_needs_a_host_and_a_user(dsn: str) -> None:
    with pytest.raises(SettingsError, match="a host and a user"):
        logins_of(dsn, {})


def test_a_password_is_known_as_it_is_written_and_as_it_is_meant() -> None:
    assert set(secret_parts("postgresql://u:p%40ss@h/d")) == {"p@ss", "p%40ss"}
    assert set(secret_parts("postgresql://h:5432/analytics?user=me@x")) == {"5432"}
    assert set(secret_parts("host=h password='a b'")) == {"a b"}
