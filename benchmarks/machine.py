"""Where and how the figures were measured: machine, versions, commit, command."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import statistics
import subprocess
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psycopg

from .contenders import CONTENDERS
from .queue_server.server import BuildError, compiler
from .rig import Rig

ROOT = Path(__file__).parents[1]
PACKAGES = ("boto3", "botocore", "psycopg2-binary", "psycopg", "msgspec", "httptools", "uvloop")
_FSYNCS = 50


def stamp(rig: Rig, command: list[str], *, fsync: bool) -> dict[str, Any]:
    """Return when, where and with which versions a suite runs, as flat strings and numbers."""
    with psycopg.connect(rig.admin_url) as connection:
        [(postgres,)] = connection.execute("SHOW server_version").fetchall()
    return {
        **short_stamp(),
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": shlex.join(command),
        "postgres": f"PostgreSQL {postgres}"
        + ("" if rig.postgres_pid is None else f", embedded, fsync {'on' if fsync else 'off'}"),
        "fsync_ms": fsync_ms(rig.folder),
        "versions": versions(),
    }


def short_stamp() -> dict[str, Any]:
    """Return when and where something is measured, and the load before, for one line of JSON."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="minutes"),
        "commit": commit(),
        "machine": machine(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def commit() -> str:
    """Return the checkout's commit, with `+` if files differ from it; empty outside git."""
    git = ["git", "-C", str(ROOT)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", "src", "benchmarks"],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return ""
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def machine() -> str:
    """Return the processor, cores, memory and system in one line."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{_processor()}, {_cores()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()} {platform.release()}"
    )


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def fsync_ms(folder: Path) -> float:
    """Return the median time of an 8 KiB write and fsync in the database's folder, in ms.

    It limits a contender that commits every row, and so the ratios to that contender.
    """
    took = []
    path = folder / "fsync"
    with path.open("wb", buffering=0) as file:
        for _ in range(_FSYNCS):
            began = time.perf_counter()
            file.write(bytes(8192))
            os.fsync(file.fileno())
            took.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return round(statistics.median(took), 3)


def versions() -> dict[str, str]:
    """Return the versions of the software involved, by name."""
    found = {"Python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    with contextlib.suppress(BuildError):
        command = compiler()
        found["C compiler"] = "zig cc" if "ziglang" in command else Path(command[0]).name
    for contender in CONTENDERS.values():
        if not contender.ends and not contender.missing():
            found[contender.title] = contender.version()
    return found
