"""`sqs2pg config show | schema`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import msgspec

from sqs2pg import settings as settings_module
from sqs2pg.cli.options import config_option, json_option, print_json

# A password in a connection string: after `user:` in a URL, or `password=` in a key/value one.
_URL_PASSWORD = re.compile(r"(?<=://)([^/@]*?):[^@]*@")
_KEY_PASSWORD = re.compile(r"(password\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)", re.IGNORECASE)


@click.group()
def config() -> None:
    """Show the effective settings, or their JSON Schema."""


@config.command()
@config_option
@json_option
def show(config: Path | None, as_json: bool) -> None:
    """Print the effective settings; secrets are hidden."""
    tree = msgspec.to_builtins(settings_module.load(config))
    tree["sink"]["dsn"] = hide_password(tree["sink"]["dsn"])
    tree["field"] = msgspec.to_builtins(settings_module.load(config).fields)
    if as_json:
        print_json(tree)
    else:
        print(_toml(tree))


@config.command()
def schema() -> None:
    """Print the JSON Schema of the settings file."""
    print(json.dumps(msgspec.json.schema(settings_module.Settings), indent=2))


def hide_password(dsn: str) -> str:
    """Return a connection string with its password replaced by `***`."""
    return _KEY_PASSWORD.sub(r"\1***", _URL_PASSWORD.sub(r"\1:***@", dsn))


def _toml(tree: dict[str, Any]) -> str:
    def line(key: str, value: Any) -> str:
        # JSON's strings, numbers and booleans are TOML's too; TOML has no null.
        return f"# {key} is not set" if value is None else f"{key} = {json.dumps(value)}"

    lines = [line(k, v) for k, v in tree.items() if not isinstance(v, (dict, list))]
    for section, values in tree.items():
        if isinstance(values, dict):
            lines += ["", f"[{section}]", *(line(k, v) for k, v in values.items())]
    for field in tree["field"]:
        lines += ["", "[[field]]", *(line(k, v) for k, v in field.items() if v is not None)]
    return "\n".join(lines)
