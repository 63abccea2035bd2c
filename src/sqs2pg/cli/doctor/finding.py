"""Finding: what one check reports, fit to print, to log and to send to somebody else.

A finding holds codes, counts, names from settings or catalog, versions and times: never a value,
a password or a driver's text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

import msgspec

from sqs2pg.cli.doctor.context import Context

Status = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """One line of the doctor's report."""

    name: str
    """The check in a few words, with the field or table: `masking ip`."""
    status: Status
    """`warn` is for people to judge; any `fail` makes the command exit 1."""
    detail: str
    """What was found, in one sentence without a full stop."""
    remedy: str = ""
    """What to do; empty if nothing is to be done."""
    public: str = ""
    """What a support bundle shows in place of a detail that has an operator's words."""

    @property
    def shown(self) -> dict[str, str]:
        """What `check --json` prints."""
        names = ("name", "status", "detail", "remedy")
        return {name: getattr(self, name) for name in names}


class DoctorCheck(msgspec.Struct, frozen=True):
    """One check: its name, the function, and how long it may take."""

    name: str
    run: Callable[[Context], Awaitable[Finding | list[Finding]]]
    limit_s: float = 15.0


def ok(name: str, detail: str) -> Finding:
    """Return a finding that nothing is wrong."""
    return Finding(name, "ok", detail)


def warn(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that people should judge."""
    return Finding(name, "warn", detail, remedy)


def fail(name: str, detail: str, remedy: str) -> Finding:
    """Return a finding that must be put right."""
    return Finding(name, "fail", detail, remedy)
