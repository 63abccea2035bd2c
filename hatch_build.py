"""Compiles our C into the wheel if there is a C compiler; else leaves it out.

That is the native extension (docs/decisions/0011), and the queue server of `--local=fast`. The
package works without either. SQS2PG_NATIVE=0 leaves both out, too.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ROOT / "native"
FLAGS = ("-std=c11", "-O3", "-Wall", "-Wextra", "-fPIC", "-shared", "-fvisibility=hidden")
SERVER_SOURCES = ROOT / "benchmarks" / "queue_server"
SERVER_FLAGS = ("-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra")
SERVER_NAME = "_queue_server"
NAME = f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"


def find_compiler() -> list[str]:
    """Return the command of a C compiler: `$CC`, one on PATH or the `ziglang` wheel's; or []."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    for name in ("cc", "gcc", "clang"):
        if shutil.which(name):
            return [name]
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc"]
    return []


def compile_extension(into: Path, compiler: Sequence[str], flags: Sequence[str] = FLAGS) -> str:
    """Compile the extension to a file; return "", or the compiler's reason for failing."""
    headers = sysconfig.get_path("include")
    # dlopen is in a library of its own before glibc 2.34.
    link = ["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-ldl"]
    units = sorted(str(unit) for unit in SOURCES.glob("*.c") if unit.name != "fuzz.c")
    return _run([*compiler, *flags, f"-I{headers}", *units, *link, "-o", str(into)])


def compile_server(into: Path, compiler: Sequence[str]) -> str:
    """Compile the queue server to a file; return "", or why it could not be.

    It stands on epoll, so only Linux has it.
    """
    units = sorted(str(unit) for unit in SERVER_SOURCES.glob("*.c"))
    if sys.platform != "linux" or not units:
        return "it is for Linux, and made from a checkout"
    return _run([*compiler, *SERVER_FLAGS, *units, "-ldl", "-o", str(into)])


def _run(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(  # noqa: S603  the compiler that was asked for
            command, capture_output=True, text=True, check=False
        )
    except OSError as error:
        return str(error)
    return done.stderr or "the compiler failed" if done.returncode else ""


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Run by hatchling for a wheel, an editable one included."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Put our C into the package, or report what is left out."""
        editable = version == "editable"
        package = ROOT / "src" / "sqs2pg"
        if editable:
            for old in (*package.glob("_native*.so"), *package.glob(SERVER_NAME)):
                old.unlink()
        compiler = find_compiler()
        if os.environ.get("SQS2PG_NATIVE") == "0" or not compiler:
            self.app.display_info("sqs2pg: without the native extension (no C compiler)")
            return
        folder = package if editable else Path(tempfile.mkdtemp())
        self._add(build_data, folder / SERVER_NAME, compile_server, compiler, editable=editable)
        self._add(build_data, folder / NAME, compile_extension, compiler, editable=editable)

    def _add(
        self,
        build_data: dict[str, Any],
        made: Path,
        compile_to: Callable[[Path, Sequence[str]], str],
        compiler: Sequence[str],
        *,
        editable: bool,
    ) -> None:
        if why := compile_to(made, compiler):
            made.unlink(missing_ok=True)
            self.app.display_warning(f"sqs2pg: without {made.name}:\n{why}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if not editable:
            build_data["force_include"][str(made)] = f"sqs2pg/{made.name}"
