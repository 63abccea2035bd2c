"""`sqs2pg check` as users run it, on real servers."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.shell import Shell

Query = Callable[..., list[tuple[Any, ...]]]


def statuses(checks: list[dict[str, str]]) -> dict[str, str]:
    return {check["name"]: check["status"] for check in checks}


@pytest.mark.usefixtures("migrated_database")
def test_check_passes_on_a_working_pipeline(shell: Shell) -> None:
    report = shell("check", "--json").last
    assert report["ok"] is True
    found = statuses(report["checks"])
    # An emulator's queue has no redrive policy and no encryption; its server runs without fsync.
    bare = {name for name, status in found.items() if status != "ok"}
    assert bare == {"queue redrive", "queue encryption", "database durability"}
    assert {found[name] for name in bare} == {"warn"}
    assert found.keys() >= {
        *("settings", "versions", "keys", "masking ip", "masking device_id", "masking policy"),
        *("queue", "database", "schema", "keys on record", "clock", "target user_logins"),
    }
    for check in report["checks"]:
        assert list(check) == ["name", "status", "detail", "remedy"]
        assert check["detail"]
    [queue] = [check["detail"] for check in report["checks"] if check["name"] == "queue"]
    assert re.match(r"[\w-]+ in [\w-]+ at 127\.0\.0\.1: 0 visible, ", queue), "by its name"
    shown = shell("check").out
    assert "0 failed" in shown
    assert "ok   masking ip: pseudonymize into masked_ip: deterministic, joinable" in shown


def test_what_is_wrong_is_reported_with_a_remedy_and_hides_nothing(shell: Shell) -> None:
    wrong = {"SQS2PG_SOURCE__QUEUE": "nowhere", "SQS2PG_STATUS__TAP": "true"}
    report = shell("check", "--json", code=1, **wrong).last
    assert report["ok"] is False
    found = {check["name"]: check for check in report["checks"]}
    assert found["settings"]["status"] == "fail", "run would refuse the status server"
    assert "no token" in found["settings"]["detail"]
    assert found["queue"]["status"] == "fail"
    assert found["schema"]["status"] == "fail"
    for name in ("schema", "keys on record"):
        assert "sqs2pg migrate" in found[name]["remedy"]
    assert found["database"]["status"] == "ok"
    assert all(check["remedy"] for check in report["checks"] if check["status"] != "ok")


@pytest.mark.usefixtures("migrated_database")
def test_other_keys_than_those_on_record_are_reported(shell: Shell, tmp_path: Path) -> None:
    shell("run", "--drain")
    shell("keys", "init", "--file", str(tmp_path / "others"))
    report = shell("check", "--json", code=1, SQS2PG_KEYS__FILE=str(tmp_path / "others")).last
    [check] = [c for c in report["checks"] if c["status"] == "fail"]
    assert check["name"] == "keys on record"
    assert "not the one on record" in check["detail"]


def test_a_database_that_is_away_is_reported_once(shell: Shell) -> None:
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


@pytest.mark.usefixtures("migrated_database")
def test_the_attack_is_reported_for_each_masked_field(shell: Shell) -> None:
    report = shell("check", "--attack", "--json").last
    found = {check["name"]: check for check in report["checks"]}
    assert report["ok"]
    assert "million SHA-256/s on" in found["attack rate"]["detail"]
    assert "one GPU (RTX 4090" in found["attack rate"]["detail"]
    for name, values in (("ip", 2**32), ("device_id", 10**9)):
        assert "not reversed by trying values without the key" in found[f"attack {name}"]["detail"]
        [estimate] = [made for made in report["attack"] if made["field"] == name]
        assert estimate["possible_values"] == values
        assert estimate["seconds_without_key"] is None
        assert estimate["seconds_with_key"] > estimate["seconds_with_key_gpu"] > 0


def test_a_column_of_plain_hashes_is_found_out(shell: Shell, query: Query) -> None:
    query("CREATE TABLE old (ip text, id bytea, token text, clear text)")
    # A whole block of the search for each, so that the first hit comes with the first blocks.
    query(
        "INSERT INTO old SELECT encode(sha256(convert_to(a || '.7.' || b || '.9', 'UTF8')), 'hex'),"
        " NULL, 'v1_' || md5(a || '.' || b), a || '.7.' || b || '.9'"
        " FROM generate_series(1, 223) a, generate_series(0, 255) b"
    )
    query(
        "UPDATE old SET id = sha256(convert_to(format('%s-%s-1234', lpad((random() * 999)::int"
        "::text, 3, '0'), lpad((random() * 99)::int::text, 2, '0')), 'UTF8'))"
    )
    report = shell("check", "--column", "old.id", "--limit-s", "80", "--json", code=1).last
    assert report["ok"] is False
    [check] = [c for c in report["checks"] if c["name"] == "column old.id"]
    assert re.match(
        r"looks like unkeyed SHA-256 of NNN-NN-NNNN ids: \d+ of [\d,]+ sampled values reversed in "
        r"[\d.]+ seconds",
        check["detail"],
    )
    assert "move-from-sha256" in check["remedy"]
    shown = shell("check", "--column", "public.old.token", "--limit-s", "1").out
    assert "looks like pseudonyms" in shown
    assert "IP addresses in the clear" in shell("check", "--column", "old.clear", code=1).out
    assert "no column old.none" in shell("check", "--column", "old.none", code=1).out


@pytest.mark.parametrize(
    ("mask", "found"),
    [("keep", True), ("pseudonymize", True), ("encrypt", False), ("partial", False)],
)
def test_people_who_could_not_be_erased_are_reported_before_it_is_too_late(
    shell: Shell, tmp_path: Path, mask: str, found: bool
) -> None:
    (tmp_path / "sqs2pg.toml").write_text(
        f"""[vault]
enabled = true
[[field]]
source = "user_id"
column = "who"
mask = "{mask}"
[[field]]
source = "ip"
column = "ip"
kind = "ip"
mask = "pseudonymize"
recover = true
"""
    )
    checks = shell("check", "--json", code=1).last["checks"]  # nothing is migrated
    told = [one for one in checks if one["name"] == "masking subject"]
    assert [one["status"] for one in told] == ([] if found else ["warn"])
    assert all("forget" in one["detail"] for one in told)
