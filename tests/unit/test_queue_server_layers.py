"""The queue server's C files: who includes whom, read from the sources without compiling them.

A unit is a `.c` file with its header. Two rules make the includes tell the whole truth: a header
declares only what its own `.c` file defines, and no `.c` file declares anything `extern`. A use of
another unit's symbol then needs that unit's header, so a circle of symbols is a circle of includes.
"""

from __future__ import annotations

import graphlib
import re
from pathlib import Path

import pytest

import benchmarks.queue_server

SOURCES = Path(benchmarks.queue_server.__file__).parent
INCLUDE = re.compile(r'^#include "(\w+)\.h"$', re.MULTILINE)
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# From the start of a line to a semicolon: `static inline` functions and types are no declarations.
FUNCTION = re.compile(r"^(?!static|typedef)\w[\w \*]*?(\w+)\([^;{]*;", re.MULTILINE)
VARIABLES = re.compile(r"^extern ([^;()]*);", re.MULTILINE)
VARIABLE = re.compile(r"(\w+)(?:\[\w*\])?(?=,|$)")

# Handlers may use everything below them; nothing below may include a handler.
HANDLERS = {"calls", "control"}
# Definitions that need no queue and no connection.
BOTTOM = {"buffer", "digest", "server", "transport", "wheel"}

Includes = dict[str, set[str]]


def read_includes(folder: Path) -> Includes:
    """Return the units that each unit includes, itself left out."""
    found: Includes = {}
    for source in sorted(folder.glob("*.[ch]")):
        names = set(INCLUDE.findall(source.read_text(encoding="utf-8")))
        found.setdefault(source.stem, set()).update(names - {source.stem})
    return found


def declared(header: str) -> set[str]:
    """Return the functions and variables that a header declares and does not define."""
    text = COMMENT.sub("", header)
    variables = (name for line in VARIABLES.findall(text) for name in VARIABLE.findall(line))
    return {*FUNCTION.findall(text), *variables}


def is_defined(name: str, source: str) -> bool:
    """Tell whether a `.c` file defines a function or a variable, not as `static`."""
    text = COMMENT.sub("", source)
    function = rf"^(?!static)\w[\w \*]*?\b{name}\([^;{{]*\{{"
    variable = rf"^(?!static|extern)\w[\w \*,]*?\b{name}(?:\[\w*\])?(?: =|,|;)"
    return re.search(f"{function}|{variable}", text, re.MULTILINE) is not None


def test_no_unit_includes_itself_by_way_of_others() -> None:
    includes = read_includes(SOURCES)

    order = list(graphlib.TopologicalSorter(includes).static_order())

    assert {"main", "server", *HANDLERS} <= set(order)
    assert order[-1] == "main"


def test_circular_includes_are_reported(tmp_path: Path) -> None:
    (tmp_path / "http.h").write_text("", encoding="utf-8")
    (tmp_path / "http.c").write_text('#include "http.h"\n#include "calls.h"\n', encoding="utf-8")
    (tmp_path / "calls.h").write_text('#include "http.h"\n', encoding="utf-8")

    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(read_includes(tmp_path)).static_order())


def test_only_main_knows_the_handlers() -> None:
    knowing = {unit for unit, used in read_includes(SOURCES).items() if used & HANDLERS}

    assert knowing == {"main"}


def test_the_lowest_units_include_none_of_our_files() -> None:
    includes = read_includes(SOURCES)

    assert {unit for unit, used in includes.items() if not used} == BOTTOM


def test_a_header_declares_what_its_own_unit_defines() -> None:
    astray = []
    count = 0
    for header in sorted(SOURCES.glob("*.h")):
        names = declared(header.read_text(encoding="utf-8"))
        source = header.with_suffix(".c").read_text(encoding="utf-8")
        count += len(names)
        astray += [
            f"{header.name}: {name}" for name in sorted(names) if not is_defined(name, source)
        ]

    assert astray == []
    assert count > 100


def test_no_source_declares_a_symbol_of_another() -> None:
    for source in sorted(SOURCES.glob("*.c")):
        text = COMMENT.sub("", source.read_text(encoding="utf-8"))

        assert re.search(r"\bextern\b", text) is None, source.name


def test_a_symbol_defined_elsewhere_than_declared_is_reported() -> None:
    header = (
        "extern int loop_fd;\nvoid call_error(int status,\n                const char *text);\n"
    )

    assert declared(header) == {"loop_fd", "call_error"}
    assert not is_defined("loop_fd", "static int loop_fd;\nint other_loop_fd;\n")
    assert not is_defined("call_error", "static void call_error(int status, const char *text) {\n")
    assert is_defined("loop_fd", "int loop_fd;\n")
    assert is_defined("call_error", "void call_error(int status, const char *text) {\n")
