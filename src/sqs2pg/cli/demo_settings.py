"""The settings of `sqs2pg demo`: what a file decides, and what other processes get of it."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import msgspec

from sqs2pg.cli.embedded.local_environment import development_key
from sqs2pg.errors import SettingsError
from sqs2pg.settings import DEFAULT_BIND, Settings, load

# What a settings file decides in a demo. Everything else (queue, database, keys, vault, status) is
# the demo's own. Words and numbers only: the consumer of --chaos gets them in its environment.
_TAKEN = {
    "sink": ("table", "connections", "batch_rows_max", "linger_ms"),
    "quarantine": ("retention_days",),
}


def demo_settings(taken: dict[str, Any], *, recover: bool) -> Settings:
    """Return the built-in settings with what was taken from the given file.

    The demo is the same in every folder: no other file counts.
    """
    overrides = {**taken, "keys": {"provider": "development"}, "vault": {"enabled": recover}}
    return load(environ={}, overrides=overrides, discover=False)


def taken_from(file: Path) -> dict[str, Any]:
    """Return what a settings file decides, as nested overrides.

    Raises SettingsError for a file that cannot be used, or whose mapping does not fit logins.
    """
    given, built_in = load(file, environ={}), load(environ={}, discover=False)
    if _mapping(given) != _mapping(built_in):
        raise SettingsError(
            f"the mapping in {file} is not that of the logins the demo generates",
            hint=f"start it with `sqs2pg run --local -c {file}`, and `sqs2pg send --file` your own "
            "messages",
        )
    sections: dict[str, Any] = {
        section: {name: getattr(getattr(given, section), name) for name in names}
        for section, names in _TAKEN.items()
    }
    return {"name": given.name, "unknown_fields": given.unknown_fields, **sections}


def _mapping(settings: Settings) -> tuple[object, ...]:
    """Return what decides how a body becomes rows, except the table's name."""
    return (
        tuple(map(msgspec.to_builtins, settings.fields)),
        settings.dropped,
        settings.route,
        settings.explode,
        settings.envelope,
        settings.ledger.dedupe_key,
    )


def as_variables(taken: dict[str, Any]) -> dict[str, str]:
    """Return what was taken from a file as environment variables for another process."""
    variables: dict[str, str] = {}
    for name, value in taken.items():
        if isinstance(value, dict):
            inner = {f"{name}__{key}": each for key, each in value.items()}
            variables |= as_variables(inner)
        else:
            variables[f"SQS2PG_{name.upper()}"] = str(value)
    return variables


def for_shells(settings: Settings, taken: dict[str, Any]) -> dict[str, str]:
    """Return the variables that make commands in another shell, in any folder, use our settings."""
    variables = as_variables(taken) | {"SQS2PG_CONFIG": os.devnull} | development_key([settings])
    return variables | ({"SQS2PG_VAULT__ENABLED": "true"} if settings.vault.enabled else {})


def on_free_port(settings: Settings) -> Settings:
    """Return the settings with a free port for the page where its usual one is taken.

    A demo beside a running pipeline is nothing to be warned of.
    """
    host, _, port = DEFAULT_BIND.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            status = msgspec.structs.replace(settings.status, bind=f"{host}:0")
            return msgspec.structs.replace(settings, status=status)
    return settings
