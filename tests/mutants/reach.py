"""Which tests reach the places of mutants.

A call is put in front of the statement that a mutant changes. It notes the test that runs, in
whichever process it is called. For what is evaluated at import, such as a constant, the calls stand
in the functions that use it.
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

NOTES = "SQS2PG_TEST_REACHED"  # the variable that names the folder of notes
PACKAGE = "src/sqs2pg"
_STEPS_MAX = 3  # from a constant, over those that contain it, to a function
_NOTES = '''"""Notes which test reaches which mutant."""
import os

_folder = {folder!r}
_known = set()
_tests = dict()
running = (0, "")  # pytest's own process and its test: no file need be read there


def reached(number):
    try:
        process, test = running
        if process != os.getpid():
            with open(_test_of(os.getpid()), encoding="utf-8") as file:
                test = file.read()
        if (number, test) not in _known:
            _known.add((number, test))
            file = os.open(_folder + "/notes", os.O_APPEND | os.O_WRONLY)
            os.write(file, f"{{number}}\\t{{test}}\\n".encode())
            os.close(file)
    except OSError:  # no test runs, or the process may not open files
        return


def _test_of(process):
    """Return the file of the nearest ancestor that runs tests."""
    if process not in _tests:
        at = process
        while at > 1 and not os.path.exists(f"{{_folder}}/{{at}}"):
            with open(f"/proc/{{at}}/stat") as file:
                at = int(file.read().rpartition(")")[2].split()[1])
        if at <= 1:  # tests are only collected
            raise OSError
        _tests[process] = f"{{_folder}}/{{at}}"
    return _tests[process]
'''

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def place_notes(root: Path, places: Sequence[tuple[int, str, int]], folder: Path) -> None:
    """Put the calls into the checkout `root` for each (number, file, line); notes into `folder`."""
    (root / "src/sqs2pg_reached.py").write_text(_NOTES.format(folder=str(folder)))
    folder.mkdir(parents=True)
    (folder / "notes").write_text("")
    (folder / "notes").chmod(0o666)
    trees = {
        path.relative_to(root).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in (root / PACKAGE).rglob("*.py")
    }
    lines: dict[str, list[str]] = {
        file: (root / file).read_text(encoding="utf-8").splitlines(keepends=True) for file in trees
    }
    calls: set[tuple[str, int, int, int]] = set()
    for number, file, line in places:
        for where, statement in _before(trees, lines, file, line):
            first = min([statement.lineno, *(d.lineno for d in _decorators(statement))])
            calls.add((where, first, statement.col_offset, number))
    for file, first, column, number in sorted(calls, reverse=True):
        call = f'__import__("sqs2pg_reached").reached({number})\n'
        lines[file].insert(first - 1, " " * column + call)
    for file in {file for file, *_ in calls}:
        (root / file).write_text("".join(lines[file]), encoding="utf-8")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Write which test a process runs (this module is a plugin of pytest, too)."""
    (Path(os.environ[NOTES]) / str(os.getpid())).write_text(item.nodeid, encoding="utf-8")
    if notes := sys.modules.get("sqs2pg_reached"):
        notes.running = (os.getpid(), item.nodeid)  # type: ignore[attr-defined]


def reached_by(folder: Path) -> dict[int, set[str]]:
    """Return the tests that reached each number, without their parameters."""
    found: dict[int, set[str]] = {}
    for line in (folder / "notes").read_text(encoding="utf-8").splitlines():
        number, _, test = line.partition("\t")
        found.setdefault(int(number), set()).add(test.partition("[")[0])
    return found


def _decorators(statement: ast.stmt) -> list[ast.expr]:
    return list(getattr(statement, "decorator_list", []))


def _before(
    trees: dict[str, ast.Module], lines: dict[str, list[str]], file: str, line: int
) -> Iterator[tuple[str, ast.stmt]]:
    """Yield the statements, each with its file, in front of which a call notes the mutant."""
    way = _way(trees[file], line)
    inside = [at for at, one in enumerate(way) if isinstance(one, _FUNCTIONS)]
    if inside and line >= way[inside[0]].body[0].lineno:  # type: ignore[attr-defined]
        for one in reversed(way[inside[0] + 1 :]):
            start = lines[file][one.lineno - 1]
            if not start[: one.col_offset].strip() and not start.lstrip().startswith("elif"):
                yield file, one
                return
    if isinstance(way[-1], _FUNCTIONS):  # a decorator or a default
        yield from ((file, one) for one in _start(way[-1]))
        return
    names = next((found for one in reversed(way) if (found := _names(one))), {""})
    for _ in range(_STEPS_MAX):
        users = [(where, one) for where, tree in trees.items() for one in _users(tree, names)]
        if users:
            yield from users
            return
        names = {
            name
            for tree in trees.values()
            for one in tree.body
            if _mentions(one, names)
            for name in _names(one)
        }


def _way(tree: ast.Module, line: int) -> list[ast.stmt]:
    """Return the statements around a line, from the outermost to the innermost."""
    way: list[ast.stmt] = []
    for node in ast.walk(tree):  # an outer node comes before those in it
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(d.lineno for d in _decorators(node))])
            if first <= line <= (node.end_lineno or 0):
                way.append(node)
    return way


def _names(statement: ast.stmt) -> set[str]:
    """Return the names that a statement outside of functions gives."""
    if isinstance(statement, (*_FUNCTIONS, ast.ClassDef)):
        return {statement.name}
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    return {
        node.id
        for target in targets
        if target is not None
        for node in ast.walk(target)
        if isinstance(node, ast.Name)
    }


def _mentions(node: ast.AST, names: set[str]) -> bool:
    return any(
        getattr(one, "id", None) in names or getattr(one, "attr", None) in names
        for one in ast.walk(node)
    )


def _users(tree: ast.Module, names: set[str]) -> Iterator[ast.stmt]:
    """Yield the first statement of each function that has or uses one of the names."""
    for node in ast.walk(tree):
        if isinstance(node, _FUNCTIONS) and (
            node.name in names or any(_mentions(one, names) for one in node.body)
        ):
            yield from _start(node)
        elif isinstance(node, ast.ClassDef) and node.name in names:
            yield from (s for f in node.body if isinstance(f, _FUNCTIONS) for s in _start(f))


def _start(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.stmt]:
    body = function.body[1 if ast.get_docstring(function, clean=False) is not None else 0 :]
    return [body[0]] if body and body[0].lineno > function.lineno else []
