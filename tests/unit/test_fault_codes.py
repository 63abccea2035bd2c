"""The table of fault codes has every code that the sources raise, and no other.

The sources are read, not run. A code is a literal in the call that makes the fault, or reaches it
through what `Sources.resolve` follows: a parameter, a local or a module's constant, a table that a
loop walks. A code that comes in another way fails the test, so that none is overlooked.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import sqs2pg
from sqs2pg.fault_codes import FAULT_CODES, FaultRoute
from tests.syntax import children, growing

PACKAGE = Path(sqs2pg.__file__).parent
ROUTES = {
    "PermanentFault": FaultRoute.QUARANTINE,
    "TransientFault": FaultRoute.RETRY,
    "FatalFault": FaultRoute.STOP,
    "Sqs2pgError": FaultRoute.STOP,
    "KeyFault": FaultRoute.REFUSE,
    "SettingsError": FaultRoute.REFUSE,
}
COUNTER = "count_fault"
OPEN = "…"  # what stands in a code for a part that is filled in at run time


class Unclear(Exception):
    """A code that the scan cannot follow to its literals."""


Functions = tuple[ast.FunctionDef | ast.AsyncFunctionDef, ...]


class Call(NamedTuple):
    """A call, the functions it stands in (innermost first), and its module."""

    node: ast.Call
    functions: Functions
    module: str

    @property
    def name(self) -> str:
        function = self.node.func
        return function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")


class Sources:
    """The syntax trees of modules, and all calls in them."""

    def __init__(self, sources: dict[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in sources.items()}
        self.calls: defaultdict[str, list[Call]] = defaultdict(list)
        self.classes = dict(ROUTES)
        self.functions: defaultdict[str, list[ast.FunctionDef]] = defaultdict(list)
        for name, tree in self.trees.items():
            self._read(tree, name)

    def _read(self, tree: ast.Module, module: str) -> None:
        waiting: list[tuple[ast.AST, Functions]] = [(tree, ())]
        for node, around in waiting:
            inside = around
            if isinstance(node, ast.Call):
                call = Call(node, around, module)
                self.calls[call.name].append(call)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                inside = (node, *around)
                if isinstance(node, ast.FunctionDef):
                    self.functions[node.name].append(node)
            elif isinstance(node, ast.ClassDef):
                bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
                if known := [base for base in bases if base in ROUTES]:
                    self.classes.setdefault(node.name, ROUTES[known[0]])
            waiting += [(child, inside) for child in children(node)]

    def codes(self) -> set[tuple[FaultRoute, str]]:
        """Every (route, code) of the sources. Raises Unclear."""
        found: set[tuple[FaultRoute, str]] = set()
        for name, route in self.classes.items():
            for call in self.calls.get(name, ()):
                found |= {(route, code) for code in self.of_fault(call)}
        for call in self.calls.get(COUNTER, ()):
            if call.node.args[1:]:
                counted = self.resolve(call.node.args[1], call)
                found |= {(FaultRoute.COUNT, code) for code in counted}
        # `count_fault` itself replaces one code too many.
        found |= {(FaultRoute.COUNT, code) for code in self.assigned_in(COUNTER, "code")}
        return found

    def of_fault(self, call: Call) -> set[str]:
        value = next((k.value for k in call.node.keywords if k.arg == "code"), None)
        if value is None and call.name == "PermanentFault" and call.node.args:
            value = call.node.args[0]
        if value is None and call.name == "SettingsError":
            return {"settings"}
        if value is None:
            raise Unclear(f"{call.module}:{call.node.lineno}: {call.name} without a code")
        return self.resolve(value, call)

    def resolve(self, value: ast.expr, call: Call, depth: int = 0) -> set[str]:
        """The literals that an expression may be. Another fault's own code gives none: it is
        counted where that fault is made.
        """
        if depth > 5:
            raise Unclear(f"{call.module}:{call.node.lineno}: too deep")
        match value:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.IfExp():
                either = (value.body, value.orelse)
                return set().union(*(self.resolve(one, call, depth) for one in either))
            case ast.Attribute(attr="code"):
                return set()
            case ast.Attribute(attr="reason"):
                return self.returned_by("reason")
            case ast.Call(func=ast.Name(id="getattr"), args=[_, ast.Constant("code"), default]):
                return self.resolve(default, call, depth)
            case ast.JoinedStr():
                texts = {""}
                for part in value.values:
                    texts = {a + b for a in texts for b in self.part(part, call, depth)}
                return texts
            case ast.Subscript(value=ast.Name(id=name)):
                return self.stored_in(name, call, depth)
            case ast.Name(id=name):
                return self.named(name, call, depth)
        raise Unclear(f"{call.module}:{call.node.lineno}: {ast.unparse(value)}")

    def part(self, part: ast.expr, call: Call, depth: int) -> set[str]:
        if isinstance(part, ast.Constant):
            return {str(part.value)}
        assert isinstance(part, ast.FormattedValue)
        if isinstance(part.value, ast.Name):
            try:
                return self.resolve(part.value, call, depth) or {OPEN}
            except Unclear:
                pass
        return {OPEN}

    def named(self, name: str, call: Call, depth: int) -> set[str]:
        """The literals that a name stands for: a parameter, a local, a loop's, a constant."""
        for function in call.functions:
            names = [one.arg for one in (*function.args.posonlyargs, *function.args.args)]
            names = [one for one in names if one not in ("self", "cls")]
            keywords = [one.arg for one in function.args.kwonlyargs]
            if name in (*names, *keywords):
                index = names.index(name) if name in names else None
                return self.passed(function.name, name, index, call, depth)
            if found := list(bindings(function, name, around=call.node)):
                return set().union(*(self.bound(one, call, depth) for one in found))
        if found := list(bindings(self.trees[call.module], name, deep=False)):
            return set().union(*(self.bound(one, call, depth) for one in found))
        raise Unclear(f"{call.module}:{call.node.lineno}: {name}")

    def passed(self, to: str, name: str, index: int | None, call: Call, depth: int) -> set[str]:
        """What callers give as a parameter; of a private function those of its module."""
        found: set[str] = set()
        callers = 0
        for other in self.calls.get(to, ()):
            if to.startswith("_") and other.module != call.module:
                continue
            values = [k.value for k in other.node.keywords if k.arg == name]
            if index is not None and index < len(other.node.args):
                values.append(other.node.args[index])
            callers += len(values)
            found = found.union(*(self.resolve(one, other, depth + 1) for one in values))
        if not callers:
            raise Unclear(f"{call.module}:{call.node.lineno}: nobody gives {name} to {to}")
        return found

    def bound(self, binding: ast.expr | tuple[ast.expr, int], call: Call, depth: int) -> set[str]:
        if isinstance(binding, ast.expr):
            return self.resolve(binding, call, depth + 1)
        table, index = binding
        if isinstance(table, ast.Name):
            table = next(bindings(self.trees[call.module], table.id, deep=False))
        if not isinstance(table, ast.Tuple):
            raise Unclear(f"{call.module}:{call.node.lineno}: a loop over {ast.unparse(table)}")
        rows = [row for row in table.elts if isinstance(row, ast.Tuple)]
        return set().union(*(self.resolve(row.elts[index], call, depth + 1) for row in rows))

    def stored_in(self, name: str, call: Call, depth: int) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(call.functions[0]):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                target = node.targets[0].value
                if isinstance(target, ast.Name) and target.id == name:
                    found |= self.resolve(node.value, call, depth + 1)
        return found

    def returned_by(self, name: str) -> set[str]:
        """The literals that the functions of a name return."""
        return {
            node.value.value
            for function in self.functions[name]
            for node in ast.walk(function)
            if isinstance(node, ast.Return)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }

    def assigned_in(self, function: str, name: str) -> set[str]:
        return {
            one.value
            for found in self.functions[function]
            for one in bindings(found, name)
            if isinstance(one, ast.Constant) and isinstance(one.value, str)
        }


def bindings(
    scope: ast.AST, name: str, *, deep: bool = True, around: ast.AST | None = None
) -> Iterator[ast.expr | tuple[ast.expr, int]]:
    """What is assigned to a name in a scope.

    Of a loop: (what it walks, place in each row); only of loops that stand around a node.
    """
    for node in ast.walk(scope) if deep else ast.iter_child_nodes(scope):
        if isinstance(node, ast.Assign):
            if any(isinstance(one, ast.Name) and one.id == name for one in node.targets):
                yield node.value
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            if isinstance(node.target, ast.Name) and node.target.id == name:
                yield node.value
        elif isinstance(node, ast.For) and isinstance(node.target, ast.Tuple):
            if around is None or around not in ast.walk(node):
                continue
            for index, one in enumerate(node.target.elts):
                if isinstance(one, ast.Name) and one.id == name:
                    yield node.iter, index


def of_package() -> set[tuple[FaultRoute, str]]:
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    with growing():
        return Sources(
            {str(f.relative_to(PACKAGE)): f.read_text(encoding="utf-8") for f in files}
        ).codes()


def test_every_code_that_is_raised_is_in_the_table_and_no_other() -> None:
    table = {(route, code) for route, codes in FAULT_CODES.items() for code in codes}
    raised = of_package()
    assert raised - table == set(), "raised, but not in the table"
    assert table - raised == set(), "in the table, but raised nowhere"


def test_the_native_module_raises_no_fault_of_its_own() -> None:
    """It returns None for whatever it does not take, so no code can come from there."""
    for file in sorted((PACKAGE.parents[1] / "native").glob("*.c")):
        assert not re.search(r"(Permanent|Transient|Fatal|Key)Fault|Sqs2pgError", file.read_text())


def test_the_table_is_complete_sorted_and_plain() -> None:
    assert list(FAULT_CODES) == list(FaultRoute)
    for codes in FAULT_CODES.values():
        assert list(codes) == sorted(codes, key=str.lower)
        for code, (meaning, remedy) in codes.items():
            assert re.fullmatch(r"[a-z0-9_]+(…|3D000|08P01|57P03)?", code)
            assert meaning.endswith(".")
            assert remedy.endswith(".")
            assert "|" not in meaning + remedy


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ('raise PermanentFault("a")', {"a"}),
        ('raise FatalFault("x", code="a" if one else "b")', {"a", "b"}),
        ('raise SettingsError("x")', {"settings"}),
        ('raise TransientFault("x", code=f"postgres_{state}")', {"postgres_…"}),
        ('CODE = "a"\nraise PermanentFault(CODE)', {"a"}),
        ('def make(code): return PermanentFault(code)\nmake("a")\nmake(code="b")', {"a", "b"}),
        ('def make(kind): return PermanentFault(f"{kind}_off")\nmake("a")', {"a_off"}),
        ('class Mine(FatalFault): pass\nraise Mine("x", code="a")', {"a"}),
        ("raise PermanentFault(error.code)", set()),
        ('metrics.count_fault(stage, "a")', {"a"}),
        (
            'T = ((1, "a"), (2, "b"))\ndef f():\n for n, c in T:\n  raise PermanentFault(c)',
            {"a", "b"},
        ),
    ],
)
def test_codes_are_followed_to_their_literals(source: str, codes: set[str]) -> None:
    assert {code for _, code in Sources({"m": source}).codes()} == codes


@pytest.mark.parametrize(
    "source",
    [
        "raise PermanentFault(pick())",
        "raise PermanentFault(unknown)",
        "raise FatalFault('x')",
        "def make(code): return PermanentFault(code)",
        "def f():\n for n, c in table():\n  raise PermanentFault(c)",
    ],
)
def test_a_code_that_cannot_be_followed_is_not_overlooked(source: str) -> None:
    with pytest.raises(Unclear):
        Sources({"m": source}).codes()
