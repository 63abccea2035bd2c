"""A terminal of a given size for a command, and what it showed there."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def on_terminal(
    line: Sequence[str | Path],
    *,
    columns: int = 80,
    rows: int = 24,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> tuple[int, str]:
    """Run a command on a terminal of this size; return its exit code and all that it showed.

    `options` are those of subprocess.Popen: `stdout=DEVNULL` keeps results off it. COLUMNS
    and LINES are unset: the terminal tells.
    """
    known = {k: v for k, v in (environment or os.environ).items() if k not in ("COLUMNS", "LINES")}
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    try:
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs} | options
        with subprocess.Popen(line, env={"TERM": "xterm"} | known, **streams) as process:
            os.close(theirs)
            shown = _read_all(ours)
        return process.returncode, shown.decode(errors="replace").replace("\r\n", "\n")
    finally:
        os.close(ours)


def _read_all(terminal: int) -> bytes:
    shown = b""
    while True:
        try:
            read = os.read(terminal, 65_536)
        except OSError:  # the other end is closed
            return shown
        if not read:
            return shown
        shown += read
