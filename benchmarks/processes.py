"""CPU time and memory of process trees, from /proc, so that a run's cost is known per component.

Source: proc(5), /proc/pid/stat (times in clock ticks of 10 ms) and VmHWM of /proc/pid/status.
Linux only; on other systems every figure is None.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

PROC = Path("/proc")
_TICKS_A_SECOND: int = os.sysconf("SC_CLK_TCK")
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/pid/stat after the command's name, which may contain spaces."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """Return a process and all its descendants that are still running."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            try:
                children[int(_stat(int(entry.name))[1])].append(int(entry.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        left += children[one]
    return found


def cpu_s(pid: int) -> float | None:
    """Return the user and system seconds of a process and its descendants, or None.

    A descendant that has ended is included once its parent has waited for it.
    """
    if not PROC.joinpath("self/stat").exists():
        return None
    ticks = 0
    for one in tree(pid):
        try:
            fields = _stat(one)
        except (FileNotFoundError, ProcessLookupError):
            continue
        ticks += sum(int(field) for field in fields[11:15])  # utime, stime, cutime, cstime
    return ticks / _TICKS_A_SECOND


def peak_bytes(pid: int) -> int | None:
    """Return the peak resident memory, in bytes, of the largest process of a tree."""
    peaks = []
    for one in tree(pid) if PROC.joinpath("self/stat").exists() else []:
        try:
            match = _PEAK.search((PROC / str(one) / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if match:
            peaks.append(int(match[1]) * 1024)
    return max(peaks, default=None)
