"""Other tools as contenders: whether a binary is on PATH, its version, flat and nested logins."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

from .contender import NESTED, Contender, Launch, RunTarget

TRIAL = 20_000
LaunchOf = Callable[[RunTarget, str], Launch]
"""Takes the path of a login's fields in a body too, with a dot at its end; empty: the top."""


def flat_and_nested(
    binary: str, title: str, says: str, launch: LaunchOf
) -> tuple[Contender, Contender]:
    """Return a tool, called by its binary's name, for flat logins and for nested ones."""

    def contender(suffix: str, title: str, login: str) -> Contender:
        return Contender(
            name=binary + suffix,
            title=title,
            says=says,
            trial=TRIAL,
            launch=lambda target: launch(target, login),
            missing=lambda: missing(binary),
            version=lambda: version(binary),
            ends=False,
        )

    return contender("", title, ""), contender("-nested", f"{title}, nested", NESTED)


def missing(name: str) -> str:
    """Return why a tool cannot run; empty if its binary is on PATH."""
    return "" if shutil.which(name) else f"no `{name}` on PATH"


def version(name: str) -> str:
    """Return the first line of a tool's version output; empty if it does not run."""
    try:
        done = subprocess.run(
            [name, "--version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return next(iter((done.stdout or done.stderr).strip().splitlines()), "")
