"""Whether an SQLSTATE is about one row, which may be quarantined, or systemic."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import errors

from sqs2pg.errors import FatalFault, SettingsError, TransientFault
from sqs2pg.postgres.sqlstate import Verdict, connect_fault, diagnose, explain, is_row_state


@pytest.mark.parametrize(
    ("sqlstate", "of_the_row"),
    [
        ("22001", True),
        ("23505", True),
        ("54000", True),  # an index row, or a value of its type, is too large
        ("54001", False),  # statement_too_complex: the server's stack
        ("54011", False),  # too_many_columns
        ("54023", False),  # too_many_arguments
        ("40001", False),  # serialization_failure
        ("40P01", False),  # deadlock_detected
        ("53200", False),
        ("57P01", False),
        ("P0001", True),
        ("U0001", True),  # a trigger's own class
    ],
)
def test_an_sqlstate_is_about_the_row_or_systemic(sqlstate: str, of_the_row: bool) -> None:
    assert is_row_state(sqlstate) is of_the_row


NAMES = (
    *("schema_name", "table_name", "column_name", "constraint_name", "datatype_name"),
    *("context", "source_function"),
)


def error(sqlstate: str, detail: str = "", **names: str) -> Any:
    diag = dict.fromkeys(NAMES) | names
    return SimpleNamespace(sqlstate=sqlstate, diag=SimpleNamespace(message_detail=detail, **diag))


@pytest.mark.parametrize(
    ("detail", "day"),
    [
        ("Partition key of the failing row contains (d) = (2027-01-02).", "2027-01-02"),
        (
            "Partition key of the failing row contains (d) = (2027-01-02 03:04:05.6+00).",
            "2027-01-02",
        ),
        ("Partitionierungsschlüssel … enthält (d) = (2027-01-02).", "2027-01-02"),
        ("失敗した行のパーティションキーは(d) = (2027-01-02)を含みます。", ""),
        ("Partition key of the failing row contains (d) = (02.01.2027).", ""),
        ("Partition key of the failing row contains (name) = (Ada Lovelace).", ""),
        ("Partition key of the failing row contains (name) = (Ada 2027-01-02).", ""),
        ("Partition key of the failing row contains (name) = (2027-01-02 Ada).", ""),
        ("Partition key of the failing row contains (d, name) = (2027-01-02, Ada).", ""),
        ("Failing row contains (Ada, (d) = (2027-01-02)).", ""),
        ("", ""),
    ],
)
def test_of_a_missing_partition_nothing_but_the_day_is_taken(detail: str, day: str) -> None:
    names = {"schema_name": "public", "table_name": "logins"}
    fault = diagnose(error("23514", detail, **names))
    assert fault.verdict is Verdict.NO_TARGET_PARTITION
    assert (fault.table, fault.day, fault.detail) == ("public.logins", day, "23514 logins")


@pytest.mark.parametrize(
    "names",
    [
        {},
        {"schema_name": "public", "table_name": "logins", "constraint_name": "adult"},
        {"schema_name": "public", "datatype_name": "named", "constraint_name": "named_check"},
    ],
)
def test_a_check_or_a_raise_of_the_same_sqlstate_is_about_the_row(names: dict[str, str]) -> None:
    assert diagnose(error("23514", **names)).verdict is Verdict.BAD_ROW


STATES = sorted(
    {
        kind.sqlstate
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, psycopg.Error) and kind.sqlstate
    }
    | {"08P01", "ZZ999"}
)


@pytest.mark.parametrize("sqlstate", STATES)
def test_every_sqlstate_has_a_hint_of_what_to_do(sqlstate: str) -> None:
    fault = explain(error(sqlstate))
    assert sqlstate in fault.what
    assert len(fault.hint) > 20
    assert "appendix" not in fault.hint.lower()


TARGET = 'connection to server at "192.0.2.1", port 6432 failed: '


@pytest.mark.parametrize(
    ("text", "kind", "code", "words"),
    [
        ("Connection refused", TransientFault, "postgres_08001", "not reachable"),
        ("FATAL:  no such database: x", FatalFault, "postgres_3D000", "does not exist"),
        ("FATAL:  no such user: x", FatalFault, "postgres_28000", "refused the login"),
        ("FATAL:  SASL authentication failed", FatalFault, "postgres_28000", "refused the login"),
        ("FATAL:  unsupported startup parameter: geqo", FatalFault, "postgres_08P01", "parameter"),
        (
            'FATAL:  unrecognized configuration parameter "x"',
            *(FatalFault, "postgres_08P01", "parameter"),
        ),
        (
            "FATAL:  no more connections allowed (max_client_conn)",
            *(TransientFault, "postgres_53300", "takes no connection now"),
        ),
        (
            "FATAL:  Sorry, too many clients already",
            *(TransientFault, "postgres_53300", "takes no connection now"),
        ),
        (
            'FATAL:  database "x" is not currently accepting connections',
            *(TransientFault, "postgres_57P03", "takes no connection now"),
        ),
        (
            'FATAL:  permission denied for database "x"',
            *(FatalFault, "postgres_42501", "may not connect"),
        ),
        (
            "FATAL:  server login has been failing, try again later (server_login_retry)",
            *(TransientFault, "postgres_08004", "answers and refuses"),
        ),
        (
            'FATAL:  invalid value for parameter "statement_timeout": "x"',
            *(FatalFault, "postgres_08P01", "refuses a parameter"),
        ),
        (
            "server is not in hot standby mode",
            *(TransientFault, "postgres_08004", "target_session_attrs"),
        ),
        ("session is read-only", TransientFault, "postgres_08004", "target_session_attrs"),
        (
            "channel binding required, but server authenticated client without it",
            *(FatalFault, "postgres_28000", "demands"),
        ),
        (
            'authentication method requirement "md5" failed: server requested SASL',
            *(FatalFault, "postgres_28000", "demands"),
        ),
        ("ВАЖНО:  что-то иное", TransientFault, "postgres_08004", "answers and refuses"),
    ],
)
def test_a_server_that_refuses_is_not_called_unreachable(
    text: str, kind: type, code: str, words: str
) -> None:
    fault = connect_fault(psycopg.OperationalError(TARGET + text), "here")
    assert (type(fault), fault.code) == (kind, code)
    assert words in fault.what
    assert fault.hint


@pytest.mark.parametrize(
    "option",
    [
        *("sslmode=maybe", "connect_timeout=soon", "channel_binding=some", "require_auth=x"),
        *("target_session_attrs=best", "load_balance_hosts=x", "service=nowhere", "keepalives=x"),
        *("ssl_min_protocol_version=x", "gssencmode=maybe", "tcp_user_timeout=x"),
    ],
)
def test_an_option_that_libpq_does_not_know_is_a_matter_of_settings(option: str) -> None:
    with pytest.raises(psycopg.Error) as caught:
        psycopg.connect(f"host=127.0.0.1 port=1 {option}")
    fault = connect_fault(caught.value, "here")
    assert isinstance(fault, SettingsError)
    assert "option of the connection string" in fault.what
    assert option.partition("=")[2] not in fault.what


def test_a_pooler_in_statement_mode_is_named() -> None:
    class Refused(psycopg.OperationalError):
        sqlstate = "08P01"

    fault = explain(Refused("transaction blocks not allowed in statement pooling mode"))
    assert "statement pooling mode" in fault.what
    assert "pool_mode = transaction" in fault.hint


@pytest.mark.parametrize("sqlstate", ["42P01", "22P02", "23505", "08P01"])
def test_the_drivers_text_is_in_no_explanation(sqlstate: str) -> None:
    """It may quote a row."""
    fault = explain(errors.lookup(sqlstate)("invalid input: canary-value"))
    assert sqlstate in fault.what
    assert "canary" not in f"{fault.what} {fault.hint} {fault!r} {fault}"
