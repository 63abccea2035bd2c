"""CPU time and memory of processes, from /proc: whole trees, so that a run is split by who did it.

Source: proc(5), /proc/pid/stat (times in clock ticks of 10 ms) and VmHWM of /proc/pid/status.
Linux only; elsewhere there is nothing to read and every figure is None.
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
    """Return the fields of /proc/pid/stat after the command's name, which may hold spaces."""
    return (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[int]:
    """Return a process and all that descend from it, living ones only."""
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
    """Return the user and system seconds of a process and its descendants, ended ones included.

    A descendant that has ended counts once its parent has waited for it.
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
    """Return the peak resident memory of the largest process of a tree, in bytes."""
    peaks = []
    for one in tree(pid) if PROC.joinpath("self/stat").exists() else []:
        try:
            match = _PEAK.search((PROC / str(one) / "status").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if match:
            peaks.append(int(match[1]) * 1024)
    return max(peaks, default=None)
