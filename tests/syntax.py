"""Syntax trees of sources, for tests that read the package instead of running it.

`ast.walk` takes most of the time of such a test: a third of what it visits says only whether a name
is read or written. Trees have no garbage, and to look for it takes longer than to parse them.
"""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def growing() -> Iterator[None]:
    """Collect no garbage while trees are made."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield as `ast.iter_child_nodes` does, without the context of names."""
    for name in node._fields:
        value = getattr(node, name, None)
        if type(value) is list:
            for one in value:
                if isinstance(one, ast.AST):
                    yield one
        elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
            yield value


def nodes_of(file: Path) -> list[ast.AST]:
    """Return all nodes of a file in the order of `ast.walk`, without the context of names."""
    with growing():
        found: list[ast.AST] = [ast.parse(file.read_text(encoding="utf-8"))]
        for node in found:
            for name in node._fields:  # `children`, without a generator for each node
                value = getattr(node, name, None)
                if type(value) is list:
                    found.extend([one for one in value if isinstance(one, ast.AST)])
                elif isinstance(value, ast.AST) and not isinstance(value, ast.expr_context):
                    found.append(value)
    return found
