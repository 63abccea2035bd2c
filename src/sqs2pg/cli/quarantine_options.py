"""Options and arguments that commands of `sqs2pg quarantine` have in common."""

from __future__ import annotations

import click

_NUMBER = click.IntRange(1, 2**63 - 1)
"""The number of an entry: bigint of PostgreSQL."""
number_argument = click.argument("number", metavar="ID", type=_NUMBER)
numbers_argument = click.argument("numbers", metavar="[ID]…", nargs=-1, type=_NUMBER)
code_option = click.option(
    "--code", "--reason", "code", metavar="CODE", help="Entries with this reason code."
)
all_option = click.option("--all", "everything", is_flag=True, help="Every entry.")
include_replayed_option = click.option(
    "--include-replayed", is_flag=True, help="Entries that were replayed, too."
)
