"""The settings of several pipelines: names, what belongs to the process, what the environment may
set.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sqs2pg.errors import SettingsError
from sqs2pg.settings import Settings, load, load_pipeline, load_pipelines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, **texts: str) -> None:
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)


def named(folder: Path, environ: dict[str, str] | None = None) -> dict[str, Settings]:
    found = load_pipelines([folder], environ or {})
    return {settings.pipeline_name: settings for settings in found.values()}


@pytest.mark.parametrize(
    ("file", "text", "name"),
    [
        ("orders.toml", "", "orders"),
        ("a-1_b.toml", "", "a-1_b"),
        ("orders.toml", 'name = "other"\n', "other"),
        ("sqs2pg.toml", "", "user_logins"),
        ("sqs2pg.toml", '[sink]\ntable = "t"\n', "t"),
        ("sqs2pg.toml", 'name = "mine"\n', "mine"),
        ("no_settings", "", "user_logins"),
    ],
)
def test_a_pipeline_has_one_name_alone_and_among_others(
    folder: Path, file: str, text: str, name: str
) -> None:
    (folder / file).write_text(text)
    assert load(folder / file, {}).pipeline_name == name
    assert load(None, {"SQS2PG_CONFIG": str(folder / file)}).pipeline_name == name
    if file.endswith(".toml"):
        assert list(named(folder)) == [name]


@pytest.mark.parametrize("stem", ["My Orders", "ORDERS", "a.b", "ö", "x" * 64])
def test_a_file_that_cannot_name_its_pipeline_is_refused(folder: Path, stem: str) -> None:
    write(folder, **{stem: ""})
    with pytest.raises(SettingsError) as refused:
        load(folder / f"{stem}.toml", {})
    assert str(folder / f"{stem}.toml") in refused.value.what
    assert "name" in refused.value.hint
    write(folder, **{stem: 'name = "orders"\n'})
    assert load(folder / f"{stem}.toml", {}).pipeline_name == "orders"


@pytest.mark.parametrize("text", ['name = "Orders"\n', 'name = "a.b"\n'])
def test_names_among_several_can_stand_in_an_address(folder: Path, text: str) -> None:
    write(folder, a=text)
    with pytest.raises(SettingsError, match="cannot be the name") as refused:
        load_pipelines([folder], {})
    assert str(folder / "a.toml") in refused.value.what


def test_two_pipelines_of_one_name_are_refused_with_both_files(folder: Path) -> None:
    write(folder, a='name = "same"\n', b='name = "same"\n')
    with pytest.raises(SettingsError, match="both called same") as refused:
        load_pipelines([folder], {})
    assert str(folder / "a.toml") in refused.value.what
    assert str(folder / "b.toml") in refused.value.what


def test_a_folder_and_files_are_read_once_each(folder: Path) -> None:
    write(folder, a="", b="")
    (folder / ".hidden.toml").write_text("no TOML")
    (folder / "notes.txt").write_text("no TOML")
    found = load_pipelines([folder, folder / "a.toml"], {})
    assert [one.pipeline_name for one in found.values()] == ["a", "b"]
    assert list(load_pipelines([folder / "b.toml", folder / "a.toml"], {}).values()) == [
        found[folder / "b.toml"],
        found[folder / "a.toml"],
    ]
    assert load_pipelines([], {"SQS2PG_CONFIG": str(folder)}) == load_pipelines([folder], {})


def test_an_empty_folder_is_refused(folder: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        load_pipelines([folder], {})


@pytest.mark.parametrize(
    ("a", "b", "key", "values"),
    [
        ("shutdown_grace_s = 5", "shutdown_grace_s = 6", "shutdown_grace_s", ("5", "6")),
        ('[status]\nbind = "h:1"', '[status]\nbind = "h:2"', "status.bind", ("'h:1'", "'h:2'")),
        ('[log]\nlevel = "info"', '[log]\nlevel = "debug"', "log.level", ("'info'", "'debug'")),
        ("[telemetry]\nevery_s = 5", "[telemetry]\nevery_s = 6", "telemetry.every_s", ("5", "6")),
        (
            "[process]\nconnections_max = 5",
            "[process]\nconnections_max = 6",
            "process.connections_max",
            ("5", "6"),
        ),
    ],
)
def test_files_that_disagree_on_the_process_are_refused(
    folder: Path, a: str, b: str, key: str, values: tuple[str, str]
) -> None:
    write(folder, a=a, b=b, c="")
    with pytest.raises(SettingsError, match="disagree") as refused:
        load_pipelines([folder], {})
    said = refused.value.what
    for part in (str(folder / "a.toml"), str(folder / "b.toml"), key, *values):
        assert part in said


def test_a_secret_is_no_value_of_an_error(folder: Path) -> None:
    secret = "s3cret-canary"
    write(folder, a=f'[status]\ntoken = "{secret}"', b='[status]\ntoken = "other-secret"')
    with pytest.raises(SettingsError, match=r"status\.token") as refused:
        load_pipelines([folder], {})
    assert secret not in refused.value.what + refused.value.hint
    assert "other-secret" not in refused.value.what


def test_what_one_file_says_of_the_process_holds_for_all(folder: Path) -> None:
    write(
        folder,
        a='shutdown_grace_s = 5\n[status]\nbind = "127.0.0.1:1"\n[log]\nlevel = "INFO"',
        b='shutdown_grace_s = 5.0\n[log]\nlevel = "info"\n[sink]\ntable = "b"',
        c='[status]\npoll_s = 2\n[source]\nqueue = "c"',
    )
    found = named(folder)
    for settings in found.values():
        assert settings.shutdown_grace_s == 5
        assert (settings.status.bind, settings.status.poll_s) == ("127.0.0.1:1", 2)
        assert settings.log.level == "info"
    assert found["b"].sink.table == "b"
    assert found["c"].source.queue == "c"
    over = named(folder, {"SQS2PG_SHUTDOWN_GRACE_S": "7", "SQS2PG_STATUS__BIND": ""})
    assert {one.shutdown_grace_s for one in over.values()} == {7}
    assert {one.status.bind for one in over.values()} == {""}


ALLOWED = {
    "SQS2PG_STATUS__TOKEN": "t",
    "SQS2PG_TELEMETRY__EVERY_S": "5",
    "SQS2PG_LOG__LEVEL": "debug",
    "SQS2PG_PROCESS__CONNECTIONS_MAX": "3",
    "SQS2PG_SHUTDOWN_GRACE_S": "3",
    "SQS2PG_SINK__DSN": "postgresql://h/db",
    "SQS2PG_KEYS__FILE": "/keys",
    "SQS2PG_KEYS__PSEUDONYM_ROOT": "x",
}


def test_the_environment_sets_what_is_the_process_s_and_secrets(folder: Path) -> None:
    write(folder, a="", b="")
    for settings in named(folder, ALLOWED).values():
        assert settings.status.token == "t"
        assert settings.process.connections_max == 3
        assert settings.sink.dsn == "postgresql://h/db"
        assert settings.keys.file == "/keys"


@pytest.mark.parametrize(
    "variable",
    ["SQS2PG_SOURCE__QUEUE", "SQS2PG_NAME", "SQS2PG_SINK__TABLE", "SQS2PG_VAULT__ENABLED"],
)
def test_the_environment_sets_nothing_of_one_pipeline(folder: Path, variable: str) -> None:
    write(folder, a="")
    with pytest.raises(SettingsError, match="there are several") as refused:
        load_pipelines([folder], {variable: "true"})
    assert variable in refused.value.what
    # One file alone is as it ever was.
    assert load(folder / "a.toml", {variable: "true"})


def test_a_file_that_cannot_be_used_leaves_the_others(folder: Path) -> None:
    write(folder, a="no TOML", b="", c="unknown = 1", d="[sink]\nlinger = 1")
    refused: dict[Path, Any] = {}
    found = load_pipelines([folder], {}, unusable=refused.__setitem__)
    assert [file.name for file in found if file] == ["b.toml"]
    assert {file.name: error.code for file, error in refused.items()} == {
        "a.toml": "settings",
        "c.toml": "unknown_setting",
        "d.toml": "unknown_setting",
    }
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_pipelines([folder], {})


def test_a_command_takes_a_folder_and_a_name(folder: Path) -> None:
    write(folder, a="", b='[source]\nqueue = "of-b"')
    assert load_pipeline(folder, "b", {}).source.queue == "of-b"
    with pytest.raises(SettingsError, match="several pipelines") as refused:
        load_pipeline(folder, "", {})
    assert refused.value.hint.endswith("a, b")
    with pytest.raises(SettingsError, match="no pipeline is called c") as refused:
        load_pipeline(folder, "c", {})
    assert refused.value.hint.endswith("a, b")
    assert load_pipeline(folder / "a.toml", "a", {}).pipeline_name == "a"
    with pytest.raises(SettingsError, match="no pipeline is called b"):
        load_pipeline(folder / "a.toml", "b", {})
