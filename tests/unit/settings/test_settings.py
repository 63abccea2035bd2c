"""Settings: precedence, names, ranges, cross-checks; and that no error quotes a value."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.pretty import pretty_repr

from sqs2pg.errors import SettingsError
from sqs2pg.settings import (
    DEFAULT_FILE,
    USER_LOGINS,
    Field,
    Settings,
    SinkSettings,
    SourceSettings,
    cross_check,
    load,
)

CANARY = "canary-4711"
FIELD = '[[field]]\nsource = "a"\ncolumn = "a"\n'
DROPPED = "[[field]]\nsource = 'a'\nmask = 'drop'\n"
A = {"source": "a", "column": "a"}
JSONB = A | {"type": "jsonb"}
IGNORE = "sink.mode = 'ignore'\nsink.key = ['user_id']\n"
OF_USERS = "sink.mode = 'upsert'\nsink.key = ['user_id']\n"
DELETES = "sink.delete_when = {field = 'op', equals = 'd'}\n"
OF_A_KEY = OF_USERS.replace("user_id", "a")
OF_B = "[[field]]\nsource = 'b'\ncolumn = 'b'\n"
ROUTE = "[[route]]\ntable = 't'\n[[route.field]]\nsource = 'a'\ncolumn = 'a'\n"
OF_A = "[vault]\nenabled = true\nsubject = 'a'\n"

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(text: str) -> Path:
        file = tmp_path / "settings.toml"
        file.write_text(text, encoding="utf-8")
        return file

    return to_file


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys() -> Iterator[tuple[str, str]]:
    """Every section and key but lists of tables; a key outside any section has section ""."""
    for key, value in msgspec.to_builtins(Settings()).items():
        if isinstance(value, dict):
            yield from ((key, inner) for inner in value if inner != "delete_when")  # a table
        elif not isinstance(value, list | tuple):
            yield "", key


KEYS = [pytest.param(*pair, id=".".join(filter(None, pair))) for pair in keys()]


def toml(section: str, key: str, value: str) -> str:
    return (f"[{section}]\n" if section else "") + f"{key} = {value}\n"


def variable(section: str, key: str) -> str:
    return "SQS2PG_" + "__".join(filter(None, (section, key))).upper()


def get(settings: Settings, section: str, key: str) -> Any:
    return getattr(getattr(settings, section) if section else settings, key)


OF_ANY_TEXTS = ("s3_buckets", "columns")
"""Lists of texts; one text is a list of it."""
OF_COLUMNS = ("key", "newer", "update")
"""Texts, or lists of them, that name columns of the mapping."""
UPSERT = {"mode": "upsert", "key": ["user_id"]}
NEEDS: dict[str, dict[str, Any]] = {
    "s3_delete": {"s3_buckets": ["b"]},
    "mode": {"key": ["user_id"]},
    "key": {"mode": "ignore"},
    **dict.fromkeys(("newer", "update", "keep_if_null"), UPSERT),
    "sink.retention_days": UPSERT | {"newer": "create_date"},
    "digest": {"key": ["user_id"]},
}
"""What a key needs beside it in its section."""


def takes_any_text(section: str, key: str) -> bool:
    text = isinstance(get(Settings(), section, key), str) or key in OF_ANY_TEXTS
    return text and key not in (
        *OF_COLUMNS,
        "mode",
        "unknown_fields",
        "unmatched",
        "provider",
        "bind",
        "cloudwatch",
        "records",
        "s3_removed",
        "partition_every",
        "level",
        "format",
    )


def refused(
    file: Path | None = None, environ: Mapping[str, str] | None = None, **options: Any
) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(file, environ or {}, **options)
    error = caught.value
    assert error.exit_code == 2
    assert error.hint
    assert CANARY not in f"{error!r} {error} {error.args} {vars(error)}"
    return error


def test_without_file_or_environment_the_documented_defaults_hold() -> None:
    settings = load(environ={})
    assert settings == Settings()
    assert (settings.source.queue, settings.sink.table) == ("login-queue", "user_logins")
    assert settings.unknown_fields == "drop"
    assert not settings.vault.enabled
    assert not settings.i_accept_reversible
    assert not settings.keys.allow_development
    assert settings.fields == USER_LOGINS
    assert settings.pipeline_name == "user_logins"


def test_the_built_in_mapping_is_that_of_the_design() -> None:
    assert [(f.source, f.column, f.type, f.mask) for f in USER_LOGINS] == [
        ("user_id", "user_id", "text", "keep"),
        ("device_type", "device_type", "text", "keep"),
        ("ip", "masked_ip", "text", "pseudonymize"),
        ("device_id", "masked_device_id", "text", "pseudonymize"),
        ("locale", "locale", "text", "keep"),
        ("app_version", "app_version", "version", "keep"),
        ("create_date", "create_date", "date", "keep"),
    ]
    assert [f.source for f in USER_LOGINS if f.required] == ["user_id"]
    assert [f.source for f in USER_LOGINS if f.kind == "ip"] == ["ip"]


def test_the_published_setting_names_exist() -> None:
    known = {".".join(filter(None, pair)) for pair in keys()}
    assert known >= {
        *("source.queue", "source.visibility_timeout_s", "sink.dsn", "sink.table"),
        *("unknown_fields", "i_accept_reversible", "keys.provider", "keys.file"),
        *("keys.allow_development", "vault.enabled", "vault.subject", "shutdown_grace_s"),
        *("quarantine.retention_days", "status.bind"),
    }
    of_fields = {"source", "column", "type", "required", "default", "mask", "domain", "kind"}
    assert set(Field.__struct_fields__) >= of_fields | {"recover"}


def test_environment_over_file_and_options_over_both(write: Write) -> None:
    file = write("[source]\nqueue = 'file'\nwait_time_s = 1\nreceivers_max = 1")
    environ = {"SQS2PG_SOURCE__QUEUE": "environment", "SQS2PG_SOURCE__WAIT_TIME_S": "2"}
    settings = load(file, environ, overrides={"source": {"queue": "option"}})
    assert settings.source == SourceSettings(queue="option", wait_time_s=2, receivers_max=1)


def test_load_leaves_the_given_overrides_unchanged(write: Write) -> None:
    overrides = {"source": {"queue": "option"}, "keys": {"provider": "development"}}
    before = json.dumps(overrides)
    load(write(""), {"SQS2PG_SOURCE__WAIT_TIME_S": "2"}, overrides=overrides)
    assert json.dumps(overrides) == before


def test_the_file_is_the_option_s_else_the_variable_s_else_the_one_here(tmp_path: Path) -> None:
    for name in ("option", "variable", str(DEFAULT_FILE)):
        (tmp_path / name).write_text(f"[source]\nqueue = '{name}'")
    environ = {"SQS2PG_CONFIG": str(tmp_path / "variable")}
    assert load(Path("option"), environ).source.queue == "option"
    assert load(None, environ).source.queue == "variable"
    assert load(None, {"SQS2PG_CONFIG": ""}).source.queue == "sqs2pg.toml"
    assert load(None, {}).source.queue == "sqs2pg.toml"
    assert load(None, {}, discover=False).source.queue == "login-queue"


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_every_key_can_be_set_in_the_file_and_in_the_environment(
    write: Write, section: str, key: str
) -> None:
    default = get(Settings(), section, key)
    choices = {"unknown_fields": "quarantine", "provider": "file", "subject": "ip", "bind": "h:1"}
    choices |= {"cloudwatch": "off", "unmatched": "drop", "layers": ("sns", "gzip")}
    choices |= {"s3_removed": "quarantine", "digest": True}
    choices |= dict.fromkeys(OF_ANY_TEXTS, ("one", "two")) | {"level": "debug", "format": "json"}
    choices |= {"mode": "upsert", "key": ("locale", "user_id")}
    choices |= {"newer": "create_date", "update": ("locale",)}
    choices |= {"records": "lines", "partition_every": "day", "partition_by": "create_date"}
    if key in choices:
        value: Any = choices[key]
    elif isinstance(default, bool):
        value = not default
    elif isinstance(default, int):
        value = default - 1 if default else 1
    elif isinstance(default, float) or default is None:
        value = 0.5 if default == 1 else 3.5
    else:
        value = "other"
    assert value != default
    needs = NEEDS.get(f"{section}.{key}", NEEDS.get(key, {}))
    more = "".join(f"{name} = {json.dumps(needed)}\n" for name, needed in needs.items())
    from_file = load(write(toml(section, key, json.dumps(value)) + more), {})
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    environ = {
        variable(section, name): ",".join(needed) if isinstance(needed, list) else needed
        for name, needed in needs.items()
    }
    from_environment = load(None, environ | {variable(section, key): text})
    assert get(from_file, section, key) == get(from_environment, section, key) == value


@pytest.mark.parametrize("value", ["true", "false", "null", "1", "007", "1.5", "yes", " x ", ""])
def test_a_text_in_the_environment_is_that_text(value: str) -> None:
    assert load(None, {"SQS2PG_SINK__DSN": value}).sink.dsn == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [("true", True), ("TRUE", True), ("1", True), ("False", False), ("0", False)],
)
def test_the_environment_can_set_a_boolean(value: str, expected: bool) -> None:
    assert load(None, {"SQS2PG_KEYS__ALLOW_DEVELOPMENT": value}).keys.allow_development is expected


@pytest.mark.parametrize("value", ["yes", "on", "", "2", CANARY])
def test_any_other_word_for_a_boolean_is_refused(value: str) -> None:
    # Fails closed: a word that is not understood must not admit a development key.
    refused(environ={"SQS2PG_KEYS__ALLOW_DEVELOPMENT": value})


RANGES = [
    ("sink", "partitions_ahead", 1, 100),
    ("sink", "partition_retention_days", 0, 36_500),
    ("sink", "tombstone_retention_days", 1, 36_500),
    ("sink", "retention_days", 0, 36_500),
    ("vault", "reveals_per_hour_max", 0, 2**31 - 1),
    ("vault", "people_per_hour_max", 0, 2**31 - 1),
    ("envelope", "decompressed_bytes_max", 1024, 2**31 - 1),
    ("envelope", "s3_bytes_max", 1024, 2**31 - 1),
    ("source", "visibility_timeout_s", 2, 43_200),
    ("source", "wait_time_s", 0, 20),
    ("source", "receivers_max", 1, 256),
    ("source", "max_receives", 0, None),
    ("source", "in_flight_messages_max", 10, 120_000),
    ("source", "in_flight_bytes_max", 2**20, None),
    ("source", "drain_settle_s", 0, 3_600),
    ("source", "messages_per_second_max", 0.1, 1_000_000),
    ("", "quarantine_share_max", 0, 1),
    ("", "quarantine_share_messages_min", 1, 1_000_000),
    ("sink", "connections", 1, 16),
    ("sink", "batch_rows_max", 1, 50_000),
    ("sink", "linger_ms", 0, 10_000),
    ("sink", "statement_timeout_s", 1, 3_600),
    ("status", "poll_s", 0.1, 600),
    ("telemetry", "every_s", 1, 3_600),
    ("quarantine", "retention_days", 1, 3_650),
    ("ledger", "retention_days", 15, 3_650),
    ("", "shutdown_grace_s", 0, 900),
    ("", "start_timeout_s", 0, 3600),
    ("aws_lambda", "margin_s", 2, 120),
    ("ray", "consumers_min", 0, 10_000),
    ("ray", "consumers_max", 1, 10_000),
    ("ray", "catch_up_s", 1, 86_400),
    ("ray", "cpus", 0.1, 64),
    ("ray", "every_s", 0.1, 300),
    ("process", "connections_max", 0, 1_000),
    ("process", "in_flight_bytes_max", 0, None),
    ("process", "receivers_max", 1, 10_000),
]


@pytest.mark.parametrize(("section", "key", "low", "high"), RANGES)
def test_values_up_to_the_ends_of_a_range_are_accepted_and_others_reported(
    write: Write, section: str, key: str, low: int, high: int | None
) -> None:
    name = ".".join(filter(None, (section, key)))
    needs = NEEDS.get(name, {})
    more = "".join(f"{one} = {json.dumps(needed)}\n" for one, needed in needs.items())
    for value in (low, high):
        if value is not None:
            assert (
                get(load(write(toml(section, key, str(value)) + more), {}), section, key) == value
            )
    for value in (low - 1, None if high is None else high + 1):
        if value is None:
            continue
        file = write(toml(section, key, str(value)))
        assert f"setting {name} in {file}: Expected" in refused(file).what
        name_of_variable = variable(section, key)
        error = refused(environ={name_of_variable: str(value)})
        assert f"setting {name} in {name_of_variable}: Expected" in error.what


def test_every_number_has_a_tested_range() -> None:
    numbers = {(s, k) for s, k in keys() if type(get(Settings(), s, k)) in (int, float, type(None))}
    numbers -= {("status", "bind"), ("sink", "digest")}  # no numbers, and may be absent
    assert numbers == {(section, key) for section, key, *_ in RANGES}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("name", ["shutdown_grace_s", "source.drain_settle_s"])
def test_numbers_out_of_every_range_are_refused(write: Write, name: str, value: str) -> None:
    refused(write(f"{name} = {value}"))
    refused(environ={"SQS2PG_" + name.upper().replace(".", "__"): value})


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_wrong_type_is_reported_without_the_value(write: Write, section: str, key: str) -> None:
    wrong = [f'["{CANARY}"]', f'{{a = "{CANARY}"}}', f'[["{CANARY}"]]', "2020-01-01"]
    if takes_any_text(section, key):
        taken = get(load(write(toml(section, key, f'"{CANARY}"')), {}), section, key)
        assert taken in (CANARY, (CANARY,))
        wrong = wrong[key in OF_ANY_TEXTS :]
    elif key in OF_COLUMNS:
        wrong = wrong[key != "newer" :]
    else:
        wrong.append(f'"{CANARY}"')
    for value in wrong:
        file = write(toml(section, key, value))
        error = refused(file)
        assert key in error.what
        assert str(file) in error.what


@pytest.mark.parametrize(("section", "key"), KEYS)
def test_a_wrong_value_in_the_environment_is_reported_by_the_variable_s_name(
    section: str, key: str
) -> None:
    name = variable(section, key)
    if takes_any_text(section, key):
        assert get(load(None, {name: CANARY}), section, key) in (CANARY, (CANARY,))
    elif key in OF_COLUMNS:  # a text, which another rule refuses
        assert f"{section}.{key}" in refused(environ={name: CANARY}).what
    else:
        assert name in refused(environ={name: CANARY}).what


@pytest.mark.parametrize("section", ["source", "sink", "keys", "vault", "ledger", "status"])
def test_a_value_in_place_of_a_section_is_reported_whatever_the_environment_says(
    write: Write, section: str
) -> None:
    key = next(key for s, key in keys() if s == section)
    for value in ("5", f'"{CANARY}"', f'["{CANARY}"]', f'[{{queue = "{CANARY}"}}]'):
        file = write(f"{section} = {value}")
        for environ in ({}, {variable(section, key): "1"}):
            assert f"setting {section} in {file}: Expected `object`" in refused(file, environ).what


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("field = 5", "field"),
        (f'field = ["{CANARY}"]', "field[0]"),
        (f'[field]\nsource = "{CANARY}"\ncolumn = "a"', "field"),
        (f'[[field]]\nsource = "{CANARY}"', "field[0]"),
        (FIELD + f'[[field]]\nsource = "b"\ncolumn = ["{CANARY}"]', "field[1].column"),
        (FIELD + f'type = "{CANARY}"', "field[0].type"),
        (FIELD + f'kind = "{CANARY}"', "field[0].kind"),
        (FIELD + f'required = "{CANARY}"', "field[0].required"),
        (FIELD + f'recover = ["{CANARY}"]', "field[0].recover"),
        (FIELD + "over_length = 'cut'", "field[0].over_length"),
        (FIELD + f'default = ["{CANARY}"]', "field[0].default"),
        (FIELD + "length_max = 0", "field[0].length_max"),
        (FIELD + f'length_max = "{CANARY}"', "field[0].length_max"),
        (f'[[field]]\nsource = ""\ncolumn = "{CANARY}"', "field[0].source"),
        (f'[[field]]\nsource = "{"x" * 257}"\ncolumn = "{CANARY}"', "field[0].source"),
        (f'[[field]]\nsource = "{CANARY}\\""\ncolumn = "a"', "field[0].source"),
        (f'[[field]]\nsource = "{CANARY}\\\\"\ncolumn = "a"', "field[0].source"),
        (f'[[field]]\nsource = "{CANARY}\\n"\ncolumn = "a"', "field[0].source"),
        (f'[[field]]\nsource = "{CANARY}\\u0000"\ncolumn = "a"', "field[0].source"),
        (f'[[field]]\nsource = "{CANARY}"\ncolumn = ""', "field[0].column"),
        (f'[[field]]\nsource = "{CANARY}"\ncolumn = "{"x" * 64}"', "field[0].column"),
        (f'[[field]]\nsource = "{CANARY}"\ncolumn = "a\\u0000"', "field[0].column"),
        (f'name = "{CANARY} "', "name"),
        (f'name = "{CANARY}\\n"', "name"),
        (f'name = "{"x" * 64}"', "name"),
        (f'[status]\nbind = "{CANARY}:"', "status.bind"),
        (f'[status]\nbind = "{CANARY}:1\\n"', "status.bind"),
        (f'[status]\nbind = "{CANARY}:65536"', "status.bind"),
        (f'[ledger]\ndedupe_key = "{CANARY}\\""', "ledger.dedupe_key"),
        (f'[ledger]\ndedupe_key = "{CANARY}\\n"', "ledger.dedupe_key"),
        ('[sink]\ntable = ""', "sink.table"),
        ('[sink]\ntable = "a\\u0000"', "sink.table"),
        ('[source]\nqueue = ""', "source.queue"),
    ],
)
def test_a_wrong_value_is_reported_by_its_place(write: Write, text: str, place: str) -> None:
    file = write(text)
    assert refused(file).what.startswith(f"setting {place} in {file}: Expected") or (
        refused(file).what.startswith(
            (
                f"setting {place} in {file}: is not one of the allowed values",
                f"setting {place} in {file}: Object missing required field",
            )
        )
    )


def test_a_wrong_value_is_reported_with_what_its_key_is_for(write: Write) -> None:
    refusal = refused(write('[status]\nbind = "9465"'))
    assert refusal.hint.startswith("status.bind: host:port of the status page")
    for port in ("0", "9465", "59999", "64999", "65535"):
        bind = f"127.0.0.1:{port}"
        assert load(write(f'[status]\nbind = "{bind}"'), {}).status.bind == bind


def test_a_word_that_is_none_of_a_few_is_reported_with_those(write: Write) -> None:
    refusal = refused(write('[[field]]\nsource = "a"\ncolumn = "a"\ntype = "varchar"'))
    assert "allowed: bigint, bigint[], boolean" in refusal.hint


@pytest.mark.parametrize("name", ["a.b", "é", "🔑", "$ref", "with space", "__class__", "'"])
def test_a_source_may_be_any_other_name(write: Write, name: str) -> None:
    file = write(f'[[field]]\nsource = "{name}"\ncolumn = "{name}"')
    assert load(file, {}).fields == (Field(source=name, column=name),)


@pytest.mark.parametrize(
    ("text", "unknown", "hint"),
    [
        ("[snk]\ndsn = 'x'", "snk", "did you mean sink?"),
        ("[sorce]\nqueue = 'x'", "sorce", "did you mean source?"),
        ("[sink]\nconnectons = 1", "sink.connectons", "did you mean sink.connections?"),
        (
            "[source]\nvisibility_timeout = 1",
            "source.visibility_timeout",
            "source.visibility_timeout_s?",
        ),
        ("unknown_field = 'drop'", "unknown_field", "did you mean unknown_fields?"),
        ("[Sink]\ndsn = 'x'", "Sink", "did you mean sink?"),
        ("queue = 'x'", "queue", "known: archive, aws_lambda, envelope, example, "),
        (FIELD + "sorce = 'x'", "field[0].sorce", "did you mean field[0].source?"),
        (FIELD + FIELD + "colum = 'x'", "field[1].colum", "did you mean field[1].column?"),
        ("[[fields]]\nsource = 'x'", "fields", "did you mean field?"),
        ("[sink]\nzzzzzz = 1", "sink.zzzzzz", "known: sink.batch_rows_max, "),
        ("[keys]\npseudonym_root = 'x'", "keys.pseudonym_root", "known: keys.allow_development, "),
        ("[sink.dsn]\nx = 1", "", ""),
    ],
)
def test_an_unknown_key_of_the_file_names_the_nearest_known_one(
    write: Write, text: str, unknown: str, hint: str
) -> None:
    file = write(text.replace("'x'", f"'{CANARY}'"))
    error = refused(file)
    if unknown:
        assert error.what == f"unknown setting {unknown} in {file}"
        assert error.code == "unknown_setting"
        assert hint in error.hint


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("SQS2PG_SOURCE__QUEU", "did you mean SQS2PG_SOURCE__QUEUE?"),
        ("SQS2PG_SORCE__QUEUE", "did you mean SQS2PG_SOURCE__…?"),
        ("SQS2PG_SOURCE_QUEUE", "did you mean SQS2PG_SOURCE__…?"),
        ("SQS2PG_SOURCE", "did you mean SQS2PG_SOURCE__…?"),
        ("SQS2PG_SINK__DSN__PASSWORD", "known: SQS2PG_ARCHIVE__…, "),
        ("SQS2PG_UNKNOWN_FIELD", "did you mean SQS2PG_UNKNOWN_FIELDS?"),
        ("SQS2PG_CONFIGG", "did you mean SQS2PG_CONFIG?"),
        ("SQS2PG_KEYS__PSEUDONYM_ROT", "did you mean SQS2PG_KEYS__PSEUDONYM_ROOT?"),
        ("SQS2PG_KEYS__PSEUDONYM_ROOT_V", "did you mean SQS2PG_KEYS__PSEUDONYM_ROOT?"),
        ("SQS2PG_KEYS__PSEUDONYM_ROOT_V02", "did you mean SQS2PG_KEYS__PSEUDONYM_ROOT?"),
        ("SQS2PG_KEYS__VAULT_ROOT_V10000", "did you mean SQS2PG_KEYS__VAULT_ROOT?"),
        ("SQS2PG_PSEUDONYM_ROOT", "known: SQS2PG_"),
        ("SQS2PG_FIELD", "did you mean SQS2PG_"),
        ("SQS2PG_", "known: SQS2PG_"),
        ("SQS2PG_SINK__", "known: SQS2PG_SINK__"),
        ("SQS2PG_1__2__3", "known: SQS2PG_"),
    ],
)
def test_an_unknown_variable_names_the_nearest_known_one(name: str, hint: str) -> None:
    error = refused(environ={name: CANARY})
    assert error.what == f"unknown setting {name} in the environment"
    assert error.code == "unknown_setting"
    assert error.hint.startswith(hint)


def test_variables_of_others_and_key_roots_are_not_settings() -> None:
    others = {
        "SQS2PG_KEYS__PSEUDONYM_ROOT": CANARY,
        "SQS2PG_KEYS__PSEUDONYM_ROOT_V2": CANARY,
        "SQS2PG_KEYS__VAULT_ROOT": CANARY,
        "SQS2PG_KEYS__VAULT_ROOT_V12": CANARY,
        "DATABASE_URL": CANARY,
        "AWS_REGION": CANARY,
        "SQS2PGX": CANARY,
        "sqs2pg_source__queue": CANARY,
    }
    settings = load(None, others)
    assert settings == Settings()
    assert CANARY not in f"{settings}"


def test_a_key_root_in_the_file_is_refused_unquoted(write: Write) -> None:
    refused(write(f'[keys]\npseudonym_root = "{CANARY}"'))
    refused(write(f'[keys]\nvault_root = "{CANARY}"'))


@pytest.mark.parametrize(
    "text",
    [
        f'[sink]\ndsn = "{CANARY}',
        f"[sink]\ndsn = {CANARY}",
        f'[sink]\ndsn = "{CANARY}" {CANARY}',
        f'[sink]\ndsn = "\\q{CANARY}"',
        f'[sink]\ndsn = "{CANARY}\n"',
        f'[sink\ndsn = "{CANARY}"',
        f"{CANARY}",
        f"{CANARY} =",
        f"= {CANARY}",
        f'[sink]\ndsn = "a"\ndsn = "{CANARY}"',
        f'[sink]\n[sink]\ndsn = "{CANARY}"',
        f'sink = {{dsn = "{CANARY}",}}',
        f'sink = {{dsn = "{CANARY}"',
        f'\ufeff[sink]\ndsn = "{CANARY}"',
        f'[sink]\ndsn = "{CANARY}\x00"',
        f"x = 0{CANARY}",
        f"x = 2020-13-45T{CANARY}",
        f'a = {"[" * 5_000}"{CANARY}"',
        f"a = {'{x = ' * 5_000}",
    ],
)
def test_text_that_is_not_toml_is_reported_without_quoting_it(write: Write, text: str) -> None:
    file = write(text)
    error = refused(file)
    assert error.what.startswith(f"settings file {file} is ")
    assert "x" * 100 not in error.what


def test_invalid_toml_is_reported_with_its_place(write: Write) -> None:
    file = write("[sink]\nconnections = 2\ndsn = nope\n")
    assert refused(file).what == f"settings file {file} is not valid TOML at line 3, column 7"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    missing, folder, binary = tmp_path / "no.toml", tmp_path, tmp_path / "binary"
    binary.write_bytes(b'[sink]\ndsn = "\xff' + CANARY.encode())
    assert refused(missing).what == f"settings file {missing} does not exist"
    assert refused(None, {"SQS2PG_CONFIG": str(missing)}).what == (
        f"settings file {missing} does not exist"
    )
    assert refused(folder).what == f"settings file {folder} cannot be read: Is a directory"
    assert refused(binary).what == f"settings file {binary} cannot be read: it is not UTF-8 text"


def test_a_file_that_may_not_be_read_is_named(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(f'[sink]\ndsn = "{CANARY}"')

    def forbidden(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # root may read any file
    assert refused(file).what == f"settings file {file} cannot be read: Permission denied"


def test_a_bad_value_of_an_option_is_reported() -> None:
    error = refused(None, {}, overrides={"source": {"wait_time_s": 99}})
    assert error.what == "setting source.wait_time_s in the settings: Expected `int` <= 20"


def test_no_way_of_printing_shows_the_connection_string() -> None:
    settings = load(None, {"SQS2PG_SINK__DSN": f"postgresql://u:{CANARY}@h/db"})
    shown = [repr(settings), str(settings), f"{settings.sink}", f"{[settings.sink]!r}"]
    shown += [pretty_repr(settings), pretty_repr(settings.sink)]
    assert not [text for text in shown if CANARY in text]
    assert CANARY in settings.sink.dsn


def test_settings_are_frozen() -> None:
    settings = load(None, {})
    for target, name in ((settings, "name"), (settings.sink, "dsn"), (USER_LOGINS[0], "mask")):
        with pytest.raises(AttributeError):
            setattr(target, name, "x")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (FIELD + FIELD, "two fields go to the column 'a'"),
        (FIELD + "mask = 'sha256'", "field 'a': mask = \"sha256\" is reversible"),
        (FIELD + "mask = 'sha256'", "million hashes/s just measured here"),
        ("[[field]]\nsource = 'a'", "field[0] in "),
        (FIELD + "mask = 'drop'", 'mask = "drop" allows no other key than source'),
        (DROPPED + "required = true", "allows no other key than source"),
        ("[[field]]\nmask = 'drop'", "allows no other key than source"),
        (FIELD + DROPPED, "field 'a' is dropped, and 'a' goes to a column"),
        (
            "[[field]]\nsource = 'a.b'\ncolumn = 'b'\n" + DROPPED,
            "field 'a' is dropped, and 'a.b' goes to a column",
        ),
        (
            FIELD + "type = 'jsonb'\n[[field]]\nsource = 'a.b'\nmask = 'drop'",
            "field 'a.b' is dropped, and 'a' goes to a column with all that is in it",
        ),
        (
            "[[field]]\nsource = '$'\ncolumn = 'whole'\ntype = 'jsonb'\n" + DROPPED,
            "field 'a' is dropped, and '$' goes to a column with all that is in it",
        ),
        (FIELD + "mask = 'fpe_ff1'\nkind = 'email'", "cannot mask values of kind 'email'"),
        (FIELD + "mask = 'encrypt'\nrecover = true", "gives another mask each time"),
        (FIELD + "mask = 'rot13'", "unknown masking operator 'rot13'"),
        (
            FIELD + "mask = 'pseudonymize'\ntype = 'version'",
            "gives text, but its type is 'version'",
        ),
        (FIELD + "mask = 'pseudonymize'\ntype = 'date'", "gives text, but its type is 'date'"),
        (FIELD + "required = true\ndefault = 'x'", "field 'a' is required and has a default"),
        (FIELD + "default = 'attribute:'", "names no attribute"),
        (FIELD + "default = 'record_index'", 'default = "record_index" and a source'),
        (
            FIELD + "type = 'timestamptz'\ndefault = 'sent_date'",
            "not a value of type 'timestamptz'",
        ),
        (FIELD + "type = 'integer'\ndefault = 'sent_time'", "not a value of type 'integer'"),
        (FIELD + "type = 'jsonb'\ndefault = 'message_id'", "not a value of type 'jsonb'"),
        (FIELD + "type = 'jsonb'\ndefault = '{a'", "the default is not JSON"),
        ("[vault]\nenabled = true\nsubject = 'nobody'", "vault.subject names 'nobody'"),
        ("[vault]\nenabled = true\n" + FIELD, "vault.subject names 'user_id'"),
        (OF_A + FIELD + "over_length = 'truncate'", 'truncate" on vault.subject'),
        (OF_A + FIELD + "[[field]]\nsource = 'a'\ncolumn = 'b'\ntype = 'uuid'", "several types"),
        (
            OF_A
            + FIELD
            + "mask = 'pseudonymize'\nkind = 'email'\n"
            + "[[field]]\nsource = 'a'\ncolumn = 'b'\nmask = 'pseudonymize'",
            "masks of several kinds",
        ),
        *[
            (f"[[field]]\ncolumn = 'c'\ndefault = 'attribute:{name}'", f"{name} is set by SQS")
            for name in ("MessageGroupId", "SequenceNumber", "SentTimestamp", "SenderId")
        ],
        *[
            (f"[[field]]\ncolumn = 'c'\ndefault = 'attribute:{name}'", "adds no attribute")
            for name in ("sns.TopicARN", "eventbridge.detail", "s3.object", "sns.")
        ],
        *[
            (f"[[field]]\ncolumn = 'c'\nsource = '{source}'", what)
            for source, what in (
                ("sqs:MessageGroupID", "SQS sets no attribute"),
                ("sqs:SqsManagedSseEnabled", "SQS sets no attribute"),
                ("sqs:", "names no attribute"),
                ("attribute:", "names no attribute"),
                ("attribute:MessageGroupId", "MessageGroupId is set by SQS"),
                ("attribute:sns.Topic", "adds no attribute"),
            )
        ],
        (FIELD + "default = 'sqs:MessageGroup'", "SQS sets no attribute"),
        ("[[field]]\ncolumn = 'c'\nsource = 'sqs:SenderId'\ntype = 'text[]'", "is one value"),
        (
            "[[field]]\ncolumn = 'c'\nsource = 'sqs:SentTimestamp'\ntype = 'timestamptz'",
            "number of milliseconds",
        ),
        ("ledger.dedupe_key = 'sqs:MessageDeduplicationId'\n" + FIELD, "not in the body"),
        ("explode = 'attribute:rows'\n" + FIELD, "not in the body"),
        (FIELD + "[[field]]\nsource = 'sqs:SenderId'\nmask = 'drop'", "not in the body"),
        (
            "[[field]]\ncolumn = 'd'\ndefault = 'attribute:a'\n"
            + FIELD.replace('"a"', '"attribute:a"', 1)
            + "mask = 'pseudonymize'",
            "kept for another",
        ),
        ("[envelope]\nlayers = ['s3']\ns3_delete = true", "s3_buckets names no bucket"),
        ("[envelope]\nlayers = ['auto']\ns3_delete = true", "s3_buckets names no bucket"),
        ("sink.mode = 'upsert'", "sink.key names no column"),
        ("sink.mode = 'ignore'", "sink.key names no column"),
        ("sink.newer = 'user_id'", 'sink.newer has no effect with mode = "append"'),
        (IGNORE + "sink.update = ['locale']", "sink.update has no effect"),
        (IGNORE + "sink.keep_if_null = true", "sink.keep_if_null has no effect"),
        (IGNORE + ROUTE, "there are [[route]] tables"),
        (
            OF_USERS.replace("user_id", "nobody"),
            "sink.key names a column of user_logins that no field",
        ),
        (OF_USERS.replace("]", ", 'user_id']"), "names the column 'user_id' twice"),
        (
            OF_USERS + "sink.newer = 'nobody'",
            "sink.newer names a column of user_logins that no field",
        ),
        (OF_USERS + "sink.newer = 'user_id'", "which is in sink.key"),
        (OF_USERS + "sink.newer = 'masked_ip'", "masks have no order"),
        (
            OF_USERS + "sink.update = ['nobody']",
            "sink.update names a column of user_logins that no field",
        ),
        (OF_USERS + "sink.update = ['user_id']", "which is in sink.key"),
        (OF_USERS + "sink.partition_by = 'create_date'", "which is not in key"),
        (IGNORE + DELETES, "sink.delete_when has no effect"),
        (OF_A_KEY + DELETES + FIELD + "type = 'jsonb'\n" + OF_B, "have several spellings"),
        (OF_A_KEY + DELETES + FIELD + "type = 'interval'\n" + OF_B, "have several spellings"),
        (OF_A_KEY + DELETES + FIELD + "type = 'text[]'\n" + OF_B, "have several spellings"),
        (
            OF_A_KEY + DELETES + FIELD + "over_length = 'truncate'\n" + OF_B,
            "remembered by the whole",
        ),
        (OF_A_KEY + FIELD + OF_B.replace("'b'", "'sqs2pg_line'"), "are staged with"),
        (OF_USERS + "sink.delete_when = {}", "`delete_when` of sink has neither field nor"),
        (OF_USERS + "sink.delete_when = {field = 'a'}", "`delete_when` of sink has no condition"),
        (OF_A_KEY + FIELD, "an upsert has nothing to change"),
        (OF_A_KEY + FIELD + "mask = 'encrypt'", "does not give equal values equal masks"),
        (OF_A_KEY + FIELD + "mask = 'redact'", "does not give equal values equal masks"),
        (OF_A_KEY + "sink.newer = 'b'\n" + FIELD + OF_B + "type = 'jsonb'", "no order of versions"),
        (
            OF_A_KEY
            + "sink.newer = 'b'\n"
            + FIELD
            + OF_B.replace("'b'", "'sqs:SequenceNumber'", 1),
            "9 would be newer than 10",
        ),
        (
            OF_A_KEY + "sink.newer = 'b'\n" + FIELD + OF_B.replace("'b'", "'sqs:SentTimestamp'", 1),
            "9 would be newer than 10",
        ),
        ("[envelope]\nlayers = ['s3_event']", "s3_buckets names no bucket"),
        ("[envelope]\nlayers = ['s3_event', 'sns']\ns3_buckets = ['b']", "is the last layer"),
        ("[envelope]\nlayers = ['s3', 's3_event']\ns3_buckets = ['b']", "does not go with"),
        (
            "[envelope]\nlayers = ['s3_event']\ns3_buckets = ['b']\ns3_delete = true",
            "s3_delete is on",
        ),
    ],
)
def test_settings_that_do_not_fit_together(write: Write, text: str, what: str) -> None:
    assert what in refused(write(text)).what


@pytest.mark.parametrize(
    ("text", "fields", "dropped", "subject"),
    [
        (FIELD + "[[field]]\nsource = 'a'\ncolumn = 'b'", [A, {**A, "column": "b"}], (), ""),
        (
            "i_accept_reversible = true\n" + FIELD + "mask = 'sha256'",
            [{**A, "mask": "sha256"}],
            (),
            "",
        ),
        (
            FIELD + "type = 'jsonb'\ndefault = '{\"a\": [null]}'",
            [JSONB | {"default": '{"a": [null]}'}],
            (),
            "",
        ),
        (FIELD + "type = 'jsonb'\ndefault = true", [JSONB | {"default": True}], (), ""),
        (
            FIELD + "type = 'jsonb'\ndefault = 'attribute:shape'",
            [JSONB | {"default": "attribute:shape"}],
            (),
            "",
        ),
        (DROPPED, None, ("a",), ""),
        (FIELD + DROPPED.replace("'a'", "'b'"), [A], ("b",), ""),
        ("[vault]\nenabled = true", None, (), "user_id"),
        ("[vault]\nenabled = true\nsubject = 'a'\n" + FIELD, [A], (), "a"),
        ("[vault]\nsubject = 'nobody'", None, (), ""),
        (
            "[vault]\nsubject = 'a'\n" + FIELD + "over_length = 'truncate'",
            [{**A, "over_length": "truncate"}],
            (),
            "",
        ),
    ],
)
def test_settings_that_fit_together_are_taken_as_they_are_written(
    write: Write,
    text: str,
    fields: list[dict[str, Any]] | None,
    dropped: tuple[str, ...],
    subject: str,
) -> None:
    settings = load(write(text), {})
    cross_check(settings)
    expected = USER_LOGINS if fields is None else tuple(Field(**field) for field in fields)
    assert settings.fields == expected
    assert settings.dropped == dropped
    assert (settings.vault.subject if settings.vault.enabled else "") == subject


def test_the_fields_of_a_key_are_required() -> None:
    """A row without its key is nobody's; a default is a key, too."""
    fields = [A, {"column": "b", "default": "x"}, {"source": "c", "column": "c"}]
    sink = {"mode": "upsert", "key": ["a", "b"], "update": []}
    [target] = load(None, {}, overrides={"field": fields, "sink": sink}, discover=False).targets
    assert [field.required for field in target.fields] == [True, False, False]
    assert target.updated_columns == ("c",)
    sink = {"key": ["a", "b"]}  # of a log, which takes rows without a key
    [target] = load(None, {}, overrides={"field": fields, "sink": sink}, discover=False).targets
    assert target.write.keeps_digest
    assert not any(field.required for field in target.fields)


def test_each_route_has_its_own_mode() -> None:
    fields = [A, {"source": "b", "column": "b"}, {"source": "v", "column": "v"}]
    state = {"mode": "upsert", "key": ["a"], "newer": "v", "update": ["b"], "keep_if_null": True}
    route = [{"table": "log", "field": fields}, {"table": "state", "field": fields} | state]
    log, kept = load(None, {}, overrides={"route": route}, discover=False).targets
    assert (log.write.mode, log.write.keeps_state) == ("append", False)
    assert (kept.write.mode, kept.write.key, kept.updated_columns) == ("upsert", ("a",), ("b", "v"))


def test_consent_may_come_from_the_environment(write: Write) -> None:
    file = write(FIELD + "mask = 'sha256'")
    assert load(file, {"SQS2PG_I_ACCEPT_REVERSIBLE": "true"}).field[0].mask == "sha256"


def test_a_mapping_of_one_s_own_replaces_the_built_in_one(write: Write) -> None:
    settings = load(write("name = 'orders'\n[sink]\ntable = 'shop.orders'\n" + FIELD), {})
    assert settings.fields == (Field(source="a", column="a"),)
    assert settings.pipeline_name == "orders"
    assert SinkSettings(table="shop.orders") == settings.sink


@pytest.mark.parametrize("value", ["007", "null", "true", "1", ""])
def test_a_default_given_as_text_stays_text(write: Write, value: str) -> None:
    assert load(write(FIELD + f'default = "{value}"'), {}).field[0].default == value


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SQS2PG_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SQS2PG_SOURCE__QUEUE", "from-the-process")
    assert load().source.queue == "from-the-process"


def test_dropped_fields_are_known_and_go_nowhere(write: Write) -> None:
    settings = load(write(DROPPED), {})
    assert settings.dropped == ("a",)
    assert settings.fields == USER_LOGINS, "what is dropped beside them leaves the built-in fields"
    settings = load(write(FIELD + DROPPED.replace("'a'", "'b.c'")), {})
    assert [field.source for field in settings.fields] == ["a"]
    assert settings.dropped == ("b.c",)
