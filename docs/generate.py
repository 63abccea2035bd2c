"""Reference pages from the code: settings, commands, metrics, fault codes, tables.

Each page is made from what runs: the settings' own types, click's commands, the metrics' registry,
the table of fault codes, and the catalog of a database that `migrate` has just made. Nothing is
written down twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
import psycopg

from sqs2pg.cli import COMMANDS, cli
from sqs2pg.cli.embedded import servers
from sqs2pg.fault_codes import FAULT_CODES, FaultRoute
from sqs2pg.postgres.migrate import migrate
from sqs2pg.runners.connect import connect
from sqs2pg.settings import ENVIRONMENT_PREFIX, Settings, load
from sqs2pg.sqs.deleter import ENTRY_CODES
from sqs2pg.telemetry.metrics import Metrics


def write_all(folder: Path) -> list[Path]:
    """Write every page; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    pages = {
        "settings": settings_page,
        "commands": commands_page,
        "metrics": metrics_page,
        "faults": faults_page,
        "tables": tables_page,
    }
    written = []
    for name, make in pages.items():
        path = folder / f"{name}.md"
        text = make()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        written.append(path)
    # Not a page of its own: a page includes it.
    (folder / "quarantine-reasons.inc").write_text(quarantine_reasons(), encoding="utf-8")
    return written


# -- settings ------------------------------------------------------------------------------


def settings_page() -> str:
    """Every key with its variable, type, range and default."""
    lines = [
        "# Settings",
        "",
        (
            "One TOML file (`sqs2pg.toml` here, `-c FILE`, or `SQS2PG_CONFIG`); each variable"
            " overrides the file. An unknown key is an error that names the nearest known one."
        ),
    ]
    schema = msgspec.json.schema(Settings)
    sections = schema["$defs"]
    top = sections[schema["$ref"].rpartition("/")[2]]["properties"]
    plain = {key: one for key, one in top.items() if not _section_of(one)}
    lines += ["", "## Outside any section", "", *_table("", plain)]
    for key, one in top.items():
        if name := _section_of(one):
            doc = sections[name].get("description", "").split("\n\n")[0]
            many = one.get("type") == "array"
            title = f"[[{key}]]" if many else f"[{key}]"
            lines += ["", f"## `{title}`", "", doc, "", *_table(key, sections[name]["properties"])]
    return "\n".join(lines) + "\n"


def _section_of(one: dict[str, Any]) -> str:
    found = one.get("$ref") or one.get("items", {}).get("$ref", "")
    return str(found.rpartition("/")[2])


def _table(section: str, properties: dict[str, Any]) -> list[str]:
    rows = ["| key | variable | type and range | default | meaning |", "|---|---|---|---|---|"]
    array = section in ("field", "route")
    for key, one in properties.items():
        if _section_of(one) and not array:
            continue
        middle = f"{section.upper()}__" if section else ""
        variable = "" if array else f"`{ENVIRONMENT_PREFIX}{middle}{key.upper()}`"
        default = f"`{_toml(one['default'])}`" if "default" in one else "required"
        rows.append(
            f"| `{key}` | {variable} | {_type(one)} | {default} | "
            f"{_escape(one.get('description', ''))} |"
        )
    return rows


def _toml(value: Any) -> str:
    return _escape(msgspec.json.encode(value).decode())


def _type(one: dict[str, Any]) -> str:
    if "enum" in one:
        return " or ".join(f"`{_toml(value)}`" for value in one["enum"])
    if "anyOf" in one:
        return " or ".join(_type(part) for part in one["anyOf"])
    kind = str(one.get("type", "value"))
    low, high = one.get("minimum"), one.get("maximum")
    if low is not None or high is not None:
        return f"{kind}, {low if low is not None else '…'} to {high if high is not None else '…'}"
    return kind


def _escape(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|").replace("<", "&lt;")


# -- commands ------------------------------------------------------------------------------


def commands_page() -> str:
    """Every command with its own help."""
    lines = ["# Commands", "", "`-h` after any of them prints the same. Exit codes: 0 done, 1 the"]
    lines += ["check or the work failed, 2 wrong usage or settings.", ""]
    context = click.Context(cli, info_name="sqs2pg")
    lines += ["| command | does |", "|---|---|"]
    lines += [f"| [`sqs2pg {name}`](#sqs2pg-{name}) | {text} |" for name, text in COMMANDS.items()]
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for path, text in _helps(command, context, f"sqs2pg {name}"):
            lines += ["", f"## {path}" if path.count(" ") == 1 else f"### {path}", ""]
            lines += ["```text", text, "```"]
    return "\n".join(lines) + "\n"


def _helps(command: click.Command, parent: click.Context, path: str) -> Iterator[tuple[str, str]]:
    context = click.Context(
        command, info_name=path.rpartition(" ")[2], parent=parent, max_content_width=96
    )
    yield path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _helps(inner, context, f"{path} {name}")


# -- metrics -------------------------------------------------------------------------------


def metrics_page() -> str:
    """Every metric with its labels."""
    lines = [
        "# Metrics",
        "",
        (
            "Prometheus text at `/metrics` of `status.bind`. Labels come from bounded sets; no"
            " value of a message is ever one."
        ),
        "",
        "| metric | kind | labels | meaning |",
        "|---|---|---|---|",
    ]
    # The registry has no other way to its collectors, and a metric without samples shows no labels.
    registry = Metrics().registry
    for collector in registry._collector_to_names:  # noqa: SLF001  see above
        labels = ", ".join(f"`{name}`" for name in getattr(collector, "_labelnames", ()))
        for family in (
            collector.describe() if hasattr(collector, "describe") else collector.collect()
        ):
            suffix = "_total" if family.type == "counter" else ""
            lines.append(
                f"| `{family.name}{suffix}` | {family.type} | {labels} | "
                f"{_escape(family.documentation)} |"
            )
    return "\n".join(lines) + "\n"


# -- fault codes ---------------------------------------------------------------------------


def faults_page() -> str:
    """Every fault code, by what happens to the message or the process."""
    lines = [
        "# Fault codes",
        "",
        (
            "A code is a quarantine reason, a label of `sqs2pg_faults_total`, a field of the log or"
            " the code of a command's error. It never quotes a value. `postgres_…` ends in an"
            " SQLSTATE (PostgreSQL documentation, appendix A). The stage `acknowledge` also counts"
            " SQS's own codes of failed entries: "
            + ", ".join(f"`{code}`" for code in sorted(ENTRY_CODES))
            + "."
        ),
        "",
        "By symptom: [troubleshooting](../../troubleshooting.md).",
    ]
    for route in FAULT_CODES:
        lines += ["", f"## {route}", "", *_codes(route)]
    return "\n".join(lines) + "\n"


def quarantine_reasons() -> str:
    """Return the table of quarantine reasons, which `reference/quarantine.md` includes."""
    return "\n".join(_codes(FaultRoute.QUARANTINE)) + "\n"


def _codes(route: FaultRoute) -> Iterator[str]:
    yield from ("| code | meaning | what to do |", "|---|---|---|")
    for code, (meaning, remedy) in FAULT_CODES[route].items():
        yield f"| `{code}` | {_escape(meaning)} | {_escape(remedy)} |"


# -- tables --------------------------------------------------------------------------------

_TABLES = """SELECT n.nspname || '.' || c.relname, coalesce(obj_description(c.oid), ''),
    array_agg(a.attname::text ORDER BY a.attnum),
    array_agg(format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum),
    array_agg(a.attnotnull ORDER BY a.attnum),
    array_agg(coalesce(col_description(c.oid, a.attnum), '') ORDER BY a.attnum)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE n.nspname IN ('sqs2pg', 'pii') AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
GROUP BY c.oid, n.nspname, c.relname ORDER BY 1"""
_FUNCTIONS = """SELECT n.nspname || '.' || p.proname, pg_get_function_identity_arguments(p.oid),
    p.prosecdef, coalesce(obj_description(p.oid), '')
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE n.nspname IN ('sqs2pg', 'pii') ORDER BY 1, 2"""
_ROLES = "SELECT rolname FROM pg_roles WHERE rolname ~ '^sqs2pg_' ORDER BY 1"
_GRANTS = """SELECT grantee, string_agg(DISTINCT table_schema || '.' || table_name, ', ')
FROM information_schema.role_table_grants
WHERE grantee ~ '^sqs2pg_' AND table_schema IN ('sqs2pg', 'pii')
AND table_name !~ '^delivery_[0-9]' GROUP BY 1"""


def tables_page() -> str:
    """The schema as `migrate` makes it on an empty database."""
    with _migrated() as connection:
        tables = connection.execute(_TABLES).fetchall()
        functions = connection.execute(_FUNCTIONS).fetchall()
        roles = [name for (name,) in connection.execute(_ROLES).fetchall()]
        grants = dict(connection.execute(_GRANTS).fetchall())
    lines = [
        "# Tables, functions and roles",
        "",
        "Read from a database that `sqs2pg migrate` made.",
    ]
    for name, comment, columns, types, required, notes in tables:
        lines += ["", f"## {name}", ""]
        lines += [_escape(comment), ""] if comment else []
        lines += ["| column | type | constraint | meaning |", "|---|---|---|---|"]
        for column, kind, needed, note in zip(columns, types, required, notes, strict=True):
            lines.append(
                f"| `{column}` | {_escape(kind)} | {'NOT NULL' if needed else ''} | "
                f"{_escape(note)} |"
            )
    lines += ["", "## Functions", "", "| function | runs as | meaning |", "|---|---|---|"]
    for name, arguments, definer, comment in functions:
        runs = "its owner" if definer else "its caller"
        lines.append(f"| `{name}({_escape(arguments)})` | {runs} | {_escape(comment)} |")
    lines += ["", "## Roles", "", "| role | may use |", "|---|---|"]
    lines += [f"| `{name}` | {_escape(grants.get(name, 'functions alone'))} |" for name in roles]
    return "\n".join(lines) + "\n"


@contextmanager
def _migrated() -> Iterator[psycopg.Connection[Any]]:
    """Yield a connection to a database on a server of its own, migrated with the defaults."""
    with servers(sqs=False) as local:
        settings = load(environ={}, overrides={"sink": {"dsn": local.database_url}}, discover=False)
        asyncio.run(_migrate(settings))
        with psycopg.connect(local.database_url, autocommit=True) as connection:
            yield connection


async def _migrate(settings: Settings) -> None:
    session = await connect(settings)
    try:
        await migrate(session, settings)
    finally:
        await session.close()


if __name__ == "__main__":
    for page in write_all(Path(__file__).parent / "reference" / "generated"):
        print(page)
