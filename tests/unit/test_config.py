"""`config show | schema`: what is printed loads again, describes the settings, hides secrets."""

from __future__ import annotations

import json
import os
import time
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import psycopg.conninfo
import pytest
from click.testing import CliRunner, Result

from sqs2pg.cli.config import HIDDEN, config, hide_password
from sqs2pg.errors import SettingsError
from sqs2pg.settings import USER_LOGINS, Field, Settings, load

SECRET = "hunter2"

EVERYTHING = """
name = "orders-eu.1"
unknown_fields = "quarantine"
i_accept_reversible = true
shutdown_grace_s = 1.5
[source]
queue = "https://sqs.eu-west-1.amazonaws.com/123456789012/q.fifo"
drain_settle_s = 0
[sink]
dsn = "host=h dbname='a b' user=u"
table = 'shop."orders"'
[keys]
provider = "file"
file = "C:\\\\keys\\\\k"
allow_development = true
[vault]
enabled = true
subject = "who\u00e9 \U0001f511"
[status]
bind = "[::1]:9000"
[[field]]
source = "who\u00e9 \U0001f511"
column = "a\\tb\u007f\\u0085\\u2028"
required = true
length_max = 9
[[field]]
source = "ip'"
column = "ip"
mask = "sha256"
kind = "ip"
domain = "d"
recover = true
[[field]]
source = "version"
column = "v"
type = "major"
default = 0
[[field]]
source = "text"
column = "t"
default = "a\\nb\\\\"
"""


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("SQS2PG_")]:
        monkeypatch.delenv(name)


def invoke(*arguments: str) -> Result:
    result = CliRunner().invoke(config, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert not result.stderr
    return result


def shown(*arguments: str) -> str:
    return invoke("show", *arguments).stdout


def file_of(tmp_path: Path, text: str, name: str = "sqs2pg.toml") -> Path:
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def validator() -> Any:
    schema = json.loads(CliRunner().invoke(config, ["schema"]).stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_what_is_shown_by_default_loads_to_the_same_settings(tmp_path: Path) -> None:
    text = shown()
    again = load(file_of(tmp_path, text), {})
    assert again.fields == USER_LOGINS
    assert msgspec.structs.replace(again, field=()) == Settings()
    assert text.count("[[field]]") == len(USER_LOGINS)
    assert "\nfield = " not in text


def test_what_is_shown_of_everything_loads_to_the_same_settings(tmp_path: Path) -> None:
    file = file_of(tmp_path, EVERYTHING.replace("\u007f", "\\u007f"))
    settings = load(file, {})
    text = shown("-c", str(file))
    assert load(file_of(tmp_path, text, "again.toml"), {}) == settings
    assert settings.vault.subject == "who\u00e9 \U0001f511"
    assert settings.fields[0].column == "a\tb\u007f\u0085\u2028"


EXAMPLES = sorted(Path(__file__).parents[2].glob("examples/*/sqs2pg.toml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_what_is_shown_of_an_example_loads_to_the_same_settings(tmp_path: Path, file: Path) -> None:
    settings, again = load(file, {}), load(file_of(tmp_path, shown("-c", str(file))), {})
    assert again.targets == settings.targets
    assert again.filters == settings.filters
    assert again.dropped == settings.dropped
    assert [one.fault for one in again.example] == [one.fault for one in settings.example]
    rest = {"field": (), "route": (), "example": ()}
    assert msgspec.structs.replace(again, **rest) == msgspec.structs.replace(settings, **rest)


@pytest.mark.parametrize(
    "code_point", [*range(1, 0x20), 0x22, 0x27, 0x5C, 0x7F, 0x85, 0xFEFF, 0x1F511]
)
def test_any_character_of_a_text_comes_back(tmp_path: Path, code_point: int) -> None:
    file = file_of(tmp_path, f'[source]\nqueue = "a\\U{code_point:08x}b"')
    again = file_of(tmp_path, shown("-c", str(file)), "again.toml")
    assert load(again, {}).source.queue == f"a{chr(code_point)}b"


def test_conversions_come_back(tmp_path: Path) -> None:
    given = """
        [[field]]
        source = ["a", "b.c"]
        column = "c"
        trim = true
        map = {"" = "x", "a b" = 7, t = true}
        otherwise = "keep"
        [[field]]
        source = "t"
        column = "t"
        type = "timestamptz"
        format = "%d.%m.%Y"
        timezone = "Europe/Berlin"
        [[field]]
        source = "n"
        column = "n"
        type = "integer"
        from = "text"
    """
    file = file_of(tmp_path, given)
    again = file_of(tmp_path, shown("-c", str(file)), "again.toml")
    assert load(again, {}).field == load(file, {}).field
    assert load(again, {}).field[2].from_ == "text"


def test_a_setting_without_a_value_is_a_comment() -> None:
    assert "# drain_settle_s is not set" in shown().splitlines()


def test_config_show_includes_the_file_and_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file_of(tmp_path, "[source]\nqueue = 'file'\nwait_time_s = 7", "sqs2pg.toml")
    monkeypatch.setenv("SQS2PG_SOURCE__QUEUE", "environment")
    monkeypatch.setenv("SQS2PG_SINK__DSN", f"password={SECRET}")
    monkeypatch.setenv("SQS2PG_KEYS__PSEUDONYM_ROOT", SECRET)
    monkeypatch.setenv("DATABASE_URL", f"postgresql://u:{SECRET}@h/db")
    text = shown()
    found = tomllib.loads(text)
    assert (found["source"]["queue"], found["source"]["wait_time_s"]) == ("environment", 7)
    assert found["sink"]["dsn"] == f"password={HIDDEN}"
    assert SECRET not in text


def test_config_show_as_json_gives_the_same_settings(tmp_path: Path) -> None:
    file = str(file_of(tmp_path, EVERYTHING.replace("\u007f", "\\u007f"), "given.toml"))
    [line] = shown("-c", file, "--json").splitlines()
    found = json.loads(line)
    assert msgspec.convert(found, Settings) == load(Path(file), {})
    assert [msgspec.convert(field, Field) for field in json.loads(shown("--json"))["field"]] == [
        *USER_LOGINS
    ]


def test_a_password_is_in_neither_form(tmp_path: Path) -> None:
    file = str(file_of(tmp_path, f"[sink]\ndsn = 'postgresql://u:{SECRET}@h/db'"))
    for arguments in (["-c", file], ["-c", file, "--json"]):
        text = shown(*arguments)
        assert SECRET not in text
        assert "postgresql://u:***@h/db" in text


# Each with the part that must still be shown.
CONNECTION_STRINGS = [
    ("", ""),
    ("host=h user=u dbname=db", "host=h user=u dbname=db"),
    (f"host=h password={SECRET} user=u", f"host=h password={HIDDEN} user=u"),
    (f"password={SECRET}", f"password={HIDDEN}"),
    (f"password = {SECRET}  user=u", f"password = {HIDDEN}  user=u"),
    (f"password='{SECRET} {SECRET}' user=u", f"password={HIDDEN} user=u"),
    (f"password='a\\'{SECRET}' user=u", f"password={HIDDEN} user=u"),
    (f"password='a\\\\' user='{SECRET}'", f"password={HIDDEN} user='{SECRET}'"),
    (f"password=a\\ {SECRET} user=u", f"password={HIDDEN} user=u"),
    (f"password='' user={SECRET}", f"password={HIDDEN} user={SECRET}"),
    ("password= user=u", None),
    (f"host=h\npassword={SECRET}\tuser=u", f"host=h\npassword={HIDDEN}\tuser=u"),
    (f"sslpassword={SECRET} sslkey=k", f"sslpassword={HIDDEN} sslkey=k"),
    (f"oauth_client_secret={SECRET}", f"oauth_client_secret={HIDDEN}"),
    (f"scram_client_key={SECRET} scram_server_key={SECRET}", None),
    (f"postgresql://u:{SECRET}@h:5432/db", f"postgresql://u:{HIDDEN}@h:5432/db"),
    (f"postgres://u:{SECRET}@h", f"postgres://u:{HIDDEN}@h"),
    (f"postgresql://:{SECRET}@h/db", f"postgresql://:{HIDDEN}@h/db"),
    (f"postgresql://u:{SECRET}@/db?host=/run", f"postgresql://u:{HIDDEN}@/db?host=/run"),
    ("postgresql://u@h/db", "postgresql://u@h/db"),
    ("postgresql:///db", "postgresql:///db"),
    ("postgresql://", "postgresql://"),
    ("postgresql://[::1]:5432/db", "postgresql://[::1]:5432/db"),
    (
        f"postgresql://u:{SECRET}@h1:1,[2001:db8::1]:2,h3/db?target_session_attrs=read-write",
        f"postgresql://u:{HIDDEN}@h1:1,[2001:db8::1]:2,h3/db?target_session_attrs=read-write",
    ),
    (
        f"postgresql://h/db?user=u&password={SECRET}&sslmode=require",
        f"postgresql://h/db?user=u&password={HIDDEN}&sslmode=require",
    ),
    (f"postgresql://h/db?%70assword={SECRET}", f"postgresql://h/db?%70assword={HIDDEN}"),
    (f"postgresql://h/db?sslpassword={SECRET}", f"postgresql://h/db?sslpassword={HIDDEN}"),
    (f"postgresql://u:%40%2F{SECRET}%3A@h/db", f"postgresql://u:{HIDDEN}@h/db"),
    (f"postgresql://u:a:{SECRET}@h/db", f"postgresql://u:{HIDDEN}@h/db"),
    (f"postgresql://u:a?{SECRET}#@h/db", f"postgresql://u:{HIDDEN}@h/db"),
    ("postgresql://h/db?application_name=a@b", "postgresql://h/db?application_name=a@b"),
    # libpq refuses the rest, or reads it in another way than intended: none of it is shown.
    (f"postgresql://u:a@{SECRET}@h/db", None),
    (f"postgresql://u:a/{SECRET}@h/db", None),
    (f"postgresql://u:{SECRET}/db", None),
    (f"postgresql://u:{SECRET}", None),
    (f"postgresql://h/db?{SECRET}@h/db", None),
    (f"POSTGRESQL://u:{SECRET}@h/db", None),
    (f"mysql://u:{SECRET}@h/db", None),
    (f"u:{SECRET}@h/db", None),
    (f"password='{SECRET} user=u", None),
    (f"password={SECRET}\\", None),
    (f"password='{SECRET}'user=u", None),
    (f"pass word={SECRET}", None),
    (f"PASSWORD={SECRET}", None),
    (f"pwd {SECRET}", None),
    (SECRET, None),
]


LIBPQ_SECRETS = ["password", "sslpassword", "oauth_client_secret"]
LIBPQ_SECRETS += ["scram_client_key", "scram_server_key"]


@pytest.mark.parametrize(("dsn", "visible"), CONNECTION_STRINGS)
def test_a_connection_string_is_shown_without_its_secrets(dsn: str, visible: str | None) -> None:
    found = hide_password(dsn)
    if visible is not None:
        assert found == visible
    else:
        assert SECRET not in found
        assert HIDDEN in found


def test_values_that_libpq_reads_as_secrets_are_never_shown() -> None:
    found = 0
    for dsn, _ in CONNECTION_STRINGS:
        parts = libpq(dsn)
        others = {value for name, value in parts.items() if name not in LIBPQ_SECRETS}
        for value in {*filter(None, map(parts.get, LIBPQ_SECRETS))} - others:
            assert value not in hide_password(dsn), dsn
            found += 1
    assert found > 15


def test_what_is_shown_connects_to_the_same_place() -> None:
    for dsn, visible in CONNECTION_STRINGS:
        if visible:
            before, after = libpq(dsn), libpq(hide_password(dsn))
            for name in LIBPQ_SECRETS:
                before.pop(name, None), after.pop(name, None)
            assert before == after, dsn


def libpq(dsn: str) -> dict[str, str]:
    try:
        return dict(psycopg.conninfo.conninfo_to_dict(dsn))
    except psycopg.ProgrammingError:  # not a connection string, or of a later libpq
        return {}


@pytest.mark.parametrize("start", ["", "postgresql://", "postgresql://u:p@h/d?", "password="])
@pytest.mark.parametrize(
    "piece", ["a=a=", "a\\", "'\\''", "a,", "[::1]:5,", "&a=b", "%41", "a=b ", "://@"]
)
def test_a_longer_connection_string_takes_no_longer_per_character(start: str, piece: str) -> None:
    # A pattern that backtracks, or a copy for each pair, would take 64 times as long or more. The
    # bound lies far from both, since clocks and caches differ from run to run.
    for end in ("", "!", "'", "&!", "@"):
        short, long = (start + piece * count + end for count in (1_000, 8_000))
        bound = 24 * min(cpu_s(short) for _ in range(5)) + 0.000_5
        assert any(cpu_s(long) < bound for _ in range(5)), (start, piece, end)


def cpu_s(dsn: str) -> float:
    """Return the CPU time of hiding its password once, in seconds."""
    began = time.process_time()
    hide_password(dsn)
    return time.process_time() - began


@pytest.mark.parametrize(
    "text",
    [
        "",
        EVERYTHING.replace("\u007f", "\\u007f"),
        "[source]\nqueue = 'q'",
        "[[field]]\nsource='a'\ncolumn='b'",
    ],
)
def test_the_schema_takes_what_loads(validator: Any, tmp_path: Path, text: str) -> None:
    load(file_of(tmp_path, text), {})
    validator.validate(tomllib.loads(text))


def test_the_schema_takes_what_is_shown(validator: Any) -> None:
    validator.validate(tomllib.loads(shown()))
    validator.validate(json.loads(shown("--json")))


@pytest.mark.parametrize(
    "text",
    [
        "[snk]\nx = 1",
        "[sink]\nx = 1",
        "[sink]\nconnections = 0",
        "[sink]\ntable = ''",
        "[sink]\ndsn = 5",
        "[source]\nwait_time_s = 21",
        "[source]\ndrain_settle_s = -1",
        "[keys]\nprovider = 'x'",
        "[keys]\npseudonym_root = 'x'",
        "unknown_fields = 'x'",
        "name = 'a b'",
        'name = "a\\n"',
        "field = 5",
        "[[field]]\nsource = 'a'",
        "[[field]]\nsource = 'a'\ncolumn = 'a'\nsorce = 'a'",
        "[[field]]\nsource = 'a'\ncolumn = 'a'\ntype = 'x'",
        "[[field]]\nsource = 'a'\ncolumn = 'a'\nlength_max = 0",
        "[[field]]\nsource = 'a\"'\ncolumn = 'a'",
    ],
)
def test_the_schema_refuses_what_does_not_load(validator: Any, tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError):
        load(file_of(tmp_path, text), {})
    assert not validator.is_valid(tomllib.loads(text))


def test_the_schema_describes_every_section() -> None:
    schema = json.loads(invoke("schema").stdout)
    names = {"Settings", "SourceSettings", "SinkSettings", "KeysSettings", "VaultSettings"}
    names |= {
        "ArchiveSettings",
        "QuarantineSettings",
        "AwsLambdaSettings",
        "RaySettings",
        "LedgerSettings",
        "ProcessSettings",
    }
    names |= {"StatusSettings", "TelemetrySettings", "LogSettings", "EnvelopeSettings"}
    names |= {"Field", "Route", "When", "Example", "Index"}
    assert names == set(schema["$defs"])
