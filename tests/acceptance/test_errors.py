"""Each thing that can be wrong at the start gives one error line, one hint and its exit code."""

from __future__ import annotations

import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.shell import told_error

Query = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A loopback port that nobody listens on, or can listen on, during the test."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_unknown_command_and_option(bare_shell: Any) -> None:
    assert "drain" in bare_shell.error("run", "--drian", code=2)
    assert "migrate" in bare_shell.error("migrat", code=2)


def test_unknown_setting_names_the_nearest(bare_shell: Any, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("[source]\nqeue = 'x'\n")
    said = bare_shell.error("config", "show", "-c", "other.toml", code=2)
    assert "source.qeue" in said
    assert "did you mean source.queue?" in said
    said = bare_shell.error("run", "--drain", code=2, SQS2PG_SINK__TABEL="x")
    assert "SQS2PG_SINK__TABLE" in said


def test_settings_file_that_is_not_there_or_not_toml(bare_shell: Any, tmp_path: Path) -> None:
    assert "does not exist" in bare_shell.error("run", "-c", "nowhere.toml", code=2)
    (tmp_path / "bad.toml").write_text("password = canary-71\n")
    said = bare_shell.error("run", "-c", "bad.toml", code=2)
    assert "not valid TOML" in said
    assert "canary-71" not in said


def test_no_key_off_loopback_is_refused(bare_shell: Any) -> None:
    said = bare_shell.error(
        "run", "--drain", code=2,
        AWS_ENDPOINT_URL="http://queue.internal.example:4566", AWS_REGION="us-east-1",
        AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x",
        DATABASE_URL="postgresql://u@db.internal.example/x",
    )  # fmt: skip
    assert "keys init" in said


@pytest.mark.parametrize(
    ("mode", "content", "word"),
    [
        (0o644, None, "chmod 600"),
        (0o600, '{"format": "sqs2pg-keys/1", "pseudonym": {"1": "c2hvcnQ="}}', "not 32"),
        (0o600, "not json", "sqs2pg.keys"),
    ],
)
def test_key_file_open_to_others_short_or_damaged(
    shell: Any, tmp_path: Path, mode: int, content: str | None, word: str
) -> None:
    path = tmp_path / "sqs2pg.keys"
    if content is not None:
        path.write_text(content)
    path.chmod(mode)
    assert word in shell.error("run", "--drain", code=2)


def test_key_file_missing_and_never_overwritten(shell: Any, tmp_path: Path) -> None:
    before = (tmp_path / "sqs2pg.keys").read_bytes()
    assert shell("keys", "init", code=None).code != 0
    assert (tmp_path / "sqs2pg.keys").read_bytes() == before
    (tmp_path / "sqs2pg.keys").unlink()
    assert "keys init" in shell.error("run", "--drain", code=2)


def test_database_out_of_reach_or_refusing(shell: Any, closed_port: int, database: str) -> None:
    said = shell.error(
        "run", "--drain", code=1, DATABASE_URL=f"postgresql://u:canary-72@127.0.0.1:{closed_port}/x"
    )
    assert f"127.0.0.1:{closed_port}/x" in said
    assert "canary-72" not in said
    wrong = database.replace("postgresql://postgres:", "postgresql://postgres:canary-73")
    said = shell.error("migrate", code=1, DATABASE_URL=wrong)
    assert "refused the login" in said
    assert "canary-73" not in said
    missing = database.rsplit("/", 1)[0] + "/no_such_database"
    assert "does not exist" in shell.error("verify", code=1, DATABASE_URL=missing)
    assert "cannot be parsed" in shell.error("verify", code=2, DATABASE_URL="postgresql://[")


@pytest.mark.parametrize(
    ("password", "written"), [("Tr0ub@canary-74", "%40"), ("12/canary-74", "%2F")]
)
def test_a_password_that_is_not_percent_encoded_shows_nowhere(
    shell: Any, tmp_path: Path, password: str, written: str
) -> None:
    shell.environment["DATABASE_URL"] = f"postgresql://etl:{password}@127.0.0.1:5432/db"
    for command in (("run", "--drain"), ("migrate",), ("verify",), ("quarantine", "list")):
        assert written in shell.error(*command, code=2)
    checks = {one["name"]: one for one in shell("check", "--json", code=1).last["checks"]}
    assert written in checks["database"]["remedy"]
    assert "not checked" in checks["targets"]["detail"]
    shell("check", "--emit-sql")
    shell("support-bundle", "-o", "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as bundle:
        shell.transcript += [bundle.read(name).decode() for name in bundle.namelist()]
    shown = "\n".join(shell.transcript)
    assert written in shown
    for piece in ("canary-74", "Tr0ub", "etl"):
        assert piece not in shown


def test_database_that_was_not_migrated(shell: Any) -> None:
    assert "sqs2pg migrate" in shell.error("run", "--drain", code=2)
    assert "sqs2pg migrate" in shell.error("verify", code=2)


def test_table_in_a_schema_that_is_not_there(shell: Any) -> None:
    assert "CREATE SCHEMA" in shell.error("migrate", code=1, SQS2PG_SINK__TABLE="nowhere.logins")


@pytest.mark.usefixtures("migrated_database")
def test_queue_missing_or_out_of_reach(shell: Any, closed_port: int) -> None:
    said = shell.error("run", "--drain", code=1, SQS2PG_SOURCE__QUEUE="no-such-queue")
    assert "queue" in said
    said = shell.error("run", "--drain", code=1, AWS_MAX_ATTEMPTS="1",
                       AWS_ENDPOINT_URL=f"http://127.0.0.1:{closed_port}")  # fmt: skip
    assert "AWS_ENDPOINT_URL" in said or "endpoint" in said


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize(
    ("change", "word"),
    [
        ("ALTER TABLE user_logins DROP COLUMN masked_ip", "masked_ip"),
        ("ALTER TABLE user_logins ALTER masked_ip TYPE varchar(20)", "20 characters"),
        ("ALTER TABLE user_logins ALTER app_version TYPE text", "app_version"),
        ("ALTER TABLE user_logins ADD COLUMN region text NOT NULL", "region"),
        ("DROP TABLE user_logins", "user_logins"),
        (
            "ALTER TABLE user_logins RENAME TO kept; CREATE VIEW user_logins AS SELECT * FROM kept",
            "is a view",
        ),
    ],
)
def test_target_that_does_not_fit(shell: Any, query: Query, change: str, word: str) -> None:
    query(change)
    assert word in shell.error("run", "--drain", code=2)


@pytest.mark.usefixtures("migrated_database")
def test_drain_that_does_not_end_in_time(shell: Any, sqs: Any, queue_url: str) -> None:
    sqs.send_message(QueueUrl=queue_url, MessageBody="{}")
    held = sqs.receive_message(QueueUrl=queue_url, VisibilityTimeout=600)
    assert len(held["Messages"]) == 1, "another consumer holds the only message"
    sqs.send_message(QueueUrl=queue_url, MessageBody="{}")
    ended = shell("run", "--drain", "--drain-timeout-s", "3", "--json", code=1)
    assert "not empty after 3 s" in told_error(ended.err)
    assert (ended.last["received"], ended.last["quarantined"]) == (1, 1), "what was done is told"


def test_file_that_cannot_be_sent(shell: Any, tmp_path: Path) -> None:
    assert "cannot be read" in shell("send", "--file", "nowhere.jsonl", code=2).err
    (tmp_path / "damaged.gz").write_bytes(b"\x1f\x8b not gzip")
    assert "cannot be read" in shell("send", "--file", "damaged.gz", code=2).err
    (tmp_path / "big.jsonl").write_text("x" * (2**20 + 1) + "\n{}\n")
    said = shell.error("send", "--file", "big.jsonl", code=1)
    assert "too_large: 1" in said
