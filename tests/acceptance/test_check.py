"""`sqs2pg check` as users run it, on real servers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]


def statuses(checks: list[dict[str, str]]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in checks}


def test_a_working_pipeline_passes(shell: Shell) -> None:
    shell("migrate")
    report = shell("check", "--json").last
    assert report["ok"] is True
    assert statuses(report["checks"]) == dict.fromkeys(
        [
            *("settings", "versions", "keys", "masking ip", "masking device_id"),
            *("masking policy", "queue", "database", "schema", "keys on record"),
        ],
        "ok",
    )
    for check in report["checks"]:
        assert list(check) == ["name", "status", "detail", "remedy"]
        assert check["detail"]
    shown = shell("check").out
    assert "0 failed" in shown
    assert "ok   masking ip: pseudonymize into masked_ip: deterministic, joinable" in shown


def test_what_is_wrong_is_told_with_a_remedy_and_hides_nothing(shell: Shell) -> None:
    report = shell("check", "--json", code=1, SQS2PG_SOURCE__QUEUE="nowhere").last
    assert report["ok"] is False
    found = {check["name"]: check for check in report["checks"]}
    assert found["queue"]["status"] == "fail"
    assert found["schema"]["status"] == "fail"
    assert "sqs2pg migrate" in found["schema"]["remedy"]
    assert found["database"]["status"] == "ok"
    assert all(check["remedy"] for check in report["checks"] if check["status"] != "ok")


def test_other_keys_than_those_on_record_are_told(shell: Shell, tmp_path: Path) -> None:
    shell("migrate")
    shell("run", "--drain")
    shell("keys", "init", "--file", str(tmp_path / "others"))
    report = shell("check", "--json", code=1, SQS2PG_KEYS__FILE=str(tmp_path / "others")).last
    [check] = [c for c in report["checks"] if c["status"] == "fail"]
    assert check["name"] == "keys on record"
    assert "not the one on record" in check["detail"]


def test_a_database_that_is_away_is_told_once(shell: Shell) -> None:
    report = shell("check", "--json", code=1, DATABASE_URL="postgresql://127.0.0.1:1/x").last
    found = statuses(report["checks"])
    assert [name for name, status in found.items() if status == "fail"] == ["database"]
    assert found["schema"] == found["keys on record"] == "warn"


def test_fields_that_look_personal_and_are_kept_are_to_be_looked_at(
    shell: Shell, tmp_path: Path
) -> None:
    (tmp_path / "sqs2pg.toml").write_text(
        "i_accept_reversible = true\n[sink]\ntable = 't'\n"
        "[[field]]\nsource = 'contact_email'\ncolumn = 'a'\n"
        "[[field]]\nsource = 'ip'\ncolumn = 'b'\nmask = 'sha256'\nkind = 'ip'\n"
    )
    shell("migrate")
    report = shell("check", "--json").last
    found = {check["name"]: check for check in report["checks"]}
    assert "contact_email" in found["masking policy"]["detail"]
    assert found["masking policy"]["status"] == found["masking ip"]["status"] == "warn"
    assert "reversible by anyone" in found["masking ip"]["detail"]
