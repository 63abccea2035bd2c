"""An interpreter that another user can run: ours may lie under a private home."""

from __future__ import annotations

import os
import shutil
import stat
import sysconfig
from pathlib import Path

UNNEEDED = shutil.ignore_patterns("site-packages", "test", "idlelib", "config-*")
OPEN = stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH


def copy_open(source: Path, target: Path) -> None:
    """Copy a tree, open to all; without the room, where links to open files will do."""
    shutil.copytree(source, target, ignore=UNNEEDED, copy_function=link_or_copy)
    for folder in (target, *(path for path in target.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


def link_or_copy(source: str, target: str) -> None:
    """Link a file that is open to all; copy another one, and open it."""
    if Path(source).stat().st_mode & OPEN == OPEN:
        try:
            os.link(source, target)
        except OSError:  # another file system
            shutil.copy2(source, target)
    else:
        shutil.copy2(source, target)  # keeps the times by which compiled files are known as fresh
        Path(target).chmod(0o755)


def copy_python(executable: Path, target: Path) -> Path:
    """Copy the interpreter, its libraries and its headers; return the new executable."""
    library, headers = (Path(sysconfig.get_path(name)) for name in ("stdlib", "include"))
    copy_open(library, target / "lib" / library.name)
    copy_open(headers, target / "include" / headers.name)
    (target / "bin").mkdir()
    for source in (executable, *library.parent.glob("libpython*.so*")):
        link_or_copy(str(source), str(target / source.parent.name / source.name))
    return target / "bin" / executable.name
