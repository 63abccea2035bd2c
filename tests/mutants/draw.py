"""Draw mutants of the package at random: cosmic-ray makes them, this chooses among them.

Run by the Python of .venv-mutants. It prints a JSON list of the fields of `tests.mutants.Mutant`.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_code

PACKAGE = "src/sqs2pg"


def unread_annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where annotations stand that no interpreter reads: of functions and of variables.

    `from __future__ import annotations` leaves them texts. msgspec reads those of classes.
    """
    found: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.append(node.returns)
            found += [one.annotation for one in ast.walk(node.args) if isinstance(one, ast.arg)]
            found += [one.annotation for one in ast.walk(node) if isinstance(one, ast.AnnAssign)]
    return [
        ((one.lineno, one.col_offset), (one.end_lineno or 0, one.end_col_offset or 0))
        for one in found
        if one is not None
    ]


def places(path: Path) -> dict[tuple[Any, ...], list[tuple[str, int]]]:
    """Return the places of a module that can be mutated, each with its (operator, occurrence)."""
    source = path.read_text(encoding="utf-8")
    unread = unread_annotations(source)
    nodes = list(ast_nodes(get_ast_from_path(path)))
    found: dict[tuple[Any, ...], list[tuple[str, int]]] = defaultdict(list)
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator_class = cosmic_ray.plugins.get_operator(name)
        if operator_class.arguments():  # it replaces variables that somebody names
            continue
        operator = operator_class()
        positions = (at for node in nodes for at in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(positions):
            if not any(first <= start and end <= last for first, last in unread):
                found[(str(path), start, end)].append((name, occurrence))
    return found


def drawn(seed: int, count: int) -> list[dict[str, Any]]:
    """Return `count` mutants: each place of the package is as likely, then each mutant of it."""
    dice = random.Random(seed)
    every: dict[tuple[Any, ...], list[tuple[str, int]]] = {}
    for path in sorted(Path(PACKAGE).rglob("*.py")):
        every |= places(path)
    print(f"{len(every)} places", file=sys.stderr)
    made: list[dict[str, Any]] = []
    for place in dice.sample(sorted(every), len(every)):
        path, (line, _), _ = place
        source = Path(path).read_text(encoding="utf-8")
        for operator, occurrence in dice.sample(every[place], len(every[place])):
            text = mutate_code(source, cosmic_ray.plugins.get_operator(operator)(), occurrence)
            if len(made) < count and text is not None and is_python(text):
                name = operator.removeprefix("core/")
                made.append({"file": path, "line": line, "operator": name, "text": text})
                break
        if len(made) == count:
            break
    return made


def is_python(text: str) -> bool:
    """Whether a module compiles; `def f(a, +, b)` for `def f(a, *, b)` does not."""
    try:
        compile(text, "mutant", "exec")
    except SyntaxError:
        return False
    return True


def main() -> None:
    """Print the mutants."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--count", type=int, required=True)
    chosen = parser.parse_args()
    json.dump(drawn(chosen.seed, chosen.count), sys.stdout)


if __name__ == "__main__":
    main()
