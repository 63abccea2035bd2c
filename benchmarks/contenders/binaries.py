"""Checks for the adapters of other tools: whether a binary is on PATH, and its version."""

from __future__ import annotations

import shutil
import subprocess


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
