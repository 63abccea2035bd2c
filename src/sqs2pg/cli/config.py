"""`sqs2pg config show | schema`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import msgspec

from sqs2pg import settings as settings_module
from sqs2pg.cli.options import config_option, json_option, print_json

HIDDEN = "***"

# PostgreSQL documentation, 32.1.1 "Connection Strings" and 32.1.2 "Parameter Key Words". Both
# forms must match to the end: what is not understood is hidden whole, never shown in part.
_URL = re.compile(
    r"(?P<scheme>postgres(?:ql)?://)(?:(?P<user>[^:@/]*)(?P<password>:[^@/]*)?@)?"
    r"(?P<hosts>(?:(?:\[[^\]@/]*\]|[^:@/?#\[\],]*)(?::[0-9]*)?(?:,|(?=[/?]|\Z)))+)"
    r"(?P<name>/[^?@]*)?(?P<query>\?(?:[\w%]+=[^&]*(?:&[\w%]+=[^&]*)*)?)?\Z",
    re.DOTALL,
)
_PAIR = re.compile(r"\s*(\w+)(\s*=\s*)('(?:[^'\\]|\\.)*'|(?:[^\s\\']|\\.)*)(?=\s|\Z)", re.DOTALL)
_SECRET = re.compile(r"password|secret|token|scram_(client|server)_key")


@click.group()
def config() -> None:
    """Show the effective settings, or their JSON Schema."""


@config.command()
@config_option
@json_option
def show(config: Path | None, as_json: bool) -> None:
    """Print the effective settings; secrets are hidden."""
    settings = settings_module.load(config)
    tree = msgspec.to_builtins(settings)
    tree["sink"]["dsn"] = hide_password(settings.sink.dsn)
    tree["status"]["token"] = HIDDEN if settings.status.token else ""
    if not settings.route:
        tree["field"] = [msgspec.to_builtins(field) for field in settings.fields]
    if as_json:
        print_json(tree)
    else:
        print(_toml(tree))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file."""
    print(json.dumps(msgspec.json.schema(settings_module.Settings), indent=2))


def hide_password(dsn: str) -> str:
    """Return a libpq connection string, URL or key=value, with its secrets replaced by `***`."""
    if dsn.startswith(("postgresql://", "postgres://")):
        return _hide_in_url(dsn)
    shown, position = "", 0
    while position < len(dsn.rstrip()):
        pair = _PAIR.match(dsn, position)
        if pair is None:
            return HIDDEN
        name, equals, value = pair.groups()
        shown += dsn[position : pair.start(1)] + name + equals
        shown += HIDDEN if _is_secret(name) else value
        position = pair.end()
    return shown


def _hide_in_url(url: str) -> str:
    match = _URL.match(url)
    if match is None:
        return HIDDEN
    shown = match["scheme"]
    if match["user"] is not None:
        shown += match["user"] + (f":{HIDDEN}" if match["password"] else "") + "@"
    shown += match["hosts"] + (match["name"] or "")
    if match["query"]:
        shown += "?" + "&".join(map(_hide_in_parameter, match["query"][1:].split("&")))
    return shown


def _hide_in_parameter(parameter: str) -> str:
    name, _, _ = parameter.partition("=")
    return f"{name}={HIDDEN}" if _is_secret(unquote(name)) else parameter


def _is_secret(name: str) -> bool:
    return _SECRET.search(name.lower()) is not None


def _toml(tree: dict[str, Any]) -> str:
    lines = [_line(k, v) for k, v in tree.items() if not isinstance(v, (dict, list))]
    for section, values in tree.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(_line(k, v) for k, v in values.items())]
    lines += _tables("field", tree["field"])
    for route in tree["route"]:
        lines += _tables("route", [{k: v for k, v in route.items() if k != "field"}])
        lines += _tables("route.field", route["field"])
    return "\n".join(lines)


def _tables(name: str, tables: list[dict[str, Any]]) -> list[str]:
    lines: list[str] = []
    for table in tables:
        lines += ["", f"[[{name}]]", *(_line(k, v) for k, v in table.items() if v is not None)]
    return lines


def _line(key: str, value: Any) -> str:
    if value is None:  # TOML has no null
        return f"# {key} is not set"
    if isinstance(value, dict):
        inner = (_line(k, v) for k, v in value.items() if v not in (None, []))
        return f"{key} = {{{', '.join(inner)}}}"
    # JSON's strings, numbers and booleans are TOML's too, but for escaped surrogates, which are
    # therefore not made, and DEL, which TOML wants escaped.
    return f"{key} = {json.dumps(value, ensure_ascii=False)}".replace("\x7f", "\\u007f")
