"""The options that every command has."""

from __future__ import annotations

import io
from collections.abc import Iterator

import click
import pytest

from sqs2pg.cli import COMMANDS, cli
from sqs2pg.cli.options import stdin_lines, terminal_text


def _commands(group: click.Group, names: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from _commands(command, f"{names}{name} ")
        else:
            yield names + name, command


def test_every_command_takes_a_settings_file() -> None:
    found = dict(_commands(cli))
    assert len(found) >= len(COMMANDS)
    assert {"demo", "quarantine list", "keys init", "config schema"} <= set(found)
    without = [
        name
        for name, command in found.items()
        if not any({"-c", "--config"} <= set(option.opts) for option in command.params)
    ]
    assert without == []


def test_the_help_of_a_group_cuts_no_sentence() -> None:
    context = click.Context(cli, info_name="sqs2pg", terminal_width=80)
    groups = [
        command
        for name in cli.list_commands(context)
        if isinstance(command := cli.get_command(context, name), click.Group)
    ]
    assert {group.name for group in groups} == {"keys", "config", "quarantine"}
    for group in groups:
        told = group.get_help(click.Context(group, parent=context, terminal_width=80))
        assert "..." not in told.partition("Commands:")[2]
        assert max(map(len, told.splitlines())) <= 80


@pytest.mark.parametrize("mark", ["\u2028", "\x85", "\x0b", "\x1e"])
def test_a_name_of_stdin_ends_at_the_end_of_its_line_alone(
    monkeypatch: pytest.MonkeyPatch, mark: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(f"a{mark}b\r\nc\n".encode())))
    assert stdin_lines(most=2) == [f"a{mark}b", "c"]


@pytest.mark.parametrize(
    ("text", "shown"), [("\x1b[2J", "\\x1b[2J"), ("a\u202eb", "a\\u202eb"), ("é 日", "é 日")]
)
def test_control_characters_are_escaped_on_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, text: str, shown: str
) -> None:
    assert terminal_text(text) == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert terminal_text(text) == shown
