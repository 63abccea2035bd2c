"""What every command takes, whichever it is."""

from __future__ import annotations

from collections.abc import Iterator

import click

from sqs2pg.cli import COMMANDS, cli


def _commands(group: click.Group, names: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{names}{name} ")
        else:
            yield names + name, command


def test_every_command_takes_a_settings_file():
    found = dict(_commands(cli))
    assert len(found) >= len(COMMANDS)
    assert {"demo", "quarantine list", "keys init", "config schema"} <= set(found)
    without = [
        name
        for name, command in found.items()
        if not any({"-c", "--config"} <= set(option.opts) for option in command.params)
    ]
    assert without == []
