"""`sqs2pg keys` as operators use it, in every provider."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.vault_support import login_of
from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]
Send = Callable[[list[str]], list[str]]
LOGIN = json.dumps({"user_id": "u1", "ip": "199.172.111.135", "device_id": "593-47-5928"})


def versions(query: Query) -> list[str]:
    return [token[:3] for (token,) in query("SELECT masked_ip FROM user_logins ORDER BY 1")]


@pytest.mark.usefixtures("migrated_database")
def test_a_rotation_that_would_split_the_rows_of_a_key_is_refused(shell: Shell) -> None:
    shell.environment |= {"SQS2PG_SINK__MODE": "upsert", "SQS2PG_SINK__KEY": "user_id,masked_ip"}
    shell("migrate")
    for options in ([], ["--break-joins"], ["--prepare", "--break-joins"]):
        said = shell.error("keys", "rotate", *options, code=2)
        assert "masked_ip of user_logins new tokens" in said
        assert "user_id" not in said
    assert "vault root v2" in shell("keys", "rotate", "vault").out


@pytest.mark.usefixtures("migrated_database")
def test_rotation_keeps_joins_unless_told_to_break_them(
    shell: Shell, send: Send, query: Query, tmp_path: Path
) -> None:
    send([LOGIN])
    shell("run", "--drain")
    said = shell.error("keys", "rotate", code=2)
    assert "would break the joins of ip, device_id" in said
    assert "--break-joins" in said
    assert versions(query) == ["v1_"]

    prepared = shell("keys", "rotate", "--prepare", "--break-joins", "--json").last
    assert (prepared["version"], prepared["active"]) == (2, 1)
    again = shell("keys", "rotate", "--prepare", "--break-joins", "--json").last
    assert again == prepared  # safe to repeat
    send([LOGIN])
    shell("run", "--drain")
    assert versions(query) == ["v1_", "v1_"]

    done = shell("keys", "rotate", "pseudonym", "--break-joins", "--json").last
    assert (done["series"], done["version"], done["active"]) == ("pseudonym", 2, 2)
    assert done["fingerprint"] == prepared["fingerprint"]
    send([LOGIN])
    shell("run", "--drain")
    assert versions(query) == ["v1_", "v1_", "v2_"]
    assert "vault root v2" in shell("keys", "rotate", "vault").out

    listed = {(r["series"], r["version"]): r for r in shell("keys", "list", "--json").last}
    assert {key for key, row in listed.items() if row["active"]} == {("pseudonym", 2), ("vault", 2)}
    assert all(row["held"] for row in listed.values())
    assert (tmp_path / "sqs2pg.keys").stat().st_mode & 0o777 == 0o600
    assert shell("check", "--json").last["ok"]


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("role", ["sqs2pg_ingest", "sqs2pg_revealer"])
def test_a_login_that_may_not_rotate_adds_no_root(
    shell: Shell, database: str, tmp_path: Path, role: str
) -> None:
    shell("keys", "list")
    shell("run", "--drain")
    kept = (tmp_path / "sqs2pg.keys").read_bytes()
    with login_of(database, role) as conninfo:
        said = shell.error("keys", "rotate", "vault", code=1, DATABASE_URL=conninfo)
    assert "no root was added" in said
    assert (tmp_path / "sqs2pg.keys").read_bytes() == kept


@pytest.mark.usefixtures("migrated_database")
def test_another_root_than_the_one_on_record_is_listed_as_such(
    shell: Shell, tmp_path: Path
) -> None:
    shell("run", "--drain")
    [before] = [r for r in shell("keys", "list", "--json").last if r["series"] == "pseudonym"]
    assert before["fingerprint"] == before["recorded_fingerprint"]
    assert "another root" not in shell("keys", "list").out

    file = tmp_path / "sqs2pg.keys"
    roots = json.loads(file.read_bytes())
    roots["pseudonym"]["1"] = base64.b64encode(os.urandom(32)).decode()
    file.write_text(json.dumps(roots))
    [after] = [r for r in shell("keys", "list", "--json").last if r["series"] == "pseudonym"]
    assert after["recorded_fingerprint"] == before["fingerprint"] != after["fingerprint"]
    listed = shell("keys", "list").out
    assert f"but it is {before['fingerprint']} on record: another root" in listed


@pytest.mark.usefixtures("migrated_database")
def test_recoverable_fields_are_rotated_and_rekeyed(shell: Shell, send: Send, query: Query) -> None:
    shell.environment["SQS2PG_VAULT__ENABLED"] = "true"
    send([LOGIN])
    shell("run", "--drain")
    assert "keys rekey" in shell("keys", "rotate").out
    send([LOGIN])
    shell("run", "--drain")
    assert versions(query) == ["v1_", "v2_"]
    shell("keys", "rekey")
    [(tokens,)] = query("SELECT count(DISTINCT masked_ip) FROM user_logins")
    assert (tokens, versions(query)) == (1, ["v2_", "v2_"])


@pytest.mark.usefixtures("migrated_database")
def test_keys_of_the_environment_are_added_there_first(shell: Shell, query: Query) -> None:
    made = shell("keys", "init", "--provider", "environment")
    variables = dict(line.split("=", 1) for line in made.out.splitlines())
    assert set(variables) == {"SQS2PG_KEYS__PSEUDONYM_ROOT", "SQS2PG_KEYS__VAULT_ROOT"}
    del shell.environment["SQS2PG_KEYS__FILE"]
    shell.environment |= variables
    shell("run", "--drain")
    said = shell.error("keys", "rotate", "--break-joins", code=2)
    assert "SQS2PG_KEYS__PSEUDONYM_ROOT_V2" in said
    more = shell("keys", "init", "--provider", "environment").out.splitlines()[0]
    shell.environment["SQS2PG_KEYS__PSEUDONYM_ROOT_V2"] = more.split("=", 1)[1]
    assert shell("keys", "rotate", "--break-joins", "--json").last["active"] == 2
    shell("run", "--drain")


@pytest.mark.usefixtures("migrated_database")
@pytest.mark.parametrize("provider", ["aws-kms", "secrets-manager"])
def test_keys_can_be_kept_in_aws(
    shell: Shell, send: Send, query: Query, tmp_path: Path, provider: str, kms_key: str
) -> None:
    shell.environment |= {
        "SQS2PG_KEYS__PROVIDER": provider,
        "SQS2PG_KEYS__FILE": str(tmp_path / "wrapped.keys"),
        "SQS2PG_KEYS__KMS_KEY": kms_key,
        "SQS2PG_KEYS__SECRET": f"sqs2pg-{tmp_path.name}",
    }
    assert "fingerprint" in shell("keys", "init").out
    assert re.search(r"exists already|ResourceExistsException", shell.error("keys", "init", code=2))
    send([LOGIN])
    shell("run", "--drain")
    assert shell("keys", "rotate", "--break-joins", "--json").last["active"] == 2
    send([LOGIN])
    shell("run", "--drain")
    assert versions(query) == ["v1_", "v2_"]
    assert shell("check", "--json").last["ok"]
    if provider == "aws-kms":
        content = json.loads((tmp_path / "wrapped.keys").read_text())
        assert content["format"] == "sqs2pg-keys-kms/1"
        assert set(content["pseudonym"]) == {"1", "2"}
    else:
        assert not (tmp_path / "wrapped.keys").exists()


@pytest.mark.usefixtures("emulator")
def test_keys_in_aws_that_are_not_there_are_reported(shell: Shell, tmp_path: Path) -> None:
    shell.environment["SQS2PG_KEYS__FILE"] = str(tmp_path / "none.keys")
    said = shell.error("keys", "init", code=2, SQS2PG_KEYS__PROVIDER="aws-kms")
    assert "keys.kms_key" in said
    said = shell.error(
        "keys", "init", code=2, SQS2PG_KEYS__PROVIDER="aws-kms", SQS2PG_KEYS__KMS_KEY="alias/none"
    )
    assert "AWS refused GenerateDataKey of kms (NotFoundException)" in said
    assert not (tmp_path / "none.keys").exists()
    secret = {"SQS2PG_KEYS__PROVIDER": "secrets-manager", "SQS2PG_KEYS__SECRET": "none"}
    said = shell.error("run", "--drain", code=2, **secret)
    assert "AWS refused GetSecretValue of secretsmanager (ResourceNotFoundException)" in said


@pytest.mark.usefixtures("migrated_database")
def test_a_rotation_never_writes_a_file_that_no_command_can_read(
    shell: Shell, query: Query, tmp_path: Path
) -> None:
    shell("run", "--drain")
    kept = (tmp_path / "sqs2pg.keys").read_bytes()
    query("INSERT INTO sqs2pg.key VALUES ('pseudonym', 9999, repeat('f', 16), false)")
    said = shell.error("keys", "rotate", "--break-joins", code=2)
    assert "cannot have version 10000: versions go to 9,999" in said
    assert "delete its row of sqs2pg.key" in said
    assert (tmp_path / "sqs2pg.keys").read_bytes() == kept
    query("DELETE FROM sqs2pg.key WHERE version = 9999")
    assert "pseudonym root v2" in shell("keys", "rotate", "--break-joins").out
